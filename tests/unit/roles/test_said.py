# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles say after a failure, and refuse before anything: expressions of their tasks and variables."""
from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from support.collection_files import ROOT


def variables(role: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        path = ROOT / "roles" / role / folder / "main.yml"
        found.update(DataLoader().load_from_file(str(path), trusted_as_template=True))
    return found


def task(role: str, file: str, name: str) -> Dict[str, Any]:
    path = ROOT / "roles" / role / "tasks" / file
    tasks: List[Dict[str, Any]] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return next(one for one in tasks if one["name"] == name)


def told(expression: Any, known: Dict[str, Any]) -> Any:
    found = Templar(loader=DataLoader(), variables=known).template(expression)
    return " ".join(found.split()) if isinstance(found, str) else found


def holds(condition: str, known: Dict[str, Any]) -> bool:
    return bool(Templar(loader=DataLoader(), variables=known).evaluate_conditional(condition))


# A rollback that failed ---------------------------------------------------------------------------------------------


def rollback(journal: List[Tuple[str, str]], change: str, kind: str = "rollback", **others: Any) -> Dict[str, Any]:
    """What return.yml knows of a rollback on one host, of which the application did not become healthy."""
    known = variables("rollback")
    entries = [{"step": step, "event": event} for step, event in journal]
    host = {
        "rollback_journal": {"operations": [{"journal": entries, "next": "THE COMMAND"}]},
        "rollback_failure_here": "it is ill",
        "rollback_begun": {"facts": {"former_commit": "newer"}, "directory": "/store/operations/x"},
        "inventory_hostname": "one", **others,
    }
    known.update(
        host, ansible_play_hosts_all=["one"], hostvars={"one": host}, rollback_commit="older", rollback_change=change,
        rollback_kind=kind, backstop_operation="x",
    )
    return known


#: Names of the tasks of return.yml that end it, in their order.
ENDINGS = [
    "Leave the database that took over, and say what to do",
    "Say that the migration is out, and what to do",
    "Say that the clean-up was cut off, and what to do",
    "End as a failure",
]


def ending(known: Dict[str, Any]) -> str:
    """What the first of them says whose condition holds."""
    for name in ENDINGS:
        found = task("rollback", "return.yml", name)
        if holds(found["when"], known):
            return str(told(found["ansible.builtin.fail"]["msg"], known))
    raise AssertionError("it does not end")


CLEAN = [("operation", "created"), ("clean", "began"), ("clean", "done"), ("resolve", "began")]


GONE = """What the failed migration left is gone and it is marked as rolled back, but the application is unhealthy: it
  is ill The database is as it was before the migration and release newer runs. Next: fix the release and deploy it."""
SICK = """Release older is unhealthy on the schema that is there: it is ill The database was not touched and release
  newer runs again. To change the database too: ansible-playbook backstop.postgres.rollback_application_errors -e
  rollback_method=restore"""
SWAPPED = """The database was swapped, but the application is unhealthy: it is ill Fix the application, then: THE
  COMMAND."""
OUT = """The migration was taken out of the database, but the application is unhealthy: it is ill Fix the application,
  then: THE COMMAND."""
HALF = "The clean-up after the failed migration was cut off: it is ill When that is fixed: THE COMMAND."
NOTHING = "Nothing was rolled back: it is ill The database is as it was and the application runs again as before."


@pytest.mark.parametrize("journal, change, words", [
    ([("swap", "began"), ("swap", "done")], "revert.yml", SWAPPED),
    ([("down", "done")], "drop.yml", OUT),
    ([*CLEAN, ("resolve", "done")], "clean.yml", GONE),
    ([("resolve", "began"), ("resolve", "done")], "clean.yml", GONE),
    (CLEAN, "clean.yml", HALF),
    ([*CLEAN, ("resolve", "failed")], "clean.yml", HALF),
    (CLEAN[:2], "clean.yml", HALF),
    ([("clean", "began"), ("clean", "failed")], "clean.yml", NOTHING),
    ([("code", "done")], "change_code.yml", SICK),
    ([("build", "done")], "revert.yml", NOTHING),
])
def test_a_rollback_says_what_is(journal, change, words) -> None:
    assert ending(rollback(journal, change)).startswith(" ".join(words.split()))


def test_a_clean_up_that_was_killed_after_its_last_step_is_run_again() -> None:
    known = rollback([*CLEAN, ("resolve", "done")], "clean.yml", rollback_cleanup={"failed": True})
    assert ending(known).startswith(HALF)


def test_an_undo_of_the_code_alone_offers_no_other_method() -> None:
    said = ending(rollback([("code", "done")], "change_code.yml", kind="undo"))
    assert said.endswith("release newer runs again.")


def test_a_host_that_needs_a_person_is_named_instead() -> None:
    known = rollback([("clean", "done"), ("resolve", "done")], "clean.yml", rollback_host_trouble="did not start")
    said = ending(known)
    assert "it is ill Needs a person: one (did not start)." in said and "runs again" not in said


@pytest.mark.parametrize("journal, change, steps", [
    ([("code", "done")], "change_code.yml", ["stop", "activate", "start"]),
    ([("swap", "done")], "revert.yml", ["activate", "start"]),
    ([("clean", "failed")], "clean.yml", ["start"]),
])
def test_what_is_done_on_the_hosts(journal, change, steps) -> None:
    known = rollback(journal, change)
    found = task("rollback", "return.yml", "Go on with the release that the database wants, on every host that answers")
    known.update(found["vars"])
    assert told(found["vars"]["application_attempt"], known) == steps


# A deploy that was cut off on its way back --------------------------------------------------------------------------


@pytest.mark.parametrize("settled, goes_on", [
    ({"swapped": False, "restored": False, "taken_out": True}, False),
    ({"swapped": True, "restored": False, "taken_out": False}, False),
    ({"swapped": False, "restored": False, "taken_out": False}, True),
    ({"skipped": True}, True),
])
def test_a_deploy_whose_database_was_put_back_is_not_gone_on_with(settled, goes_on) -> None:
    """By a swap or by down-SQL; the one command is told. What settles it is in test_down.py and test_revert.py."""
    known = variables("deploy")
    hosts = {"one": {"deploy_settled": settled, "deploy_begun": {"operation": "x"}}}
    known.update(ansible_play_hosts_all=["one"], hostvars=hosts)
    found = task("deploy", "act.yml", "A deploy whose database was put back is not gone on with")
    known.update(found["vars"])
    assert holds(found["ansible.builtin.assert"]["that"], known) is goes_on
    said = told(found["ansible.builtin.assert"]["fail_msg"], known)
    assert said.endswith("then deploy again: ansible-playbook backstop.postgres.rollback_complete")


# Hooks --------------------------------------------------------------------------------------------------------------


def test_a_hook_without_its_file(tmp_path) -> None:
    """All of them are told at once, before anything; relative ones are looked for where include_tasks looks."""
    (tmp_path / "tasks").mkdir()
    for name in ("there.yml", "tasks/below.yml"):
        (tmp_path / name).write_text("[]")
    known = variables("deploy")
    known.update(playbook_dir=str(tmp_path), role_path=str(tmp_path / "role"))
    assert len(known["deploy_hooks"]) == 12 and set(known["deploy_hooks"]) <= set(known)
    refuse = task("deploy", "decide.yml", "The file of every hook must be there")
    assert not holds(refuse["when"], known)
    known.update(deploy_before_prepare=str(tmp_path / "there.yml"), deploy_after_start="there.yml")
    known.update(deploy_before_migrate="below.yml")
    assert not holds(refuse["when"], known)
    known.update(deploy_before_start=str(tmp_path), deploy_after_downtime="gone.yml")
    assert holds(refuse["when"], known)
    assert told(refuse["ansible.builtin.fail"]["msg"], known).startswith(
        "A hook names a file that is not there: deploy_before_start=%s deploy_after_downtime=gone.yml." % tmp_path
    )
