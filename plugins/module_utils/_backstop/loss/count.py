# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting exactly what a rollback would lose.

Lost is what the live database holds and the base does not: rows inserted, updated or deleted since. The base is the
database that takes over or, for an undo, the live database's contents when it took over. Equal digests mean that
nothing is lost. differences.py finds the differing rows of other tables; pairing.py matches the tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..base.errors import BackstopError, Refused
from ..base.progress import Progress
from ..base.remedies import Given, Setting, remedy
from ..base.sql_names import qualified, quote_identifier, quote_literal
from ..base.tables import Table
from ..postgres import catalog, digests
from ..postgres.connection import Session
from ..postgres.damage import is_damage
from .differences import BaseSums, Side, differ, differing_keys, key_hash
from .pairing import Name, Pair, is_history, pair_up

#: Schema and name under which large objects are counted.
LARGE_OBJECTS = ("pg_catalog", "pg_largeobject")
#: A constant default: a number, a quoted text, true, false; with casts.
_CONSTANT = re.compile(r"(-?[\d.]+|'(?:[^']|'')*'|true|false)(::[\w.\" ()\[\],]+)?", re.DOTALL)


@dataclasses.dataclass
class TableLoss:
    """Rows of one table that the base lacks, that differ there, or that were deleted since."""

    schema: str
    name: str
    #: the base's names of the table and of columns that were renamed; None and empty: the same
    former_schema: Optional[str] = None
    former_name: Optional[str] = None
    former_columns: Dict[str, str] = dataclasses.field(default_factory=dict)
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    #: for a new table under the old name of a renamed one: that one's current name, quoted
    replaces: Optional[str] = None
    #: the base lacks the whole table
    whole_table: bool = False
    #: the table keeps its rows; only the values of ``columns`` other than the key are lost
    columns_only: bool = False
    #: the migration itself changed these rows, which does not count as lost
    by_migration: bool = False
    #: the server's error message about the damaged live table, which could not be counted
    unreadable: Optional[str] = None
    #: file with the rows that would be lost, in COPY format
    file: Optional[str] = None
    #: columns that can be restored: those that the base has too, without generated ones
    columns: List[str] = dataclasses.field(default_factory=list)
    #: hashes of the keys (of the whole rows in tables without key) of inserted and updated rows, and the number of rows
    #: with that hash that the base lacks
    keys: Dict[int, int] = dataclasses.field(default_factory=dict, repr=False)
    #: the columns that were hashed for ``keys``
    hashed: List[str] = dataclasses.field(default_factory=list, repr=False)
    #: hashes of the keys of rows that only the base has
    deleted_keys: List[int] = dataclasses.field(default_factory=list, repr=False)

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name

    @property
    def base_name(self) -> Name:
        """Schema and name in the base."""
        return self.former_schema or self.schema, self.former_name or self.name

    def in_base(self, columns: Iterable[str]) -> List[str]:
        """The base's names of these columns."""
        return [self.former_columns.get(column, column) for column in columns]

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted

    def to_json(self) -> Dict[str, Any]:
        facts = dataclasses.asdict(self)
        del facts["keys"], facts["hashed"], facts["deleted_keys"]
        return {**facts, "table": self.full_name, "total": self.total}

    def __str__(self) -> str:
        name = self.full_name
        if self.former_name:
            name += " (%s in the backup)" % ".".join(self.base_name)
        if self.unreadable:
            return "%s: cannot be counted, the table is damaged (%s)" % (name, self.unreadable)
        parts = [(self.inserted, "inserted"), (self.updated, "updated"), (self.deleted, "deleted")]
        said = ", ".join("%d %s" % part for part in parts if part[0])
        where = " (the table is dropped)" if self.whole_table else " (columns are dropped)" if self.columns_only else ""
        whose = " by the migration itself" if self.by_migration else ""
        return "%s: %s%s%s" % (name, said, whose, where)


def count_losses(
    live: Session,
    base: Session,
    known: Optional[Dict[int, Table]] = None,
    kept: Optional[BaseSums] = None,
    progress: Optional[Progress] = None,
) -> List[TableLoss]:
    """Every table of the live database with rows that would be lost.

    :param known: the base's tables by their oids in the live database; see pairing.known_by_oid()
    :param kept: sums of the base, which does not change
    :param progress: gets a phase for it
    """
    pairs = pair_up(catalog.tables(live), catalog.tables(base), known)
    losses = count_table_losses(live, pairs, base, kept, progress)
    large = _large_objects(live, base)
    return losses + ([large] if large.total else [])


def sum_up_base(
    live: Session, base: Session, known: Dict[int, Table], kept: BaseSums, progress: Optional[Progress] = None
) -> None:
    """Read the base, and which live tables differ from it, before a count that must be fast."""
    pairs = pair_up(catalog.tables(live), catalog.tables(base), known)
    for pair in (progress or Progress()).each("looking for changed tables", pairs):
        if pair.live is not None and pair.base is not None and not is_history(live, pair.live):
            with contextlib.suppress(BackstopError), live.savepoint():
                differ(*_sides(live, pair.live, base, pair.base, pair), kept)


