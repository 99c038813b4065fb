# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which subpackages of the library may import which: the design's table, compared with the sources."""

from __future__ import annotations

import pathlib
import sys
from typing import Dict, List, Set

import pytest
from support.collection_files import LIBRARY, Import, imports_of, modules_with_code, name_of, python_files

LOWER = {"base", "postgres", "store", "prisma", "application"}
#: A package, or a file at the top level, and those of the library that it may import.
MAY_IMPORT: Dict[str, Set[str]] = {
    "base": set(),
    "postgres": {"base"},
    "store": {"base"},
    "prisma": {"base"},
    "application": {"base"},
    "site": LOWER,
    "backups": {*LOWER, "site"},
    "loss": {*LOWER, "site"},
    "migrations": {*LOWER, "site", "backups", "loss"},
    "ways": {*LOWER, "site", "backups", "loss", "migrations"},
    "reports": {"base", "store", "backups"},
    "command_line": {*LOWER, "site", "backups", "loss", "migrations", "ways", "reports"},
    "ansible_words": {"base"},
}
#: The files between Ansible and the library: they may import all of it.
WAYS_IN = {"ansible_boundary", "ansible_prisma", "ansible_service"}
#: Imports from outside the standard library, and the one file that has each.
OUTSIDE = {"psycopg2": ("postgres", "connection"), "ansible": ("ansible_boundary",), "jinja2": ("reports", "html")}


def place_of(path: pathlib.Path) -> tuple:
    return path.relative_to(LIBRARY).with_suffix("").parts


def test_every_file_has_a_place_in_the_table() -> None:
    packages = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").is_file()}
    files = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"}
    assert packages | files == set(MAY_IMPORT) | WAYS_IN
    assert {path.read_text("utf-8") for path in LIBRARY.rglob("__init__.py")} == {""}, "an __init__.py has code in it"


@pytest.mark.parametrize("path", python_files(LIBRARY), ids=name_of)
def test_a_package_imports_only_what_the_table_allows(path: pathlib.Path) -> None:
    package = place_of(path)[0]
    allowed = MAY_IMPORT[package] | {package} if package in MAY_IMPORT else set(MAY_IMPORT) | WAYS_IN
    wrong = [found for found in imports_of(path) if found.inside and found.inside[0] not in allowed]
    assert not wrong, "\n".join("line %d imports %s" % (found.line, found.dotted) for found in wrong)


@pytest.mark.parametrize("path", python_files(LIBRARY), ids=name_of)
def test_only_one_file_imports_each_thing_from_outside(path: pathlib.Path) -> None:
    for found in imports_of(path):
        top = found.dotted.split(".")[0]
        if found.inside is None and top not in sys.stdlib_module_names:
            assert top in OUTSIDE, "line %d: %s is not of the standard library" % (found.line, found.dotted)
            assert place_of(path) == OUTSIDE[top], "line %d: only %s imports %s" % (found.line, OUTSIDE[top], top)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("ansible_boundary", {"application", "prisma"}),
        ("ansible_prisma", {"application"}),
        ("ansible_service", {"prisma"}),
    ],
)
def test_a_module_packs_other_programs_only_where_it_runs_them(name: str, left_out: Set[str]) -> None:
    """Ansible packs every file that is imported below a module's imports; Python compiles them in each call."""
    packed: Set[tuple] = set()
    waiting: List[tuple] = [(name,)]
    while waiting:
        place = waiting.pop()
        path = LIBRARY.joinpath(*place).with_suffix(".py")
        if place not in packed and path.is_file():
            packed.add(place)
            waiting += [found.inside for found in imports_of(path) if found.inside]
    assert ("site",) in packed
    assert not {place for place in packed if place[0] in left_out}


def test_no_cycles_inside_a_package() -> None:
    graph = {
        place_of(path): sorted({found.inside for found in imports_of(path) if found.inside} - {place_of(path)})
        for path in python_files(LIBRARY)
    }
    done: Set[tuple] = set()

    def visit(place: tuple, trail: List[tuple]) -> None:
        assert place not in trail, " -> ".join(".".join(step) for step in [*trail[trail.index(place) :], place])
        if place not in done:
            for following in graph.get(place, []):
                visit(following, [*trail, place])
            done.add(place)

    for place in graph:
        visit(place, [])


def _is_ours(found: Import) -> bool:
    return found.inside is not None or found.dotted.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", modules_with_code(), ids=name_of)
def test_a_module_reaches_ansible_through_the_boundary_only(path: pathlib.Path) -> None:
    imports = imports_of(path)
    assert not [found.dotted for found in imports if not _is_ours(found)]
    assert any(found.inside == ("ansible_boundary",) for found in imports)
