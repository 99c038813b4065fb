# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rehearsal: Prisma runs the pending migrations on the drill's database.

It reports how long each takes, which existing tables it locks and rewrites, what it destroys, and the resulting
catalog, with which the live one is compared after the real migration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..backups.catalog_comparison import load_definitions, schema_of_database
from ..backups.cluster_drill import closed_copy_in_cluster
from ..base.durable_files import read_json, write_json
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.sql_names import is_scratch, typed_name
from ..base.tables import Digest, Table
from ..loss.migration_changes import note_objects, note_rehearsed
from ..postgres import catalog, definitions, digests, dumped_definitions, server
from ..postgres.connection import Session
from ..postgres.database_properties import drop_scratch_database, read_properties
from ..postgres.locks import BLOCKING, note_lock
from ..postgres.role_rights import Rights, lacking, remedy, rights_of
from ..postgres.ways_out import NOWHERE
from ..prisma import history
from ..prisma.cli import Prisma, ServerSession
from ..prisma.failures import PrismaError
from ..prisma.sql_text import cluster_statements
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BACKUP, GATES, Rehearsed
from .closed_copy import CannotBeClosed, closed_copy, refuse_openings
from .deploy import Limits, refuse_problems
from .destruction import Watch
from .foresight import describe_locks, noted_foresight

#: File of an operation with the definitions after the rehearsal.
EXPECTED_DEFINITIONS = "rehearsed-definitions.json"


def rehearse(site: Site, scratch: str, prisma: Prisma, limits: Limits, *, in_closed_server: bool = False) -> Rehearsed:
    """Run the pending migrations on a scratch database that a drill left.

    :param in_closed_server: the scratch database's server can reach nothing
    :raises BackstopError: the migration fails there; the live database was not touched
    """
    if not is_scratch(scratch):
        raise Refused("A rehearsal runs on a scratch database only", found=scratch)
    files = history.read_folder(prisma.project.migrations())
    with site.connect(scratch) as session:
        state = history.compare(files, history.read_rows(session.cursor(), site.connection.schema))
        refuse_problems(state, limits.expected)
        pending = [file for file in files if file.name in state.pending]
        _refuse_cluster_statements(pending)
        if not in_closed_server:
            refuse_openings((file.name, file.sql) for file in pending)
        roles, foresight = noted_foresight(site.operation, pending)
        before = _Contents.of(session)
        watch = Watch(session, foresight.gone if foresight else None, site.connection.schema)
        rights = {role: rights_of(session, role) for role in roles}
        untouched, objects = _entries(site, session), definitions.definitions(session)
        site.progress.phase("rehearsing", database=scratch, migrations=state.pending)
        watched = {table.oid: name for name, table in before.tables.items()}
        closed = contextlib.nullcontext() if in_closed_server else closed_copy(site, scratch)
        with closed, _LockWatcher(site, scratch, watched) as watcher:
            deployed = _deploy(site, prisma, session, scratch, limits)
        reach("rehearsal.migrated")
        after = _Contents.of(session)
        rows = history.read_rows(session.cursor(), site.connection.schema) or []
        destroys = watch.destroyed(before.digests, after.digests)
        _require_rights(site, session, rights)
        if site.operation is not None:
            note_objects(site.operation, objects, definitions.definitions(session))
    locked = dict(foresight.locks) if foresight else {}
    for name, mode in watcher.locked.items():
        note_lock(locked, name, mode)
    own_transactions = foresight.own_transactions if foresight else []
    found = Rehearsed(
        database=scratch,
        migrations=[
            {"name": row.migration_name, "seconds": row.seconds} for row in rows if row.migration_name in state.pending
        ],
        seconds=round(deployed, 3),
        locked=locked,
        new_tables=[typed_name(t.schema, t.name) for t in after.tables.values() if t.full_name not in before.tables],
        every_lock=foresight is not None and not own_transactions,
        destroys=destroys,
        **_changes(before, after, "%s.%s" % (site.connection.schema, history.TABLE)),
    )
    if site.operation is not None:
        names = found.added_tables + found.changed_rows + found.changed_columns
        written = [table for name, table in after.tables.items() if name in names]
        note_rehearsed(site.operation, written, after.digests, found.dropped_tables)
        write_json(site.operation.file(EXPECTED_DEFINITIONS), _expected(site, scratch, untouched))
    locks = describe_locks(locked, own_transactions, foresight is not None)
    return dataclasses.replace(found, summary=_summary(found, locks))


