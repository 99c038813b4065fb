# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible validates the arguments of an entry point only if a spec has exactly the name that is used."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest
import yaml
from support.collection_files import ROLES, ROOT, name_of, role_folders
from support.shown_output import blocks_on, pages

PREFIX = "backstop.postgres."
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def specs(role: str) -> Dict[str, Dict[str, Any]]:
    return dict(load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"])


def used(found: Any) -> Iterator[Tuple[str, str]]:
    """Role and entry point of each inclusion in plays or tasks."""
    for item in found or []:
        for role in item.get("roles") or []:
            yield role["role"].replace(PREFIX, ""), "main"
        for key in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
            if key in item:
                yield item[key]["name"].replace(PREFIX, ""), item[key].get("tasks_from", "main")
        for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from used(item.get(key))


def inclusions() -> List[Tuple[pathlib.Path, str, str]]:
    files = [*PLAYBOOKS, *ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("molecule/*/*.yml")]
    lists = [(path, load(path)) for path in sorted(files)]
    for path in pages():
        lists += [(path, yaml.safe_load(block)) for block in blocks_on(path, "ya?ml")]
    return [(path, *one) for path, found in lists if isinstance(found, list) for one in used(found)]


def test_every_entry_point_that_is_used_has_a_spec() -> None:
    found = inclusions()
    assert len(found) > 30
    missing = ["%s: %s, %s" % (name_of(path), role, entry) for path, role, entry in found if entry not in specs(role)]
    assert not missing


def validations(role: str) -> Dict[str, Any]:
    """A play that validates the arguments of each entry point as Ansible does at its inclusion."""
    tasks = [
        {
            "name": "%s %s" % (role, entry),
            "ansible.builtin.validate_argument_spec": {
                "argument_spec": {
                    name: {key: option[key] for key in ("type", "elements", "choices", "options") if key in option}
                    for name, option in (spec.get("options") or {}).items()
                    if not option.get("required")
                }
            },
        }
        for entry, spec in specs(role).items()
    ]
    defaults = str(ROLES / role / "defaults" / "main.yml")
    return {"name": role, "hosts": "localhost", "gather_facts": False, "vars_files": [defaults], "tasks": tasks}


def test_the_defaults_pass_the_validation(tmp_path: pathlib.Path) -> None:
    """Each option is evaluated where the entry point is included, so no default may use a variable set later."""
    plays = [validations(role.name) for role in role_folders()]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays), "utf-8")
    argv = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "play.yml"]
    done = subprocess.run(argv, cwd=tmp_path, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    assert "ok=%d " % sum(len(play["tasks"]) for play in plays) in done.stdout.decode()


@pytest.mark.parametrize("path", PLAYBOOKS, ids=name_of)
def test_every_playbook_first_checks_the_variables_of_its_roles(path: pathlib.Path) -> None:
    plays = load(path)
    first = (plays[0].get("pre_tasks") or plays[0]["tasks"])[0]
    checked: Set[str] = set(first[PREFIX + "check_variables"]["roles"])
    pending = {role for role, _entry in used(plays)}
    needed: Set[str] = set()
    while pending:
        role = pending.pop()
        needed.add(role)
        files = [load(file) for file in (ROLES / role / "tasks").rglob("*.yml")]
        pending |= {other for found in files for other, _entry in used(found)} - needed
    assert checked == needed


def test_the_file_of_an_include_is_no_expression_with_an_equals_sign() -> None:
    """Ansible would parse the text before the sign as an option, and report this only when it reaches the include."""
    line = re.compile(r"^\s*(?:- )?ansible\.builtin\.include_tasks: .*=.*$", re.MULTILINE)
    found = [(name_of(path), line.findall(path.read_text("utf-8"))) for path in ROOT.glob("roles/*/tasks/**/*.yml")]
    assert len(found) > 20 and not [one for one in found if one[1]]


#: What the tasks of an included file inherit from a block around the include, and not from the include itself.
INHERITED = {"become", "become_user", "delegate_to", "when"}


def passed_on(tasks: Any, folder: pathlib.Path, inherited: Set[str]) -> Iterator[Tuple[str, List[str]]]:
    """Each inclusion of a hook or a role, and what it inherits from the blocks around it."""
    for task in tasks or []:
        file = str(task.get("ansible.builtin.include_tasks", ""))
        if "ansible.builtin.include_role" in task or "{{" in file:
            yield task["name"], sorted(inherited)
        elif file:
            yield from passed_on(load(folder / file), folder, inherited)
        for key in ("block", "rescue", "always"):
            yield from passed_on(task.get(key), folder, inherited | (INHERITED & set(task)))


@pytest.mark.parametrize("role", role_folders(), ids=lambda role: str(role.name))
def test_hooks_and_other_roles_inherit_no_condition_and_no_user(role: pathlib.Path) -> None:
    """A condition would be evaluated again before each of their tasks; a user or a host would be none of theirs."""
    folder = role / "tasks"
    found = [one for path in sorted(folder.glob("*.yml")) for one in passed_on(load(path), folder, set())]
    assert found or role.name in ("application", "backup", "scheduled_backups")
    assert not [one for one in found if one[1]]
