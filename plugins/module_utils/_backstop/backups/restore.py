# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restoring a backup into a new database and proving that it is equal. The live database is only read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Dict, Iterator, List, Optional

from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.sql_names import MAX_NAME_BYTES, RESERVED_PREFIXES, quote_identifier, scratch_name
from ..postgres import archive, catalog, copy_progress, server
from ..postgres.connection import Session
from ..postgres.database_properties import copy_properties, create_database, drop_scratch_database
from ..postgres.sequences import sequences_behind
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from .catalog_comparison import compare_catalog
from .comparison import Comparison, compare_tables, require_same_major

_RESTORE = "restore"
#: With more jobs, most of them wait: usually a few tables hold most of the rows.
_MOST_JOBS = 8
#: How many more sessions the server, and the role, may have.
_FREE_SESSIONS = (
    "SELECT least(current_setting('max_connections')::integer - (SELECT count(*) FROM pg_stat_activity),"
    " nullif(rolconnlimit, -1) - (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname))"
    " FROM pg_roles WHERE rolname = %s"
)
#: Where rows differ, another backup may be better.
_HINT = "keep this backup for inspection and make a new one; where that differs too, look at these tables in the source"
#: Where only definitions differ, every later backup would fail in the same way.
_HINT_OF_DEFINITIONS = (
    "a dump and restore does not give these objects back as they are, in any backup: recreate them in the source, or"
    " change there what is named"
)


@dataclasses.dataclass(frozen=True)
class RestoredDatabase:
    """A database that was built from a backup and equals it."""

    database: str
    oid: Optional[int]
    #: duration of each phase
    seconds: Dict[str, float]
    #: how many were compared
    tables: int
    rows: int
    #: what a restore does not bring back, listed and accepted
    tolerated: List[str]


def build_database(site: Site, place: BackupPlace, name: str) -> RestoredDatabase:
    """Build a scratch database from a backup: restored, analysed, equal to the manifest, with the source's properties.

    An existing database of that name is dropped first. After an error nothing is left of it.
    """
    manifest = manifests.load(place)
    manifest.require_whole()
    with site.administer() as admin:
        require_same_major(manifest, server.major_version(admin))
        manifest.require_contents()
        site.archive(place, manifest)
        manifests.check_files(place, manifest, site.progress)
        drop_scratch_database(admin, name)
        try:
            return _build(site, admin, place, manifest, name)
        except BackstopError:
            drop_scratch_database(admin, name)
            raise


def _build(site: Site, admin: Session, place: BackupPlace, manifest: Manifest, name: str) -> RestoredDatabase:
    clock = _Clock()
    create_database(admin, name, manifest.properties)
    reach("restore.created")
    tools = site.tools(admin)
    settings = site.connection.with_database(name)
    jobs = restore_jobs(site, admin, manifest)
    with _followed_restore(site, manifest, name, jobs):
        archive.restore(
            tools,
            settings,
            site.archive(place, manifest),
            jobs=jobs,
            keep_open=site.keep_open,
        )
    reach("restore.restored")
    clock.lap("restore")
    with site.connect(name) as session:
        site.progress.phase("analyzing", database=name)
        catalog.analyze(session)
        clock.lap("analyze")
        result = compare(site, session, manifest)
        manifests.record_reprinted(place, result.reprinted)
        clock.lap("compare")
    site.progress.phase("giving the database its properties", database=name)
    copy_properties(admin, manifest.properties, name)
    reach("restore.compared")
    oid = server.database_oid(admin, name)
    return RestoredDatabase(name, oid, clock.laps, result.compared_tables, result.compared_rows, result.tolerated)


def restore_jobs(site: Site, admin: Session, manifest: Manifest) -> int:
    """As many jobs as this host has cores, for it usually is the database's; they take at most half of the sessions
    that are left."""
    free = admin.value(_FREE_SESSIONS, (site.connection.user,)) or 0
    return max(2, manifest.archive.jobs, min(os.cpu_count() or 1, _MOST_JOBS, int(free) // 2))


@contextlib.contextmanager
def _followed_restore(site: Site, manifest: Manifest, name: str, jobs: int) -> Iterator[None]:
    """Report the progress of a restore: of the rows, the indexes and the foreign keys."""
    restoring = copy_progress.Restoring(
        {(entry.schema, entry.name): (entry.table.size, entry.digest.rows) for entry in manifest.tables},
        manifest.definitions,
        jobs,
    )
    progress = site.progress
    progress.phase(
        "restoring",
        backup=manifest.id,
        database=name,
        bytes_total=restoring.total,
        tables_total=len(manifest.tables),
        indexes_total=len(restoring.after_rows),
    )

    def report(polling: Session) -> None:
        bytes_done, tables_done, part, indexes = restoring.poll(polling)
        progress.done(bytes_done, tables_done, part, indexes=indexes)

    with copy_progress.followed_by(lambda: site.connect(name), report):
        yield


def require_new_database(admin: Session, name: str) -> None:
    """:raises Refused: a restored database cannot have this name, or another one has it"""
    if name.startswith(RESERVED_PREFIXES) or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise Refused(
            "Invalid name for a restored database",
            found=repr(name),
            expected="1 to %d bytes, not starting with %s" % (MAX_NAME_BYTES, " or ".join(RESERVED_PREFIXES)),
        )
    if server.database_oid(admin, name) is not None:
        raise Refused("Nothing is overwritten", found="database %s exists already" % name, hint="choose another name")


def restore_beside(site: Site, place: BackupPlace, name: str, scratch_id: str) -> RestoredDatabase:
    """Restore a backup into a new database, which gets this name once it is proved. Nothing is overwritten.

    :param scratch_id: id in its temporary name; what a killed restore left under it is dropped
    """
    scratch = scratch_name(scratch_id, _RESTORE)
    with site.administer() as admin:
        require_new_database(admin, name)
        built = build_database(site, place, scratch)
        reach("restore.before-rename")
        try:
            admin.execute("ALTER DATABASE %s RENAME TO %s" % (quote_identifier(scratch), quote_identifier(name)))
        except BackstopError:
            drop_scratch_database(admin, scratch)
            raise
    return dataclasses.replace(built, database=name)


def drop_left_restore(site: Site, scratch_id: str) -> None:
    """Drop what a killed restore left; the caller ensures that no restore runs."""
    with site.administer() as admin:
        drop_scratch_database(admin, scratch_name(scratch_id, _RESTORE))


def compare(site: Site, session: Session, manifest: Manifest) -> Comparison:
    """Compare a restored database with the manifest.

    :raises BackstopError: names the differences
    """
    result = compare_tables(session, manifest, progress=site.progress)
    site.progress.phase("comparing the definitions", database=session.settings.database)
    compare_catalog(site, session, manifest, result)
    hint = _HINT if result.tables else _HINT_OF_DEFINITIONS
    result.require_equal("The restored backup differs from its source", hint)
    check_sequences(session, manifest)
    return result


def check_sequences(session: Session, manifest: Manifest) -> None:
    """Refuse a restored database in which a sequence would return values again."""
    behind = sequences_behind(session, manifest.sequences)
    if behind:
        raise BackstopError("A restored sequence is behind its source", found="; ".join(behind[:10]), hint=_HINT)


class _Clock:
    """Durations of consecutive phases, in seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.laps: Dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
