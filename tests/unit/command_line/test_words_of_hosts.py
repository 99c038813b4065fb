# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library contains no names of Ansible: hints are data, and each interface words them for its users."""

from __future__ import annotations

import ast
import json
import re
import shlex
from typing import Iterator, Tuple

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import NAMES
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import (
    BY_SCENARIO,
    Action,
    Given,
    Setting,
    Start,
    in_words_of,
    remedy,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import main
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.subcommands import (
    Subcommand,
    _one,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.words import (
    OPTIONS,
    CommandWords,
)
from support.collection_files import LIBRARY, MODULES, ROLES, ROOT, name_of, python_files

PLAYBOOKS = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
#: Except for those that are programs of PostgreSQL, or words.
OUR_MODULES = {path.stem for path in MODULES.glob("*_*.py")} - {"pg_dump", "pg_restore"}
#: Names of the library's own files are not hints.
OF_ANSIBLE = re.compile(r"(?<!\w)-e \w|\w\.yml\b|(?i:ansible)(?!_\w+\.py)|(?i:playbook)|--tags")


def variables() -> Iterator[str]:
    """Variables that users set, from the specifications of the roles."""
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text("utf-8"))["argument_specs"].values():
            yield from entry.get("options", {})


OUR_NAMES = {*PLAYBOOKS, *OUR_MODULES, *variables()} - {"deploy", "application_name"}  # PostgreSQL's


def names_of_ansible(text: str) -> list:
    return [*OF_ANSIBLE.findall(text), *sorted(set(re.findall(r"\w+", text)) & OUR_NAMES)]


def texts(tree: ast.AST) -> Iterator[Tuple[int, str]]:
    """All strings except docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not isinstance(node, ast.Expr):
                yield child.lineno, child.value


#: The file with Ansible's names; no other file contains them.
WORDS = "ansible_words.py"


@pytest.mark.parametrize("path", python_files(LIBRARY), ids=name_of)
def test_the_library_names_nothing_of_ansible(path):
    if path.name != WORDS:
        found = [(line, text) for line, text in texts(ast.parse(path.read_text("utf-8"))) if names_of_ansible(text)]
        assert not found, "\n".join("line %d: %s in %r" % (line, names_of_ansible(text), text) for line, text in found)


def test_ansible_calls_everything_by_a_name_that_it_has():
    assert set(NAMES) == {*Setting, *Action}
    for part, name in NAMES.items():
        words = set(re.findall(r"\w+", name))
        known = words & {*OUR_NAMES, "deploy", "max_delete_share", "ansible_python_interpreter"}
        known = known or "--tags" in name or "the same playbook" in name  # whichever was run
        assert known, "%s is called %r: no playbook, module or variable" % (part.name, name)


#: One refusal for each kind of part, and its text in each interface.
REFUSALS = [
    ("look at the reasons", "look at the reasons", "look at the reasons"),
    (
        remedy("check the user in %s", Setting.CONNECTION),
        "check the user in backstop_connection",
        "check the user in the section connection of the configuration below /nowhere",
    ),
    (remedy("%s shows them", Action.LIST_BACKUPS), "pg_backup_info shows them", "backstop list shows them"),
    (
        remedy("accept it with %s", Given(Setting.ACCEPT_LOST_ROWS, 3)),
        "accept it with -e rollback_accept_lost_rows=3",
        "accept it with --accept-lost-rows 3",
    ),
    (
        remedy("look with %s", Start(Action.COMPLETE, (Given(Setting.BACKUP, "b-1"),), check=True)),
        "look with ansible-playbook backstop.postgres.rollback_complete --check -e rollback_backup=b-1",
        "look with backstop rollback shop --check --backup b-1",
    ),
    (
        remedy("%s", Start(Action.UNDO, (Given(Setting.WHERE, "a = 1"), Given(Setting.AGAIN, True)))),
        """ansible-playbook backstop.postgres.undo_rollback -e '{"rollback_where": "a = 1"}' -e rollback_again=true""",
        "backstop undo shop --where 'a = 1' --again",
    ),
]


def test_the_command_names_only_options_and_subcommands_that_it_has():
    """The command that continues an operation can be typed, whatever its request was."""
    parser = main.make_parser()
    with in_words_of(CommandWords("/etc/backstop", "shop")):
        for setting, option in OPTIONS.items():
            value = 3 if option.endswith(("rows", "objects")) else FLAGS.get(setting, "[1]")
            given = shlex.split(str(Given(setting, value)))
            subcommand = "undo" if setting is Setting.OPERATION else "rollback"
            parser.parse_args([subcommand, "shop", *given])
        for action in [*BY_SCENARIO.values(), Action.UNDO, Action.PLAN, Action.LIST_BACKUPS]:
            words = shlex.split(str(Start(action)))
            assert words.pop(0) == "backstop" and parser.parse_args(words)


#: Options that take no value, or one of a list.
FLAGS = {
    Setting.ACCEPT_CASCADE: True,
    Setting.ACCEPT_UNREADABLE: True,
    Setting.AGAIN: True,
    Setting.TAKE_OVER: True,
    Setting.REAPPLY_DELETES: True,
    Setting.METHOD: "drop",
    Setting.MODE: "repair",
    Setting.REAPPLY: "apply",
    Setting.RESTORE_METHOD: "in_place",
}


@pytest.mark.parametrize("hint, ansible, command", REFUSALS)
def test_each_way_in_words_a_refusal_for_its_users(hint, ansible, command, capsys, monkeypatch):
    def refuse(*_call):
        raise Refused("It does not hold", found="this", hint=hint)

    with patch_module_args({}), pytest.raises(SystemExit):
        run_module({}, refuse)
    result = json.loads(capsys.readouterr().out)
    assert (result["hint"], result["found"]) == (ansible, "this")
    assert result["msg"] == "It does not hold. Found: this. What to do: %s." % ansible

    monkeypatch.setattr(main, "SUBCOMMANDS", [Subcommand("list", "", refuse, (_one,))])
    monkeypatch.chdir("/")
    assert main.main(["list", "shop", "--json", "--config-directory", "/nowhere"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["hint"] == command
    assert told.err == "backstop: It does not hold. Found: this. What to do: %s. (exit status 1)\n" % command
