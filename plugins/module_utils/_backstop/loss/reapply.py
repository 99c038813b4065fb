# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying rows over: writes of the live database, into the database that is about to take over.

This happens behind the fence, in one transaction in the database that is not yet in use, before the renames. Inserted
and updated rows (deleted ones only on request) are carried by key, in the columns that both have, in the order of
foreign keys. A row that cannot be carried is a conflict with its reason. Before the COMMIT, every table's digest must
be the former one plus the carried rows.

The changes are kept in the operation's directory before the COMMIT. So after an interruption between COMMIT and renames
the next run reverts them and counts again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..base import sqlstates
from ..base.durable_files import (
    fsync_directory,
    make_private_directory,
    private_file,
    read_json,
    write_file,
    write_json,
)
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Given, Setting, remedy
from ..base.tables import Digest, Table
from ..postgres import catalog, digests, references, server
from ..postgres.connection import Session
from ..postgres.restarts import transaction_to_ask_for, was_committed
from ..site import Run
from ..store.layout import Store
from ..store.operation import Operation, operations
from ..store.steps import CarriedTable, NotCarried, Reapplied
from .changes import Changes, Counts, Databases
from .count import LARGE_OBJECTS, TableLoss
from .kept_rows import referenced_first
from .keyless_changes import KeylessChanges
from .large_object_changes import LargeObjectChanges
from .pairing import Name
from .row_changes import RowChanges

MODES = ("off", "report", "apply")
#: Directory of an operation with the changes that it carried over, and its table of contents, written last.
_FOLDER, _CONTENTS = "carried", "changes.json"
_CONFLICTS = "reapply-conflicts.jsonl"
#: States of a change whose row is as intended.
_IN_FORCE = ("applied", "same")


@dataclasses.dataclass(frozen=True)
class Reapply:
    """The user's request."""

    mode: str = "off"
    deletes: bool = False


@dataclasses.dataclass
class Carried:
    """What was, or would be, carried over."""

    #: the remaining losses
    losses: List[TableLoss]
    facts: Reapplied


@contextlib.contextmanager
def carried_over(
    run: Run,
    databases: Databases,
    losses: Sequence[TableLoss],
    wanted: Reapply,
    *,
    only_count: bool = False,
) -> Iterator[Carried]:
    """Carry the changes between base and live database over to the target. The block sees the carried changes and the
    remaining losses before the COMMIT; if it raises, nothing was changed.

    With mode ``report`` the block sees what would have been carried, and the losses unchanged.

    :param losses: those of count_losses(live, base) that are to be carried
    :param only_count: roll back after the block
    """
    target = databases.target
    target.execute("BEGIN")
    try:
        target.execute("SET CONSTRAINTS ALL IMMEDIATE")
        carry = _Carry(run.operation, target)
        before = databases.before if databases.before is not None else _digests(target)
        with carry.triggers_off(loss.base_name for loss in losses):
            carry.stage(databases, losses, wanted.deletes)
            touched = carry.touched()
            carry.apply()
        carry.prove(before, touched)
        result = carry.result(losses, wanted)
        reach("reapply.proved")
        if wanted.mode == "report":
            target.execute("ROLLBACK")
            result.losses = list(losses)
            yield result
            return
        yield result
        if only_count:
            target.execute("ROLLBACK")
            return
        carry.write_conflicts()
        carry.save(transaction_to_ask_for(run, target))
        reach("reapply.saved")
        target.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(BackstopError):
            target.execute("ROLLBACK")
        raise
    reach("reapply.committed")


