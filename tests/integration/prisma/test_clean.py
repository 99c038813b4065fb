# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 1 with the real Prisma: what a failed migration left goes and is kept; killed anywhere, it finishes."""
from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pathlib
import signal

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import failpoints
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import ROLLED_BACK
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.backups.backup import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.context import Context
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.lifecycle import begin, this_controller
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.migrations.leftovers import (
    clean_failed_migration,
)
from support.prisma_project import PrismaProject

pytestmark = pytest.mark.prisma

INIT, BAD = "20250101000000_init", "20250102000000_bad"
#: It ends Prisma's transaction by itself, so that what came before its error stays.
LEAVES = """CREATE TABLE "B" (id int PRIMARY KEY); INSERT INTO "B" VALUES (1), (2);
ALTER TABLE "A" ADD extra text; UPDATE "A" SET extra = 'x' WHERE id = 7; COMMIT; SELECT 1/0;"""
#: Where it can be killed; test_the_list_is_whole holds it to the truth.
FAILPOINTS = [
    "step.clean.began", "clean.kept", "clean.before-commit", "clean.committed", "step.clean.acted", "step.clean.done",
    "step.resolve.began", "resolve.one", "step.resolve.acted", "step.resolve.done",
]


class Failed:
    """A database in which a migration failed, its backup from before, and the rollback."""

    def __init__(self, cluster, database, folder) -> None:
        self.database = database
        self.project = PrismaProject.create(folder / "release", {INIT: 'CREATE TABLE "A" (id int PRIMARY KEY);'})
        with database.session() as cursor:
            self.project.prisma().migrate_deploy(database.url, cursor=cursor)
        database.execute('INSERT INTO "A" VALUES (7), (8)')
        connection = Settings.from_url(database.url)
        context = Context(
            connection, connection.with_database("postgres"), Store(str(folder / "store")), str(cluster.bin_dir)
        )
        self.place = make_backup(context, "pre-migration")
        self.project.add(BAD, LEAVES)
        with database.session() as cursor, pytest.raises(PrismaError):
            self.project.prisma().migrate_deploy(database.url, cursor=cursor)
        request = {"scenario": "failed_migration"}
        operation, _adopted = begin(context.store, "rollback", context.database, request, this_controller())
        self.context = dataclasses.replace(context, operation=operation, keep_open=[])

    def clean(self):
        return clean_failed_migration(self.context, self.place, self.project.prisma())

    def killed(self, failpoint, log=None):
        """clean() in a process that is killed at a failpoint; its exit status."""

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
        with self.context.connect() as session:
            assert definitions.definitions(session) == load(self.place)["definitions"]
        states = [(row.migration_name, row.state) for row in self.database.rows()]
        assert states[-1] == (BAD, ROLLED_BACK) and len(states) == 2

    def kept(self):
        return {path.name: path.read_text("utf-8")
                for path in pathlib.Path(self.context.operation.file("lost-rows")).glob("*.copy")}


@pytest.fixture
def failed(cluster, database, tmp_path):
    return Failed(cluster, database, tmp_path)


def test_what_it_left_goes_and_is_kept(failed):
    """Rows of the new table and values of the new column are in files with the command that puts them back."""
    result = failed.clean()
    assert (result["changed"], result["outcome"], result["kept_rows"]) == (True, "dropped", 3)
    assert result["resolved"] == [BAD]
    failed.is_as_before()
    assert failed.kept() == {"public.B.copy": "1\n2\n", "public.A.copy": "7\tx\n"}
    again = failed.clean()
    assert (again["changed"], again["outcome"]) == (False, "clean")


@pytest.mark.parametrize("failpoint", ["clean.before-commit", "clean.committed", "step.clean.done", "resolve.one"])
def test_killed_anywhere_the_next_run_finishes(failed, failpoint):
    assert failed.killed(failpoint) == -signal.SIGKILL
    failed.clean()
    failed.is_as_before()
    assert len(failed.kept()) == 2
    assert failed.clean()["changed"] is False


def test_the_list_is_whole(failed, tmp_path):
    assert failed.killed("none", tmp_path / "log") == 0
    assert (tmp_path / "log").read_text().split() == FAILPOINTS
