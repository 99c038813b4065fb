# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders reports as pages on the controller, where Jinja2 is, and writes them on the host."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.typed_json import from_json
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.html import operation_page, store_page
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.operation_report import (
    OperationReport,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.store_report import StoreReport

MODULE = "backstop.postgres.operation_report"
#: The controller is part of the trusted side; a fetched page is still for its user alone.
_MODE = 0o600


def page_of(report: Mapping[str, Any]) -> str:
    """The page of a report, from its JSON."""
    if report["report"] == "store":
        return store_page(from_json(StoreReport, report))
    return operation_page(from_json(OperationReport, report))


def write_page(action: ActionBase, arguments: Dict[str, Any], task_vars: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """Run the module to read the report, render it, and run the module again to write it.

    :returns: the result of the module that ended last
    """
    reading = {**arguments, "beside": False}
    result: Dict[str, Any] = action._execute_module(MODULE, module_args=reading, task_vars=task_vars)
    if result.get("failed") or "report" not in result or action._task.check_mode:
        return result
    page = page_of(result["report"])
    if arguments.get("beside", True):
        result = action._execute_module(MODULE, module_args={**arguments, "page": page}, task_vars=task_vars)
    if arguments.get("dest") and not result.get("failed"):
        result["dest"] = write_here(str(arguments["dest"]), page)
    # Its arguments hold the page.
    result.pop("invocation", None)
    return result


def write_here(path: str, page: str) -> str:
    """Write a page on the controller."""
    path = os.path.abspath(os.path.expanduser(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(page)
    return path


def add_report(
    action: ActionBase, result: Dict[str, Any], store: Any, task_vars: Optional[Dict[str, Any]]
) -> Dict[str, Any]:
    """Write the report of an operation that the module ``operation`` just ended. A failure is a warning: the operation
    has ended as its result says."""
    report = result.get("report")
    # Other modules of operations return lines of text under this name.
    if not isinstance(report, dict):
        return result
    del result["report"]
    if result.get("failed") or action._task.check_mode:
        return result
    try:
        arguments = {"store": store, "operation": report["id"], "page": page_of(report)}
        written = action._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if written.get("failed"):
            raise OSError(written.get("msg", "the module failed"))
        # What runs and what can be done next stand last.
        result["story"] = ["Report: %s" % written["files"][-1], *result.get("story", [])]
    except Exception as error:
        Display().warning("The report of operation %s could not be written: %s" % (report.get("id"), error))
    return result
