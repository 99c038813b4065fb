# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback within the live database, in one transaction; for servers where no second database may be created."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Union

from ..site import Run
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import IN_PLACE as IN_PLACE_STEP
from . import in_place
from .choose import IN_PLACE
from .way import Change, Consent, Outcome, Programs, Ready, Refusal, TakeInstead, Way, facts_without_own
from .way_swap import lost_lines


@dataclasses.dataclass(frozen=True)
class InPlace:
    """Restore the live database to a backup, or to its contents before another operation."""

    #: exactly one of the two
    place: Optional[BackupPlace] = None
    undone: Optional[Operation] = None

    name = IN_PLACE
    stops_application = True

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        return Ready(False, self._restore(run, consent, only_count=True))

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        return _outcome(run, self._restore(run, consent, only_count=False))

    def _restore(self, run: Run, consent: Consent, only_count: bool) -> Dict[str, Any]:
        if self.undone is not None:
            return in_place.undo_in_place(run, self.undone, consent.policy, only_count=only_count)
        if self.place is None:
            raise AssertionError("there is a backup where nothing is undone")
        return in_place.revert_in_place(run, self.place, consent.policy, only_count=only_count)

    def settle(self, run: Run) -> Optional[Outcome]:
        return settled(run)

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refusal]:
        return InPlace(undone=change.operation)


def settled(run: Run) -> Optional[Outcome]:
    found = in_place.settle(run)
    if not found["restored"]:
        return None
    facts = run.operation.facts(IN_PLACE_STEP) or {}
    return _outcome(run, {**facts, "changed": found["changed"]})


def _outcome(run: Run, found: Dict[str, Any]) -> Outcome:
    facts = facts_without_own(found)
    what = "What was removed is kept in backup %s." % facts.get("emergency")
    database = "was made again from backup %s, in place" % facts.get("backup")
    return Outcome(found["changed"], facts, lost_lines(run, facts, what), database)
