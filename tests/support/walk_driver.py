# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out one action of a random walk as the playbooks do; the walk kills it at a failpoint and starts it again.

python -m support.walk_driver deploy|back|backup|prune|settle ACTION.json
"""

from __future__ import annotations

import sys
import types
import uuid
from typing import Any, Dict, List

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.failpoints import reach
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.change import change_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits, read_state
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Deployed, ServerSession
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import Failure, PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import MIGRATION_LOCK
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Run, Site, journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin, this_controller
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import open_operations
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import STARTED, STOP
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.proofs import prove
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import (
    apply,
    drop_left,
    facts_of,
    prepare,
    settle,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs
from support.forks import drive

LOCK_TIMEOUT_MS = 5000


class SqlPrisma:
    """Runs migrations and writes their history as Prisma 6 does, without starting Node.js for each."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.project = types.SimpleNamespace(migrations=lambda: folder)

    def migrate_deploy(self, url: str, *, cursor: Any, session: ServerSession, **_others: Any) -> Deployed:
        state = history.compare(history.read_folder(self.folder), history.read_rows(cursor))
        connection = psycopg2.connect(url.split("?")[0], application_name=session.name[:63])
        connection.autocommit = True
        try:
            with connection.cursor() as ours:
                ours.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
                for file in history.read_folder(self.folder):
                    if file.name in state.pending:
                        self._apply(ours, file)
        finally:
            connection.close()
        return Deployed(list(state.pending), 0.0, "")

    def _apply(self, cursor: Any, file: history.MigrationFile) -> None:
        row = str(uuid.uuid4())
        cursor.execute(
            "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)",
            (row, file.checksum, file.name),
        )
        reach("walk.began")
        try:
            with open("%s/%s/migration.sql" % (self.folder, file.name), encoding="utf-8") as stream:
                cursor.execute(stream.read())
        except psycopg2.Error as error:
            cursor.execute("UPDATE _prisma_migrations SET logs = %s WHERE id = %s", (str(error), row))
            raise PrismaError(
                "A migration failed", Failure("P3018", file.name, started=[file.name]), found=str(error)
            ) from error
        reach("walk.applied")
        cursor.execute(
            "UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = %s", (row,)
        )

    def migrate_resolve(self, _url: str, *, cursor: Any, rolled_back: str, **_others: Any) -> None:
        cursor.execute(
            "UPDATE public._prisma_migrations SET rolled_back_at = now()"
            " WHERE migration_name = %s AND finished_at IS NULL",
            (rolled_back,),
        )


class Driver:
    def __init__(self, given: Dict[str, Any]) -> None:
        connection = Settings.from_url(given["url"])
        store = Store(given["store"])
        self.given = given
        self.site = Site(connection, connection.with_database("postgres"), store, given["client_bin_dir"])
        self.prisma = SqlPrisma(given["migrations"])
        self.programs = Programs(prisma=lambda: self.prisma, down_sql=given.get("down_sql"), wait=5)

    def _begin(self, kind: str, request: Dict[str, Any]) -> Run:
        operation, _adopted = begin(self.site.store, kind, self.site.database, request, this_controller())
        return self.site.run(operation)

    def _state(self) -> history.MigrationState:
        with self.site.connect() as session:
            return read_state(session, self.prisma, self.site.connection.schema)

    def deploy(self) -> Dict[str, Any]:
        """A deploy goes back by itself if a migration fails."""
        run = self._begin("deploy", {"migrations": self.given["expected"]})
        try:
            self._migrate(run)
        except PrismaError as error:
            return self._go_back(run, str(error))
        except BackstopError as error:
            if run.operation.last("migrate") is not None:
                raise
            run.operation.close("failed")
            drop_left(run)
            return {"operation": run.operation.id, "outcome": "stopped", "why": str(error)}
        run.operation.close("done")
        return {"operation": run.operation.id, "outcome": "done"}

    def _migrate(self, run: Run) -> None:
        operation, state = run.operation, self._state()
        limits = Limits(self.given["expected"], LOCK_TIMEOUT_MS)
        if state.failed:
            raise PrismaError("An interrupted run's migration is marked as failed", found=", ".join(state.failed))
        if state.pending and not operation.done(STOP):
            operation.write("gates", "done")
            if not operation.done("backup"):
                with journaled_step(run, "backup") as facts:
                    facts["backup"] = make_backup(run, "pre-migration").backup_id
            prove(run, self.prisma, limits)  # type: ignore[arg-type]
            operation.write(STOP, "done")
        change_database(run, self.prisma, limits, wait_seconds=5)  # type: ignore[arg-type]
        operation.write(STARTED, "done")

    def _go_back(self, run: Run, why: str) -> Dict[str, Any]:
        way, outcome = apply(run, self.programs, Consent())
        run.operation.close("rolled_back")
        drop_left(run)
        return {
            **facts_of(way, outcome),
            "operation": run.operation.id,
            "outcome": "rolled_back",
            "way": way.name,
            "why": why,
        }

    def back(self) -> Dict[str, Any]:
        """A rollback or an undo, as the user asked for it."""
        asked = Asked(**self.given["asked"])
        try:
            plan = plan_of(self.site, asked, runs=True)
            if not plan["needed"] and not plan["interrupted"]:
                return {"outcome": "nothing"}
            run = self._begin(plan["kind"], plan["request"])
        except Refused as error:
            return {"outcome": "refused", "why": str(error)}
        try:
            prepare(run, self.programs, asked.consent)
            way, outcome = apply(run, self.programs, asked.consent)
        except Refused as error:
            run.operation.close("failed")
            drop_left(run)
            return {"outcome": "refused", "why": str(error), "operation": run.operation.id}
        run.operation.close("done")
        drop_left(run)
        lost = run.operation.file("lost-rows")
        return {
            **facts_of(way, outcome),
            "outcome": "done",
            "operation": run.operation.id,
            "way": way.name,
            "lost": lost,
        }

    def backup(self) -> Dict[str, Any]:
        return {"outcome": "done", "backup": make_backup(self.site, "daily").backup_id}

    def settle(self) -> Dict[str, Any]:
        """What the server says of an interrupted operation."""
        found: List[Dict[str, Any]] = []
        for operation in open_operations(self.site.store, self.site.database):
            settled = settle(self.site.run(operation))
            found.append({"operation": operation.id, "state": settled.state, "way": settled.way})
        return {"outcome": "done", "settled": found}

    def prune(self) -> Dict[str, Any]:
        return {"outcome": "done", "pruned": prune(self.site, window_days=0, level="readable", dump=True)}


def main() -> int:
    return drive(lambda what, given: getattr(Driver(given), what)())


if __name__ == "__main__":
    sys.exit(main())
