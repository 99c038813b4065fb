# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The message and state after a failed rollback, depending on the server and the journal."""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import report, rollback
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Outcome
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way_down_sql import TakeOut
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way_in_place import InPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way_swap import Swap

Journal = List[Tuple[str, str]]
CLEAN = [("clean", "began"), ("clean", "done"), ("resolve", "began")]
APPLIED = ("rollback", "done")
GONE = """What the failed migration left is gone and it is marked as rolled back, but the application is unhealthy: it
  is ill The database is as it was before the migration and release newer runs. Next: fix the release and deploy it."""
SICK = """Release older is unhealthy on the current schema: it is ill The database was not touched and release
  newer runs again. To change the database too: ansible-playbook backstop.postgres.rollback_application_errors -e
  rollback_method=restore"""
SWAPPED = """The database was swapped, but the application is unhealthy: it is ill Fix the application, then:
  ansible-playbook backstop.postgres.rollback_complete, with the other options as before. Journal:"""
OUT = """The migration was taken out of the database, but the application is unhealthy: it is ill Fix the application,
  then: ansible-playbook backstop.postgres.rollback_"""
HALF = """The clean-up after the failed migration was interrupted: it is ill When that is fixed: ansible-playbook
  backstop.postgres.rollback_failed_migration, with the other options as before. Journal:"""
NOTHING = "Nothing was rolled back: it is ill The database is as it was and the application runs again as before."
CUT_OFF = """The restore was interrupted at its end: it is ill To finish it: ansible-playbook
  backstop.postgres.rollback_corrupted_table, with the other options as before."""


class Told:
    """Reads the journal in place of the server."""

    def __init__(self, monkeypatch: Any, store: Store) -> None:
        self._store = store
        for way, step in ((Swap, "swap"), (InPlace, "in_place"), (TakeOut, "down")):
            monkeypatch.setattr(way, "settle", staticmethod(self._settled(step)))

    @staticmethod
    def _settled(step: str) -> Any:
        return lambda run: Outcome(False) if run.operation.facts(step) is not None else None

    def by(self, journal: Journal, scenario: str = "complete", kind: str = "rollback") -> report.AfterFailure:
        facts = {"former_commit": "newer", "commit": "older"}
        header = {"database": "d", "request": {"scenario": scenario}, "facts": facts}
        operation = Operation.create(self._store, kind, header)
        for step, event in journal:
            operation.write(step, event, **({"commit": "older"} if step == "code" else {}))
        settings = Settings.from_url("postgresql://u@h/d")
        run = Site(settings, settings, self._store).run(operation)
        return report.after_failure(operation, rollback.settle(run))


def said(after: report.AfterFailure) -> str:
    return " ".join((after.before_error + "it is ill " + after.after_error + " " + after.next).split())


@pytest.fixture
def told(monkeypatch: Any, tmp_path: Any) -> Iterator[Told]:
    with in_words_of(AnsibleWords()):
        yield Told(monkeypatch, Store(str(tmp_path / "store")))


@pytest.mark.parametrize(
    ("journal", "scenario", "words", "left"),
    [
        ([("swap", "began"), ("swap", "done")], "complete", SWAPPED, (True, "older", ("activate", "start"))),
        ([("in_place", "done")], "complete", SWAPPED, (True, "older", ("activate", "start"))),
        ([("down", "done")], "application_errors", OUT, (True, "older", ("activate", "start"))),
        # The first attempt does not count if another database took over in the end.
        ([*CLEAN[:2], ("swap", "done"), APPLIED], "complete", SWAPPED, (True, "older", ("activate", "start"))),
        ([*CLEAN, ("resolve", "done"), APPLIED], "failed_migration", GONE, (False, "newer", ("start",))),
        ([("resolve", "began"), ("resolve", "done"), APPLIED], "failed_migration", GONE, (False, "newer", ("start",))),
        (CLEAN, "failed_migration", HALF, (True, "newer", ("start",))),
        ([*CLEAN, ("resolve", "failed")], "failed_migration", HALF, (True, "newer", ("start",))),
        (CLEAN[:2], "failed_migration", HALF, (True, "newer", ("start",))),
        (CLEAN[:1], "failed_migration", HALF, (True, "newer", ("start",))),
        # A clean-up that was killed after its last step is run again; its application was not even started.
        ([*CLEAN, ("resolve", "done")], "failed_migration", HALF, (True, "newer", ("start",))),
        ([("clean", "began"), ("clean", "failed")], "failed_migration", NOTHING, (False, "newer", ("start",))),
        ([("code", "done")], "application_errors", SICK, (False, "newer", ("stop", "activate", "start"))),
        ([("build", "done")], "complete", NOTHING, (False, "newer", ("start",))),
        (
            [("restore_table", "began"), ("restore_table", "failed")],
            "corrupted_table",
            "The table is as it was: it is ill",
            (False, "newer", ("start",)),
        ),
        (
            [("restore_table", "began"), ("restore_table", "committing")],
            "corrupted_table",
            CUT_OFF,
            (True, "", ("start",)),
        ),
    ],
)
def test_a_rollback_that_failed(told: Told, journal: Journal, scenario: str, words: str, left: Any) -> None:
    """``left``: whether the operation stays open, the release to run, and the actions to run it."""
    after = told.by(journal, scenario)
    assert said(after).startswith(" ".join(words.split()))
    assert (after.keep_open, after.release, tuple(after.attempt)) == left


def test_an_undo_of_the_code_alone_offers_no_other_method(told: Told) -> None:
    assert said(told.by([("code", "done")], kind="undo")).endswith("release newer runs again.")
