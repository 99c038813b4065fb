# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles: argument specs equal defaults, every variable that is read is defined, each README says how to roll back."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Set

import pytest
import yaml
from jinja2 import Environment, nodes
from support.collection_files import ROLES, ROOT, name_of, role_folders

every_role = pytest.mark.parametrize("role", role_folders(), ids=name_of)
PYTHON_TYPES = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}
#: Keys of a task whose value is an expression without braces.
BARE = {"when", "until", "changed_when", "failed_when", "that", "var"}
#: Names that Ansible and Jinja define.
GIVEN = {
    "item",
    "groups",
    "group_names",
    "hostvars",
    "inventory_hostname",
    "play_hosts",
    "playbook_dir",
    "role_path",
    "role_name",
    "omit",
    "lookup",
    "query",
    "q",
    "undef",
    "now",
    "range",
    "dict",
    "namespace",
    "vars",
    "environment",
}
#: Variables whose prefix is the name of their playbook.
OTHER_PREFIXES = {"backup": ("operation_report_", "restore_drill_")}
EXPRESSIONS = Environment()  # used as a parser only: nothing is rendered


def load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None


def defaults_of(role: pathlib.Path) -> Dict[str, Any]:
    return load(role / "defaults" / "main.yml") or {}


def entry_points(role: pathlib.Path) -> Dict[str, Dict[str, Any]]:
    return dict(load(role / "meta" / "argument_specs.yml")["argument_specs"])


def specified(role: pathlib.Path) -> Dict[str, Dict[str, Any]]:
    """All options of all entry points; an option of several entry points is the same in all of them."""
    together: Dict[str, Dict[str, Any]] = {}
    for entry, spec in entry_points(role).items():
        for name, option in (spec.get("options") or {}).items():
            assert together.setdefault(name, option) == option, "%s differs between entry points (%s)" % (name, entry)
    return together


def test_there_are_roles() -> None:
    assert role_folders()


def test_the_shared_options_are_written_out() -> None:
    script = ROOT / "meta" / "write_role_options.py"
    argv = [sys.executable, str(script), "--check"]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode() + "run: python3 meta/write_role_options.py"


@every_role
def test_every_option_has_a_default_or_is_required(role: pathlib.Path) -> None:
    options = specified(role)
    required = {name for name, option in options.items() if option.get("required")}
    assert set(options) - required == set(defaults_of(role))


@every_role
def test_specs_and_defaults_have_the_same_values(role: pathlib.Path) -> None:
    defaults = defaults_of(role)
    differing = {
        name: (option.get("default"), defaults[name])
        for name, option in specified(role).items()
        if name in defaults and option.get("default") != defaults[name]
    }
    assert not differing, "spec and defaults differ: %s" % differing


@every_role
def test_types_fit_the_defaults(role: pathlib.Path) -> None:
    for name, option in specified(role).items():
        assert option.get("type") in PYTHON_TYPES, name
        assert option.get("description"), "%s has no description" % name
        assert option["type"] != "list" or option.get("elements"), "%s has no elements" % name
        value = option.get("default")
        if "default" in option and not (isinstance(value, str) and "{{" in value):
            assert isinstance(value, PYTHON_TYPES[option["type"]]), name
            assert not (option["type"] == "int" and isinstance(value, bool)), name
            assert "choices" not in option or value in option["choices"], name


@every_role
def test_entry_points_are_task_files(role: pathlib.Path) -> None:
    for entry, spec in entry_points(role).items():
        assert (role / "tasks" / (entry + ".yml")).is_file(), entry
        assert spec.get("short_description") and spec.get("description"), entry


@every_role
def test_names_bear_the_role(role: pathlib.Path) -> None:
    shared = set(load(ROOT / "meta" / "shared_options.yml"))
    prefixes = (role.name + "_", *OTHER_PREFIXES.get(role.name, ()))
    wrong = [name for name in set(defaults_of(role)) - shared if not name.startswith(prefixes)]
    assert not wrong


