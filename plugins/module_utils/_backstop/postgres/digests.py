# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digests: the contents of a table as a row count and an order-independent sum of row hashes.

It is a sum, because XOR misses an even number of equal rows; of ``hashtextextended`` (server 11 and newer), because
that takes less than half the time of md5. It depends on the server's byte order, on the database's encoding, and on the
session settings in :data:`..connection.PINNED_SETTINGS`; it is equal after a dump and restore.
"""

from __future__ import annotations

from typing import Sequence

from ..base.sql_names import quote_identifier
from ..base.tables import Digest
from .connection import Session


def row_expression(columns: Sequence[str], alias: str = "r__") -> str:
    """SQL for the text of a row. The alias is not the name of any column."""
    return "ROW(%s)::text" % ", ".join("%s.%s" % (alias, quote_identifier(column)) for column in columns)


def hash_expression(columns: Sequence[str], alias: str = "r__") -> str:
    """SQL for the hash of a row, a bigint. The server adds these up exactly, in 128 bits, and returns a numeric."""
    return "hashtextextended(%s, 0)" % row_expression(columns, alias)


def table_digest(session: Session, source: str, columns: Sequence[str]) -> Digest:
    """Digest of rows on these columns, in this order.

    :param source: the FROM item, such as Table.source: a table's own rows without its partitions or children
    """
    row = session.one("SELECT count(*), coalesce(sum(%s), 0)::text FROM %s r__" % (hash_expression(columns), source))
    return Digest(int(row[0]), str(row[1]))


def large_objects_digest(session: Session) -> Digest:
    """Digest of all large objects: number and content, by oid."""
    row = session.one(
        "SELECT count(*), coalesce(sum(hashtextextended(oid::text || ':' || md5(lo_get(oid)), 0)), 0)::text"
        " FROM pg_largeobject_metadata"
    )
    return Digest(int(row[0]), str(row[1]))
