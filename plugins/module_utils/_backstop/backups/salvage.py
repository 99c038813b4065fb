# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saving what can still be read from a damaged table, of which no backup can be made."""

from __future__ import annotations

import io
import os
from typing import IO, List, Tuple

from ..base.durable_files import file_error, make_private_directory, private_file, write_json
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Given, Setting, remedy
from ..base.sql_names import qualified, quote_identifier
from ..base.tables import Table
from ..postgres import catalog
from ..postgres.connection import Session
from ..postgres.damage import damaged_tables, is_damage
from ..site import Site
from ..store.layout import BackupPlace
from ..store.steps import SavedTable, as_json
from .make import make_backup
from .options import BackupOptions

#: Pages that one statement reads, and the maximum number of rows of a page.
_PAGES = 64
_ROWS_OF_A_PAGE = {8192: 291, 16384: 585, 32768: 1169, 4096: 145, 2048: 72, 1024: 35}


#: Directory of an operation with the rows that could be read from damaged tables.
SAVED_ROWS = "saved-rows"


def save_table(session: Session, table: Table, folder: str, said: str) -> Tuple[SavedTable, List[str]]:
    """Save the readable rows of a table below a folder; returns the ctids of unreadable rows too.

    :param said: the server's error message about the table
    """
    make_private_directory(folder)
    path = os.path.join(folder, table.full_name.replace("/", "%2F") + ".copy")
    unreadable = save_readable(session, table, path)
    saved = SavedTable(table.full_name, path, list(table.writable_columns), len(unreadable), said)
    write_json(path[: -len(".copy")] + ".json", {**as_json(saved), "places": unreadable})
    return saved, unreadable


def save_what_can_be_read(site: Site, folder: str, accept_unreadable: bool) -> Tuple[BackupPlace, List[SavedTable]]:
    """Save all that can be read of a database with damaged tables, of which no full backup can be made.

    Damaged tables are saved row by row as files below the folder, all other tables as a partial backup, and all
    definitions as a backup of the schema.

    :returns: the backup of tables, and each table that was saved as a file
    :raises Refused: without consent; all of it was saved nevertheless
    """
    with site.connect() as session:
        tables = catalog.tables(session)
        damaged = damaged_tables(session, tables)
        saved = [
            save_table(session, table, folder, damaged[table.full_name])[0]
            for table in tables
            if table.full_name in damaged
        ]
    whole = [qualified(table.schema, table.name) for table in tables if table.full_name not in damaged]
    place = make_backup(site, "emergency", form=BackupOptions(tables=whole))
    schema = make_backup(site, "emergency", form=BackupOptions(schema_only=True))
    if not accept_unreadable:
        names = ", ".join("%s (%d rows cannot be read: %s)" % (one.table, one.unreadable, one.said) for one in saved)
        raise Refused(
            "The database cannot be backed up completely: a table is damaged",
            found=names,
            expected="a backup of what will be removed",
            hint=remedy(
                "nothing was changed. Copy the server's files first if you can. What can be read is in %s, and in the"
                " backups %s (the other tables) and %s (the schema). Discard the rest with %s; that cannot be undone."
                " Or use %s, which needs no backup: it keeps this database",
                folder,
                place.backup_id,
                schema.backup_id,
                Given(Setting.ACCEPT_UNREADABLE, True),
                Given(Setting.RESTORE_METHOD, "swap"),
            ),
            details={"saved": list(map(as_json, saved))},
        )
    return place, saved


def save_readable(session: Session, table: Table, path: str) -> List[str]:
    """Write every readable row to a file in COPY format; the ctids of the unreadable rows.

    :param session: in autocommit: an error must not end it
    """
    size, page = session.one(
        "SELECT pg_relation_size(%s::oid::regclass), current_setting('block_size')::int", (table.oid,)
    )
    salvage = _Salvage(session, table, _ROWS_OF_A_PAGE.get(int(page), 2400))
    try:
        with private_file(path) as stream:
            for first in range(0, int(size) // int(page), _PAGES):
                salvage.pages(stream, first, min(first + _PAGES, int(size) // int(page)))
    except OSError as error:
        raise file_error("The readable rows could not be saved", path, error) from error
    reach("table.saved")
    return salvage.unreadable


class _Salvage:
    def __init__(self, session: Session, table: Table, rows_of_a_page: int) -> None:
        self._session, self._rows_of_a_page = session, rows_of_a_page
        self.unreadable: List[str] = []
        # By ctid: such a scan reads no other page.
        self._query = "COPY (SELECT %s FROM ONLY %s WHERE ctid = ANY(ARRAY(%%s))) TO STDOUT" % (
            ", ".join(map(quote_identifier, table.writable_columns)),
            qualified(table.schema, table.name),
        )

    def pages(self, stream: IO[bytes], first: int, end: int) -> None:
        """Save the rows of some pages, page by page when one of them is damaged."""
        places = "SELECT format('(%%s,%%s)', p, r)::tid FROM generate_series(%d, %d) p, generate_series(1, %d) r" % (
            first,
            end - 1,
            self._rows_of_a_page,
        )
        if self._saved(stream, places):
            return
        if end - first > 1:
            middle = (first + end) // 2
            self.pages(stream, first, middle)
            self.pages(stream, middle, end)
            return
        bad = [
            "(%d,%d)" % (first, row)
            for row in range(1, self._rows_of_a_page + 1)
            if not self._saved(stream, "VALUES ('(%d,%d)'::tid)" % (first, row))
        ]
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
