# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules for the text of all files: forbidden text, and the Python version of the target hosts."""

from __future__ import annotations

import ast
import json
import pathlib
import re
from typing import List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import sqlstates
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from support.collection_files import ROOT, name_of, python_files, tracked_files

FILES = tracked_files()
#: The oldest Python of a target host that ansible-core 2.19 still supports.
TARGET_PYTHON = (3, 8)
FORBIDDEN = {
    "a path of one machine": re.compile(r"""(?:^|[\s"'=(:,])/(?:home|work|Users)/\w"""),
    # Package clients know their registry; an address in the sources would break every mirror.
    "a registry's address": re.compile(r"(?i)registry[.]npm|pypi[.]org|python[h]osted|deb[.]debian|node[s]ource"),
}


def texts() -> List[pathlib.Path]:
    found = []
    for path in FILES:
        head = path.read_bytes()[:8000]
        if b"\0" not in head:
            found.append(path)
    return found


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_of_one_machine(what: str) -> None:
    hits = [
        "%s:%d: %s" % (name_of(path), number, line.strip()[:120])
        for path in texts()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if FORBIDDEN[what].search(line) or (what == "a path of one machine" and str(ROOT) in line)
    ]
    assert not hits, "%s:\n%s" % (what, "\n".join(hits))


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "package-lock.json"], ids=name_of)
def test_lock_files_name_no_registry(path: pathlib.Path) -> None:
    packages = json.loads(path.read_text("utf-8"))["packages"]
    assert packages
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert not [name for name, entry in packages.items() if name and "integrity" not in entry and not entry.get("link")]


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py"], ids=name_of)
def test_no_program_is_run_through_a_shell(path: pathlib.Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"), called
        for keyword in node.keywords:
            if keyword.arg in ("shell", "use_unsafe_shell"):
                value = keyword.value
                assert isinstance(value, ast.Constant), "line %d: %s" % (node.lineno, keyword.arg)
                assert value.value is False, "line %d: %s" % (node.lineno, keyword.arg)


@pytest.mark.parametrize("path", python_files(ROOT / "plugins"), ids=name_of)
def test_plugins_are_written_in_the_python_of_the_targets(path: pathlib.Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=TARGET_PYTHON)


#: Values that must be defined once in the library, as a constant, and the file that defines them.
ONLY_IN = {
    **{value: "base/sqlstates.py" for value in vars(sqlstates).values() if re.fullmatch(r"\w{5}", str(value))},
    history.TABLE: "prisma/history.py",
}


@pytest.mark.parametrize("path", python_files(ROOT / "plugins/module_utils"), ids=name_of)
def test_constants_stand_once(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings:
            found = [text for text, home in ONLY_IN.items() if text in node.value and not name_of(path).endswith(home)]
            assert not found, "line %d: %r stands in %s" % (node.lineno, found[0], ONLY_IN[found[0]])


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py" and path.stat().st_size], ids=name_of)
def test_python_files_say_whose_they_are(path: pathlib.Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#!")]
    assert lines[0].startswith("# Copyright: the backstop.postgres contributors")
    assert lines[2] == "# SPDX-License-Identifier: GPL-3.0-or-later"
    only_a_docstring = len(ast.parse("\n".join(lines)).body) == 1
    assert only_a_docstring or "from __future__ import annotations" in lines
