# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the report of an operation beside its journal, that of a store into it."""

from __future__ import annotations

import json
import os
from typing import Dict, List, Optional, Union

from ..base.durable_files import write_file
from ..store.layout import Store
from ..store.operation import Operation
from .junit import junit
from .operation_report import OperationReport
from .store_report import StoreReport

HTML, JSON, JUNIT = "report.html", "report.json", "report.xml"


def as_json(report: Union[OperationReport, StoreReport]) -> str:
    return json.dumps(report.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_beside(operation: Operation, report: OperationReport, page: Optional[str] = None) -> List[str]:
    """Write JSON and JUnit XML, and the page where there is one.

    :returns: the paths
    """
    return _write(operation.path, {JSON: as_json(report), JUNIT: junit(report)}, page)


def write_in_store(store: Store, report: StoreReport, page: Optional[str] = None) -> List[str]:
    """Write the report of a store into it."""
    store.check()
    return _write(store.root, {JSON: as_json(report)}, page)


def _write(folder: str, contents: Dict[str, str], page: Optional[str]) -> List[str]:
    if page is not None:
        contents[HTML] = page
    paths = [os.path.join(folder, name) for name in contents]
    for path, content in zip(paths, contents.values()):
        write_file(path, content.encode())
    return paths
