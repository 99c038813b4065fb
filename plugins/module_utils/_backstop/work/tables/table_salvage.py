# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saving what can still be read of a damaged table, of which no backup can be made."""

from __future__ import annotations

import io
import os
from typing import IO, List

from ...base.durable_files import PRIVATE_FILE, file_error
from ...base.errors import BackstopError
from ...base.failpoints import reach
from ...base.sql_names import qualified, quote_identifier
from ...postgres.catalog import Table
from ...postgres.connection import Session

#: data_corrupted, index_corrupted, io_error: the server cannot read what it wrote.
DAMAGED = ("XX001", "XX002", "58030")
#: Pages that are read with one statement, and rows that fit into the largest one.
_PAGES = 64
_ROWS_OF_A_PAGE = {8192: 291, 16384: 585, 32768: 1169, 4096: 145, 2048: 72, 1024: 35}


def is_damage(error: BackstopError) -> bool:
    """Whether an error says that the server could not read a table's own data."""
    return error.details.get("sqlstate") in DAMAGED


def save_readable(session: Session, table: Table, path: str) -> List[str]:
    """Write every row that can be read to a file, as COPY does; the places (ctid) of those that cannot.

    :param session: in autocommit: an error must not end it
    """
    size, page = session.one(
        "SELECT pg_relation_size(%s::oid::regclass), current_setting('block_size')::int", (table.oid,)
    )
    salvage = _Salvage(session, table, _ROWS_OF_A_PAGE.get(int(page), 2400))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as stream:
            for first in range(0, int(size) // int(page), _PAGES):
                salvage.pages(stream, first, min(first + _PAGES, int(size) // int(page)))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise file_error("The readable rows could not be saved", path, error) from error
    reach("table.saved")
    return salvage.unreadable


class _Salvage:
    def __init__(self, session: Session, table: Table, rows_of_a_page: int) -> None:
        self._session, self._rows_of_a_page = session, rows_of_a_page
        self.unreadable: List[str] = []
        # By the places of rows: such a scan reads no other page.
        self._query = "COPY (SELECT %s FROM ONLY %s WHERE ctid = ANY(ARRAY(%%s))) TO STDOUT" % (
            ", ".join(map(quote_identifier, table.writable_columns)), qualified(table.schema, table.name)
        )

    def pages(self, stream: IO[bytes], first: int, end: int) -> None:
        """Save the rows of some pages, page by page when one of them is damaged."""
        places = (
            "SELECT format('(%%s,%%s)', p, r)::tid FROM generate_series(%d, %d) p, generate_series(1, %d) r"
            % (first, end - 1, self._rows_of_a_page)
        )
        if self._saved(stream, places):
            return
        if end - first > 1:
            middle = (first + end) // 2
            self.pages(stream, first, middle)
            self.pages(stream, middle, end)
            return
        bad = ["(%d,%d)" % (first, row) for row in range(1, self._rows_of_a_page + 1)
               if not self._saved(stream, "VALUES ('(%d,%d)'::tid)" % (first, row))]
        self.unreadable += bad

    def _saved(self, stream: IO[bytes], places: str) -> bool:
        rows = io.BytesIO()
        try:
            self._session.copy_out(self._query % places.replace("%%", "%"), rows)
        except BackstopError as error:
            if not is_damage(error):
                raise
            return False
        stream.write(rows.getvalue())
        return True
