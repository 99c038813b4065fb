# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 1 with the real Prisma: a failed migration's leftovers are kept and removed; a killed run is finished."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import failpoints
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import backup_history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import (
    clean_failed_migration,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import (
    APPLIED,
    FAILED,
    ROLLED_BACK,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin, this_controller
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from support.interruptions import interrupted_at
from support.prisma_project import PrismaProject

pytestmark = pytest.mark.prisma

INIT, BAD = "20250101000000_init", "20250102000000_bad"
#: Its own COMMIT ends Prisma's transaction, so that the statements before its error stay.
LEAVES = """CREATE TABLE "B" (id int PRIMARY KEY); INSERT INTO "B" VALUES (1), (2);
ALTER TABLE "A" ADD extra text; UPDATE "A" SET extra = 'x' WHERE id = 7; COMMIT; SELECT 1/0;"""
#: Where it can be killed; test_the_list_is_whole compares the list with real runs.
FAILPOINTS = [
    "step.clean.began",
    "clean.kept",
    "clean.before-commit",
    "clean.committed",
    "step.clean.acted",
    "step.clean.done",
    "step.resolve.began",
    "resolve.one",
    "step.resolve.acted",
    "step.resolve.done",
]


#: The migration of ET-100, on a table of this test.
RECEIPTS = """CREATE TABLE "ReceiptData" (id int PRIMARY KEY, "purchaseId" int UNIQUE REFERENCES "A");"""
#: Fails on the live database only, after its own COMMIT: the rehearsal on a copy finds nothing.
HALF = """CREATE TABLE "Half" (id int PRIMARY KEY); COMMIT;
SELECT 1 / (CASE WHEN current_database() LIKE 'backstop%' THEN 1 ELSE 0 END);"""
SECOND, THIRD, FOURTH = "20250102000000_second", "20250103000000_third", "20250104000000_fourth"


class Failed:
    """A database in which a migration failed, its backup from before, and the rollback."""

    def __init__(self, cluster, database, folder, migrations=None, before=None) -> None:
        self.database = database
        self.project = PrismaProject.create(folder / "release", {INIT: 'CREATE TABLE "A" (id int PRIMARY KEY);'})
        with database.session() as cursor:
            self.project.prisma().migrate_deploy(database.url, cursor=cursor)
        database.execute('INSERT INTO "A" VALUES (7), (8)')
        if before is not None:
            before(self)
        connection = Settings.from_url(database.url)
        site = Site(
            connection, connection.with_database("postgres"), Store(str(folder / "store")), str(cluster.bin_dir)
        )
        self.place = make_backup(site, "pre-migration")
        for name, sql in (migrations or {BAD: LEAVES}).items():
            self.project.add(name, sql)
        self.deploy_fails()
        request = {"scenario": "failed_migration"}
        operation, _adopted = begin(site.store, "rollback", site.database, request, this_controller())
        self.site = site.run(operation)

    def deploy(self):
        with self.database.session() as cursor:
            self.project.prisma().migrate_deploy(self.database.url, cursor=cursor)

    def deploy_fails(self):
        with pytest.raises(PrismaError):
            self.deploy()

    def states(self):
        return [(row.migration_name, row.state) for row in self.database.rows()]

    def clean(self):
        return clean_failed_migration(self.site, self.place, self.project.prisma(), LossPolicy())

    def killed(self, failpoint, log=None):
        """Run clean() in a process that is killed at a failpoint; its exit status."""

        def work():
            os.environ["BACKSTOP_FAILPOINT"] = failpoint
            if log:
                os.environ["BACKSTOP_FAILPOINT_LOG"] = str(log)
            failpoints._counts.clear()
            self.clean()
            os._exit(0)

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(60)
        return process.exitcode

    def is_as_before(self):
        with self.site.connect() as session:
            assert definitions.definitions(session) == load(self.place).definitions
            before = backup_history(self.place)
            assert history.history_differences(before, history.read_rows(session.cursor())) == []

    def kept(self):
        return {
            path.name: path.read_text("utf-8")
            for path in pathlib.Path(self.site.operation.file("lost-rows")).glob("*.copy")
        }


@pytest.fixture
def failed(cluster, database, tmp_path):
    return Failed(cluster, database, tmp_path)


def test_what_it_left_goes_and_is_kept(failed):
    """Rows of the new table and values of the new column are in files with the command that restores them."""
    result = failed.clean()
    assert (result.changed, result.outcome, result.kept_rows) == (True, "dropped", 3)
    assert result.resolved == [BAD] and failed.states() == [(INIT, APPLIED), (BAD, ROLLED_BACK)]
    failed.is_as_before()
    assert failed.kept() == {"public.B.copy": "1\n2\n", "public.A.copy": "7\tx\n"}
    again = failed.clean()
    assert (again.changed, again.outcome) == (False, "clean")


def test_ctrl_c(failed):
    with interrupted_at("clean.before-commit"):
        failed.clean()
    assert (BAD, "failed") in failed.states()
    failed.clean()
    failed.is_as_before()


@pytest.mark.parametrize("failpoint", ["clean.before-commit", "clean.committed", "step.clean.done", "resolve.one"])
def test_killed_anywhere_the_next_run_finishes(failed, failpoint):
    assert failed.killed(failpoint) == -signal.SIGKILL
    failed.clean()
    failed.is_as_before()
    assert len(failed.kept()) == 2
    assert failed.clean().changed is False


def test_the_list_is_whole(failed, tmp_path):
    assert failed.killed("none", tmp_path / "log") == 0
    assert (tmp_path / "log").read_text().split() == FAILPOINTS


# More than one pending migration


def failed_twice_before(failed):
    """An attempt of the second migration that failed and was resolved, before the backup."""
    failed.project.add(SECOND, "SELECT 1/0;")
    failed.deploy_fails()
    with failed.database.session() as cursor:
        failed.project.prisma().migrate_resolve(failed.database.url, cursor=cursor, rolled_back=SECOND)


def test_those_before_the_failed_one_go_too(cluster, database, tmp_path):
    """Once the first one's table was dropped but its row stayed: the next deploy succeeded, the application failed."""
    failed = Failed(cluster, database, tmp_path, {SECOND: RECEIPTS, THIRD: HALF, FOURTH: RECEIPTS}, failed_twice_before)
    assert failed.states()[-2:] == [(SECOND, APPLIED), (THIRD, FAILED)]
    # Objects and history are removed in one transaction; after a kill right behind it, the next run does the rest.
    assert failed.killed("clean.committed") == -signal.SIGKILL
    assert failed.states()[-1] == (THIRD, FAILED) and not database.has("Half") and not database.has("ReceiptData")
    assert failed.clean().resolved == [THIRD]
    failed.is_as_before()
    assert failed.clean().changed is False
    failed.project.remove(THIRD)
    failed.project.remove(FOURTH)
    failed.deploy()
    assert database.has("ReceiptData") and failed.states()[-1] == (SECOND, APPLIED)


def test_cut_off_between_two_of_them(cluster, database, tmp_path):
    """No migration is marked as failed; the first one is reverted all the same."""
    failed = Failed(cluster, database, tmp_path, {SECOND: RECEIPTS, THIRD: "SELECT 1/0;"})
    database.execute("DELETE FROM _prisma_migrations WHERE migration_name = '%s'" % THIRD)
    result = failed.clean()
    assert (result.outcome, result.taken_out, result.resolved) == ("dropped", [SECOND], [])
    failed.is_as_before()


def test_one_that_was_resolved_by_hand_goes_too(cluster, database, tmp_path):
    failed = Failed(cluster, database, tmp_path, {SECOND: RECEIPTS, THIRD: HALF})
    with database.session() as cursor:
        failed.project.prisma().migrate_resolve(database.url, cursor=cursor, applied=THIRD)
    failed.project.add(FOURTH, 'ALTER TABLE "Half" ADD COLUMN more int; COMMIT; SELECT 1/0;')
    failed.deploy_fails()
    result = failed.clean()
    assert (result.taken_out, result.resolved) == ([SECOND, THIRD], [FOURTH])
    failed.is_as_before()


def test_where_the_first_one_changed_rows_nothing_is_touched(cluster, database, tmp_path):
    failed = Failed(cluster, database, tmp_path, {SECOND: 'UPDATE "A" SET id = id + 10;', THIRD: HALF})
    before = failed.states()
    result = failed.clean()
    assert (result.changed, result.outcome) == (False, "restore_needed")
    assert result.reasons == ["table public.A has 2 rows with other contents"]
    assert failed.states() == before and database.has("Half")
