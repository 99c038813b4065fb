# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback of one table: its rows are restored from a backup, and nothing else is changed."""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Union

from ..base.errors import Refused
from ..site import Run, Site
from ..store.operation import Operation
from ..store.steps import RESTORE_TABLE, TableRestored
from .choose import TABLE
from .facts import Facts
from .in_force import Change
from .table import TableRestoreRequest, restore_table, undo_table
from .way import HALF_DONE, Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, Way


@dataclasses.dataclass(frozen=True)
class Table:
    """Restore a table, or its contents before another operation did."""

    wanted: Union[TableRestoreRequest, Operation]
    #: of the requested table; default is the newest verified backup that contains it
    backup: Optional[str] = None

    name = TABLE
    stops_application = False

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        change = "put its rows back from a backup, in one transaction that is proved before its COMMIT"
        return Plan(["back the table up as it is", change])

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        return Ready(False)

    def apply(self, run: Run, consent: Consent) -> Applied:
        if isinstance(self.wanted, Operation):
            return _outcome(run, undo_table(run, self.wanted, consent.policy, consent.cascade))
        wanted = dataclasses.replace(self.wanted, policy=consent.policy, accept_cascade=consent.cascade)
        return _outcome(run, restore_table(run, wanted, self.backup, again=consent.again))

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        """A transaction that may have been committed is settled by the next run, which asks the server."""
        events = [entry["event"] for entry in run.operation.journal() if entry["step"] == RESTORE_TABLE]
        return Outcome(False, state=HALF_DONE) if "committing" in events else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return Table(change.operation)


def _outcome(run: Run, found: TableRestored) -> Outcome:
    kept = found.emergency or "what could be read is in %s" % run.operation.file("saved-rows")
    story: List[str] = [
        "Table %s: %d rows were repaired from backup %s." % (found.table, found.total or 0, found.backup),
        *found.report,
        "As it was before: %s." % kept,
        *(entry["message"] for entry in found.lacking or ()),
    ]
    return Outcome.of(found, story, "has table %s as in the backup" % found.table)
