# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing the tables of a database with a manifest, by digest. For definitions see catalog_comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..base.errors import BackstopError, Refused
from ..base.progress import Progress, followed
from ..base.tables import Table
from ..postgres import catalog, copy_progress, digests
from ..postgres.connection import Session
from ..postgres.damage import is_damage
from ..store.manifest import Manifest, TableEntry


@dataclasses.dataclass
class Comparison:
    """The differences; empty lists mean equal."""

    #: one sentence for each table that differs
    tables: List[str]
    #: one sentence for each object that differs
    objects: List[str]
    #: differences that a dump and restore cannot avoid, with the reason
    tolerated: List[str] = dataclasses.field(default_factory=list)
    #: objects that are the same though printed or named differently: both texts
    reprinted: Dict[str, List[Any]] = dataclasses.field(default_factory=dict)
    compared_tables: int = 0
    compared_rows: int = 0

    @property
    def equal(self) -> bool:
        return not self.tables and not self.objects

    def require_equal(self, what: str, hint: str) -> None:
        """:raises BackstopError: names the first differences"""
        if not self.equal:
            differences = self.tables + self.objects
            more = " (and %d more)" % (len(differences) - 10) if len(differences) > 10 else ""
            raise BackstopError(
                what, found="; ".join(differences[:10]) + more, hint=hint, details={"differences": differences}
            )


def compare_tables(
    session: Session,
    manifest: Manifest,
    besides: Sequence[str] = (),
    *,
    new_columns: bool = False,
    progress: Optional[Progress] = None,
) -> Comparison:
    """Digest every table of the manifest in this database.

    :param besides: full names of tables that are not compared
    :param new_columns: a table may have more columns than in the manifest; they are not compared
    :param progress: gets a phase for it
    """
    manifest.require_whole()
    # By schema and name separately: names may contain dots.
    present = {(table.schema, table.name): table for table in catalog.tables(session)}
    reading = copy_progress.Reading(copy_progress.table_sizes(session, list(present.values())) if progress else {})
    result = Comparison([], [])
    with _followed(progress, reading, len(manifest.tables), session.settings.database):
        # The largest last: by then the time that it will take can be estimated.
        for entry in sorted(manifest.tables, key=lambda entry: entry.table.size):
            table = present.pop((entry.schema, entry.name), None)
            if entry.full_name not in besides:
                with reading.table(table.oid if table else 0):
                    _compare_table(session, entry, table, new_columns, result)
    result.tables.sort()
    result.tables += [
        "table %s was not there" % table.full_name
        for table in present.values()
        # The extension creates its own columns: other versions of it, and older manifests, may have others.
        if table.full_name not in besides and table.extension_filter is None
    ]
    if digests.large_objects_digest(session) != manifest.large_objects:
        result.tables.append("the large objects differ")
    return result


@contextlib.contextmanager
def _followed(
    progress: Optional[Progress], reading: copy_progress.Reading, tables: int, database: Optional[str]
) -> Iterator[None]:
    if progress is None:
        yield
        return
    progress.phase("comparing", database=database, bytes_total=reading.total, tables_total=tables)
    with followed(lambda: progress.done(*reading.done())):
        yield


def compare_kept_tables(session: Session, manifest: Manifest) -> List[str]:
    """The differences from the tables of a manifest, which may be partial; other tables of the database are ignored."""
    present = {(table.schema, table.name): table for table in catalog.tables(session)}
    result = Comparison([], [])
    for entry in manifest.tables:
        _compare_table(session, entry, present.get((entry.schema, entry.name)), False, result)
    return result.tables


def _compare_table(
    session: Session,
    entry: TableEntry,
    table: Optional[Table],
    new_columns: bool,
    result: Comparison,
) -> None:
    name, columns, wanted = entry.full_name, entry.table.columns, entry.digest
    if table is None:
        result.tables.append("table %s is missing" % name)
        return
    # The definitions compare the order: with classical inheritance a restore may give another one.
    if sorted(column for column in table.columns if not new_columns or column in columns) != sorted(columns):
        result.tables.append("table %s has other columns: %s" % (name, ", ".join(table.columns)))
        return
    try:
        with session.savepoint():
            found = digests.table_digest(session, table.source, columns)
    except BackstopError as error:
        if not is_damage(error):
            raise
        result.tables.append("table %s cannot be read: it is damaged (%s)" % (name, error.found))
        return
    result.compared_tables += 1
    result.compared_rows += found.rows
    if found.rows != wanted.rows:
        result.tables.append("table %s has %d rows, not %d" % (name, found.rows, wanted.rows))
    elif found != wanted:
        result.tables.append("table %s has %d rows with other contents" % (name, found.rows))


def require_same_major(manifest: Manifest, major: int) -> None:
    """Refuse to compare across major versions: row texts and definitions are only equal within one."""
    if manifest.server.major != major:
        raise Refused(
            "The backup is of another major version than this server",
            found="version %d" % manifest.server.major,
            expected="version %d" % major,
            hint="restore it by hand, or on a server of its version",
        )