def _summary(found: Rehearsed, locks: str) -> str:
    """A sentence for users."""
    return "; ".join(
        [
            "adds " + (", ".join(found.added_tables) or "no table"),
            *(found.destroys or ["destroys nothing"]),
            "rewrites " + (", ".join(found.rewritten) or "no table"),
            locks,
        ]
    )


def _require_rights(site: Site, session: Session, before: Mapping[str, Rights]) -> None:
    """The release's user must be able to use new objects, and old ones as before.

    :raises Refused: it cannot, and the gate was not waived
    """
    waived = site.operation.result(GATES).waived if site.operation else {}
    for role, rights in before.items():
        found = lacking(rights, rights_of(session, role), history.TABLE)
        if found and "application_rights" not in waived:
            owners = sorted({one.owner for one in rights.values()})
            raise Refused(
                "The release's user could not use what the migrations made; the live database was not touched",
                found="on the copy %s lacks %s" % (role, "; ".join(map(str, found))),
                hint=remedy(role, found, owners) + "; or waive the gate application_rights with a reason",
            )


def rehearse_closed(
    site: Site, scratch: str, prisma: Prisma, place: Optional[BackupPlace], limits: Limits
) -> Rehearsed:
    """Rehearse on the scratch database; if this role cannot close its ways out, in an isolated server.

    :param place: the backup that the scratch database was restored from; without one it is refused instead
    :returns: with ``closed_server`` the scratch database, which was not migrated, is dropped
    """
    try:
        return rehearse(site, scratch, prisma, limits)
    except CannotBeClosed as open_ways:
        if place is None:
            raise
        try:
            with closed_copy_in_cluster(site, place) as there:
                found = rehearse(there, there.database, prisma, limits, in_closed_server=True)
        except Refused as error:
            raise Refused(
                open_ways.message,
                found=open_ways.found,
                hint="%s. Or rehearse in a server of its own, which failed: %s" % (open_ways.hint, error),
            ) from error
        with site.administer() as admin:
            drop_scratch_database(admin, scratch)
        return dataclasses.replace(found, database=scratch, closed_server=open_ways.found)


def _deploy(site: Site, prisma: Prisma, session: Session, scratch: str, limits: Limits) -> float:
    try:
        return prisma.migrate_deploy(
            site.connection.url(scratch),
            cursor=session.cursor(),
            session=ServerSession(lock_timeout_ms=limits.lock_timeout_ms),
            timeout=limits.timeout,
            keep_open=site.keep_open,
        ).seconds
    except BackstopError as error:
        hint = error.hint
        if isinstance(error, PrismaError) and error.failure.started:
            hint = (error.cause + " " if error.cause else "") + "fix the migration"
        if NOWHERE in str(error):
            hint = "it reaches a foreign server, which is disabled on the copy: do that part by hand"
        raise BackstopError(
            "%s on a copy of the database; the live one was not touched" % error.message,
            found=error.found,
            hint=hint,
            details=error.details,
        ) from error


def _refuse_cluster_statements(files: Sequence[history.MigrationFile]) -> None:
    """A rehearsal in a scratch database would make cluster-wide changes of a migration permanent."""
    found = [
        "%s line %d: %s (%s)" % (file.name, statement.line, statement.text, statement.why)
        for file in files
        for statement in cluster_statements(file.sql)
    ]
    if found:
        raise Refused(
            "A migration changes the whole server, so it cannot be rehearsed in a scratch database",
            found="; ".join(found[:5]),
            hint="do that part by hand, or in a migration of its own deployed with prisma",
        )


@dataclasses.dataclass(frozen=True)
class _Contents:
    """The tables of a database, the digest of each, and the size of all in bytes."""

    tables: Mapping[str, Table]
    digests: Mapping[str, Digest]
    size: int

    @classmethod
    def of(cls, session: Session) -> "_Contents":
        tables = {table.full_name: table for table in catalog.tables(session)}
        found = {name: digests.table_digest(session, table.source, table.columns) for name, table in tables.items()}
        return cls(tables, found, server.database_size(session, session.settings.database))


