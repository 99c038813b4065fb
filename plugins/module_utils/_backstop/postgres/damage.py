# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damaged tables, which the server itself cannot read: recognising their errors, and finding them."""

from __future__ import annotations

from typing import Dict, Sequence

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.remedies import Action, Given, Setting, remedy
from ..base.tables import Table
from . import digests
from .connection import Session

#: The server cannot read its own data files.
DAMAGED = (sqlstates.DATA_CORRUPTED, sqlstates.INDEX_CORRUPTED, sqlstates.IO_ERROR)


def is_damage(error: BackstopError) -> bool:
    """Whether an error reports that the server could not read a table's data."""
    return error.sqlstate in DAMAGED


class DamagedTable(Refused):
    """A table that cannot be read completely, so operations that need all of it are impossible."""

    def __init__(self, table: str, error: BackstopError, needed_for: str) -> None:
        super().__init__(
            "Table %s is damaged: the server cannot read all of it" % table,
            found=error.found,
            expected=needed_for,
            hint=remedy(
                "copy the server's files first if you can. Then restore the table from a backup (%s), or go back to a"
                " whole backup, which keeps this database (%s). With %s both discard what cannot be read",
                Action.CORRUPTED_TABLE,
                Action.COMPLETE,
                Given(Setting.ACCEPT_UNREADABLE, True),
            ),
            details={"table": table, "sqlstate": error.sqlstate},
        )


def damaged_tables(session: Session, tables: Sequence[Table]) -> Dict[str, str]:
    """The tables that cannot be read completely, by full name, with the server's error message. Reads all tables."""
    found: Dict[str, str] = {}
    for table in tables:
        try:
            with session.savepoint():
                digests.table_digest(session, table.source, table.columns)
        except BackstopError as error:
            if not is_damage(error):
                raise
            found[table.full_name] = str(error.found)
    return found
