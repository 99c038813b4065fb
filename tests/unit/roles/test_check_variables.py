# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Misspelt names and unusable values of variables, reported before a run does anything."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
import yaml
from ansible_collections.backstop.postgres.plugins.action.check_variables import edits, nearest, wrong_value
from support.collection_files import ROOT

Run = Callable[..., Tuple[int, str]]


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """The check in a separate play, with a registered result and a fact whose names look like misspelt options."""
    tasks: List[Dict[str, Any]] = [
        {"name": "Register", "ansible.builtin.debug": {"msg": "x"}, "register": "backup_jobz"},
        {"name": "Set", "ansible.builtin.set_fact": {"deploy_tablez": 1}},
        {"name": "Check", "backstop.postgres.check_variables": {"roles": ["rollback", "application"]}},
        {"name": "Go on", "ansible.builtin.debug": {"msg": "went on"}},
    ]
    play = {"hosts": "all", "gather_facts": False, "vars": {"ansible_connection": "local"}, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), "utf-8")

    def playbook(*arguments: str, inventory: Any = None, **extra: Any) -> Tuple[int, str]:
        hosts = {"all": {"hosts": {"one": inventory or {}, "two": {}}}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts), "utf-8")
        program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
        done = subprocess.run(
            [program, "-i", "hosts.yml", "play.yml", "-e", json.dumps(extra), *arguments], cwd=tmp_path, check=False,
            env=dict(
                os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / "playbooks" / "collections"), ANSIBLE_NOCOLOR="1",
                ANSIBLE_LOCALHOST_WARNING="false", COLUMNS="5000",
            ),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, " ".join(done.stdout.decode().split())

    return playbook


def test_what_is_wrong_is_said_in_one_go(run: Run) -> None:
    status, said = run(
        "-e", "rollback_accept_lost_row=5", rollback_accept_lost_rows="many", application_start_timeout=-1,
        rollback_reapply="aply", backstop_connection="postgresql://u:pears@h/d", migration_rehearsal_down_sql="auto",
    )  # fmt: skip
    assert status == 2, said
    for words in (
        "There is no option rollback_accept_lost_row. Did you mean rollback_accept_lost_rows?",
        "rollback_accept_lost_rows must be a whole number; found 'many'.",
        "There is no option migration_rehearsal_down_sql. Did you mean deploy_down_sql?",
        "application_start_timeout must be 0 or more; found '-1'.",
        "rollback_reapply must be one of off, report, apply; found 'aply'.",
        "backstop_connection must be a dictionary.",
        "Nothing was changed.",
    ):
        assert words in said, said
    assert "pears" not in said and "went on" not in said, said


def test_what_is_only_doubtful_is_a_warning(run: Run) -> None:
    """There is no warning about names of facts, of results, of the roles' own values, and listed names."""
    own = dict(rollback_backupp=1, deploy_needed=1, application_port=3000, application_urll=1, backup_site="x")
    status, said = run(
        inventory=own, backstop_known_variables=["application_urll", "deploy_jobs"], rollback_foo=1, deploy_jobs=1,
        rolback_backup=1, scheduled_backups_retention="of another role", application_root="{{ application_name }}/x",
        application_log_command=["{{ not_there_yet }}"], deploy_begun=1,
    )  # fmt: skip
    assert status == 0, said
    assert said.count("[WARNING]: There is no option") == 3, said
    for words in (
        "no option rollback_backupp, which the inventory sets. Did you mean rollback_backup?",
        "no option rollback_foo, so it has no effect. A variable",
        "no option rolback_backup, so it has no effect. Did you mean rollback_backup?",
    ):
        assert words in said, said


def test_extra_variables_without_a_value(run: Run) -> None:
    status, said = run("-e", "rollback_backup")
    assert status == 2 and "Extra variables are NAME=VALUE; found 'rollback_backup'." in said, said


@pytest.mark.parametrize(
    "name, meant",
    [
        ("rollback_tabel", "rollback_table"),
        ("Rollback-Table", "rollback_table"),
        ("rollback_tables", "rollback_table"),
        ("rollback_tble", "rollback_table"),
        ("rollback_tXYZe", None),
        ("rollback_tabXe", "rollback_table"),
        ("application_port", None),
        ("application_rot", "application_root"),
        ("unrelated", None),
    ],
)
def test_the_nearest_option(name: str, meant: Optional[str]) -> None:
    assert nearest(name, ["rollback_table", "application_root", "deploy_tables"]) == meant


@pytest.mark.parametrize(
    "left, right, distance", [("", "ab", 2), ("abc", "abc", 0), ("abc", "acb", 1), ("abcd", "xbcy", 2), ("abc", "", 3)]
)
def test_edits(left: str, right: str, distance: int) -> None:
    pair = (left, right)
    assert edits(*pair) == edits(*reversed(pair)) == distance


@pytest.mark.parametrize(
    "value, option, right",
    [
        ("5", {"type": "int"}, True), ("", {"type": "int"}, False), (float("nan"), {"type": "float"}, False),
        ("yes", {"type": "bool"}, True), ("ja", {"type": "bool"}, False), (["a"], {"type": "str"}, False),
        ({}, {"type": "path"}, False), ("a,b", {"type": "list", "elements": "str"}, True), (7, {"type": "str"}, True),
        ("a", {"type": "dict"}, False), ({"b": "x"}, {"type": "dict", "options": {"b": {"type": "int"}}}, False),
    ],
)  # fmt: skip
def test_values(value: Any, option: Dict[str, Any], right: bool) -> None:
    assert bool(wrong_value("it", value, option)) != right
