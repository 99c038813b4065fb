# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The phases of an operation: its steps with their times, as its journal has them."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional

from ..base.progress import parse_timestamp
from ..store import steps
from ..store.operation import Operation

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"

#: What a step did, for people.
TITLES: Dict[str, str] = {
    steps.GATES: "Gates evaluated",
    steps.BACKUP: "Backup made",
    steps.DRILL: "Backup restored and compared",
    steps.REHEARSAL: "Migrations rehearsed on the copy",
    steps.OLD_RELEASE: "Former release tried on the new schema",
    steps.CONFIRM: "Operator confirmed",
    steps.STOP: "Application stopped",
    steps.FENCE: "Sessions ended, backup compared again",
    steps.MIGRATE: "Migrations applied",
    steps.CHECK: "Definitions and tables checked",
    steps.STARTED: "Application healthy again",
    steps.POST_BACKUP: "Backup made after the change",
    steps.CLEAN: "Leftovers of the failed migration removed",
    steps.RESOLVE: "Failed migration marked as rolled back",
    steps.CODE: "Release changed",
    steps.DOWN_PROOF: "Down-SQL proved on a copy",
    steps.EMERGENCY_BACKUP: "Live database backed up",
    steps.DOWN: "Down-SQL run",
    steps.BUILD: "Former state restored beside and compared",
    steps.COUNT: "Loss counted",
    steps.SWAP: "Databases swapped by rename",
    steps.EMERGENCY: "What would be removed backed up",
    steps.IN_PLACE: "Database restored in place",
    steps.IN_PLACE_COMMIT: "Restore in place committed",
    steps.RESTORE_TABLE: "Table restored",
    steps.APPLIED: "Rollback of the database complete",
    steps.PAUSE_POOLS: "PgBouncer's clients held",
    steps.KEEP: "Retired database backed up",
    steps.BASE: "Former contents restored for counting",
    steps.RETIRED_PRUNED: "Retired database dropped",
    steps.ROW_FILES: "Kept rows removed",
}
#: Steps after an operation's end are not part of its timeline.
_AFTERWARDS = (steps.RETIRED_PRUNED, steps.ROW_FILES)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One run of a step. A step without a duration is a moment, such as the confirmation."""

    step: str
    title: str
    began: str
    #: None while it runs, or if its process was killed
    ended: Optional[str]
    seconds: Optional[float]
    result: str
    #: why it failed
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Window:
    """A time without service; ``ended`` is None while it lasts."""

    began: str
    ended: Optional[str]
    seconds: float


def seconds_between(began: str, ended: str) -> float:
    return round((parse_timestamp(ended) - parse_timestamp(began)).total_seconds(), 3)


def phases_of(operation: Operation) -> List[Phase]:
    """Every run of a step, in order of their beginning."""
    found: List[Phase] = []
    running: Dict[str, str] = {}
    for entry in operation.journal():
        step, event, at = str(entry["step"]), str(entry["event"]), str(entry["at"])
        if step == "operation" or step in _AFTERWARDS:
            continue
        if event == "began":
            if step in running:
                found.append(_phase(step, running[step], None, INTERRUPTED))
            running[step] = at
        elif event in (DONE, FAILED):
            found.append(_phase(step, running.pop(step, at), at, event, str(entry.get("error", ""))))
    found += [_phase(step, at, None, INTERRUPTED) for step, at in running.items()]
    return sorted(found, key=lambda phase: phase.began)


def _phase(step: str, began: str, ended: Optional[str], result: str, note: str = "") -> Phase:
    seconds = None if ended is None else seconds_between(began, ended)
    return Phase(step, TITLES.get(step, step.replace("_", " ")), began, ended, seconds, result, note)


def windows_of(operation: Operation) -> List[Window]:
    return [Window(*window) for window in operation.windows()]
