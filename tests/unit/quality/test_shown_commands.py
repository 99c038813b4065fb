# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""README and docs show commands and names that exist, and every command is run by a test."""

from __future__ import annotations

import functools
import json
import pathlib
import re
import shlex
from typing import Any, Dict, List, Set

import pytest
import yaml
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import exit_statuses, metrics
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import make_parser
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.subcommands import SUBCOMMANDS
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import evaluation
from demo import command as demo_command
from support.collection_files import ROOT, module_files, name_of, role_folders
from support.shown_output import Shown, in_directory, lasting, pages, shown_on, used_commands

PREFIX = "backstop.postgres."
LIFE = "tests/integration/demo/test_demo_life.py"
#: Commands that are neither ours nor Ansible's, by their beginning: a test that runs them, and how it says so.
RUN_IN = {
    "ansible-galaxy collection install": ("tests/run_lanes.py", '"ansible-galaxy", "collection", "install"'),
    "age-keygen -o": ("tests/support/age_keys.py", '"age-keygen", "-o"'),
    'eval "$(./demo.sh env)"': (LIFE, 'eval "$('),
    "psql": (LIFE, "psql -X"),
    ". .test/venv/bin/activate": ("test.sh", "venv=.test/venv"),
}
#: Names that look like an option of a role and are none.
OTHER_NAMES = {
    "backstop_known_variables",
    "backstop_copy_",
    "backstop_retired_",
    "backstop_scratch_",
    "deploy_maintenance_",
}
COMMANDS = sorted(used_commands())


