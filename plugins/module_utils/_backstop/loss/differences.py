# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the rows that differ between two tables, at a cost that hardly depends on their number.

Rows are put into buckets by the hash of their key. One scan of each side computes the sum of every bucket; a second
scan reads the row hashes of differing buckets. Both are sorted and merged as they are read, so memory holds only the
differences. The base is not written to, so its sums can be kept in files; behind the fence it is not summed up again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import tempfile
from typing import IO, Iterable, Iterator, Optional, Sequence, Tuple, cast

from ..base.durable_files import make_private_directory, write_file, write_volatile
from ..base.sql_names import quote_identifier
from ..base.tables import Digest, Table
from ..postgres import digests
from ..postgres.connection import Session

#: Table size on disk, with indexes, per bucket, and the maximum number of buckets: about 60 rows of a usual table. With
#: smaller buckets fewer rows are read again, but the server takes longer to sum up.
_BUCKET_BYTES = 8 << 10
_MOST_BUCKETS = 1 << 18
_SIEVE = 1 << 16
_SMALL_BYTES = 1 << 20
_WRITES = ("inserted", "updated", "deleted")
_CHECKED = ".checked"
#: How much data from the server is held in memory.
_SPOOL_BYTES = 4 << 20


def key_hash(columns: Sequence[str]) -> str:
    """SQL for the hash that identifies a row: of its key, or of the whole row.

    For a single column it takes two thirds of a row's time (measured with PostgreSQL 15). NULL and an empty text have
    different hashes; under "C" no two texts are equal.
    """
    if len(columns) == 1:
        column = "r__." + quote_identifier(columns[0])
        return 'hashtextextended(concat(%s IS NULL, %s) COLLATE "C", 0)' % (column, column)
    return digests.hash_expression(columns)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two tables that are compared. Both sides list the columns in the same order, whatever their names."""

    session: Session
    table: Table
    #: the columns that identify rows; all compared columns where there is no key
    key: Sequence[str]
    columns: Sequence[str]

    @property
    def source(self) -> str:
        return self.table.source + " r__"

    def digest(self) -> Digest:
        return digests.table_digest(self.session, self.table.source, self.columns)

    def writes(self) -> int:
        """The server's count of writes to the table; 0 for a small one, which is digested sooner than asked about.

        It may lag: it only decides what is read first.
        """
        if self.table.size < _SMALL_BYTES:
            return 0
        counters = " + ".join("pg_stat_get_tuples_%s(%d)" % (what, self.table.oid) for what in _WRITES)
        return int(self.session.value("SELECT " + counters))

    def bucket(self, count: int) -> str:
        """SQL for the number of a row's bucket.

        :param count: number of buckets, a power of two
        """
        return "(%s & %d)" % (key_hash(self.key), count - 1)

    def sums_query(self, count: int) -> str:
        # The second arm is empty. It hides the expressions' statistics from the planner, which would else expect one
        # group per key and use neither parallel nor hash aggregation (measured with PostgreSQL 15: 2.4 times slower).
        hashed = digests.hash_expression(self.columns)
        arm = "SELECT %s AS b, %s AS h FROM %s" % (self.bucket(count), hashed, self.source)
        return "SELECT b, count(*), sum(h) FROM (%s UNION ALL %s WHERE false) s__ GROUP BY 1" % (arm, arm)

    def sums(self, count: int) -> bytes:
        """A line for each bucket that is not empty: number, rows, sum of their hashes."""
        found = io.BytesIO()
        self.session.copy_out("COPY (%s) TO STDOUT" % self.sums_query(count), found)
        return found.getvalue()

    def rows(self, bits: bytes, count: int) -> Iterator[bytes]:
        """A line for each key hash and row hash in some buckets, sorted by both: the two hashes and the number of rows.

        :param bits: one for each bucket; before version 14 the server searches the list of ``= ANY`` linearly
        """
        chosen = "SELECT %s AS k, %s AS r FROM %s WHERE get_bit('\\x%s'::bytea, %s::integer) = 1" % (
            key_hash(self.key),
            digests.hash_expression(self.columns),
            self.source,
            bits.hex(),
            self.bucket(count),
        )
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            self.session.copy_out(
                "COPY (SELECT k, r, count(*) FROM (%s) s__ GROUP BY 1, 2 ORDER BY 1, 2) TO STDOUT" % chosen,
                cast(IO[bytes], spool),
            )
            spool.seek(0)
            yield from cast(IO[bytes], spool)


def hash_among(hash_sql: str, hashes: Iterable[int]) -> str:
    """Condition that few rows pass whose hash is not listed: cheap, for one scan of a large table."""
    bits = bytearray(_SIEVE // 8)
    for one in hashes:
        bits[(one & (_SIEVE - 1)) >> 3] |= 1 << (one & 7)
    return "get_bit('\\x%s'::bytea, (%s & %d)::integer) = 1" % (bits.hex(), hash_sql, _SIEVE - 1)


class BaseSums:
    """The bucket sums of a base that does not change, each stored in a file after it was read."""

    def __init__(self, folder: Optional[str] = None) -> None:
        """:param folder: private directory of an operation; without one nothing is stored"""
        self._folder = folder

    def of(self, base: Side, count: int) -> bytes:
        path = self._path(base, count)
        if path and os.path.exists(path):
            with open(path, "rb") as stream:
                return stream.read()
        found = base.sums(count)
        if path:
            make_private_directory(str(self._folder))
            write_file(path, found)
        return found

    def checked(self, base: Side, count: int) -> Optional[int]:
        """Side.writes() of the live table when it was found equal; -1 if it differed; None if it was not checked."""
        path = self._path(base, count) + _CHECKED
        if not self._folder or not os.path.exists(path):
            return None
        with open(path, encoding="ascii") as stream:
            return int(stream.read())

    def note_check(self, base: Side, count: int, writes: int) -> None:
        if self._folder and self.checked(base, count) != writes:
            with contextlib.suppress(OSError):
                write_volatile(self._path(base, count) + _CHECKED, b"%d" % writes)

    def _path(self, base: Side, count: int) -> str:
        """By query and database: other columns, or another key, have other sums."""
        if self._folder is None:
            return ""
        asked = "%s\n%s" % (base.session.settings.database, base.sums_query(count))
        return os.path.join(self._folder, hashlib.sha256(asked.encode()).hexdigest())


def bucket_count(size: int) -> int:
    """A power of two for a table of this size in bytes."""
    return min(_MOST_BUCKETS, 1 << max(0, (size // _BUCKET_BYTES).bit_length() - 1))


def _buckets_of(live: Side, base: Side) -> int:
    """By the base's size, which does not change."""
    return bucket_count(base.table.size or live.table.size)


