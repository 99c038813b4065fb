# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles' messages after a failure, and refusals before any change: expressions of their tasks and variables."""

from __future__ import annotations

import re
from typing import Any, Dict, List

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.run_texts import Run, text
from support.collection_files import ROOT


def variables(role: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {"backstop_runner": "one", "ansible_play_hosts_all": ["one"], "ansible_play_batch": ["one"]}
    found.update(hostvars={"one": {}}, groups={}, playbook_dir="/p")
    for folder in ("defaults", "vars"):
        path = ROOT / "roles" / role / folder / "main.yml"
        found.update(DataLoader().load_from_file(str(path), trusted_as_template=True))
    return found


def task(role: str, file: str, name: str) -> Dict[str, Any]:
    path = ROOT / "roles" / role / "tasks" / file
    tasks: List[Dict[str, Any]] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return next(one for one in tasks if one["name"] == name)


def said(message: str, known: Dict[str, Any]) -> Any:
    """What a message of a role becomes: one call of the filter run_text with the facts of the run. A Templar of a test
    finds no filter of a collection."""
    run, name = re.fullmatch(r"{{ (\w+) \| backstop\.postgres\.run_text\('(\w+)'\) }}", message).groups()
    facts = Templar(loader=DataLoader(), variables=known).template(trust_as_template("{{ %s }}" % run))
    with in_words_of(AnsibleWords()):
        return text(name, Run.of(facts))


def holds(condition: str, known: Dict[str, Any]) -> bool:
    return bool(Templar(loader=DataLoader(), variables=known).evaluate_conditional(condition))


# A deploy that was interrupted during its rollback


@pytest.mark.parametrize(
    "settled, goes_on",
    [
        ({"swapped": False, "restored": False, "taken_out": True}, False),
        ({"swapped": True, "restored": False, "taken_out": False}, False),
        ({"swapped": False, "restored": False, "taken_out": False}, True),
        ({"skipped": True}, True),
    ],
)
def test_a_deploy_whose_database_was_put_back_is_not_gone_on_with(settled, goes_on) -> None:
    """By a swap or by down-SQL; the message shows the one command. How it is settled: test_down.py, test_revert.py."""
    known = variables("deploy")
    hosts = {"one": {"deploy_settled": settled, "deploy_begun": {"operation": "x"}}}
    known.update(ansible_play_hosts_all=["one"], hostvars=hosts)
    found = task("deploy", "act.yml", "Refuse to continue a deploy whose database was rolled back")
    known.update(found["vars"])
    assert holds(found["ansible.builtin.assert"]["that"], known) is goes_on
    assert said(found["ansible.builtin.assert"]["fail_msg"], known).endswith(
        "then deploy again: ansible-playbook backstop.postgres.rollback_complete"
    )


# Hooks


def test_a_hook_without_its_file(tmp_path) -> None:
    """All missing files are reported at once, first of all; relative paths are searched where include_tasks does."""
    (tmp_path / "tasks").mkdir()
    for name in ("there.yml", "tasks/below.yml"):
        (tmp_path / name).write_text("[]")
    known = variables("deploy")
    known.update(playbook_dir=str(tmp_path), role_path=str(tmp_path / "role"))
    assert len(known["deploy_hooks"]) == 12 and set(known["deploy_hooks"]) <= set(known)
    refuse = task("deploy", "decide.yml", "Require the file of every hook")
    assert not holds(refuse["when"], known)
    known.update(deploy_before_prepare=str(tmp_path / "there.yml"), deploy_after_start="there.yml")
    known.update(deploy_before_migrate="below.yml")
    assert not holds(refuse["when"], known)
    known.update(deploy_before_start=str(tmp_path), deploy_after_downtime="gone.yml")
    assert holds(refuse["when"], known)
    assert said(refuse["ansible.builtin.fail"]["msg"], known).startswith(
        "A hook names a file that does not exist: deploy_before_start=%s deploy_after_downtime=gone.yml." % tmp_path
    )
