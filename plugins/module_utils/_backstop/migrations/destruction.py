# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What migrations destroy: dropped columns, tables and other objects, values that change with a type, rows.

Found by comparing a database before and after, not by parsing SQL; values are counted before, while they exist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..base.errors import BackstopError
from ..base.sql_names import qualified, quote_identifier
from ..base.tables import Digest
from ..postgres import catalog, inventory, server
from ..postgres.connection import Session
from ..postgres.inventory import Column, Gone, Inventory
from ..prisma import history

#: Seconds until the statistics of an ended session arrive, at most.
_STATISTICS_SECONDS = 2.0
_COUNTERS = (
    "SELECT c.oid::bigint, pg_stat_get_tuples_inserted(c.oid)::bigint, pg_stat_get_tuples_updated(c.oid)::bigint,"
    " pg_stat_get_tuples_deleted(c.oid)::bigint FROM pg_class c"
    " WHERE c.relkind = 'r' AND c.oid = ANY(%s::bigint[]::oid[])"
)


@dataclasses.dataclass
class Foreseen:
    """Names of objects that will be dropped, if known: then only these are counted."""

    #: schema and name
    tables: List[Tuple[str, str]] = dataclasses.field(default_factory=list)
    #: schema, table and column
    columns: List[Tuple[str, str, str]] = dataclasses.field(default_factory=list)
    retyped: List[Tuple[str, str, str]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, gone: Gone) -> "Foreseen":
        return cls(
            [(found.schema, found.name) for found in gone.tables.values()],
            [column.path for column in gone.columns],
            [column.path for column, _after in gone.retyped],
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Foreseen":
        return cls(*([tuple(name) for name in value[key]] for key in ("tables", "columns", "retyped")))

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Counts:
    """Numbers of rows and values that will be lost, by name."""

    rows: Dict[Tuple[str, str], int] = dataclasses.field(default_factory=dict)
    values: Dict[Tuple[str, str, str], int] = dataclasses.field(default_factory=dict)


def count(session: Session, there: Inventory, foreseen: Optional[Foreseen]) -> Counts:
    """Count rows of tables and values of columns, one pass over each table.

    :param foreseen: None counts everything
    """
    tables: Dict[Tuple[str, str], List[Column]] = {
        (schema, name): [] for schema, name in (foreseen.tables if foreseen else [])
    }
    for column in there.columns.values():
        wanted = foreseen is None or column.path in foreseen.columns or column.path in foreseen.retyped
        if wanted and column.holds_rows:
            tables.setdefault((column.schema, column.table), []).append(column)
    counts = Counts()
    for table, columns in tables.items():
        wanted_counts = ["count(*)"] + ["count(%s)" % quote_identifier(column.name) for column in columns]
        row = session.one("SELECT %s FROM %s" % (", ".join(wanted_counts), qualified(*table)))
        counts.rows[table] = int(row[0])
        counts.values.update({column.path: int(number) for column, number in zip(columns, row[1:])})
    return counts


def dropped(gone: Gone, counts: Counts, schema: str) -> List[str]:
    """A clause for each column, table or other object, such as ``drops User.name (125 values)``.

    :param schema: the schema that is omitted in names
    """
    return [
        *(
            "drops the table %s (%s)"
            % (found.shown(schema), _amount(counts.rows.get((found.schema, found.name)), "row"))
            for found in gone.tables.values()
        ),
        *(
            "drops %s%s"
            % (
                column.shown(schema),
                " (%s)" % _amount(counts.values.get(column.path), "value") if column.holds_rows else "",
            )
            for column in gone.columns
        ),
        *("drops the value %s of the enum %s" % (label[2], _short(schema, *label[:2])) for label in gone.labels),
        *_of_objects(gone, schema),
    ]


def retyped(was: Column, now: Column, counts: Counts, schema: str, changed: str = "") -> str:
    text = "changes the type of %s from %s to %s" % (now.shown(schema), was.type, now.type)
    return text + " (%s%s)" % (_amount(counts.values.get(was.path), "value"), changed) if was.holds_rows else text


class Watch:
    """Inspects a database before a migration, and reports afterwards what it destroyed."""

    def __init__(self, session: Session, foreseen: Optional[Foreseen], schema: str) -> None:
        """:param foreseen: None if unknown: then everything is counted
        :param schema: the schema that is omitted in names
        """
        self._session = session
        self._schema = schema
        self._before = inventory.take(session)
        self._counts = count(session, self._before, foreseen)
        self._kept: Dict[Tuple[int, str], _Kept] = {}
        for column in self._before.columns.values():
            if foreseen is not None and column.path in foreseen.retyped and column.holds_rows:
                self._keep(column, foreseen)
        self._counters = _counters(session, [table.oid for table in catalog.tables(session)])

    def _keep(self, column: Column, foreseen: Foreseen) -> None:
        """Keep the values of a column that gets another type, as text, which does not depend on the old type."""
        kept = _Kept("backstop_before_%d" % len(self._kept), self._key_of(column, foreseen))
        self._session.execute(
            "CREATE TEMP TABLE %s AS SELECT %s AS key, %s::text AS value FROM %s r__ WHERE %s IS NOT NULL"
            % (
                kept.name,
                _key(self._before, column.table_oid, kept.key),
                _of(column),
                qualified(column.schema, column.table),
                _of(column),
            )
        )
        self._kept[column.table_oid, column.name] = kept

    def _key_of(self, column: Column, foreseen: Foreseen) -> List[int]:
        """Numbers of the columns that identify a row; none where no key stays unchanged."""
        key = next((table.key for table in catalog.tables(self._session) if table.oid == column.table_oid), ())
        numbers = {
            other.name: number
            for (oid, number), other in self._before.columns.items()
            if oid == column.table_oid and other.path not in foreseen.retyped + foreseen.columns
        }
        return [numbers[name] for name in key] if set(key) <= set(numbers) else []

    def destroyed(self, digests_before: Mapping[str, Digest], digests_after: Mapping[str, Digest]) -> List[str]:
        """A clause for each loss."""
        self._wait_for_counters()
        after = inventory.take(self._session)
        gone = inventory.compare(self._before, after)
        return [
            *dropped(gone, self._counts, self._schema),
            *(
                retyped(was, now, self._counts, self._schema, self._changed(was, now, after))
                for was, now in gone.retyped
            ),
            *(["deletes %s" % _plural(gone.large_objects, "large object")] if gone.large_objects else []),
            *self._of_rows(after, digests_before, digests_after),
        ]

    def _changed(self, was: Column, now: Column, after: Inventory) -> str:
        changed = self._changed_values(was, now, after)
        return ", how many change is not known" if changed is None else ", %s of them changed" % (changed or "none")

    def _changed_values(self, was: Column, now: Column, after: Inventory) -> Optional[int]:
        """Number of values that were lost: neither their text nor the new value cast to the old type matches."""
        kept = self._kept.get((was.table_oid, was.name))
        if kept is None or not all((now.table_oid, number) in after.columns for number in kept.key):
            return 0 if self._counts.values.get(was.path) == 0 else None
        texts = ["%s::text" % _of(now)]
        with contextlib.suppress(BackstopError), self._session.savepoint():  # no cast back, or the old type was dropped
            back = "(%s::%s)::text" % (_of(now), was.type)
            self._session.rows("SELECT %s FROM %s r__ LIMIT 0" % (back, qualified(now.schema, now.table)))
            texts.append(back)
        counts = []
        for text in texts:
            sql = "SELECT count(*) FROM (SELECT key, value FROM %s EXCEPT ALL SELECT %s, %s FROM %s r__) gone" % (
                kept.name,
                _key(after, now.table_oid, kept.key),
                text,
                qualified(now.schema, now.table),
            )
            with contextlib.suppress(BackstopError), self._session.savepoint():  # a value that the old type cannot hold
                counts.append(int(self._session.value(sql)))
        return min(counts) if counts else None

    def _of_rows(
        self, after: Inventory, digests_before: Mapping[str, Digest], digests_after: Mapping[str, Digest]
    ) -> List[str]:
        """Rows that were updated or deleted in tables that still exist, by the server's own counters."""
        names = inventory.relations(self._before)
        tables = [table for table in catalog.tables(self._session) if table.oid in self._counters]
        counters = _counters(self._session, [table.oid for table in tables])
        counting = server.settings(self._session, ["track_counts"])["track_counts"] == "on"
        lines = []
        for table in tables:
            was, now = digests_before.get(names.get(table.oid, "")), digests_after.get(table.full_name)
            if table.name == history.TABLE or was is None or now is None or table.oid not in counters:
                continue
            inserted, updated, deleted = (
                later - earlier for later, earlier in zip(counters[table.oid], self._counters[table.oid])
            )
            deleted = max(deleted, was.rows + inserted - now.rows)  # TRUNCATE is not counted
            shown = _short(self._schema, table.schema, table.name)
            lines += ["deletes %s of %s" % (_plural(deleted, "row"), shown)] if deleted > 0 else []
            lines += ["updates %s of %s" % (_plural(updated, "row"), shown)] if updated > 0 else []
            if not counting and was != now and _columns(self._before, table.oid) == _columns(after, table.oid):
                lines.append("changes rows of %s" % shown)
        return lines

    def _wait_for_counters(self) -> None:
        """A session reports its counters when it ends; before version 15 they arrive up to half a second later."""
        deadline = time.monotonic() + _STATISTICS_SECONDS
        while server.other_sessions(self._session, self._session.settings.database) and time.monotonic() < deadline:
            self._session.execute("SELECT pg_sleep(0.02)")
        if server.major_version(self._session) < 15:
            self._session.execute("SELECT pg_sleep(0.6)")


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A temporary table with the former values of a column."""

    name: str
    #: numbers of the key's columns
    key: List[int]


def _key(where: Inventory, table_oid: int, numbers: Sequence[int]) -> str:
    """Text that identifies a row."""
    if not numbers:
        return "''"
    return "ROW(%s)::text" % ", ".join(_of(where.columns[table_oid, number]) for number in numbers)


def _columns(where: Inventory, table_oid: int) -> List[Tuple[int, int, int]]:
    return sorted(
        (number, column.type_oid, column.type_modifier)
        for (oid, number), column in where.columns.items()
        if oid == table_oid
    )


def _of_objects(gone: Gone, default_schema: str) -> List[str]:
    return sorted(
        "drops the %s %s" % (found.kind.replace("table constraint", "constraint"), found.shown(default_schema))
        for found in gone.objects.values()
        if found.kind != "table"
    )


def _short(default: str, schema: str, name: str) -> str:
    return name if schema == default else schema + "." + name


def _counters(session: Session, oids: Sequence[int]) -> Dict[int, Tuple[int, int, int]]:
    """Rows inserted, updated and deleted so far."""
    session.execute("SELECT pg_stat_clear_snapshot()")
    return {int(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in session.rows(_COUNTERS, (list(oids),))}


def _of(column: Column) -> str:
    return "r__." + quote_identifier(column.name)


def _plural(count: int, what: str) -> str:
    return "%d %s%s" % (count, what, "" if count == 1 else "s")


def _amount(count: Optional[int], what: str) -> str:
    return "%ss not counted" % what if count is None else _plural(count, what)
