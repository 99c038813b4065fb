# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback that gives the live name to another database: one built from a backup, or one that a swap retired."""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence, Union

from ..base.errors import Refused
from ..base.sql_names import SAFETY_COPY_PREFIX
from ..migrations.leftovers import Cleaned
from ..site import Run, Site
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BUILD, Lost, RestoredInPlace, Swapped, TakenOut
from .choose import SWAP
from .facts import Facts
from .forecast import losses_of_revert, objects_of_revert
from .in_force import Change
from .retired import back_up_retired
from .swap import build_successor, revert, settle, undo
from .way import Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, Way, then_start


@dataclasses.dataclass(frozen=True)
class Swap:
    """Another database takes over; the former one is kept."""

    #: the backup that it is built from, or the operation that retired it
    source: Union[BackupPlace, Operation]
    #: tables whose differences come from a failed migration
    changes_in: Sequence[str] = ()
    #: back up a retired database before, so that the undo can be undone
    keep_retired: bool = True

    name = SWAP
    stops_application = True

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        build = "build a database from backup %s beside the live one and compare it with its manifest" % facts.backup
        copied = "take %s, which was copied when it equalled backup %s" % (facts.safety_copy, facts.backup)
        return Plan(
            [
                copied if facts.safety_copy else build,
                "stop the application",
                "block writers, count what would be lost, refuse above the accepted number",
                "give the live name to the new database; the former one is kept",
                then_start(release),
            ],
            losses_of_revert(site, facts),
            objects_of_revert(site, facts.place, facts),
            copies=facts.safety_copy is None,
        )

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        if isinstance(self.source, Operation):
            changed = self.keep_retired and bool(back_up_retired(run, self.source).changed)
        else:
            changed = bool(build_successor(run, self.source).changed)
        return Ready(changed, self._take_over(run, consent, only_count=True))

    def apply(self, run: Run, consent: Consent) -> Applied:
        if isinstance(self.source, BackupPlace):
            build_successor(run, self.source)
        return _outcome(run, self._take_over(run, consent, only_count=False))

    def _take_over(self, run: Run, consent: Consent, only_count: bool) -> Lost:
        policy = dataclasses.replace(consent.policy, changes_in=self.changes_in)
        if isinstance(self.source, Operation):
            return undo(run, self.source, policy, only_count=only_count)
        return revert(run, self.source, policy, only_count=only_count)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        found = settle(run)
        return _outcome(run, found) if found else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return Swap(change.operation, keep_retired=programs.keep_retired)


def _outcome(run: Run, found: Lost) -> Outcome:
    if not isinstance(found, Swapped):
        raise AssertionError("a swap has facts of its own")
    what = "The former database is kept as %s; new connections were blocked for %s s. %s" % (
        found.retired, found.seconds_closed or 0, found.standbys_summary or "",
    )  # fmt: skip
    copied = run.operation.result(BUILD).database.startswith(SAFETY_COPY_PREFIX)
    source = "the safety copy of this database" if copied else "a database restored from %s" % found.backup
    database = "%s became live, the migrated one is kept as %s" % (source, found.retired)
    return Outcome.of(found, lost_lines(run, found, what.strip()), database)


def lost_lines(run: Run, found: Union[Swapped, RestoredInPlace, TakenOut], what: str) -> List[str]:
    """What was lost, what was done, and what differs from before, for users."""
    kept = ", kept in " + run.operation.file("lost-rows") if found.lost_rows else ""
    carried = found.reapply.summary if found.reapply else ""
    lines = [("Lost rows: %d%s. %s" % (found.lost_rows or 0, kept, carried)).strip(), what]
    lines += objects_lines(found) or ["Lost objects: none."]
    tolerated = found.tolerated if isinstance(found, RestoredInPlace) else run.operation.result(BUILD).tolerated
    for said, names in (
        ("Definitions that are not as before", found.differences if isinstance(found, TakenOut) else ()),
        ("Not brought back by the restore", tolerated),
        ("Sessions that were ended", found.ended_sessions),
    ):
        lines += ["%s: %s." % (said, "; ".join(names))] if names else []
    return lines


def objects_lines(found: Union[Lost, Cleaned]) -> List[str]:
    """The objects that were lost besides rows, if any, for users."""
    origin = " (some may be of migrations that no deploy rehearsed)" if found.objects_of_unknown_origin else ""
    return ["Lost objects: %s%s" % (", ".join(found.lost_objects), origin)] if found.lost_objects else []