@functools.lru_cache(maxsize=None)
def all_tests() -> str:
    files = [path for folder in ("tests", "molecule") for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    this = pathlib.Path(__file__)
    return "\n".join(path.read_text("utf-8") for path in files if path.suffix in (".py", ".yml") and path != this)


@functools.lru_cache(maxsize=None)
def options() -> Set[str]:
    """Variables of all roles."""
    names: Set[str] = set()
    for role in role_folders():
        specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
        for spec in specs.values():
            names |= set(spec.get("options") or {})
    return names


def gate_names() -> Set[str]:
    # Without a connection no other gate is evaluated.
    return {"connection", *(name for name, _expected, _check in evaluation.GATES)}


def playbooks() -> Set[str]:
    return {path.stem for path in (ROOT / "playbooks").glob("*.yml")}


def check_demo(words: List[str]) -> None:
    given = demo_command.parse(words)
    if given.command == "run":
        assert pathlib.Path(given.playbook).stem in playbooks()
        assert shlex.join(["./demo.sh", *words]) in (ROOT / LIFE).read_text("utf-8")
    elif given.command:
        assert 'run("%s"' % given.command in (ROOT / LIFE).read_text("utf-8") or given.command == "status"


def check_test(words: List[str]) -> None:
    known = re.findall(r'Lane\("([\w-]+)"', (ROOT / "tests" / "run_lanes.py").read_text("utf-8"))
    assert known and set(words) <= set(known)


def check_pytest(words: List[str]) -> None:
    for number, word in enumerate(words):
        if word == "-k":
            assert list((ROOT / "tests").rglob("*%s*.py" % words[number + 1])) or words[number + 1] in all_tests()
        elif word.startswith("tests/"):
            assert (ROOT / word).exists()


def variables(text: str) -> Dict[str, Any]:
    """Those of an argument of -e."""
    return dict(json.loads(text)) if text.startswith("{") else dict([text.split("=", 1)])


def check_playbook(words: List[str]) -> None:
    """It is run by a scenario of Molecule or another test, and so is each of its options."""
    (name,) = [word[len(PREFIX) :] for word in words if word.startswith(PREFIX)]
    assert name in playbooks()
    assert (ROOT / "molecule" / name).is_dir() or name + ".yml" in all_tests()
    for option, value in zip(words, words[1:]):
        if option == "-e":
            assert set(variables(value)) <= options()
            assert all(re.search(r"\b%s\b" % variable, all_tests()) for variable in variables(value))
        elif option == "--tags":
            assert set(value.split(",")) <= {"prove", "change", "finish"}
        elif option.startswith("-"):
            assert option in ("-i", "--check")


def check_backstop(words: List[str]) -> None:
    """The command accepts the arguments, and a test uses the subcommand and each option."""
    given = make_parser().parse_args([word.strip("[]") for word in words])
    for word in [given.command, *(word for word in words if word.startswith("--"))]:
        assert re.search(r"""["' ]%s\b""" % re.escape(word), all_tests()), word


CHECKS = {
    "./demo.sh": check_demo,
    "./test.sh": check_test,
    "pytest": check_pytest,
    "ansible-playbook": check_playbook,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_test_runs_the_command(command: str) -> None:
    words = shlex.split(command)
    if words[:4] == ["runuser", "-u", "backstop", "--"]:
        assert words[4] == "backstop"
        return check_backstop(words[5:])
    while re.match(r"[A-Z_]+=", words[0]):
        assert words[0].partition("=")[0] in all_tests()
        words = words[1:]
    if words[0] in CHECKS:
        return CHECKS[words[0]](words[1:])
    (found,) = [place for start, place in RUN_IN.items() if command.startswith(start)]
    assert found[1] in (ROOT / found[0]).read_text("utf-8")
    return None


def literals(path: pathlib.Path) -> Set[str]:
    return set(re.findall(r"``([^`\n]+)``", path.read_text("utf-8")))


PAGES = [path for path in pages() if path.suffix == ".rst"]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_variables_that_a_page_names_exist(path: pathlib.Path) -> None:
    prefixes = tuple(role.name + "_" for role in role_folders()) + ("backstop_", "restore_drill_")
    gates = gate_names()
    known = options() | playbooks() | gates | OTHER_NAMES | {module.stem for module in module_files()} | metric_names()
    named = {re.split(r"[:=*]", text)[0] for text in literals(path) if re.match(r"[a-z_]+([:=*]|$)", text)}
    unknown = {name for name in named if name.startswith(prefixes)} - known
    assert not unknown


def page(name: str) -> pathlib.Path:
    return ROOT / "docs" / "docsite" / "rst" / ("%s.rst" % name)


def metric_names() -> Set[str]:
    text = pathlib.Path(metrics.__file__).read_text("utf-8")
    return {"backstop_" + name for name in re.findall(r'text\.add\(\s*"(\w+)"', text)}


def first_cells(name: str) -> Set[str]:
    """The first cells of all tables of a page."""
    cells = re.findall(r"(?m)^ {3}\* - (.+)$", page(name).read_text("utf-8"))
    return {part.strip("`") for cell in cells for part in cell.split(", ")}


def test_the_page_of_the_command_lists_all_there_is() -> None:
    cells = first_cells("reference_command")
    assert {sub.name for sub in SUBCOMMANDS} <= cells
    assert {str(status) for status in exit_statuses.MEANINGS} <= cells
    assert metric_names() <= cells
    unknown = cells - {sub.name for sub in SUBCOMMANDS} - {str(status) for status in exit_statuses.MEANINGS}
    assert unknown - metric_names() == {"subcommand", "metric"}


def test_the_page_of_the_gates_lists_all_of_them() -> None:
    gates = gate_names()
    assert first_cells("reference_gates") - {"gate"} == gates
    numbers = [
        number for path in PAGES for number in re.findall(r"(\d+) (?:gates|conditions)", path.read_text("utf-8"))
    ]
    assert numbers and set(numbers) == {str(len(gates))}


def test_the_pages_are_in_the_table_of_contents() -> None:
    sections = yaml.safe_load((ROOT / "docs" / "docsite" / "extra-docs.yml").read_text("utf-8"))["sections"]
    listed = [name for section in sections for name in section["toctree"]]
    assert sorted(listed) == sorted(path.stem for path in PAGES)


def test_links_between_files_lead_to_files() -> None:
    for path in pages():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
                if "://" not in target:
                    assert (path.parent / target).exists(), "%s: %s" % (name_of(path), target)


def test_the_readme_fits_one_screen_and_a_half_and_shows_output() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= 105
    assert [shown for shown in shown_on(readme) if len(shown.text.splitlines()) >= 5]


@pytest.mark.parametrize(("name", "most"), [("deploy", 60), ("again", 15), ("revert", 30), ("undo", 30)])
def test_a_run_prints_few_lines(name: str, most: int) -> None:
    """Of the playbook, as the tutorial shows it, which is what the demo prints."""
    (shown,) = [one for one in shown_on(ROOT / "docs" / "docsite" / "rst" / "tutorial.rst") if one.name == name]
    _before, _play, run = shown.text.partition("\nPLAY [")
    lines = run.partition("\nApplication  ")[0].splitlines()
    assert 5 < len([line for line in lines if line.strip()]) <= most


def test_what_differs_from_run_to_run_is_not_compared() -> None:
    one = "Downtime: 33.6 s, backup x-20261130T175544Z-3f95f1, 9.2 MB, 127.0.0.1:5432, release 82da1c8a52, 3000 rows"
    other = "Downtime: 7 s,  backup x-20270101T000000Z-000000, 10 kB, 127.0.0.1:20000, release 0123abc456, 3000 rows"
    assert lasting(one).split() == lasting(other).split()
    assert lasting(one).split() != lasting(other.replace("3000", "2999")).split()
    assert lasting("Lost rows: 0") != lasting("Lost rows: 1")


def test_a_directory_gets_its_name_where_a_line_breaks_in_it() -> None:
    printed = "the journal is in /tmp/it is\n  here/store."
    assert in_directory(pathlib.Path("/tmp/it is here"), ".demo", printed) == "the journal is in .demo/store."


def test_an_excerpt_says_what_it_leaves_out() -> None:
    shown = Shown(ROOT / "README.md", "x", "two", "three", "", (0, 0))
    assert shown.expected("./demo.sh", "one\ntwo\nmore\nthree\nfour\n") == "$ ./demo.sh\n...\ntwo\nmore\nthree\n...\n"
