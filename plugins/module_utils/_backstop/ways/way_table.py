# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback of one table: its rows are restored from a backup, and nothing else is changed."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Union

from ..site import Run
from ..store.operation import Operation
from ..store.steps import RESTORE_TABLE
from .choose import TABLE
from .table import TableRestoreRequest, restore_table, undo_table
from .way import HALF_DONE, Change, Consent, Outcome, Programs, Ready, Refusal, TakeInstead, Way, facts_without_own


@dataclasses.dataclass(frozen=True)
class Table:
    """Restore a table, or its contents before another operation did."""

    #: exactly one of the two
    wanted: Optional[TableRestoreRequest] = None
    undone: Optional[Operation] = None
    #: of the requested table; default is the newest verified backup that contains it
    backup: Optional[str] = None

    name = TABLE
    stops_application = False

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        return Ready(False)

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        if self.undone is not None:
            return _outcome(run, undo_table(run, self.undone, consent.policy, consent.cascade))
        if self.wanted is None:
            raise AssertionError("a table is wanted where nothing is undone")
        wanted = dataclasses.replace(self.wanted, policy=consent.policy, accept_cascade=consent.cascade)
        return _outcome(run, restore_table(run, wanted, self.backup, again=consent.again))

    def settle(self, run: Run) -> Optional[Outcome]:
        return settled(run)

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refusal]:
        return Table(undone=change.operation)


def settled(run: Run) -> Optional[Outcome]:
    """A transaction that may have been committed is settled by the next run, which asks the server."""
    events = [entry["event"] for entry in run.operation.journal() if entry["step"] == RESTORE_TABLE]
    return Outcome(False, state=HALF_DONE) if "committing" in events else None


def _outcome(run: Run, found: Dict[str, Any]) -> Outcome:
    facts = facts_without_own(found)
    kept = facts.get("emergency") or "what could be read is in %s" % run.operation.file("saved-rows")
    story: List[str] = [
        "Table %s: %d rows were put right, from backup %s."
        % (facts.get("table"), facts.get("total") or 0, facts.get("backup")),
        *facts.get("report", []),
        "As it was before: %s." % kept,
        *(entry["told"] for entry in facts.get("lacking") or []),
    ]
    return Outcome(bool(found["changed"]), facts, story, "has table %s as in the backup" % facts.get("table"))
