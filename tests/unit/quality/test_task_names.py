# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that kill a playbook in a task name a task of a role."""

from __future__ import annotations

import ast
import re

from support.collection_files import ROOT

KILLED = ROOT / "tests" / "faults" / "playbooks" / "test_killed_playbooks.py"


def test_every_task_that_is_waited_for_exists() -> None:
    (tasks,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(KILLED.read_text("utf-8")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TASKS"
    ]
    content = "\n".join(path.read_text("utf-8") for path in ROOT.glob("roles/*/tasks/*.yml"))
    names = set(re.findall(r"^ *- name: (.+?)(?: #.*)?$", content, re.MULTILINE))
    for playbook, waited_for in tasks.items():
        assert set(waited_for) <= names, playbook
