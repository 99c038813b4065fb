# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles use the step names that the library defines in store/steps.py."""

from __future__ import annotations

import pathlib
import re
from typing import List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import steps
from support.collection_files import ROOT, name_of

KNOWN = {str(value) for name, value in vars(steps).items() if name.isupper() and isinstance(value, str)}
#: Where a role names a step: to write it, to look for it in a journal, or to require that it is done.
MENTIONED = re.compile(
    r"""^\s+(?:backup_)?step:\s+(\w+)$ | selectattr\('step',\s*'eq',\s*'(\w+)'\) | \w+_begun\.steps\.(\w+)
    | '(\w+)'\s+in\s+\w+\S*\.deploy_journal | ^\s+required_steps:\s+\[(\w+)\]$""",
    re.VERBOSE | re.MULTILINE,
)
FILES = sorted(path for path in (ROOT / "roles").rglob("*.yml") if path.parent.name in ("tasks", "vars", "defaults"))


def mentioned(path: pathlib.Path) -> List[str]:
    return [next(filter(None, found.groups())) for found in MENTIONED.finditer(path.read_text("utf-8"))]


def test_roles_decide_by_no_step() -> None:
    """Modules report the progress of an operation. The roles name one step, for the last backup of a deploy."""
    assert [name for path in FILES for name in mentioned(path)] == ["post_backup"]


@pytest.mark.parametrize("path", [path for path in FILES if mentioned(path)], ids=name_of)
def test_roles_know_the_steps(path: pathlib.Path) -> None:
    assert set(mentioned(path)) <= KNOWN, name_of(path)