class _Carry:
    """One transaction that applies changes to the tables of a database."""

    def __init__(self, operation: Operation, target: Session) -> None:
        self._operation = operation
        self._target = target
        self._tables = {(table.schema, table.name): table for table in catalog.tables(target)}
        #: parents first
        self._changes: List[RowChanges] = []
        self._of_loss: Dict[Name, RowChanges] = {}
        self._large_objects: Optional[LargeObjectChanges] = None
        #: where a whole table cannot be carried
        self._refused: List[NotCarried] = []

    # Staging

    def stage(self, databases: Databases, losses: Sequence[TableLoss], deletes: bool) -> None:
        live, base = databases.live, databases.base
        here = {(table.schema, table.name): table for table in catalog.tables(live)}
        there = {(table.schema, table.name): table for table in catalog.tables(base)}
        for loss in self._operation.progress.each("reading the rows to carry over", losses):
            name = loss.base_name
            rows = loss.inserted + loss.updated + (loss.deleted if deletes else 0)
            if name == LARGE_OBJECTS:
                self._large_objects = LargeObjectChanges(self._target)
                self._large_objects.stage(databases, loss, deletes=deletes, folder=self._operation.path)
                continue
            live_table = here.get((loss.schema, loss.name))
            reason = _why_not(loss, live_table, there.get(name), self._tables.get(name), deletes)
            if reason and rows:
                self._refused.append(NotCarried(loss.full_name, rows, reason))
            if reason or not rows or live_table is None:
                continue
            table = self._tables[name]
            shared = [column for column in loss.in_base(loss.columns) if column in table.writable_columns]
            changes = _changes_of(self._target, table, shared, len(self._changes))
            changes.stage(databases, live_table, there[name], loss, deletes=deletes, folder=self._operation.path)
            self._add(name, changes)

    def load(self, folder: str) -> None:
        """Stage the changes that an operation kept."""
        contents = read_json(os.path.join(folder, _CONTENTS), "list of carried changes")
        for number, entry in enumerate(contents["tables"]):
            name = (entry["schema"], entry["name"])
            if name not in self._tables:
                raise BackstopError("A table that rows were carried to no longer exists", found=".".join(name))
            changes = _changes_of(self._target, self._tables[name], entry["columns"], number)
            with open(os.path.join(folder, entry["file"]), "rb") as stream:
                changes.load(stream)
            self._add(name, changes)
        if contents.get("large_objects"):
            self._large_objects = LargeObjectChanges(self._target)
            with open(os.path.join(folder, contents["large_objects"]), "rb") as stream:
                self._large_objects.load(stream)

    def invert(self) -> None:
        for changes in self._all():
            changes.invert()

    def _all(self) -> List[Changes]:
        return [*self._changes, *([self._large_objects] if self._large_objects else [])]

    @property
    def names(self) -> List[Name]:
        return list(self._of_loss)

    def reasons(self) -> List[Tuple[str, int]]:
        """Why changes were not applied, and how many."""
        return [found for changes in self._all() for found in changes.reasons()]

    def _add(self, name: Name, changes: RowChanges) -> None:
        self._changes.append(changes)
        self._of_loss[name] = changes
        by_name = {table.full_name: table for table in self._tables.values()}
        order = {full_name: place for place, full_name in enumerate(referenced_first(self._target, by_name))}
        self._changes.sort(key=lambda one: order[one.full_name])

    # Applying

    @contextlib.contextmanager
    def triggers_off(self, names: Iterable[Name]) -> Iterator[None]:
        """Disable the users' triggers: their effects in the live database are carried like any other change."""
        with contextlib.ExitStack() as stack:
            for name in sorted(set(names) & set(self._tables)):
                stack.enter_context(references.triggers_off(self._target, self._tables[name]))
            yield

    def apply(self) -> None:
        """Apply the changes, repeatedly while a round makes others possible: a parent row now exists, or a unique value
        is now free."""
        if self._large_objects:
            self._large_objects.apply()
        for changes in self._changes:
            changes.classify()
            if self._large_objects:
                changes.refuse_references(self._large_objects.left_hashes())
        while self._round():
            for changes in self._changes:
                changes.begin_round()
        self._apply_deferred()
        for changes in self._changes:
            changes.give_up()

    def _round(self) -> int:
        applied = 0
        for changes in reversed(self._changes):
            applied += changes.delete()
        for changes in self._changes:
            applied += changes.upsert()
        return applied

    def _apply_deferred(self) -> None:
        """Apply rows that refer to each other together, where their foreign keys are deferrable."""
        waiting = [changes for changes in self._changes if changes.waiting_for_others()]
        if not waiting:
            return
        with contextlib.suppress(_StillBroken), self._target.savepoint():
            self._target.execute("SET CONSTRAINTS ALL DEFERRED")
            while True:
                for changes in waiting:
                    changes.begin_round()
                # Not all need be deferrable: applied rows may make others possible.
                if not sum(changes.upsert() for changes in waiting):
                    break
            try:
                self._target.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except BackstopError as error:
                if error.sqlstate_class != sqlstates.INTEGRITY_CONSTRAINT_VIOLATION:
                    raise
                raise _StillBroken(error.message) from error
        self._target.execute("SET CONSTRAINTS ALL IMMEDIATE")

    # Proving

    def touched(self) -> Dict[str, Tuple[int, int]]:
        return {changes.full_name: changes.touched() for changes in self._changes}

    def prove(self, before: Dict[Name, Digest], touched: Dict[str, Tuple[int, int]]) -> None:
        """Verify that each table holds what it held before, plus the carried changes.

        :raises BackstopError: names the tables for which that is not true
        """
        wrong = []
        for name, found in _digests(self._target).items():
            rows, total = 0, 0
            changes = self._of_loss.get(name)
            if changes is not None:
                was, now = touched[changes.full_name], changes.touched()
                rows, total = now[0] - was[0], now[1] - was[1]
            start = before.get(name)
            if start is None or (found.rows, int(found.hash)) != (start.rows + rows, int(start.hash) + total):
                wrong.append(".".join(name))
        wrong += [".".join(name) for name in before if name not in self._tables]
        if self._large_objects and not self._large_objects.prove():
            wrong.append("large objects")
        if wrong:
            raise BackstopError(
                "The database that is to become live does not hold exactly what was backed up and carried over",
                found="other rows in " + ", ".join(wrong[:10]),
                hint=remedy(
                    "nothing was changed. A rule, a foreign key's ON UPDATE action or another session changed them: "
                    "run this again with %s, and put the rows back with the scripts in lost-rows",
                    Given(Setting.REAPPLY, "off"),
                ),
            )

    def result(self, losses: Sequence[TableLoss], wanted: Reapply) -> Carried:
        left: List[TableLoss] = []
        tables: List[CarriedTable] = []
        conflicts = list(self._refused)
        partly: List[NotCarried] = []
        for loss in losses:
            name = loss.base_name
            changes = self._large_objects if name == LARGE_OBJECTS else self._of_loss.get(name)
            if changes is None or loss.whole_table:
                left.append(loss)
                continue
            counts = changes.counts()
            carried = [_sum(counts, how, ("applied",)) for how in ("insert", "update", "delete")]
            if any(carried):
                tables.append(CarriedTable(loss.full_name, *carried))
            conflicts += [NotCarried(loss.full_name, rows, reason) for reason, rows in changes.reasons()]
            rest = _rest(loss, counts, changes.left_hashes())
            if rest.total:
                left.append(rest)
            partly += _partly(loss, counts, rest)
        found = Reapplied(
            wanted.mode,
            wanted.deletes,
            tables,
            sum(one.inserted + one.updated + one.deleted for one in tables),
            conflicts,
            sum(one.rows for one in conflicts),
            partly,
        )
        return Carried(left, dataclasses.replace(found, summary=_summary(found)))

    # Keeping

    def write_conflicts(self) -> None:
        """Write each row that was not carried, with its key and the reason, to a private file."""
        lines = [json.dumps(found, sort_keys=True) for changes in self._all() for found in changes.conflicts()]
        if lines:
            write_file(self._operation.file(_CONFLICTS), ("\n".join(lines) + "\n").encode())

    def save(self, transaction: str) -> None:
        """Write the applied changes, and their list last.

        :param transaction: the one that applies them; see transaction_to_ask_for()
        """
        folder = self._operation.file(_FOLDER)
        shutil.rmtree(folder, ignore_errors=True)
        make_private_directory(folder)
        entries = []
        for number, changes in enumerate(self._changes):
            file = "%d.copy" % number
            with private_file(os.path.join(folder, file)) as stream:
                changes.save(stream)
            table = changes.table
            digest = digests.table_digest(self._target, table.source, table.columns)
            entries.append(
                {
                    "schema": table.schema,
                    "name": table.name,
                    "columns": changes.columns,
                    "file": file,
                    "digest": digest.to_json(),
                }
            )
        objects = "large-objects.copy" if self._large_objects else None
        if self._large_objects:
            with private_file(os.path.join(folder, str(objects))) as stream:
                self._large_objects.save(stream)
        fsync_directory(folder)
        database = self._target.settings.database
        contents = {
            "database": database,
            "oid": server.database_oid(self._target, database),
            "transaction": transaction,
            "tables": entries,
            "large_objects": objects,
        }
        write_json(os.path.join(folder, _CONTENTS), contents)


