# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback of a failed or interrupted migration: its leftovers are dropped, and it is marked as rolled back.

If it did more than add objects, the backup is restored instead.
"""

from __future__ import annotations

import dataclasses
from typing import Optional, Sequence, Union

from ..base.errors import Refused
from ..migrations.deploy import applied_since
from ..migrations.leftovers import Cleaned, clean_failed_migration, require_accepted
from ..prisma import history
from ..site import Run, Site
from ..store.layout import BackupPlace
from ..store.steps import CLEAN, RESOLVE
from .choose import LEFTOVERS
from .facts import Facts
from .forecast import objects_of_revert
from .in_force import Change
from .way import HALF_DONE, Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, TakeInstead, Way
from .way_swap import Swap, objects_lines


@dataclasses.dataclass(frozen=True)
class Leftovers:
    """Drop the leftovers of an unfinished migration."""

    place: BackupPlace
    programs: Programs
    #: tables that the migration changes, whose differences are its own
    migrated_tables: Sequence[str] = ()

    name = LEFTOVERS
    stops_application = True

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        return Plan(
            [
                "stop the application",
                "prove that no session works on the migration any more",
                "drop what it only added, in one transaction, or restore backup %s when it did more" % facts.backup,
                "take out of the history what was applied since: " + (", ".join(facts.applied_since) or "nothing"),
                "mark as rolled back: " + (", ".join(facts.failed) or "nothing"),
                "start the application and check its health",
            ],
            objects=objects_of_revert(site, facts.place, facts),
            copies=True,
        )

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        self.programs.prisma()  # refused while the application runs, where it is missing
        if self._instead.settle(run) is None and not self._is_out(run):
            with run.connect() as session:
                require_accepted(run, session, self.place, consent.policy)
        return Ready(False)

    @property
    def _instead(self) -> Swap:
        return Swap(self.place, changes_in=self.migrated_tables)

    def apply(self, run: Run, consent: Consent) -> Applied:
        instead = self._instead
        if instead.settle(run) is not None:
            return TakeInstead(instead, "it is live already")
        if self._is_out(run):
            return _outcome(run, _journalled(run))
        found = clean_failed_migration(run, self.place, self.programs.prisma(), consent.policy)
        if found.outcome == "restore_needed":
            return TakeInstead(instead, "; ".join(found.reasons[:5]))
        return _outcome(run, found)

    def _is_out(self, run: Run) -> bool:
        """Whether an earlier run dropped them; the application may have written since."""
        operation = run.operation
        if operation.last(CLEAN) is None and operation.last(RESOLVE) is None:
            return False
        with run.connect() as session:
            rows = history.read_rows(session.cursor(), run.connection.schema)
        return not history.compare([], rows).failed and not applied_since(self.place, rows)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        """A clean-up that began is half done until its result is in the journal."""
        resolve, clean = run.operation.last(RESOLVE) or {}, run.operation.last(CLEAN) or {}
        found = _outcome(run, _journalled(run))
        if resolve.get("event") == "done":
            return found
        begun = clean.get("event") in ("began", "done") or resolve.get("event") in ("began", "failed")
        return dataclasses.replace(found, state=HALF_DONE) if begun else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return Refused(
            "Operation %s cannot be undone by itself: it took out what a failed migration left" % change.id,
            hint="deploy the fixed migration",
        )


def _journalled(run: Run) -> Cleaned:
    operation = run.operation
    clean, resolve = operation.result(CLEAN), operation.result(RESOLVE)
    return Cleaned(resolve.resolved, **vars(clean), outcome="dropped" if operation.facts(CLEAN) else "clean")


def _outcome(run: Run, found: Cleaned) -> Outcome:
    story = ["The database is as it was before the migration (%s)." % found.outcome]
    if found.kept_rows:
        folder = run.operation.file("lost-rows")
        story.append("Rows that went with what it left: %d, kept in %s." % (found.kept_rows, folder))
    story += objects_lines(found)
    left = "what the migration left was removed" if found.outcome == "dropped" else "the migration left nothing"
    return Outcome.of(found, story, "as before, " + left)
