# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback that gives the live name to another database: one built from a backup, or one that a swap retired."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from ..site import Run
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BUILD
from ..store.steps import SWAP as SWAP_STEP
from .choose import SWAP
from .retired import back_up_retired
from .swap import build_successor, revert, settle, undo
from .way import Change, Consent, Outcome, Programs, Ready, Refusal, TakeInstead, Way, facts_without_own


@dataclasses.dataclass(frozen=True)
class Swap:
    """A database built from a backup takes over; the former one is kept."""

    place: BackupPlace
    programs: Programs
    #: tables whose differences come from a failed migration
    changes_in: Sequence[str] = ()

    name = SWAP
    stops_application = True

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        built = build_successor(run, self.place)
        return Ready(built["changed"], self._revert(run, consent, only_count=True), ())

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        build_successor(run, self.place)
        return outcome_of_swap(run, self._revert(run, consent, only_count=False))

    def _revert(self, run: Run, consent: Consent, only_count: bool) -> Dict[str, Any]:
        policy = dataclasses.replace(consent.policy, changes_in=self.changes_in)
        return revert(run, self.place, policy, only_count=only_count)

    def settle(self, run: Run) -> Optional[Outcome]:
        return settled(run)

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refusal]:
        return SwapBack(change.operation, programs)


@dataclasses.dataclass(frozen=True)
class SwapBack:
    """The database that another operation retired gets the live name again."""

    undone: Operation
    programs: Programs

    name = SWAP
    stops_application = True

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        kept = back_up_retired(run, self.undone) if self.programs.keep_retired else {"changed": False}
        return Ready(kept["changed"], self._undo(run, consent, only_count=True), ())

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        return outcome_of_swap(run, self._undo(run, consent, only_count=False))

    def _undo(self, run: Run, consent: Consent, only_count: bool) -> Dict[str, Any]:
        return undo(run, self.undone, consent.policy, only_count=only_count)

    def settle(self, run: Run) -> Optional[Outcome]:
        return settled(run)

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refusal]:
        return SwapBack(change.operation, programs)


def settled(run: Run) -> Optional[Outcome]:
    found = settle(run)
    if not found["swapped"]:
        return None
    return outcome_of_swap(run, {**(run.operation.facts(SWAP_STEP) or {}), "changed": found["changed"]})


def outcome_of_swap(run: Run, found: Mapping[str, Any]) -> Outcome:
    facts = facts_without_own(found)
    what = "The former database is kept as %s; new connections were blocked for %s s. %s" % (
        facts.get("retired"), facts.get("seconds_closed", 0), facts.get("standbys_summary", ""),
    )  # fmt: skip
    database = "a database restored from %s took over, the migrated one is kept as %s" % (
        facts.get("backup"), facts.get("retired"),
    )  # fmt: skip
    return Outcome(bool(found["changed"]), facts, lost_lines(run, facts, what.strip()), database)


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