class _StillBroken(BackstopError):
    """Deferred foreign keys that are violated in the end."""


def _changes_of(target: Session, table: Table, columns: Sequence[str], number: int) -> RowChanges:
    return (RowChanges if table.key else KeylessChanges)(target, table, columns, number)


def _why_not(
    loss: TableLoss, live: Optional[Table], base: Optional[Table], target: Optional[Table], deletes: bool
) -> Optional[str]:
    """Why no row of this table can be carried; None if they can."""
    if loss.unreadable:
        return "the table is damaged"
    if target is None or base is None or loss.whole_table and live is not None:
        return "the other database has no such table"
    if live is None:
        return "the live database has no such table any more"
    if not (live.key or base.key or target.key):
        return _why_not_without_key(loss, live, target, deletes)
    if not live.key or loss.hashed != list(live.key) or set(loss.in_base(live.key)) != set(target.key):
        return "without a key that both databases have, rows cannot be distinguished"
    if not set(live.key) <= set(loss.columns):
        return "a column of its key is generated"
    return None


def _why_not_without_key(loss: TableLoss, live: Table, target: Table, deletes: bool) -> Optional[str]:
    """Without a key, rows can only be counted: so many equal ones more or less."""
    if not live.writable_columns or set(loss.in_base(live.writable_columns)) != {*loss.in_base(loss.columns)} & {
        *target.writable_columns
    }:
        return "it has no key, and columns that the other database does not have"
    if loss.deleted and not deletes:
        # An update is one row less and one more: adding without removing would duplicate the row.
        return "it has no key, so deleted and changed rows cannot be distinguished"
    return None


