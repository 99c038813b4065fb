# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of the collection, read as text, for tests of rules that no tool checks."""

from __future__ import annotations

import ast
import pathlib
import subprocess
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "plugins" / "module_utils" / "_backstop"
MODULES = ROOT / "plugins" / "modules"
ROLES = ROOT / "roles"
CONNECTION_FRAGMENT = "backstop.postgres.connection"


def tracked_files() -> List[pathlib.Path]:
    """Files that git tracks or would add, without ignored files."""
    listed = subprocess.run(
        # Tests also run as a user who does not own the checkout.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def python_files(folder: pathlib.Path) -> List[pathlib.Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: pathlib.Path) -> str:
    """A short name for test ids and messages."""
    return str(path.relative_to(ROOT))


class Import(NamedTuple):
    """One imported module: absolute dotted name, or a path inside the library such as ("base", "errors")."""

    dotted: str
    inside: Optional[tuple]
    line: int


def imports_of(path: pathlib.Path) -> List[Import]:
    """Every import of a file, at any place; those of the library, relative or by full name, with their place."""
    found: List[Import] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.extend(_resolved(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend(_imports_from(path, node))
    return found


def _imports_from(path: pathlib.Path, node: ast.ImportFrom) -> Iterator[Import]:
    for alias in node.names:
        if node.level == 0:
            yield _resolved("%s.%s" % (node.module, alias.name), node.lineno)
            continue
        anchor = path.relative_to(LIBRARY).parent.parts
        anchor = anchor[: len(anchor) - (node.level - 1)]
        parts = anchor + tuple((node.module or "").split(".") if node.module else ()) + (alias.name,)
        yield Import(".".join(parts), _module_in_library(parts), node.lineno)


def _resolved(dotted: str, line: int) -> Import:
    prefix = "ansible_collections.backstop.postgres.plugins.module_utils._backstop."
    if dotted.startswith(prefix):
        return Import(dotted, _module_in_library(tuple(dotted[len(prefix) :].split("."))), line)
    return Import(dotted, None, line)


def _module_in_library(parts: tuple) -> tuple:
    """The longest prefix of a dotted path that is a file or package of the library: the rest are names in it."""
    for length in range(len(parts), 0, -1):
        path = LIBRARY.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file() or path.is_dir():
            return parts[:length]
    raise AssertionError("no such module in the library: " + ".".join(parts))


def string_constant(path: pathlib.Path, name: str) -> str:
    """The text that a module file assigns to DOCUMENTATION, EXAMPLES or RETURN."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return str(ast.literal_eval(node.value))
    raise AssertionError("%s has no %s" % (name_of(path), name))


def module_files() -> List[pathlib.Path]:
    return [path for path in python_files(MODULES) if path.name != "__init__.py"]


def modules_with_code() -> List[pathlib.Path]:
    """The modules, without those that only document an action plugin."""
    actions = MODULES.parent / "action"
    return [path for path in module_files() if len(imports_of(path)) > 1 or not (actions / path.name).is_file()]


def documentation(path: pathlib.Path) -> Dict[str, Any]:
    return dict(yaml.safe_load(string_constant(path, "DOCUMENTATION")))


def fragments(path: pathlib.Path) -> List[str]:
    named = documentation(path).get("extends_documentation_fragment", [])
    return [named] if isinstance(named, str) else list(named)


def fragment_options(fragment: str) -> Dict[str, Any]:
    """The options in a documentation fragment of this collection."""
    name, _dot, section = fragment.partition("backstop.postgres.")[2].partition(".")
    path = ROOT / "plugins" / "doc_fragments" / (name + ".py")
    if not path.is_file():
        return {}
    wanted = (section or "documentation").upper()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == wanted for to in node.targets):
            return dict(yaml.safe_load(ast.literal_eval(node.value)).get("options") or {})
    raise AssertionError("no fragment " + fragment)


def role_folders() -> List[pathlib.Path]:
    return sorted(path for path in ROLES.iterdir() if (path / "tasks").is_dir())
