# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting exactly what a rollback would lose.

Lost is what the live database holds and the base does not: rows inserted, updated or deleted since. The base is the
database that takes over, or, for an undo, what the live one held when it took over. Equal digests mean nothing was
lost; tables that differ are compared bucket by bucket of their keys' hashes, row by row only in buckets that differ.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ...base.errors import BackstopError, Refused
from ...base.sql_names import quote_identifier, quote_literal
from ...postgres import catalog, digests
from ...postgres.catalog import Table
from ...postgres.connection import Session
from ...postgres.damage import is_damage

#: Rows in a bucket, about, and how many buckets are read in one scan: what is held in memory at once.
_BUCKET_ROWS = 2000
_BUCKETS_AT_ONCE = 100
#: Prisma's table of migrations: part of every revert, compared by effective state elsewhere.
HISTORY_TABLE = "_prisma_migrations"
#: Schema and name under which large objects are counted.
LARGE_OBJECTS = ("pg_catalog", "pg_largeobject")
#: A default that is the same whenever it is evaluated: a number, a quoted text, true, false; with casts.
_CONSTANT = re.compile(r"(-?[\d.]+|'(?:[^']|'')*'|true|false)(::[\w.\" ()\[\],]+)?", re.DOTALL)


@dataclasses.dataclass
class TableLoss:
    """Rows of one table that the base lacks, has otherwise, or has although they were deleted."""

    schema: str
    name: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    #: the whole table is missing in the base
    whole_table: bool = False
    #: the table stays and keeps its rows; only the values of ``columns`` beside the key go
    columns_only: bool = False
    #: nobody wrote it: it is what the migration itself did to rows, and does not count as lost
    by_migration: bool = False
    #: the live table is damaged, with what the server said: nothing of it could be counted
    unreadable: Optional[str] = None
    #: file with the rows that would be lost, as COPY wrote them
    file: Optional[str] = None
    #: columns that can be put back: those that the base has too, without generated ones
    columns: List[str] = dataclasses.field(default_factory=list)
    #: hashes of the keys (of the whole rows in tables without key) of inserted and updated rows, and how many rows of
    #: that hash the base lacks
    keys: Dict[int, int] = dataclasses.field(default_factory=dict, repr=False)
    #: the columns that were hashed for ``keys``
    hashed: List[str] = dataclasses.field(default_factory=list, repr=False)
    #: hashes of the keys of rows that only the base has
    deleted_keys: List[int] = dataclasses.field(default_factory=list, repr=False)

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted

    def to_json(self) -> Dict[str, Any]:
        facts = dataclasses.asdict(self)
        del facts["keys"], facts["hashed"], facts["deleted_keys"]
        return {**facts, "table": self.full_name, "total": self.total}

    def __str__(self) -> str:
        if self.unreadable:
            return "%s: cannot be counted, the table is damaged (%s)" % (self.full_name, self.unreadable)
        parts = [(self.inserted, "inserted"), (self.updated, "updated"), (self.deleted, "deleted")]
        said = ", ".join("%d %s" % part for part in parts if part[0])
        where = " (the whole table goes)" if self.whole_table else " (columns go)" if self.columns_only else ""
        whose = " by the migration itself" if self.by_migration else ""
        return "%s: %s%s%s" % (self.full_name, said, whose, where)


def count_losses(live: Session, base: Session) -> List[TableLoss]:
    """Every table of the live database with rows that would be lost."""
    based = {table.full_name: table for table in catalog.tables(base)}
    losses = count_table_losses(live, catalog.tables(live), base, based)
    large = _large_objects(live, base)
    return losses + ([large] if large.total else [])


def count_table_losses(
    live: Session, tables: Sequence[Table], base: Session, based: Dict[str, Table]
) -> List[TableLoss]:
    """Those of some tables, without large objects.

    :param based: the base's tables by the live tables' full names; they may have names of their own
    """
    based = dict(based)
    losses: List[TableLoss] = []
    for table in tables:
        if table.name == HISTORY_TABLE:
            continue
        loss = _readable_table_loss(live, table, base, based.pop(table.full_name, None))
        if loss.total or loss.unreadable:
            losses.append(loss)
    for name, table in based.items():
        # Dropped in the live database: all that the base still has of it counts as deleted.
        rows = digests.table_digest(base, table.source, table.columns).rows
        if rows and not name.endswith("." + HISTORY_TABLE):
            losses.append(TableLoss(table.schema, table.name, deleted=rows, whole_table=True))
    return losses