@every_role
def test_the_readme_says_what_a_failure_leaves_and_how_to_undo(role: pathlib.Path) -> None:
    text = (role / "README.md").read_text("utf-8")
    headings = re.findall(r"(?m)^##+ (.+)$", text)
    assert "On failure" in headings
    assert "How to undo" in headings


def names_in(expression: str) -> Set[str]:
    """The variables that a template reads, without those that it sets itself."""
    tree = EXPRESSIONS.parse(expression)
    found = list(tree.find_all(nodes.Name))
    return {node.name for node in found if node.ctx == "load"} - {node.name for node in found if node.ctx != "load"}


def strings(value: Any, bare: bool = False) -> Iterator[str]:
    """Every string in a task; expressions without braces get braces."""
    if isinstance(value, str):
        yield "{{ %s }}" % value if bare and "{{" not in value and "{%" not in value else value
    elif isinstance(value, list):
        for part in value:
            yield from strings(part, bare)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(str(key))
            yield from strings(part, key in BARE)


def task_lists(role: pathlib.Path) -> Dict[pathlib.Path, List[Dict[str, Any]]]:
    found = {}
    for folder in ("tasks", "handlers"):
        for path in sorted((role / folder).rglob("*.yml")):
            found[path] = load(path) or []
    return found


def read_by(role: pathlib.Path) -> Set[str]:
    names: Set[str] = set()
    for content in [*task_lists(role).values(), load(role / "vars" / "main.yml"), defaults_of(role)]:
        for text in strings(content):
            names |= names_in(text)
    for path in sorted((role / "templates").rglob("*")):
        if path.is_file():
            names |= names_in(path.read_text("utf-8"))
    return names


def facts_of(tasks: Any) -> Set[str]:
    """Variables that later tasks, also of other roles, can read: registered results and facts."""
    names: Set[str] = set()
    for task in tasks or []:
        names |= {task["register"]} if "register" in task else set()
        names |= {key for key in task.get("ansible.builtin.set_fact") or {} if key != "cacheable"}
        for key in ("block", "rescue", "always"):
            names |= facts_of(task.get(key))
    return names


def set_in(tasks: Any) -> Set[str]:
    """Names that tasks themselves set: registered, facts, loop variables, vars of a task, block or included role."""
    names = facts_of(tasks)
    for task in tasks or []:
        names |= set(task.get("vars") or {})
        control = task.get("loop_control") or {}
        names |= {control[key] for key in ("loop_var", "index_var") if key in control}
        for key in ("block", "rescue", "always"):
            names |= set_in(task.get(key))
    return names


def defined_in(role: pathlib.Path) -> Set[str]:
    names = set(defaults_of(role)) | set(specified(role)) | set(load(role / "vars" / "main.yml") or {})
    for tasks in task_lists(role).values():
        names |= set_in(tasks)
    return names


def exposed_to(role: pathlib.Path) -> Set[str]:
    """Variables of other roles that this role can read: facts of included roles; options if imported or public."""
    names: Set[str] = set()

    def look(tasks: Any) -> None:
        for task in tasks or []:
            imported = task.get("ansible.builtin.import_role") or {}
            included = imported or task.get("ansible.builtin.include_role") or {}
            if included:
                other = ROLES / included["name"].rpartition(".")[2]
                for others in task_lists(other).values():
                    names.update(facts_of(others))
                if imported or included.get("public"):
                    names.update(defaults_of(other))
            for key in ("block", "rescue", "always"):
                look(task.get(key))

    for tasks in task_lists(role).values():
        look(tasks)
    return names


@every_role
def test_every_variable_that_is_read_is_defined(role: pathlib.Path) -> None:
    names = read_by(role) - defined_in(role) - exposed_to(role) - GIVEN
    unknown = sorted(name for name in names if not name.startswith("ansible_"))
    assert not unknown


@every_role
def test_no_default_is_unused(role: pathlib.Path) -> None:
    # The deploy reads defaults of the application's role, which it includes with public.
    used = set().union(*map(read_by, role_folders()))
    assert not sorted(set(defaults_of(role)) - used)
