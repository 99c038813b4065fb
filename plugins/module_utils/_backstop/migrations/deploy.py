# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Applying the pending migrations to the live database, and ending what an earlier run left running there."""

from __future__ import annotations

import dataclasses
import time
from typing import List, Optional, Sequence

from ..base.errors import BackstopError, Locked, Refused
from ..base.failpoints import reach
from ..base.processes import signals_deferred
from ..base.sql_names import qualified
from ..loss.migration_changes import note_migrated
from ..postgres import catalog, server
from ..postgres.connection import Session
from ..prisma import history
from ..prisma.cli import Prisma, ServerSession
from ..prisma.failures import PrismaError
from ..prisma.sessions import end_backends, lock_holders
from ..site import Site, journaled_step
from ..store.layout import BackupPlace
from ..store.steps import BEFORE_MIGRATING, MIGRATE, Migrated

#: How long to wait for the sessions of a killed run to end, and for Prisma's lock.
_WIND_UP_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Limits:
    """What ``prisma migrate deploy`` may apply, and how long it may take."""

    #: the only migrations that may be pending
    expected: Sequence[str]
    lock_timeout_ms: int
    statement_timeout_ms: Optional[int] = None
    #: seconds for all
    timeout: Optional[float] = None
    #: how often a migration that only waited too long for a lock is tried again
    lock_retries: int = 0


def read_state(session: Session, prisma: Prisma, schema: str) -> history.MigrationState:
    files = history.read_folder(prisma.project.migrations())
    return history.compare(files, history.read_rows(session.cursor(), schema))


def backup_history(place: BackupPlace) -> Optional[List[history.HistoryRow]]:
    """The migration history at the time of a backup; None when there was none."""
    return history.read_file(place.file("history.json"))


def applied_since(place: BackupPlace, rows: Optional[Sequence[history.HistoryRow]]) -> List[history.HistoryRow]:
    """The history rows of applied migrations that the backup does not have, in order of application."""
    known = {row.id for row in backup_history(place) or ()}
    return [row for row in rows or () if row.state == history.APPLIED and row.id not in known]


def take_out_of_history(session: Session, schema: str, rows: Sequence[history.HistoryRow]) -> None:
    """Delete these rows, in the same transaction that reverts their migrations."""
    table = qualified(schema, history.TABLE).replace("%", "%%")
    deleted = session.execute("DELETE FROM " + table + " WHERE id = ANY(%s)", ([row.id for row in rows],))
    if deleted != len(rows):
        raise Refused("The history of migrations has changed", found="%d rows of %d" % (deleted, len(rows)))


def prisma_session_name(site: Site) -> str:
    """application_name of Prisma's session in this operation."""
    return "prisma of " + site.session_name


def apply_migrations(
    site: Site, prisma: Prisma, limits: Limits, required_steps: Sequence[str] = BEFORE_MIGRATING, attempt: int = 0
) -> Migrated:
    """Run ``prisma migrate deploy`` on the live database and verify the history afterwards.

    :param attempt: how often it was tried before
    :param required_steps: steps that the operation's journal must have before anything is migrated
    """
    with site.connect() as session:
        state = read_state(session, prisma, site.connection.schema)
        if state.up_to_date:
            return Migrated(seconds=0.0, lock_retries=attempt)
    if site.operation is not None:
        site.operation.require(list(required_steps), "The migration is not applied: gates were left out")
    with signals_deferred(), journaled_step(site, MIGRATE) as facts, site.connect() as session:
        wind_up_predecessor(site, session)
        state = read_state(session, prisma, site.connection.schema)
        refuse_problems(state, limits.expected)
        before = {table.full_name: table.filenode for table in catalog.tables(session)}
        site.progress.phase("migrating", migrations=state.pending)
        reach("migrate.before")
        try:
            deployed = prisma.migrate_deploy(
                site.connection.url(),
                cursor=session.cursor(),
                session=ServerSession(prisma_session_name(site), limits.lock_timeout_ms, limits.statement_timeout_ms),
                timeout=limits.timeout,
                keep_open=site.keep_open,
            )
        except PrismaError as error:
            if site.operation is not None and error.failure.started:
                # The operation restores the database itself; the user only has to fix the cause.
                error.hint = error.cause or None
            raise
        reach("migrate.after")
        after = read_state(session, prisma, site.connection.schema)
        if after.pending or after.failed:
            raise BackstopError(
                "Prisma ended with status 0 but the history is not complete",
                found="pending: %s; failed: %s"
                % (", ".join(after.pending) or "none", ", ".join(after.failed) or "none"),
            )
        if site.operation is not None:
            note_migrated(site.operation, session)
        rewritten = [t.full_name for t in catalog.tables(session) if before.get(t.full_name, t.filenode) != t.filenode]
        rows = history.read_rows(session.cursor(), site.connection.schema) or []
        ours = [row for row in rows if row.migration_name in state.pending and row.state == history.APPLIED]
        each = [{"name": row.migration_name, "seconds": row.seconds} for row in ours]
        migrated = Migrated(state.pending, round(deployed.seconds, 3), each, rewritten, attempt)
        facts.update(dataclasses.asdict(migrated))
    return migrated


def refuse_problems(state: history.MigrationState, expected: Optional[Sequence[str]]) -> None:
    problems = state.problems(expected)
    if problems:
        first = problems[0]
        raise Refused(
            first.message, found=", ".join(first.names), hint=first.hint, details={"kinds": [p.kind for p in problems]}
        )


def wind_up_predecessor(site: Site, session: Session) -> List[str]:
    """End the sessions that a killed run of this operation left on the server, and wait until Prisma's lock is free.

    The server rolls back the transaction of a terminated session; else it would continue and commit.

    :returns: the sessions that were ended
    :raises Locked: a migration of another program is running
    """
    ended: List[str] = []
    for other in server.other_sessions(session, site.database):
        if site.operation is not None and other.application == prisma_session_name(site)[:63]:
            ended.append(str(other))
    if ended:
        left = end_backends(session.cursor(), prisma_session_name(site), _WIND_UP_SECONDS)
        if left:
            raise Locked(
                "A migration of an interrupted run is still running on the server",
                found="backend %d: %s" % (left[0].pid, left[0].query[:100]),
                hint="wait for it to end, then run this again",
            )
    deadline = time.monotonic() + _WIND_UP_SECONDS
    while True:
        holders = lock_holders(session.cursor())
        if not holders:
            return ended
        if time.monotonic() > deadline:
            raise Locked(
                "Another Prisma is migrating this database",
                found="backend %d (%s, %s) holds Prisma's lock"
                % (holders[0].pid, holders[0].application_name, holders[0].user),
                hint="wait for it, or end it if its program is gone: SELECT pg_terminate_backend(%d)" % holders[0].pid,
            )
        session.execute("SELECT pg_sleep(0.1)")