def count_table_losses(
    live: Session,
    pairs: Sequence[Pair],
    base: Session,
    kept: Optional[BaseSums] = None,
    progress: Optional[Progress] = None,
) -> List[TableLoss]:
    """The losses of some tables, without large objects.

    :param base: session that can read the pairs' base tables
    """
    losses: List[TableLoss] = []
    now = {(pair.base.schema, pair.base.name): pair.live for pair in pairs if pair.base is not None}
    for pair in (progress or Progress()).each("counting what would be lost", pairs):
        table = pair.live or pair.base
        if table is None or is_history(live, table):
            continue
        if pair.live is None:
            loss = _dropped_table(base, table, pair.rows_in or table)
        else:
            loss = _readable_table_loss(live, table, base, pair, kept or BaseSums())
        renamed = now.get((table.schema, table.name)) if pair.base is None else None
        if renamed is not None:
            loss.replaces = qualified(renamed.schema, renamed.name)
        if loss.total or loss.unreadable:
            losses.append(loss)
    return losses


def _dropped_table(base: Session, table: Table, source: Table) -> TableLoss:
    """All rows that the base has of a dropped table count as deleted."""
    rows = digests.table_digest(base, source.source, source.columns).rows
    return TableLoss(table.schema, table.name, deleted=rows, whole_table=True)


def losses_of_dropping(
    live: Session,
    remaining: Mapping[str, Table],
    known: Optional[Dict[int, Table]] = None,
    *,
    to_be_put_back: bool = True,
) -> List[TableLoss]:
    """What is lost when only these tables with these columns remain: rows of other tables, values of other columns.

    :param remaining: by full name
    :param known: as for count_losses(), if renamed tables and columns get their old names again
    :param to_be_put_back: the lost values must be restorable
    :raises Refused: values of a table without key would be lost, which could not be restored
    """
    losses = []
    for pair in pair_up(catalog.tables(live), remaining.values(), known):
        table = pair.live
        if table is None or is_history(live, table):
            continue
        loss = _whole_table(live, table) if pair.base is None else _loss_of_columns(live, table, pair, to_be_put_back)
        if loss.total:
            losses.append(loss)
    return losses


def _loss_of_columns(live: Session, table: Table, pair: Pair, to_be_put_back: bool) -> TableLoss:
    going = [column for column in table.writable_columns if column not in pair.columns]
    key = list(table.key) if set(table.key) <= set(pair.columns) else []
    loss = _loss_of(table, pair)
    loss.columns, loss.columns_only, loss.hashed = key + going, True, key or pair.shared
    _add_new_columns(live, table, pair, loss)
    if loss.total and not loss.keys and to_be_put_back:
        raise Refused(
            "Values of table %s could not be put back after its column is dropped" % table.full_name,
            found="no key by which its rows are known; %d rows hold a value in %s" % (loss.total, ", ".join(going)),
            hint=remedy("restore instead (%s): the former database keeps everything", Given(Setting.METHOD, "restore")),
        )
    return loss


def _loss_of(table: Table, pair: Pair) -> TableLoss:
    """An empty loss with the base's names where these differ."""
    loss = TableLoss(table.schema, table.name)
    base = pair.base
    if base is not None and (base.schema, base.name) != (table.schema, table.name):
        loss.former_schema, loss.former_name = base.schema, base.name
    loss.former_columns = {column: there for column, there in pair.columns.items() if column != there}
    return loss


def _whole_table(live: Session, table: Table) -> TableLoss:
    loss = TableLoss(table.schema, table.name, whole_table=True, columns=table.writable_columns)
    loss.inserted = digests.table_digest(live, table.source, table.columns).rows
    return loss


def _readable_table_loss(live: Session, table: Table, base: Session, pair: Pair, kept: BaseSums) -> TableLoss:
    try:
        with live.savepoint():
            return _table_loss(live, table, base, pair, kept)
    except BackstopError as error:
        if not is_damage(error):
            raise
        return TableLoss(table.schema, table.name, unreadable=str(error.found))


def _table_loss(live: Session, table: Table, base: Session, pair: Pair, kept: BaseSums) -> TableLoss:
    other = pair.rows_in
    if other is None:
        return _whole_table(live, table)
    loss = _loss_of(table, pair)
    loss.columns = [
        column
        for column in table.writable_columns
        if column in pair.columns and pair.columns[column] in other.writable_columns
    ]
    here, there = _sides(live, table, base, other, pair)
    loss.hashed = list(here.key)
    for key, more, less in differing_keys(here, there, kept):
        updated = min(more, less)
        loss.updated += updated
        loss.inserted += more - updated
        loss.deleted += less - updated
        if more:
            loss.keys[key] = more
        if less > more:
            loss.deleted_keys.append(key)
    _add_new_columns(live, table, pair, loss)
    return loss


def _sides(live: Session, table: Table, base: Session, other: Table, pair: Pair) -> Tuple[Side, Side]:
    key = list(table.key) if table.key and set(table.key) <= set(pair.columns) else pair.shared
    return (
        Side(live, table, key, pair.shared),
        Side(base, other, pair.there(key), pair.there(pair.shared)),
    )


def _add_new_columns(live: Session, table: Table, pair: Pair, loss: TableLoss) -> None:
    """Rows with a value in a column that the base lacks count as updated.

    Values of the migration itself are not lost: the default with which the column was added, in rows that existed then.
    """
    new = [column for column in table.writable_columns if column not in pair.columns]
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
    """Condition for rows whose value in a new column did not come from adding the column.

    Until the table is rewritten, PostgreSQL stores the default for rows that existed then (attmissingval). Without it,
    all values count except NULL and, in a column that was always NOT NULL, a constant default.
    """
    kept, missing, default, not_null = live.one(
        "SELECT a.atthasmissing, (a.attmissingval::text::text[])[1], pg_get_expr(d.adbin, d.adrelid), a.attnotnull"
        " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = %s AND a.attname = %s",
        (table.oid, column),
    )
    name = "r__." + quote_identifier(column)
    # With format(), which uses the type's output function like attmissingval; not every type has an equality operator.
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
