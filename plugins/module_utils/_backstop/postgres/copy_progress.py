# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far dumps, restores and digests are, in bytes of tables.

Servers from version 14 show the running COPY of each session (pg_stat_progress_copy). Nothing here takes a lock that a
restore could wait for.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ..base.tables import Table
from .archive import Entry
from .connection import Session

#: Bytes and number of tables.
Done = Tuple[float, int]
#: A poll must not delay the work that it watches.
_POLL_MILLISECONDS = 2000
_COPYING = (
    "SELECT relid::bigint, tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()"
    " AND command = %s AND relid <> 0"
)
#: pg_restore inserts nothing but by COPY; the counter is of committed rows.
_INSERTED = (
    "SELECT c.oid::bigint, n.nspname, c.relname, pg_stat_get_tuples_inserted(c.oid) FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"
)


#: What a restore makes after the rows: entries of the archive, and their number in the database (keys are indexes).
_AFTER_ROWS = re.compile(r"\d+; \d+ \d+ (INDEX|CONSTRAINT|FK CONSTRAINT) ")
_MADE_AFTER_ROWS = (
    "SELECT (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
    " WHERE c.oid >= 16384 AND c.relkind <> 't')"
    " + (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0)"
)


def indexes_in(entries: Sequence[Entry]) -> int:
    """The number of indexes and constraints in an archive."""
    return sum(1 for entry in entries if _AFTER_ROWS.match(entry.line))


def indexes_made(session: Session) -> int:
    """The number of those that a restore has made."""
    return int(session.value(_MADE_AFTER_ROWS))


def table_sizes(session: Session, tables: Sequence[Table]) -> Dict[int, int]:
    """Bytes of each table without its indexes, by oid; empty tables count too."""
    rows = session.rows(
        "SELECT c.oid::bigint, pg_table_size(c.oid) FROM pg_class c WHERE c.oid = ANY (%s)",
        ([table.oid for table in tables],),
    )
    return {int(oid): int(size or 0) for oid, size in rows}


def poll_gently(session: Session) -> None:
    session.execute("SET statement_timeout = %d" % _POLL_MILLISECONDS)


def _copying(session: Session, command: str) -> Dict[int, int]:
    """Rows that running COPY commands have handled, by the oid of the table."""
    return {int(oid): int(rows) for oid, rows in session.rows(_COPYING, (command,))}


def shows_copies(session: Session) -> bool:
    return int(session.value("SELECT current_setting('server_version_num')")) >= 140000


class Reading:
    """Tables that this process reads one after the other. Within a table, the rate of those before it is assumed."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self.sizes = sizes
        self.total = sum(sizes.values())
        self._bytes = self._tables = 0
        self._seconds = 0.0
        #: size of the table that is being read, and since when
        self._current: Optional[Tuple[int, float]] = None

    @contextlib.contextmanager
    def table(self, oid: int) -> Iterator[None]:
        size, began = self.sizes.get(oid, 0), time.monotonic()
        self._current = (size, began)
        yield
        self._current = None
        self._bytes += size
        self._tables += 1
        self._seconds += time.monotonic() - began

    def done(self) -> Done:
        current = self._current
        if current is None or not self._seconds:
            return self._bytes, self._tables
        size, began = current
        assumed = self._bytes / self._seconds * (time.monotonic() - began)
        return self._bytes + min(assumed, 0.95 * size), self._tables


class Dumping:
    """Tables that a pg_dump dumps, by the order in which it does so."""

    def __init__(self, tables: Sequence[Table], sizes: Mapping[int, int], jobs: int) -> None:
        """:param jobs: more than one dump the largest tables first"""
        ordered = sorted(tables, key=lambda table: (table.schema.encode(), table.name.encode()))
        if jobs > 1:
            ordered.sort(key=lambda table: -sizes.get(table.oid, 0))
        self._order: List[int] = [table.oid for table in ordered]
        self._sizes = sizes
        self._rows: Dict[int, float] = {}
        self._reached = 0

    def poll(self, session: Session) -> Done:
        if not self._rows:
            estimates = session.rows("SELECT oid::bigint, reltuples FROM pg_class WHERE oid = ANY (%s)", (self._order,))
            self._rows = {int(oid): float(rows) for oid, rows in estimates}
        return self.done(_copying(session, "COPY TO"))

    def done(self, copying: Mapping[int, int]) -> Done:
        """What is dumped while these tables are being copied.

        :param copying: rows that were dumped of each
        """
        places = [place for place, oid in enumerate(self._order) if oid in copying]
        self._reached = max([self._reached, *places])
        finished = [oid for oid in self._order[: self._reached] if oid not in copying]
        parts = [
            self._sizes.get(oid, 0) * min(1.0, rows / self._rows[oid])
            for oid, rows in copying.items()
            if self._rows.get(oid, 0) > 0
        ]
        return sum(self._sizes.get(oid, 0) for oid in finished) + sum(parts), len(finished)


class Restoring:
    """Tables that a pg_restore fills in a database that was empty before."""

    def __init__(self, tables: Mapping[Tuple[str, str], Tuple[int, int]]) -> None:
        """:param tables: bytes and rows by schema and name; the bytes are those of the source"""
        self._tables = tables
        self.total = sum(size for size, _rows in tables.values())
        self._seen: Set[int] = set()

    def poll(self, session: Session) -> Done:
        copying = _copying(session, "COPY FROM") if shows_copies(session) else {}
        inserted = {
            (str(schema), str(name)): (int(oid), int(rows or 0)) for oid, schema, name, rows in session.rows(_INSERTED)
        }
        return self.done(inserted, copying)

    def done(self, inserted: Mapping[Tuple[str, str], Tuple[int, int]], copying: Mapping[int, int]) -> Done:
        """What is restored.

        :param inserted: oid and committed rows of each table
        :param copying: rows so far of the tables that are being filled
        """
        bytes_done, tables_done = 0.0, 0
        for name, (size, rows) in self._tables.items():
            oid, committed = inserted.get(name, (0, 0))
            if oid in copying:
                bytes_done += size * min(1.0, copying[oid] / rows) if rows else 0
            elif committed or oid in self._seen:
                bytes_done += size
                tables_done += 1
            elif not rows:
                tables_done += bool(oid)
        self._seen |= set(copying)
        return bytes_done, tables_done
