# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that rollbacks kept as files in their operations: removed after some months, once no undo can need them.

Rows saved from a damaged table (``saved-rows``) may exist nowhere else and stay until a user removes them.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
from typing import Any, Dict, List, Optional, Sequence

from ..base.durable_files import FileLock, bytes_below, file_error, fsync_directory
from ..base.failpoints import reach
from ..base.progress import parse_timestamp, timestamp, utc_now
from ..store.layout import DELETED_PREFIX, Store
from ..store.operation import Operation, operations
from ..store.steps import RETIRED_PRUNED, ROW_FILES, SWAP

#: Directories of an operation that hold rows of the database: those that were lost, and those carried over.
FOLDERS = ("lost-rows", "carried")


@dataclasses.dataclass(frozen=True)
class RowFiles:
    """The rows that an operation keeps, the decision on them, and the reason."""

    operation: Operation
    folders: Sequence[str]
    size: int
    keep: bool
    reason: str

    def to_json(self) -> Dict[str, Any]:
        return {
            "operation": self.operation.id,
            "kind": self.operation.kind,
            "database": self.operation.database,
            "folders": list(self.folders),
            "size": self.size,
            "decision": "keep" if self.keep else "delete",
            "reason": self.reason,
        }


def prune_row_files(
    store: Store, days: int, *, only_check: bool = False, now: Optional[datetime.datetime] = None
) -> List[RowFiles]:
    """Remove the rows that finished operations kept; the decision on each operation that keeps any.

    :param days: minimum time that they are kept after the end of their operation
    """
    now = now or utc_now()
    if only_check:
        return decide_on_row_files(store, days, now)
    store.prepare()
    # No operation begins or is undone meanwhile.
    with FileLock(os.path.join(store.root, "operations", "lock")).held(60):
        decisions = decide_on_row_files(store, days, now)
        for one in decisions:
            if not one.keep:
                _remove(one)
        _remove_debris(store)
    return decisions


def decide_on_row_files(store: Store, days: int, now: datetime.datetime) -> List[RowFiles]:
    found = operations(store)
    last = {str(operation.database): operation.id for operation in found if operation.kind != "deploy"}
    decisions = []
    for operation in found:
        folders = [name for name in FOLDERS if os.path.isdir(operation.file(name))]
        if not folders:
            continue
        is_last = last.get(str(operation.database)) == operation.id
        kept = _why_kept(operation, is_last, days, now)
        size = sum(bytes_below(operation.file(name)) for name in folders)
        reason = kept or "it ended more than %d days ago, and no undo needs them any more" % days
        decisions.append(RowFiles(operation, folders, size, kept is not None, reason))
    return decisions


def _why_kept(operation: Operation, is_last: bool, days: int, now: datetime.datetime) -> Optional[str]:
    """None when its rows are not needed."""
    last = operation.last("operation")
    if operation.is_open or last is None:
        return "the operation is open"
    if operation.last(SWAP) and operation.done(RETIRED_PRUNED) is None:
        return "its retired database is kept, and an undo may need them"
    if is_last:
        return "the last rollback or undo of its database may be undone"
    end = parse_timestamp(str(last["at"])) + datetime.timedelta(days=days)
    return "kept for %d days after its end, until %s" % (days, timestamp(end, "seconds")) if now <= end else None


def _remove(one: RowFiles) -> None:
    """Rename them first: partly removed rows must not be taken for all of them."""
    path = one.operation.path
    try:
        for name in one.folders:
            os.rename(one.operation.file(name), os.path.join(path, DELETED_PREFIX + name))
        fsync_directory(path)
    except OSError as error:
        raise file_error("Rows that an operation kept could not be marked as deleted", path, error) from error
    reach("row-files.renamed")
    one.operation.write(ROW_FILES, "done", removed=list(one.folders), size=one.size, reason=one.reason)


def _remove_debris(store: Store) -> None:
    for operation in operations(store):
        for name in FOLDERS:
            path = operation.file(DELETED_PREFIX + name)
            if os.path.isdir(path):
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    raise file_error("Rows that an operation kept could not be removed", path, error) from error
