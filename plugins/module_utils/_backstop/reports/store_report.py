# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a whole store: backups, drills, operations, retired databases and disk, over time.

Read from the store alone; its JSON is documented in docs/operation-report.schema.json.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

from ..backups.prune import prune
from ..base.errors import BackstopError
from ..base.progress import timestamp
from ..store import manifest as manifests
from ..store import steps
from ..store.layout import KINDS, Store
from ..store.operation import Operation, operations
from ..store.retention import Decision, Policy
from .backup_facts import facts_of
from .operation_report import FORMAT


@dataclasses.dataclass(frozen=True)
class StoredBackup:
    id: str
    kind: str
    database: str
    created: Optional[str]
    age_seconds: Optional[float]
    #: on disk
    size: int
    rows: Optional[int]
    seconds: Optional[float]
    level: Optional[str]
    recovery_seconds: Optional[float]
    drilled: Optional[str]
    #: whether the last drill passed; None without one
    drill_passed: Optional[bool]
    encrypted: bool
    mark: Optional[str]
    problem: Optional[str]
    #: "keep" or "delete", as retention would decide now, and why
    decision: str
    reason: str


@dataclasses.dataclass(frozen=True)
class PastOperation:
    id: str
    kind: str
    database: str
    began: str
    outcome: Optional[str]
    user: Optional[str]
    downtime_seconds: float
    lost_rows: Optional[int]


@dataclasses.dataclass(frozen=True)
class RetiredDatabase:
    """A database that an operation retired, and that no later operation is known to have dropped or made live."""

    name: str
    operation: str
    since: str


@dataclasses.dataclass(frozen=True)
class StoreReport:
    store: str
    made: str
    databases: List[str]
    backups: List[StoredBackup]
    operations: List[PastOperation]
    retired: List[RetiredDatabase]
    #: the retention that was applied, in days and weeks
    retention: Dict[str, int]
    #: bytes of the backups, by kind
    sizes: Dict[str, int]
    free_bytes: int
    #: why retention refused to decide; empty if it did not
    retention_problem: str

    def to_json(self) -> Dict[str, Any]:
        return {"format": FORMAT, "report": "store", **dataclasses.asdict(self)}

    @property
    def verified(self) -> List[StoredBackup]:
        return [one for one in self.backups if one.level in ("readable", "restored")]

    @property
    def newest(self) -> Optional[StoredBackup]:
        """The newest verified backup."""
        return max(self.verified, key=lambda one: str(one.created)) if self.verified else None

    @property
    def drills(self) -> List[StoredBackup]:
        """Backups whose last drill passed, in the order of the drills."""
        found = [one for one in self.backups if one.drill_passed and one.recovery_seconds is not None]
        return sorted(found, key=lambda one: str(one.drilled))


def store_report(store: Store, policy: Policy) -> StoreReport:
    """:param policy: the retention with which ages are compared"""
    decisions, problem = _decisions(store, policy)
    backups = [_stored(decision) for decision in decisions]
    backups.sort(key=lambda one: (str(one.created), one.id))
    past = operations(store)
    return StoreReport(
        store=store.root,
        made=timestamp(),
        databases=sorted({one.database for one in backups if one.database} | {str(one.database) for one in past}),
        backups=backups,
        operations=[_past(one) for one in past],
        retired=_retired(past),
        retention={
            "keep_days": policy.days,
            "keep_weeks": policy.weeks,
            "keep_pre_migration_days": policy.pre_migration_days,
            "keep_post_migration_days": policy.post_migration_days,
        },
        sizes={kind: sum(one.size for one in backups if one.kind == kind) for kind in KINDS},
        free_bytes=store.free_bytes(),
        retention_problem=problem,
    )


def _decisions(store: Store, policy: Policy) -> "tuple[List[Decision], str]":
    try:
        return prune(store, policy, max_share=1.0, only_check=True), ""
    except BackstopError as error:
        return [], str(error)


def _stored(decision: Decision) -> StoredBackup:
    item, shown = decision.item, decision.to_json()
    try:
        facts = facts_of(item.place, manifests.load(item.place))
    except BackstopError:
        facts = None
    drills = [one for one in facts.verifications if one.level == "restored"] if facts else []
    return StoredBackup(
        id=item.backup_id,
        kind=item.kind,
        database=item.database,
        created=shown["created"],
        age_seconds=manifests.age_seconds(shown["created"]) if shown["created"] else None,
        size=item.size,
        rows=facts.rows if facts else None,
        seconds=facts.seconds if facts else None,
        level=item.level,
        recovery_seconds=facts.recovery_seconds if facts else None,
        drilled=drills[0].at if drills else None,
        drill_passed=drills[0].passed if drills else None,
        encrypted=facts.encrypted if facts else False,
        mark=item.mark,
        problem=item.problem,
        decision=shown["decision"],
        reason=shown["reason"],
    )


def _past(operation: Operation) -> PastOperation:
    return PastOperation(
        id=operation.id,
        kind=operation.kind,
        database=str(operation.database or ""),
        began=operation.began,
        outcome=operation.outcome,
        user=(operation.header.get("controller") or {}).get("user"),
        downtime_seconds=operation.downtime(),
        lost_rows=operation.result(steps.COUNT).lost_rows,
    )


def _retired(past: List[Operation]) -> List[RetiredDatabase]:
    undone = {str(one.request.get("undoes")) for one in past if one.kind == "undo" and one.facts(steps.SWAP)}
    found = []
    for operation in past:
        name = operation.result(steps.SWAP).retired
        dropped = operation.result(steps.RETIRED_PRUNED).dropped
        if name and operation.id not in undone and not dropped:
            at = (operation.done(steps.SWAP) or {}).get("at", operation.began)
            found.append(RetiredDatabase(name, operation.id, str(at)))
    return found