def _summary(found: Reapplied) -> str:
    """One sentence for the end of a run."""
    left = ["%d of %s (%s)" % (one.rows, one.table, one.reason) for one in found.conflicts + found.partly]
    rows = found.carried_rows
    return "%d %s carried over from the former database, not carried: %s." % (
        rows,
        "%s %s" % ("row" if rows == 1 else "rows", _were(rows, found.mode)),
        "; ".join(left) or "none",
    )


def _were(rows: int, mode: str) -> str:
    return "would be" if mode == "report" else "was" if rows == 1 else "were"


def _sum(counts: Counts, how: str, states: Sequence[str]) -> int:
    return sum(count for (one, state, _beyond), count in counts.items() if one == how and state in states)


def _beyond(counts: Counts) -> int:
    """Carried rows that have values in columns that the other database does not have."""
    return sum(count for (_how, state, beyond), count in counts.items() if beyond and state in _IN_FORCE)


def _partly(loss: TableLoss, counts: Counts, rest: TableLoss) -> List[NotCarried]:
    """The part of a table that is not carried although there is no conflict."""
    kept = rest.deleted - _sum(counts, "delete", ("conflict",))
    found = [
        (_beyond(counts), "values in columns that the other database does not have"),
        (kept, "deleted rows, which are only deleted there when that is asked for"),
    ]
    return [NotCarried(loss.full_name, rows, reason) for rows, reason in found if rows > 0]


