# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback that gives the live name to another database: one built from a backup, or one that a swap retired."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from ..base.errors import Refused
from ..site import Run, Site
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BUILD
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
        return Plan(
            [
                "build a database from backup %s beside the live one and compare it with its manifest" % facts.backup,
                "stop the application",
                "block writers, count what would be lost, refuse above the accepted number",
                "give the live name to the new database; the former one is kept",
                then_start(release),
            ],
            losses_of_revert(site, facts),
            objects_of_revert(site, facts.place, facts),
            copies=True,
        )

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        if isinstance(self.source, Operation):
            changed = self.keep_retired and back_up_retired(run, self.source)["changed"]
        else:
            changed = build_successor(run, self.source)["changed"]
        return Ready(changed, self._take_over(run, consent, only_count=True))

    def apply(self, run: Run, consent: Consent) -> Applied:
        if isinstance(self.source, BackupPlace):
            build_successor(run, self.source)
        return outcome_of_swap(run, self._take_over(run, consent, only_count=False))

    def _take_over(self, run: Run, consent: Consent, only_count: bool) -> Dict[str, Any]:
        policy = dataclasses.replace(consent.policy, changes_in=self.changes_in)
        if isinstance(self.source, Operation):
            return undo(run, self.source, policy, only_count=only_count)
        return revert(run, self.source, policy, only_count=only_count)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        found = settle(run)
        return outcome_of_swap(run, found) if found else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return Swap(change.operation, keep_retired=programs.keep_retired)


def outcome_of_swap(run: Run, facts: Mapping[str, Any]) -> Outcome:
    what = "The former database is kept as %s; new connections were blocked for %s s. %s" % (
        facts.get("retired"), facts.get("seconds_closed", 0), facts.get("standbys_summary", ""),
    )  # fmt: skip
    database = "a database restored from %s became live, the migrated one is kept as %s" % (
        facts.get("backup"), facts.get("retired"),
    )  # fmt: skip
    return Outcome.of(facts, lost_lines(run, facts, what.strip()), database)


def lost_lines(run: Run, facts: Mapping[str, Any], what: str) -> List[str]:
    """What was lost, what was done, and what differs from before, for users."""
    lost = facts.get("lost_rows", 0)
    kept = ", kept in " + run.operation.file("lost-rows") if lost else ""
    carried = (facts.get("reapply") or {}).get("summary") or ""
    lines = [("Lost rows: %d%s. %s" % (lost, kept, carried)).strip(), what]
    lines += objects_lines(facts) or ["Lost objects: none"]
    built = run.operation.facts(BUILD) or {}
    for said, found in (
        ("Definitions that are not as before", facts.get("differences")),
        ("Not brought back by the restore", facts.get("tolerated", built.get("tolerated"))),
        ("Sessions that were ended", facts.get("ended_sessions")),
    ):
        lines += ["%s: %s." % (said, "; ".join(found))] if found else []
    return lines


def objects_lines(facts: Mapping[str, Any]) -> List[str]:
    """The objects that were lost besides rows, if any, for users."""
    unknown = facts.get("objects_of_unknown_origin", False)
    origin = " (some may be of migrations that no deploy rehearsed)" if unknown else ""
    return ["Lost objects: %s%s" % (", ".join(facts["lost_objects"]), origin)] if facts.get("lost_objects") else []