def losses_of_dropping(
    live: Session, remaining: Mapping[str, Table], *, to_be_put_back: bool = True
) -> List[TableLoss]:
    """What goes when only these tables with these columns remain: rows of other tables, values in other columns.

    :param to_be_put_back: somebody may want the values again
    :raises Refused: values would go of a table without a key by which they could be put back
    """
    losses = []
    for table in catalog.tables(live):
        if table.name == HISTORY_TABLE:
            continue
        other = remaining.get(table.full_name)
        loss = _whole_table(live, table) if other is None else _loss_of_columns(live, table, other, to_be_put_back)
        if loss.total:
            losses.append(loss)
    return losses


def _loss_of_columns(live: Session, table: Table, other: Table, to_be_put_back: bool) -> TableLoss:
    going = [column for column in table.writable_columns if column not in other.columns]
    key = list(table.key) if set(table.key) <= set(other.columns) else []
    common = [column for column in table.columns if column in other.columns]
    loss = TableLoss(table.schema, table.name, columns=key + going, columns_only=True, hashed=key or common)
    _add_new_columns(live, table, other, loss)
    if loss.total and not loss.keys and to_be_put_back:
        raise Refused(
            "Values could not be put back into table %s once its column is gone" % table.full_name,
            found="no key by which its rows are known; %d rows hold a value in %s" % (loss.total, ", ".join(going)),
            hint="restore instead (rollback_method=restore): the former database keeps everything",
        )
    return loss


def _whole_table(live: Session, table: Table) -> TableLoss:
    loss = TableLoss(table.schema, table.name, whole_table=True, columns=table.writable_columns)
    loss.inserted = digests.table_digest(live, table.source, table.columns).rows
    return loss


def _readable_table_loss(live: Session, table: Table, base: Session, other: Optional[Table]) -> TableLoss:
    try:
        with live.savepoint():
            return _table_loss(live, table, base, other)
    except BackstopError as error:
        if not is_damage(error):
            raise
        return TableLoss(table.schema, table.name, unreadable=str(error.found))