def _rest(loss: TableLoss, counts: Counts, hashes: Sequence[int]) -> TableLoss:
    """The remaining loss of a table: conflicts, and values in columns that the other database does not have."""
    return dataclasses.replace(
        loss,
        inserted=_sum(counts, "insert", ("conflict",)),
        updated=_sum(counts, "update", ("conflict",)) + _beyond(counts),
        deleted=loss.deleted - _sum(counts, "delete", _IN_FORCE),
        keys=dict(Counter(hashes)),
    )


def _digests(session: Session) -> Dict[Name, Digest]:
    return {
        (table.schema, table.name): digests.table_digest(session, table.source, table.columns)
        for table in catalog.tables(session)
    }


# Reverting and repeating carried changes


def take_back(store: Store, target: Session) -> None:
    """Revert what a run carried into this database before its swap, if it was interrupted or the server refused it.

    Such a database still has the name under which the changes were written; a swap renames it.
    """
    name = target.settings.database
    here = {"database": name, "oid": server.database_oid(target, name)}
    for operation in operations(store):
        folder = operation.file(_FOLDER)
        contents = _contents(operation)
        if contents is not None and {key: contents[key] for key in here} == here:
            # Rows of a table without key do not show whether the transaction that carried them was committed.
            if _is_committed(target, contents["transaction"]):
                _replay(operation, target, inverse=True)
            os.unlink(os.path.join(folder, _CONTENTS))
            shutil.rmtree(folder)


def _is_committed(target: Session, transaction: str) -> bool:
    """The outcome of a transaction whose client may have ended a moment ago."""
    while target.value("SELECT pg_xact_status(%s::text::xid8) = 'in progress'", (transaction,)):
        target.execute("SELECT pg_sleep(0.1)")
    return was_committed(target, transaction)


def _contents(operation: Operation) -> Optional[Dict[str, Any]]:
    """The record of an operation's carried changes: database, oid, and tables with their digests afterwards."""
    path = os.path.join(operation.file(_FOLDER), _CONTENTS)
    return read_json(path, "list of carried changes") if os.path.isfile(path) else None


def carried_digests(operation: Operation) -> Optional[Dict[Name, Digest]]:
    """The tables that an operation carried rows to, as they were afterwards; None if it carried nothing."""
    contents = _contents(operation)
    if contents is None:
        return None
    return {(entry["schema"], entry["name"]): Digest.from_json(entry["digest"]) for entry in contents["tables"]}


def carry_again(operation: Operation, target: Session) -> None:
    """Repeat the changes of an operation in another copy of the same database."""
    _replay(operation, target, inverse=False)


def _replay(operation: Operation, target: Session, inverse: bool) -> None:
    with target.transaction():
        target.execute("SET CONSTRAINTS ALL IMMEDIATE")
        carry = _Carry(operation, target)
        carry.load(operation.file(_FOLDER))
        if inverse:
            carry.invert()
        with carry.triggers_off(carry.names):
            carry.apply()
        conflicts = carry.reasons()
        if conflicts:
            raise Refused(
                "What operation %s carried into database %s cannot be %s"
                % (operation.id, target.settings.database, "taken back" if inverse else "made again"),
                found="; ".join("%d rows: %s" % (rows, reason) for reason, rows in conflicts),
                hint="that database was written to meanwhile: compare it with the changes in "
                + operation.file(_FOLDER),
            )
