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
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ..base.progress import followed
from ..base.tables import Table
from .connection import Session
from .server import major_version

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


#: An index or a foreign key among definitions, and the table that it is on or refers to.
_AFTER_ROWS = re.compile(r"CREATE .*? ON (?:ONLY )?(.+?) USING |FOREIGN KEY .*? REFERENCES (.+?)\(", re.DOTALL)
#: Those that a restore has made, as definitions call them.
_MADE_AFTER_ROWS = (
    "SELECT 'index ' || n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 UNION ALL"
    " SELECT 'constraint ' || n.nspname || '.' || c.relname || '.' || k.conname FROM pg_constraint k"
    " JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f'"
)
#: Putting a row into an index, or checking a foreign key of it, takes as long as copying this many bytes of a table;
#: the size of its indexes counts as copied too (measured with PostgreSQL 15: 55 to 80, by type and collation).
_BYTES_OF_ROW = 65
#: Schema and name.
Name = Tuple[str, str]


def table_sizes(session: Session, tables: Sequence[Table]) -> Dict[int, int]:
    """Bytes of each table without its indexes, by oid; empty tables count too."""
    rows = session.rows(
        "SELECT c.oid::bigint, pg_table_size(c.oid) FROM pg_class c WHERE c.oid = ANY (%s)",
        ([table.oid for table in tables],),
    )
    return {int(oid): int(size or 0) for oid, size in rows}


@contextlib.contextmanager
def followed_by(connect: Callable[[], Session], report: Callable[[Session], None]) -> Iterator[None]:
    """Like followed(), with a session of its own, whose queries may not take long; opened when it is first needed."""
    with contextlib.ExitStack() as stack:
        sessions: List[Session] = []

        def report_by_session() -> None:
            if not sessions:
                sessions.append(stack.enter_context(connect()))
                sessions[0].execute("SET statement_timeout = %d" % _POLL_MILLISECONDS)
            report(sessions[0])

        with followed(report_by_session):
            yield


def _copying(session: Session, command: str) -> Dict[int, int]:
    """Rows that running COPY commands have handled, by the oid of the table."""
    return {int(oid): int(rows) for oid, rows in session.rows(_COPYING, (command,))}


def shows_copies(session: Session) -> bool:
    return major_version(session) >= 14


class Reading:
    """Tables that this process reads one after the other. Within one, the rate of the largest before it is assumed."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self.sizes = sizes
        self.total = sum(sizes.values())
        self._bytes = self._tables = 0
        #: size and seconds of the largest table so far
        self._largest: Tuple[int, float] = (0, 1.0)
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
        self._largest = max(self._largest, (size, time.monotonic() - began))

    def done(self) -> Done:
        current = self._current
        if current is None:
            return self._bytes, self._tables
        size, began = current
        assumed = self._largest[0] / max(self._largest[1], 0.001) * (time.monotonic() - began)
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
    """Tables that a pg_restore fills in a database that was empty before, and their indexes and foreign keys."""

    def __init__(self, tables: Mapping[Name, Tuple[int, int]], definitions: Mapping[str, str], jobs: int) -> None:
        """
        :param tables: bytes and rows by schema and name; the bytes are those of the source
        :param definitions: of the source; see definitions.py
        """
        self._tables, self._jobs = tables, jobs
        self.total = sum(size for size, _rows in tables.values())
        #: tables and cost of each index and foreign key; the cost in bytes of tables
        self.after_rows: Dict[str, Tuple[Set[Name], int]] = {}
        known = {"%s.%s" % name: name for name in tables}
        for key, text in definitions.items():
            found = _AFTER_ROWS.match(text)
            if found:
                names = [(found[1] or found[2]).replace('"', ""), key.partition(" ")[2].rpartition(".")[0]]
                on = {known[name] for name in names if name in known}
                self.after_rows[key] = on, _BYTES_OF_ROW * sum(tables[name][1] for name in on)
        self._seen: Set[int] = set()
        self._all = self._longest(dict.fromkeys(tables, 0.0), set())

    def poll(self, session: Session) -> Tuple[float, int, float, int]:
        """Bytes and number of tables, part of the time, number of indexes and foreign keys."""
        copying = _copying(session, "COPY FROM") if shows_copies(session) else {}
        inserted = {
            (str(schema), str(name)): (int(oid), int(rows or 0)) for oid, schema, name, rows in session.rows(_INSERTED)
        }
        made = {str(name) for (name,) in session.rows(_MADE_AFTER_ROWS)} & set(self.after_rows)
        return (*self.done(inserted, copying, made), len(made))

    def done(
        self, inserted: Mapping[Name, Tuple[int, int]], copying: Mapping[int, int], made: Set[str]
    ) -> Tuple[float, int, float]:
        """What is restored: bytes and number of tables, part of the time.

        :param inserted: oid and committed rows of each table
        :param copying: rows so far of the tables that are being filled
        :param made: indexes and foreign keys
        """
        parts: Dict[Name, float] = {}
        tables_done = 0
        for name, (_size, rows) in self._tables.items():
            oid, committed = inserted.get(name, (0, 0))
            if oid in copying:
                parts[name] = min(1.0, copying[oid] / rows) if rows else 0.0
            else:
                filled = bool(committed or oid in self._seen)
                parts[name] = float(filled)
                tables_done += filled or bool(oid and not rows)
        self._seen |= set(copying)
        bytes_done = sum(self._tables[name][0] * part for name, part in parts.items())
        return bytes_done, tables_done, 1 - self._longest(parts, made) / (self._all or 1)

    def _longest(self, parts: Mapping[Name, float], made: Set[str]) -> float:
        """What the job has to do that ends last. Work on one table is not divided among jobs.

        :param parts: of the tables' rows that are restored
        """
        left = {name: size * (1 - parts[name]) for name, (size, _rows) in self._tables.items()}
        total = sum(left.values())
        for key, (tables, cost) in self.after_rows.items():
            if key not in made:
                total += cost
                for name in tables:
                    left[name] += cost
        return max([total / self._jobs, *left.values()])
