# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which scenario applies, from the facts: a row for every case."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.diagnosis import judge
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import Facts, TableFacts

BACKUP = {"place": BackupPlace("pre-migration", "b", "/b")}
SINCE = {**BACKUP, "applied_since": ["m"]}
FEWER = [TableFacts("public.a", 9, rows_now=8, same=False)]
GONE = [TableFacts("public.a", 9, same=False)]
MORE = [TableFacts("public.a", 9, rows_now=10, same=False)]
SAME = [TableFacts("public.a", 9, rows_now=9, same=True)]


class Deploy:
    """A deploy whose rehearsal tried the former release."""

    def __init__(self, works: bool) -> None:
        self.works = works

    def last(self, step: str) -> Dict[str, Any]:
        return {"tried": True, "works": self.works}


#: facts; healthy or not or unknown; the scenario; its candidates
ROWS: List[Any] = [
    # A running migration may still succeed.
    ({**SINCE, "running": ["x"], "failed": ["m"]}, (True, False, None), "ambiguous", ["nothing", "failed_migration"]),
    # A failed one, whatever else applies.
    ({**BACKUP, "failed": ["m"]}, (True, False, None), "failed_migration", []),
    ({"failed": ["m"]}, (True, False, None), "failed_migration", []),
    ({**SINCE, "failed": ["n"], "tables": FEWER}, (True, False, None), "failed_migration", []),
    # Only the history is ahead.
    ({**SINCE, "tables": SAME, "gone": ["relation public.b"]}, (True, False, None), "failed_migration", []),
    ({**SINCE, "tables": SAME, "unknown": ["m"]}, (True, False, None), "failed_migration", []),
    # A table cannot be read.
    ({**BACKUP, "unreadable": ["public.a"]}, (True, False, None), "corrupted_table", []),
    # Nothing to compare with.
    ({}, (True, None), "nothing", []),
    ({}, (False,), "ambiguous", ["nothing", "application_errors", "complete"]),
    ({"release_before": "r"}, (False,), "complete", []),
    ({**BACKUP, "history_unreadable": True}, (False,), "ambiguous", ["nothing", "application_errors", "complete"]),
    # The application's health is unknown.
    ({**SINCE, "added": ["x"]}, (None,), "ambiguous", ["nothing", "application_errors"]),
    ({**SINCE, "tables": FEWER}, (None,), "ambiguous", ["nothing", "application_errors", "corrupted_table"]),
    ({**BACKUP, "tables": MORE}, (None,), "nothing", []),
    # Healthy, but something is missing.
    ({**SINCE, "added": ["x"]}, (True,), "nothing", []),
    ({**BACKUP, "tables": FEWER}, (True,), "ambiguous", ["nothing", "corrupted_table"]),
    ({**BACKUP, "tables": GONE}, (True,), "ambiguous", ["nothing", "complete"]),
    ({**BACKUP, "changed": ["x"]}, (True,), "ambiguous", ["nothing", "complete"]),
    ({**SINCE, "changed": ["x"]}, (True,), "nothing", []),
    ({**SINCE, "tables": MORE, "gone": ["x"]}, (True,), "ambiguous", ["nothing", "complete"]),
    # Unhealthy.
    ({**SINCE, "tables": MORE, "gone": ["x"]}, (False,), "complete", []),
    ({**BACKUP, "release_before": "r", "tables": SAME}, (False,), "complete", []),
    ({**BACKUP, "missing": ["x"]}, (False,), "complete", []),
    ({**BACKUP, "history_differences": ["x"]}, (False,), "complete", []),
    ({**BACKUP, "tables": FEWER}, (False,), "corrupted_table", []),
    ({**BACKUP, "release_before": "r", "tables": FEWER}, (False,), "corrupted_table", []),
    ({**BACKUP, "tables": SAME}, (False,), "nothing", []),
    ({**SINCE, "tables": FEWER}, (False,), "ambiguous", ["application_errors", "corrupted_table", "complete"]),
    # Unhealthy after a migration: its changes decide whether it alone can be reverted.
    ({**SINCE, "added": ["x"], "tables": SAME}, (False,), "application_errors", []),
    ({**SINCE, "changed": ["x"], "tables": SAME}, (False,), "complete", []),
    ({**SINCE, "changed": ["x"], "deploy": Deploy(True)}, (False,), "application_errors", []),
    ({**SINCE, "changed": ["x"], "deploy": Deploy(False)}, (False,), "complete", []),
    ({**SINCE, "tables": GONE}, (False,), "complete", []),
]


@pytest.mark.parametrize(
    ("given", "healthy", "scenario", "candidates"),
    [(given, healthy, scenario, candidates) for given, every, scenario, candidates in ROWS for healthy in every],
)
def test_the_scenario(given: Dict[str, Any], healthy: Any, scenario: str, candidates: List[str]) -> None:
    verdict = judge(Facts(**given, healthy=healthy))
    assert (verdict.scenario, verdict.candidates) == (scenario, candidates), verdict.why
    assert verdict.why
