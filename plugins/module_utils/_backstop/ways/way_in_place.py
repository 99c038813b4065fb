# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback within the live database, in one transaction; for servers where no second database may be created."""

from __future__ import annotations

import dataclasses
from typing import Optional, Union

from ..base.errors import Refused
from ..site import Run, Site
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import Lost, RestoredInPlace
from . import in_place
from .choose import IN_PLACE
from .facts import Facts
from .forecast import losses_of_revert, objects_of_revert
from .in_force import Change
from .way import Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, Way, then_start
from .way_swap import lost_lines


@dataclasses.dataclass(frozen=True)
class InPlace:
    """Restore the live database to a backup, or to its contents before another operation."""

    source: Union[BackupPlace, Operation]

    name = IN_PLACE
    stops_application = True

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        return Plan(
            [
                "stop the application",
                "make an emergency backup of the database as it is",
                "fence all sessions out, count what would be lost, refuse above the accepted number",
                "empty the live database and restore backup %s in it,"
                " in one transaction that is proved before its COMMIT" % facts.backup,
                then_start(release),
            ],
            losses_of_revert(site, facts),
            objects_of_revert(site, facts.place, facts),
            copies=True,
        )

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        return Ready(False, self._restore(run, consent, only_count=True))

    def apply(self, run: Run, consent: Consent) -> Applied:
        return _outcome(run, self._restore(run, consent, only_count=False))

    def _restore(self, run: Run, consent: Consent, only_count: bool) -> Lost:
        if isinstance(self.source, Operation):
            return in_place.undo_in_place(run, self.source, consent.policy, only_count=only_count)
        return in_place.revert_in_place(run, self.source, consent.policy, only_count=only_count)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        found = in_place.settle(run)
        return _outcome(run, found) if found else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return InPlace(change.operation)


def _outcome(run: Run, found: Lost) -> Outcome:
    if not isinstance(found, RestoredInPlace):
        raise AssertionError("a restore in place has facts of its own")
    what = "What was removed is kept in backup %s." % found.emergency
    return Outcome.of(found, lost_lines(run, found, what), "was made again from backup %s, in place" % found.backup)
