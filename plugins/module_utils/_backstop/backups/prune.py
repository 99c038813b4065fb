# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pruning: apply the retention rule to a store, but keep what its operations still need. Asks no database.

A pruned backup is renamed to a name that is never listed, then removed. After an interruption, the next backup or
pruning removes it.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections import defaultdict
from typing import Any, Collection, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from ..base.durable_files import FileLock
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.progress import parse_timestamp, utc_now
from ..store import manifest as manifests
from ..store import retention
from ..store.layout import Store
from ..store.operation import Operation, operations
from ..store.retention import Decision, Group, Item, Policy
from ..store.steps import MIGRATE, RETIRED_PRUNED, SWAP

#: Every rollback keeps the backups that it used for this time, and the last rollback of each database for ever.
UNDO_DAYS = retention.LEAST_ROW_DAYS


def prune(
    store: Store,
    policy: Policy,
    *,
    max_share: float = retention.OPTIONS["max_delete_share"],
    by_hand: Collection[str] = (),
    only_check: bool = False,
    now: Optional[datetime.datetime] = None,
) -> List[Decision]:
    """Remove what the rule does not keep; the decision on each backup.

    :param max_share: the maximum share of the store's backups that may be removed at once
    :param by_hand: ids of backups that a user wants to remove
    :param only_check: only decide
    :raises Refused: too many would be removed, or a named backup is needed; nothing was changed
    """
    if not 0 <= max_share <= 1:
        raise Refused("Invalid share of the store", found=str(max_share), expected="between 0 and 1")
    store.check()
    decisions = _decide_on_proof(store, policy, by_hand, now or utc_now(), record=not only_check)
    _refuse_what_is_needed(decisions, by_hand)
    retention.check_share(decisions, max_share, by_hand)
    return decisions if only_check else _act(store, policy, by_hand, decisions, now)


def _decide_on_proof(
    store: Store, policy: Policy, by_hand: Collection[str], now: datetime.datetime, record: bool
) -> List[Decision]:
    """Decide. Backups that replace others are verified first; one that has changed no longer counts.

    :param record: record with a backup that it has changed
    """
    proved: Set[str] = set()
    damaged: Dict[str, str] = {}
    while True:
        decisions = _decide(store, policy, by_hand, now, damaged)
        unproved = [item for item in retention.foundations(decisions, now) if item.backup_id not in proved]
        if not unproved:
            return decisions
        for item in unproved:
            try:
                manifests.check_files(item.place, manifests.load(item.place))
                proved.add(item.backup_id)
            except BackstopError as error:
                damaged[item.backup_id] = str(error)
                if record:
                    manifests.record_verification(item.place, "checksum", {"passed": False, "reason": str(error)})


def _decide(
    store: Store, policy: Policy, by_hand: Collection[str], now: datetime.datetime, damaged: Dict[str, str]
) -> List[Decision]:
    items = [
        dataclasses.replace(item, problem=damaged.get(item.backup_id, item.problem))
        for item in retention.read_items(store)
    ]
    return retention.decide(items, policy, now, needed=needed_backups(store, items, now), by_hand=by_hand)


def _refuse_what_is_needed(decisions: Sequence[Decision], by_hand: Collection[str]) -> None:
    for decision in decisions:
        if decision.keep and decision.item.backup_id in by_hand:
            raise Refused(
                "Backup %s cannot be removed" % decision.item.backup_id,
                found="; ".join(decision.reasons),
                hint="nothing was changed",
                details={"items": [each.to_json() for each in decisions]},
            )


def _act(
    store: Store,
    policy: Policy,
    by_hand: Collection[str],
    decisions: Sequence[Decision],
    now: Optional[datetime.datetime],
) -> List[Decision]:
    """Remove what was decided, unless it is needed since; the result for each backup."""
    store.prepare()
    done: List[Decision] = []
    with store.lock.held(60):
        # No operation begins meanwhile.
        with FileLock(os.path.join(store.root, "operations", "lock")).held(60):
            again = {d.item.backup_id: d for d in _decide(store, policy, by_hand, now or utc_now(), {})}
            for decision in decisions:
                later = again.get(decision.item.backup_id)
                if not decision.keep and later is not None and not later.keep:
                    reach("prune.decided")
                    store.give_up(decision.item.place)
                    reach("prune.renamed")
                done.append(later if later is not None and later.keep else decision)
        store.remove_debris()
    reach("prune.removed")
    return done


# Needs of operations


def needed_backups(store: Store, items: Sequence[Item], now: datetime.datetime) -> Dict[str, List[str]]:
    """Backups that an open operation, an undo or a rollback of the live migration may need: by id, with the reasons."""
    known = {item.backup_id: item for item in items}
    needed: Dict[str, List[str]] = defaultdict(list)
    last_deploys: Dict[Group, Tuple[Operation, List[str]]] = {}
    last_rollbacks: Dict[str, Tuple[Operation, List[str]]] = {}
    for operation in operations(store):
        named = dict.fromkeys(text for text in _strings(operation.header, operation.journal()) if text in known)
        for backup_id in _used(operation, list(named), items):
            needed[backup_id].append("operation %s (%s) is open" % (operation.id, operation.kind))
        if operation.kind == "deploy":
            before = [backup_id for backup_id in named if known[backup_id].kind == "pre-migration"]
            if operation.last(MIGRATE):
                last_deploys.update({known[backup_id].group: (operation, before) for backup_id in before})
        elif _may_be_undone(operation, now):
            for backup_id in named:
                needed[backup_id].append("an undo of operation %s may need it" % operation.id)
        elif not operation.last(SWAP):
            last_rollbacks[str(operation.database)] = (operation, list(named))
    for operation, before in last_deploys.values():
        for backup_id in before:
            needed[backup_id].append("a rollback of the last migration, deploy %s, goes back to it" % operation.id)
    for operation, used in last_rollbacks.values():
        for backup_id in used:
            needed[backup_id].append("an undo of the last rollback, operation %s, may need it" % operation.id)
    return needed


def _used(operation: Operation, named: List[str], items: Sequence[Item]) -> List[str]:
    """The backups that an open operation names, or made before it was interrupted."""
    if not operation.is_open:
        return []
    made = [item.backup_id for item in items if item.operation == operation.id]
    return list(dict.fromkeys(named + made))


def _may_be_undone(operation: Operation, now: datetime.datetime) -> bool:
    """A swap can be undone as long as its retired database exists; any other rollback for some weeks."""
    if operation.last(SWAP):
        return operation.done(RETIRED_PRUNED) is None
    return now - parse_timestamp(operation.began) <= datetime.timedelta(days=UNDO_DAYS)


def _strings(*values: Any) -> Iterator[str]:
    """Every string in JSON values, so that each backup that a step names is found."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _strings(*value.values())
        elif isinstance(value, list):
            yield from _strings(*value)