def _table_loss(live: Session, table: Table, base: Session, other: Optional[Table]) -> TableLoss:
    if other is None:
        return _whole_table(live, table)
    loss = TableLoss(table.schema, table.name)
    loss.columns = [column for column in table.writable_columns if column in other.writable_columns]
    columns = [column for column in table.columns if column in other.columns]
    loss.hashed = list(table.key) if table.key and set(table.key) <= set(columns) else columns
    here = digests.table_digest(live, table.source, columns)
    if here != digests.table_digest(base, other.source, columns):
        count = max(1, here.rows // _BUCKET_ROWS)
        differing = _differing_buckets(live, base, (table, other), loss.hashed, columns, count)
        for start in range(0, len(differing), _BUCKETS_AT_ONCE):
            chosen = differing[start : start + _BUCKETS_AT_ONCE]
            _compare_buckets(live, base, (table, other), columns, chosen, count, loss)
    _add_new_columns(live, table, other, loss)
    return loss


def key_hash(columns: Sequence[str]) -> str:
    """SQL for the hash by which a row is known: of its key, or of all of it."""
    return "hashtextextended(%s, 0)" % digests.row_expression(columns)


def _bucket_of(key: Sequence[str], count: int) -> str:
    return "((%s %% %d) + %d) %% %d" % (key_hash(key), count, count, count)


def _differing_buckets(
    live: Session, base: Session, tables: Tuple[Table, Table], key: Sequence[str], columns: Sequence[str], count: int
) -> List[int]:
    """Numbers of the buckets whose rows are not the same on both sides."""
    here, there = (
        {
            int(row[0]): row[1:]
            for row in session.rows(
                "SELECT %s, count(*), sum(%s)::text FROM %s r__ GROUP BY 1"
                % (_bucket_of(key, count), digests.hash_expression(columns), table.source)
            )
        }
        for session, table in zip((live, base), tables)
    )
    return sorted(bucket for bucket in set(here) | set(there) if here.get(bucket) != there.get(bucket))


def _compare_buckets(
    live: Session,
    base: Session,
    tables: Tuple[Table, Table],
    columns: Sequence[str],
    buckets: Sequence[int],
    count: int,
    loss: TableLoss,
) -> None:
    """Compare the rows of some buckets; rows that share a key hash (in tables without key) are compared as
    multisets."""
    here, there = (
        Counter(
            session.rows(
                "SELECT %s, %s FROM %s r__ WHERE %s = ANY('{%s}'::bigint[])"
                % (
                    key_hash(loss.hashed),
                    key_hash(columns),
                    table.source,
                    _bucket_of(loss.hashed, count),
                    ",".join(map(str, buckets)),
                )
            )
        )
        for session, table in zip((live, base), tables)
    )
    unmatched, gone = _surplus(here, there), _surplus(there, here)
    for key, rows in unmatched.items():
        updated = min(rows, gone.get(key, 0))
        loss.updated += updated
        loss.inserted += rows - updated
        loss.keys[key] = rows
    for key, rows in gone.items():
        deleted = max(0, rows - unmatched.get(key, 0))
        loss.deleted += deleted
        loss.deleted_keys += [key] if deleted else []


def _surplus(rows: "Counter[Tuple[Any, ...]]", other: "Counter[Tuple[Any, ...]]") -> Dict[int, int]:
    """For each key hash, how many rows there are more than on the other side."""
    found: Dict[int, int] = {}
    for pair, times in rows.items():
        more = times - other[pair]
        if more > 0:
            found[pair[0]] = found.get(pair[0], 0) + more
    return found


def _add_new_columns(live: Session, table: Table, other: Table, loss: TableLoss) -> None:
    """Rows that hold something in a column which the base does not have count as updated.

    What the migration itself put there is no loss: the default that the column was added with, in rows of that time.
    """
    new = [column for column in table.columns if column not in other.columns and column not in table.generated]
    if not new:
        return
    where = " OR ".join(written_condition(live, table, column) for column in new)
    sql = "SELECT %s FROM %s r__ WHERE %s" % (key_hash(loss.hashed), table.source, where)
    written = Counter(int(row[0]) for row in live.rows(sql))
    for key, rows in written.items():
        more = max(0, rows - loss.keys.get(key, 0))
        loss.updated += more
        if more and loss.hashed == list(table.key):
            loss.keys[key] = loss.keys.get(key, 0) + more


def written_condition(live: Session, table: Table, column: str) -> str:
    """Condition on rows whose value in a new column did not come from its making.

    PostgreSQL keeps the value that rows of that time have (attmissingval) until the table is rewritten. Without it, all
    values count but NULL and, in a column that never could be NULL, a constant default.
    """
    kept, missing, default, not_null = live.one(
        "SELECT a.atthasmissing, (a.attmissingval::text::text[])[1], pg_get_expr(d.adbin, d.adrelid), a.attnotnull"
        " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = %s AND a.attname = %s",
        (table.oid, column),
    )
    name = "r__." + quote_identifier(column)
    # By format(): as the type's output function writes it, like attmissingval; not every type can be compared.
    text = "format('%%s', %s)" % name
    if kept:
        return "(%s IS NULL OR %s <> %s)" % (name, text, quote_literal(missing))
    if not_null and default and _CONSTANT.fullmatch(default):
        return "%s <> format('%%s', %s)" % (text, default)
    return "%s IS NOT NULL" % name


def _large_objects(live: Session, base: Session) -> TableLoss:
    loss = TableLoss(*LARGE_OBJECTS)
    if digests.large_objects_digest(live) == digests.large_objects_digest(base):
        return loss
    sql = "SELECT oid::bigint, md5(lo_get(oid)) FROM pg_largeobject_metadata"
    here, there = dict(live.rows(sql)), dict(base.rows(sql))
    loss.inserted = len(set(here) - set(there))
    loss.deleted = len(set(there) - set(here))
    loss.updated = sum(1 for oid in set(here) & set(there) if here[oid] != there[oid])
    loss.keys = {int(oid): 1 for oid in here if here[oid] != there.get(oid)}
    loss.deleted_keys = sorted(int(oid) for oid in set(there) - set(here))
    return loss
