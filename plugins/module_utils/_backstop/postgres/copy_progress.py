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
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ..base.progress import followed
from ..base.tables import Table
from .connection import Session
from .server import major_version

#: Bytes and number of tables, and the part of the time from 0 to 1.
Done = Tuple[float, int, float]
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
#: These take as long as copying so many bytes of a table, whose indexes count too: a row in an index, and in a foreign
#: key a row of the table that is referred to, and one that refers. Measured with PostgreSQL 15, text keys.
_INDEXED, _REFERRED_TO, _REFERRING = 50, 65, 20
#: Digesting a row takes as long as that many bytes of it (measured as well), and a row's header is not dumped.
_DIGESTED, _HEADER = 64, 28
#: Schema and name.
Name = Tuple[str, str]


class Size(NamedTuple):
    """Of a table without its indexes."""

    bytes: int
    #: as the server estimates them; 0 if it does not
    rows: float = 0

    @property
    def to_digest(self) -> float:
        return self.bytes + _DIGESTED * self.rows

    @property
    def to_dump(self) -> float:
        return max(self.bytes - _HEADER * self.rows, self.bytes / 10)


def table_sizes(session: Session, tables: Sequence[Table]) -> Dict[int, Size]:
    """The size of each table, by oid; empty tables count too."""
    rows = session.rows(
        "SELECT c.oid::bigint, pg_table_size(c.oid), greatest(reltuples, 0) FROM pg_class c WHERE c.oid = ANY (%s)",
        ([table.oid for table in tables],),
    )
    return {int(oid): Size(int(size or 0), float(known)) for oid, size, known in rows}


@contextlib.contextmanager
def followed_by(connect: Callable[[], Session], report: Callable[[Session], None]) -> Iterator[None]:
    """Like followed(), with a session of its own, whose queries may not take long; opened when it is first needed."""
    with contextlib.ExitStack() as stack:
        sessions: List[Session] = []

        def begin() -> None:
            sessions.append(stack.enter_context(connect()))
            sessions[0].execute("SET statement_timeout = %d" % _POLL_MILLISECONDS)

        with followed(lambda: report(sessions[0]), begin):
            yield


def _copying(session: Session, command: str) -> Dict[int, int]:
    """Rows that running COPY commands have handled, by the oid of the table."""
    return {int(oid): int(rows) for oid, rows in session.rows(_COPYING, (command,))}


def shows_copies(session: Session) -> bool:
    return major_version(session) >= 14


class Reading:
    """Tables that this process reads one after the other. Within one, the rate of the largest before it is assumed."""

    def __init__(self, sizes: Mapping[int, Size]) -> None:
        self.sizes = sizes
        self.total = sum(size.bytes for size in sizes.values())
        self._work = sum(size.to_digest for size in sizes.values())
        self._finished: List[Size] = []
        #: work and seconds of the largest table so far
        self._largest: Tuple[float, float] = (0, 1.0)
        #: the table that is being read, and since when
        self._current: Optional[Tuple[Size, float]] = None

    @contextlib.contextmanager
    def table(self, oid: int) -> Iterator[None]:
        size, began = self.sizes.get(oid, Size(0)), time.monotonic()
        self._current = (size, began)
        yield
        self._current = None
        self._finished.append(size)
        self._largest = max(self._largest, (size.to_digest, time.monotonic() - began))

    def done(self) -> Done:
        current, finished = self._current, list(self._finished)
        read, work = sum(size.bytes for size in finished), sum(size.to_digest for size in finished)
        if current is not None and current[0].bytes:
            size, began = current
            assumed = self._largest[0] / max(self._largest[1], 0.001) * (time.monotonic() - began)
            part = min(assumed / size.to_digest, 0.95)
            return read + part * size.bytes, len(finished), (work + part * size.to_digest) / self._work
        return read, len(finished), work / (self._work or 1)


class Dumping:
    """Tables that a pg_dump dumps, by the order in which it does so."""

    def __init__(self, tables: Sequence[Table], sizes: Mapping[int, Size], jobs: int) -> None:
        """:param jobs: more than one dump the largest tables first"""
        ordered = sorted(tables, key=lambda table: (table.schema.encode(), table.name.encode()))
        if jobs > 1:
            ordered.sort(key=lambda table: -sizes.get(table.oid, Size(0)).bytes)
        self._sizes = {table.oid: sizes.get(table.oid, Size(0)) for table in ordered}
        self._order = list(self._sizes)
        self._work = sum(size.to_dump for size in self._sizes.values())
        self._reached = 0

    def poll(self, session: Session) -> Done:
        return self.done(_copying(session, "COPY TO"))

    def done(self, copying: Mapping[int, int]) -> Done:
        """What is dumped while these tables are being copied.

        :param copying: rows that were dumped of each
        """
        places = [place for place, oid in enumerate(self._order) if oid in copying]
        self._reached = max([self._reached, *places])
        finished = [oid for oid in self._order[: self._reached] if oid not in copying]
        parts = dict.fromkeys(finished, 1.0)
        for oid, rows in copying.items():
            size = self._sizes.get(oid)
            if size is not None and size.rows:
                parts[oid] = min(1.0, rows / size.rows)
        dumped = sum(self._sizes[oid].bytes * part for oid, part in parts.items())
        work = sum(self._sizes[oid].to_dump * part for oid, part in parts.items())
        return dumped, len(finished), work / (self._work or 1)


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
                own, other = key.partition(" ")[2].rpartition(".")[0], found[1] or found[2]
                costs = {own: _REFERRING, other.replace('"', ""): _INDEXED if found[1] else _REFERRED_TO}
                on = {known[name]: cost for name, cost in costs.items() if name in known}
                self.after_rows[key] = set(on), sum(cost * tables[name][1] for name, cost in on.items())
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

    def done(self, inserted: Mapping[Name, Tuple[int, int]], copying: Mapping[int, int], made: Set[str]) -> Done:
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
