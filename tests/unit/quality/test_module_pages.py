# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each page of a module: examples that match its options, the state after a failure, how to undo it."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, Iterator, List

import pytest
import yaml
from support.collection_files import (
    ROOT,
    documentation,
    fragment_options,
    fragments,
    module_files,
    name_of,
    string_constant,
)

every_module = pytest.mark.parametrize("path", module_files(), ids=name_of)
PREFIX = "backstop.postgres."


def test_there_are_modules() -> None:
    assert module_files()


@every_module
def test_the_notes_say_what_a_failure_leaves_and_how_to_undo(path: pathlib.Path) -> None:
    notes = documentation(path).get("notes", [])
    for start in ("On failure:", "How to undo:"):
        assert [note for note in notes if note.startswith(start) and len(note) > len(start) + 10], start


@every_module
def test_info_modules_only_read(path: pathlib.Path) -> None:
    if path.stem.endswith("_info") and "backstop.postgres.attributes.info" not in fragments(path):
        attributes = documentation(path)["attributes"]
        assert attributes["check_mode"]["support"] == "full"
        assert attributes["diff_mode"]["support"] == "N/A"


def tasks(found: Any) -> Iterator[Dict[str, Any]]:
    """Every task in a list of tasks or plays, including those in blocks."""
    for item in found or []:
        yield item
        for key in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
            yield from tasks(item.get(key))


@every_module
def test_examples_use_the_module_with_options_that_it_has(path: pathlib.Path) -> None:
    options = dict(documentation(path).get("options") or {})
    for fragment in fragments(path):
        options.update(fragment_options(fragment))
    uses: List[Dict[str, Any]] = [
        task[PREFIX + path.stem] or {}
        for task in tasks(yaml.safe_load(string_constant(path, "EXAMPLES")))
        if PREFIX + path.stem in task
    ]
    assert uses, "no example uses the module by its full name"
    for use in uses:
        assert set(use) <= set(options), "unknown options in an example: %s" % sorted(set(use) - set(options))


def acts(path: pathlib.Path) -> bool:
    return "acts=True" in path.read_text("utf-8")


@every_module
def test_a_step_of_an_operation_says_what_an_interruption_does(path: pathlib.Path) -> None:
    notes = [note for note in documentation(path).get("notes", []) if note.startswith("Interrupted:")]
    assert len(notes) == acts(path)


def takes_long(path: pathlib.Path) -> bool:
    """A module that is no step of an operation, and whose progress is shown."""
    return "backstop.postgres.store.controller" in fragments(path)


def test_the_steps_of_operations_are_told_which_process_runs_the_playbook() -> None:
    """The routing names an action plugin for this: without it a run that lost its operation would continue.

    It also shows the progress of these and other modules.
    """
    routing = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text("utf-8"))["plugin_routing"]["modules"]
    told = {"action_plugin": PREFIX + "operation"}
    assert routing == {path.stem: told for path in module_files() if acts(path) or takes_long(path)}