def _changes(before: _Contents, after: _Contents, history_table: str) -> Dict[str, Any]:
    now, was = after.tables, before.tables
    return {
        "added_tables": sorted(set(now) - set(was)),
        "dropped_tables": sorted(set(was) - set(now)),
        "rewritten": sorted(name for name in set(was) & set(now) if was[name].filenode != now[name].filenode),
        "changed_rows": sorted(
            name
            for name in set(was) & set(now)
            if name != history_table
            and was[name].columns == now[name].columns
            and before.digests[name] != after.digests[name]
        ),
        "changed_columns": sorted(name for name in set(was) & set(now) if was[name].columns != now[name].columns),
        "added_bytes": after.size - before.size,
    }


def _entries(site: Site, session: Session) -> dumped_definitions.Entries:
    return dumped_definitions.of_database(site.tools(session), session.settings, keep_open=site.keep_open)


def _expected(site: Site, scratch: str, untouched: dumped_definitions.Entries) -> Dict[str, Any]:
    """The definitions that the migrations changed, all definitions afterwards, and all after another load."""
    with site.connect(scratch) as session:
        after = _entries(site, session)
        properties = read_properties(session, scratch)
    with schema_of_database(site, scratch) as source:
        again = load_definitions(site, source, properties, "trip1").dumped
    return {
        "touched": _differing(untouched, after),
        "after": dumped_definitions.to_json(after),
        "loaded": dumped_definitions.to_json(again),
    }


def check_against_rehearsal(site: Site, session: Session) -> List[str]:
    """How the live definitions differ from those after the rehearsal, by pg_dump's output; empty when they are
    equal.

    Definitions that the migrations did not change may differ, because the rehearsal's copy was restored. If the copy is
    only printed differently, the live definitions read like it after a load.
    """
    operation = site.operation
    if operation is None:
        raise AssertionError("a rehearsal is of an operation")
    expected = read_json(operation.file(EXPECTED_DEFINITIONS), "catalog that the rehearsal left")
    live = _entries(site, session)
    touched = {*expected["touched"], *_touched(site, operation, live)}
    left = [key for key in _differing(expected["after"], live) if key in touched]
    if left:
        with schema_of_database(site, site.database) as source:
            properties = read_properties(session, site.database)
            again = load_definitions(site, source, properties, "trip1").dumped
        for entries in (expected["after"], expected["loaded"]):
            differing = _differing(entries, again)
            left = [key for key in left if key in differing]
    words = {"missing": "missing", "added": "not expected", "changed": "changed"}
    found = dumped_definitions.compare(expected["after"], live)
    return [
        dumped_definitions.describe(key, words[how], expected["after"], live)
        for how, keys in found.items()
        for key in keys
        if key in left
    ]


def _differing(before: dumped_definitions.Entries, after: dumped_definitions.Entries) -> List[str]:
    return [key for keys in dumped_definitions.compare(before, after).values() for key in keys]


def _touched(site: Site, operation: Operation, live: dumped_definitions.Entries) -> List[str]:
    """The differences from the backup made right before the migrations; everything if there is none."""
    backup = operation.result(BACKUP).backup
    dumped = manifests.load(site.store.find_backup(backup)).dumped if backup else None
    return list(live) if dumped is None else _differing(dumped, live)


class _LockWatcher:
    """Checks every 10 ms which locks are held on tables; shorter locks can be missed."""

    def __init__(self, site: Site, database: str, tables: Dict[int, str]) -> None:
        self._site = site
        self._database = database
        self._tables = tables
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.locked: Dict[str, str] = {}

    def __enter__(self) -> "_LockWatcher":
        self._session = self._site.administer()
        self._oid = server.database_oid(self._session, self._database)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._session.close()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            try:
                rows = self._session.rows(
                    "SELECT DISTINCT relation::bigint, mode FROM pg_locks WHERE locktype = 'relation' AND database ="
                    " %s::oid"
                    " AND granted AND relation = ANY(%s::oid[])",
                    (self._oid, list(self._tables)),
                )
            except BackstopError:
                return
            for relation, mode in rows:
                name = self._tables[int(relation)]
                if mode in BLOCKING:
                    note_lock(self.locked, name, str(mode))
