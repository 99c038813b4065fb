# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rehearsal: the pending migrations run by Prisma on the drill's database.

It tells how long each takes, which tables that were there it locks and rewrites, what it does to their rows, and what
the catalog is afterwards, with which the live one is compared after the real migration.
"""

from __future__ import annotations

import threading
from typing import Any, Dict, List, Optional, Sequence

from ...base.durable_files import read_json, write_file, write_json
from ...base.errors import BackstopError, Refused
from ...base.failpoints import reach
from ...base.sql_names import is_scratch
from ...postgres import catalog, definitions, digests, server
from ...postgres.connection import Session
from ...prisma import history
from ...prisma.cli import Prisma
from ...prisma.failures import PrismaError
from ...prisma.sql_text import cluster_statements
from ...store.operation import Operation
from ..context import Context
from ..loss.own_work import note_rehearsed
from .migration import refuse_problems

#: File of an operation with the definitions that the rehearsal left.
EXPECTED_DEFINITIONS = "rehearsed-definitions.json"
#: File of an operation with the URL of the rehearsed database, for trying the old release on it; it holds the password.
ENVIRONMENT = "rehearsal.env"
_MODES = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]


def rehearse(
    context: Context,
    scratch: str,
    prisma: Prisma,
    *,
    expected: Sequence[str],
    lock_timeout_ms: int,
    timeout: Optional[float] = None,
) -> Dict[str, Any]:
    """Run the pending migrations on a scratch database that a drill left.

    :raises BackstopError: the migration fails there; the live database was not touched
    """
    if not is_scratch(scratch):
        raise Refused("A rehearsal runs on a scratch database only", found=scratch)
    files = history.read_folder(prisma.project.migrations())
    with context.connect(scratch) as session:
        state = history.compare(files, history.read_rows(session.cursor(), context.connection.schema))
        refuse_problems(state, expected)
        _refuse_cluster_statements([file for file in files if file.name in state.pending])
        before = _facts(session)
        context.progress.phase("rehearsing", database=scratch, migrations=state.pending)
        with _LockWatcher(context, scratch, {t.oid: t.full_name for t in before["tables"]}) as watcher:
            deployed = _deploy(context, prisma, session, scratch, lock_timeout_ms, timeout)
        reach("rehearsal.migrated")
        after = _facts(session)
        rows = history.read_rows(session.cursor(), context.connection.schema) or []
        found = definitions.definitions(session)
    changes = _changes(before, after)
    if context.operation is not None:
        names = changes["added_tables"] + changes["changed_rows"] + changes["changed_columns"]
        written = [table for table in after["tables"] if table.full_name in names]
        note_rehearsed(context.operation, written, after["digests"], changes["dropped_tables"])
        write_json(context.operation.file(EXPECTED_DEFINITIONS), found)
        write_file(
            context.operation.file(ENVIRONMENT), ("DATABASE_URL=%s\n" % context.connection.url(scratch)).encode()
        )
    return {
        "database": scratch,
        "migrations": [
            {"name": row.migration_name, "seconds": _seconds(row)}
            for row in rows
            if row.migration_name in state.pending
        ],
        "seconds": round(deployed, 3),
        "locked": watcher.locked,
        **changes,
    }


def _deploy(
    context: Context, prisma: Prisma, session: Session, scratch: str, lock_timeout_ms: int, timeout: Optional[float]
) -> float:
    try:
        return prisma.migrate_deploy(
            context.connection.url(scratch),
            cursor=session.cursor(),
            lock_timeout_ms=lock_timeout_ms,
            timeout=timeout,
            keep_open=context.keep_open,
        ).seconds
    except BackstopError as error:
        hint = error.hint
        if isinstance(error, PrismaError) and error.started:
            hint = (error.cause + " " if error.cause else "") + "mend the migration"
        raise BackstopError(
            "%s on a copy of the database; the live one was not touched" % error.message,
            found=error.found,
            hint=hint,
            details=error.details,
        ) from error


def _seconds(row: history.HistoryRow) -> Optional[float]:
    if row.finished_at is None or row.started_at is None:
        return None
    return round((row.finished_at - row.started_at).total_seconds(), 3)


def _refuse_cluster_statements(files: Sequence[history.MigrationFile]) -> None:
    """What a migration does to the whole cluster would be done for good by a rehearsal in a scratch database."""
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


def _facts(session: Session) -> Dict[str, Any]:
    tables = catalog.tables(session)
    return {
        "tables": tables,
        "digests": {t.full_name: digests.table_digest(session, t.source, t.columns) for t in tables},
        "size": server.database_size(session, session.settings.database),
    }


def _changes(before: Dict[str, Any], after: Dict[str, Any]) -> Dict[str, Any]:
    now = {table.full_name: table for table in after["tables"]}
    was = {table.full_name: table for table in before["tables"]}
    return {
        "added_tables": sorted(set(now) - set(was)),
        "dropped_tables": sorted(set(was) - set(now)),
        "rewritten": sorted(name for name in set(was) & set(now) if was[name].filenode != now[name].filenode),
        "changed_rows": sorted(
            name
            for name in set(was) & set(now)
            if name.rsplit(".", 1)[1] != "_prisma_migrations"
            and was[name].columns == now[name].columns
            and before["digests"][name] != after["digests"][name]
        ),
        "changed_columns": sorted(name for name in set(was) & set(now) if was[name].columns != now[name].columns),
        "added_bytes": after["size"] - before["size"],
    }


def check_against_rehearsal(operation: Operation, session: Session) -> List[str]:
    """How the live catalog differs from the one that the rehearsal left; empty when it is the same."""
    expected = read_json(operation.file(EXPECTED_DEFINITIONS), "catalog that the rehearsal left")
    found = definitions.compare(expected, definitions.definitions(session))
    # After its restore the rehearsal's database may print an expression otherwise than the live one.
    changed = [
        key for key in found["changed"] if definitions.kind_of(key) not in definitions.REPRINTED + ("extension",)
    ]
    return (
        ["%s is missing" % key for key in found["missing"] if not key.startswith("comment on extension")]
        + ["%s was not expected" % key for key in found["added"] if not key.startswith("comment on extension")]
        + ["%s is otherwise" % key for key in changed]
    )


class _LockWatcher:
    """Looks every 10 ms which locks are held on tables; a lock that is held for less can be missed."""

    def __init__(self, context: Context, database: str, tables: Dict[int, str]) -> None:
        self._context = context
        self._database = database
        self._tables = tables
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.locked: Dict[str, str] = {}

    def __enter__(self) -> "_LockWatcher":
        self._session = self._context.administer()
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
                if mode in _MODES[4:] and _MODES.index(mode) > _MODES.index(self.locked.get(name, _MODES[0])):
                    self.locked[name] = mode
