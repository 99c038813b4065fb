# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action group is exactly the modules with the connection options, in all three places that list them."""

from __future__ import annotations

import ast
import pathlib

import yaml
from support.collection_files import CONNECTION_FRAGMENT, ROOT, fragments, module_files, modules_with_code

ACTION_GROUP_FRAGMENT = "backstop.postgres.attributes.action_group"


def asks_for_a_connection(path: pathlib.Path) -> bool:
    """Whether a module calls run_module(..., connection=True)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_module":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            return "connection" in given and bool(ast.literal_eval(given["connection"]))
    raise AssertionError("%s never calls run_module" % path.name)


def test_the_group_is_the_modules_that_ask_for_a_connection() -> None:
    group = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text("utf-8"))["action_groups"]["database"]
    wanted = sorted(path.stem for path in modules_with_code() if asks_for_a_connection(path))
    assert wanted, "no module asks for a connection"
    assert group == wanted


def test_their_documentation_says_the_same() -> None:
    wanted = sorted(path.stem for path in modules_with_code() if asks_for_a_connection(path))
    assert sorted(path.stem for path in module_files() if CONNECTION_FRAGMENT in fragments(path)) == wanted
    assert sorted(path.stem for path in module_files() if ACTION_GROUP_FRAGMENT in fragments(path)) == wanted
