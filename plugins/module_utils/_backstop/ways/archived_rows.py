# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of single tables of a backup, read from its archive into tables of the live database."""

from __future__ import annotations

from typing import List, Sequence

from ..base.errors import BackstopError
from ..base.progress import followed
from ..base.sql_names import quote_identifier, quote_literal
from ..base.tables import Table
from ..postgres import archive
from ..postgres.connection import Session
from ..site import Site
from ..store.layout import BackupPlace
from ..store.manifest import Manifest


class ArchivedRows:
    """A backup, and a session that gets its rows."""

    def __init__(self, site: Site, session: Session, place: BackupPlace, manifest: Manifest) -> None:
        self.session, self.place, self.manifest = session, place, manifest
        self._site, self._tools = site, site.tools(session)
        self._source = site.archive(place, manifest)
        self._entries: List[archive.Entry] = []

    def copy(self, table: Table, target: str, columns: Sequence[str]) -> None:
        """Copy a table's rows.

        :param table: as in the manifest
        :param target: quoted name of the table that gets them
        :param columns: those of the archive; generated ones are not in it
        """
        self._entries = self._entries or archive.contents(self._tools, self._source)
        known, progress = self.manifest.table(table.schema, table.name), self._site.progress
        rows = max(1, known.digest.rows if known else 0)
        progress.phase("reading the backup", bytes_total=table.size, tables_total=rows, unit="rows",
                       backup=self.place.backup_id, table=table.full_name)  # fmt: skip
        entry = archive.rows_of(self._entries, table.oid, table.schema, table.name)
        with archive.rows_to_copy(self._tools, self._source, entry, self._site.keep_open) as block:
            if block.columns != columns and (block.encoding == "UTF8" or len(block.columns) != len(columns)):
                raise BackstopError(
                    "The archive has other columns of table %s than its manifest" % table.full_name,
                    found=", ".join(block.columns) or "no rows of a table",
                    expected=", ".join(columns),
                    hint="use another backup",
                )
            listed = " (%s)" % ", ".join(map(quote_identifier, columns)) if columns else ""
            encoding = quote_literal(block.encoding).strip()
            with followed(lambda: progress.done(table.size * block.rows / rows, block.rows)):
                self.session.copy_in("COPY %s%s FROM STDIN WITH (ENCODING %s)" % (target, listed, encoding), block)