def differ(live: Side, base: Side, kept: BaseSums) -> bool:
    """Whether the tables hold different rows. The base's sums are stored from here on."""
    return _differ(live, base, kept, live.writes())


def _differ(live: Side, base: Side, kept: BaseSums, writes: int) -> bool:
    count = _buckets_of(live, base)
    same = live.digest() == _total(kept.of(base, count))
    kept.note_check(base, count, writes if same else -1)
    return not same


def differing_keys(live: Side, base: Side, kept: BaseSums) -> Iterator[Tuple[int, int, int]]:
    """Key hashes whose rows differ: hash, number of rows that only the live table has, and that only the base has.

    A digest is cheaper than the sums, but of a table that differs the sums are needed anyway.
    """
    count, writes = _buckets_of(live, base), live.writes()
    if kept.checked(base, count) in (None, writes) and not _differ(live, base, kept, writes):
        return
    there = kept.of(base, count)
    bits = _differing(live.sums(count), there, count)
    if any(bits):
        unequal = unequal_rows(live.rows(bits, count), base.rows(bits, count))
        for key, found in itertools.groupby(unequal, key=lambda one: one[0]):
            _keys, more, less = zip(*found)
            yield key, sum(more), sum(less)


def _total(sums: bytes) -> Digest:
    rows = total = 0
    for line in sums.splitlines():
        _bucket, count, part = line.split(b"\t")
        rows, total = rows + int(count), total + int(part)
    return Digest(rows, str(total))


def _differing(here: bytes, there: bytes, count: int) -> bytes:
    """A bit for each bucket whose sums differ, in the order of get_bit()."""
    bits = bytearray(max(1, count // 8))
    for line in set(here.splitlines()) ^ set(there.splitlines()):
        bucket = int(line.split(b"\t", 1)[0])
        bits[bucket >> 3] |= 1 << (bucket & 7)
    return bytes(bits)


def unequal_rows(here: Iterator[bytes], there: Iterator[bytes]) -> Iterator[Tuple[int, int, int]]:
    """The differences of two sorted sequences of Side.rows(): key hash, rows that only the first has, rows that only
    the second has."""
    mine, other = next(here, None), next(there, None)
    while mine is not None or other is not None:
        # Most lines are equal, and parsing numbers is the slowest part.
        if mine == other:
            mine, other = next(here, None), next(there, None)
            continue
        key, row, times = _numbers(mine)
        other_key, other_row, other_times = _numbers(other)
        if (key, row) <= (other_key, other_row):
            mine = next(here, None)
        else:
            times = 0
        if (other_key, other_row) <= (key, row):
            other = next(there, None)
        else:
            other_times = 0
        yield min(key, other_key), max(0, times - other_times), max(0, other_times - times)


def _numbers(line: Optional[bytes]) -> Tuple[int, int, int]:
    """After the end of a sequence, a value greater than any hash."""
    if line is None:
        return 1 << 63, 0, 0
    key, row, times = line.split(b"\t")
    return int(key), int(row), int(times)
