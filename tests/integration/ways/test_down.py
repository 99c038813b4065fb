# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Down-SQL runs only after a proof and in one transaction; rows that it removes are counted and kept."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pathlib
import shlex
import signal
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop import site as site_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import failpoints
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import client_tools, definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import down_sql as down_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import (
    count_ahead,
    find_down_sql,
    rehearse_down,
    settle,
    take_out,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.databases import OWNER
from support.interruptions import interrupted_at
from support.module_runner import run_module

DOWN = 'DROP TABLE "ReceiptData"'
RECEIPT = """INSERT INTO "ReceiptData" ("id", "purchaseId", "totalAmountZWG", "transactionDateTime")
  VALUES ('r%d', 'p%06d', 1.5, '2025-11-08')"""
ROW = "INSERT INTO _prisma_migrations VALUES ('m2', 'c', '2025-11-08', '20251108000000_x', NULL, NULL, '2025-11-08', 1)"
#: Where a drop can be killed; the next run always finishes it. test_the_list_is_whole compares the list with real runs.
FAILPOINTS = [
    "step.down.began",
    "down.fenced",
    "down.counted",
    "down.ran",
    "down.before-commit",
    "down.committed",
    "step.down.acted",
    "step.down.done",
]


class Drop:
    """A migrated database, its backup from before, and a rollback that reverts the migration."""

    def __init__(self, live, up=None):
        self.live, self.before = live, live.backup()
        if up is None:
            live.run("receipts.sql")
        else:
            with live.session(user=OWNER) as cursor:
                cursor.execute(up)
                cursor.execute(ROW)

    def proof(self, sql, now=None, dead=False):
        now = now or self.live.backup("emergency")
        request = {"scenario": "application_errors", "method": "drop", "backup": self.before.backup_id}
        self.site = self.live.begun("rollback", request, dead=dead)
        self.site.operation.write("emergency_backup", "done", backup=now.backup_id)
        return rehearse_down(self.site, self.before, now, given=sql)

    def scratch(self):
        return [name for name in self.live.names() if name.startswith("backstop_scratch_")]

    def proved(self, sql=DOWN, dead=False):
        facts = self.proof(sql, dead=dead)
        assert facts.proved, facts.reasons
        assert not self.scratch()
        return self.site

    def refused(self, sql, words, now=None):
        facts = self.proof(sql, now)
        assert not facts.proved and not self.scratch()
        for word in words:
            assert word in "; ".join(facts.reasons), facts.reasons
        with pytest.raises(Refused, match="was not proved"):
            take_out(self.site, LossPolicy(10**9))

    def is_as_before(self):
        with self.live.site.connect() as session:
            history = "public._prisma_migrations"
            assert compare_tables(session, load(self.before), besides=[history]).tables == []
            assert definitions.definitions(session) == load(self.before).definitions
        assert self.live.rows("SELECT id FROM _prisma_migrations") == [("m1",)]


@pytest.fixture
def drop(plain):
    return Drop(plain)


def put_back(live, site):
    """Run the commands of the kept README."""
    text = pathlib.Path(site.operation.file("lost-rows"), "README.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("psql ")]
    assert lines
    for program, *arguments in map(shlex.split, lines):
        argv = [str(live.cluster.bin_dir / program), *arguments]
        subprocess.run(argv, env=live.cluster.environment(live.name, OWNER), check=True, stdout=subprocess.DEVNULL)


def test_a_migration_is_taken_out(drop):
    site = drop.proved()
    result = take_out(site, LossPolicy(0))
    assert result.changed and result.lost_rows == 0 and result.differences == []
    assert result.migrations == ["20251108000000_add_receipt_data"]
    assert result.dropped_tables == ["public.ReceiptData"]
    drop.is_as_before()
    assert take_out(site, LossPolicy(0)).changed is False
    with pytest.raises(Refused, match="Deploy the fixed release.*rollback_backup=" + result.backup):
        plan_undo(drop.live.site, site.operation.id)


def test_the_server_restarts_before_the_commit(drop, monkeypatch):
    site = drop.proved()
    left = ["down.before-commit"]

    def reach(place):
        if place in left:
            left.remove(place)
            drop.live.cluster.stop("fast")
            drop.live.cluster.start()

    monkeypatch.setattr(down_module, "reach", reach)
    assert take_out(site, LossPolicy(0)).changed and not left
    drop.is_as_before()


def test_lost_rows_are_counted_and_kept(drop):
    """Above the accepted number it refuses; lost rows can be restored once the migration was applied again."""
    for number in (1, 2, 3):
        drop.live.execute(RECEIPT % (number, number))
    content = drop.live.rows('SELECT * FROM "ReceiptData" ORDER BY 1')
    site = drop.proved()
    with pytest.raises(Refused, match=r"3 rows would be lost.*public.ReceiptData: 3 inserted .the table is dropped"):
        take_out(site, LossPolicy(2))
    assert drop.live.rows('SELECT * FROM "ReceiptData" ORDER BY 1') == content
    assert drop.live.value("SELECT count(*) FROM _prisma_migrations") == 2
    assert take_out(site, LossPolicy(3)).lost_rows == 3
    drop.is_as_before()
    drop.live.run("receipts.sql")
    put_back(drop.live, site)
    assert drop.live.rows('SELECT * FROM "ReceiptData" ORDER BY 1') == content


def test_a_loss_is_refused_before_the_application_stops(drop, tmp_path):
    """The preparing module counts while the application runs and changes nothing, not even the journal."""
    for number in (1, 2):
        drop.live.execute(RECEIPT % (number, number))
    site = drop.proved(dead=True)
    cluster, files = drop.live.cluster, sorted(os.walk(drop.live.store.root))
    rows = drop.live.rows('SELECT xmin::text, * FROM "ReceiptData" ORDER BY 2')
    arguments = {
        "connection": {"url": cluster.url(drop.live.name, user=OWNER)},
        "store": drop.live.store.root,
        "client_bin_dir": str(cluster.bin_dir),
        "operation": site.operation.id,
        "accept_lost_rows": 1,
    }
    refused = run_module(tmp_path, "rollback_prepare", arguments)
    assert refused.failed and "2 rows would be lost" in refused.result["msg"], refused.printed
    assert "public.ReceiptData: 2 inserted" in refused.result["msg"]
    assert count_ahead(site, LossPolicy(2)).changed is False
    assert drop.live.rows('SELECT xmin::text, * FROM "ReceiptData" ORDER BY 2') == rows
    assert sorted(os.walk(drop.live.store.root)) == files and site.operation.last("down") is None


def test_values_of_a_column(plain):
    """Only values written into the column since count; they are restored into the rows that still exist."""
    drop = Drop(plain, """ALTER TABLE "UserContribution" ADD "paid by" text DEFAULT 'cash'""")
    plain.execute("""UPDATE "UserContribution" SET "paid by" = 'card' WHERE "id" IN ('c1', 'c2')""")
    site = drop.proved('ALTER TABLE "UserContribution" DROP "paid by"')
    result = take_out(site, LossPolicy(2))
    assert result.lost_rows == 2 and result.dropped_columns == ["public.UserContribution.paid by"]
    drop.is_as_before()
    plain.execute("""UPDATE "UserContribution" SET "contributionAmount" = 99 WHERE "id" = 'c1';
        DELETE FROM "UserContribution" WHERE "id" = 'c2'; ALTER TABLE "UserContribution" ADD "paid by" text""")
    put_back(plain, site)
    found = """SELECT "id", "contributionAmount" FROM "UserContribution" WHERE "paid by" = 'card'"""
    assert plain.rows(found) == [("c1", 99)]
    assert plain.value('SELECT count(*) FROM "UserContribution"') == 399


def test_names_with_quotes(plain):
    drop = Drop(
        plain,
        """CREATE SCHEMA "o'dd ""s"; CREATE TABLE "o'dd ""s"."t%s '""x/y" ("i""d %s" int PRIMARY KEY);
        INSERT INTO "o'dd ""s"."t%s '""x/y" VALUES (1), (2)""",
    )
    site = drop.proved("""DROP TABLE "o'dd ""s"."t%s '""x/y"; DROP SCHEMA "o'dd ""s";""")
    assert take_out(site, LossPolicy(2)).lost_rows == 2
    drop.is_as_before()


def test_beside_objects_of_every_kind(realistic):
    """Other objects are neither reported as differences nor changed."""
    drop = Drop(
        realistic,
        """CREATE TABLE "ReceiptData" (id int PRIMARY KEY); CREATE TYPE "Kind" AS ENUM ('x');
        INSERT INTO "ReceiptData" VALUES (1)""",
    )
    assert take_out(drop.proved('DROP TABLE "ReceiptData"; DROP TYPE "Kind"'), LossPolicy(1)).lost_rows == 1
    drop.is_as_before()


def test_unqualified_names_are_of_prismas_schema(databases):
    live = databases.make("odd")
    with live.session(user=OWNER) as cursor:
        cursor.execute("""CREATE SCHEMA "App%s"; CREATE TABLE "App%s"._prisma_migrations
            (LIKE public._prisma_migrations INCLUDING ALL)""")
    live.site = dataclasses.replace(live.site, connection=dataclasses.replace(live.site.connection, schema="App%s"))
    drop = Drop(live, """SET search_path TO "App%s"; CREATE TABLE "ReceiptData" (id int)""")
    take_out(drop.proved(), LossPolicy(0))
    assert live.value("""SELECT count(*) FROM "App%s"._prisma_migrations""") == 0
    assert live.value("""SELECT to_regclass('"App%s"."ReceiptData"')""") is None


@pytest.fixture(scope="module")
def migrated(shared_databases):
    """For tests that do not change the live database."""
    drop = Drop(shared_databases.make("migrated"))
    return drop, drop.live.backup("emergency")


@pytest.mark.parametrize(
    "sql, words",
    [
        (DOWN + """; UPDATE "User" SET "name" = 'x' WHERE "id" = 'u1'""", ["rows of table public.User would change"]),
        (DOWN + """; DELETE FROM "UserContribution" WHERE "id" = 'c1'""", ["public.UserContribution would change"]),
        (DOWN + '; DROP TABLE "UserContribution"', ["public.UserContribution would change", "would be missing"]),
        (DOWN + '; ALTER TABLE "User" DROP "name"', ["public.User would change", "would have the columns"]),
        (DOWN + "; CREATE TABLE extra (a int)", ["table public.extra would be left"]),
        (DOWN + '; DROP INDEX "TokenPurchase_purchaseDate_idx"', ["TokenPurchase_purchaseDate_idx is missing"]),
        (DOWN + "; DELETE FROM _prisma_migrations", ["history of migrations has changed"]),
        (DOWN + "; SELECT lo_from_bytea(0, 'x')", ["of large objects would change"]),
        ("-- nothing", ["table public.ReceiptData would be left"]),
        ("", ["There is no down-SQL"]),
        ('DROP TABLE "NoSuchTable"', ["The down-SQL failed", "NoSuchTable"]),
        ('DROP TABLE "ReceiptData', ["The down-SQL failed", "unterminated"]),
        (DOWN + ";\ncommit", ["line 2: commit"]),
        (DOWN + "; COMMIT; BEGIN", ["cannot run in one transaction"]),
        (DOWN + "; DO $$ BEGIN COMMIT; END $$", ["The down-SQL failed", "invalid transaction termination"]),
        (DOWN + '; DROP INDEX CONCURRENTLY "User_email_key"', ["cannot run in one transaction"]),
        (DOWN + "; DROP ROLE shop_app", ["changes the whole server"]),
    ],
)
def test_what_is_not_proved(migrated, sql, words):
    drop, now = migrated
    drop.refused(sql, words, now)
    drop.site.operation.close("failed")
    with drop.live.site.connect() as session:
        assert compare_tables(session, load(now)).tables == []


def test_settings_of_the_sql_do_not_blind_the_proof(drop):
    site = drop.proved(DOWN + "; SET extra_float_digits = -15; SET search_path = public; SET row_security = on")
    assert take_out(site, LossPolicy(0)).changed
    drop.is_as_before()


@pytest.mark.parametrize(
    "up, down, words",
    [
        (
            'ALTER TABLE "User" DROP "name"',
            'ALTER TABLE "User" ADD "name" text',
            ["removed something", "columns of public.User: name", "no SQL"],
        ),
        ('DROP TABLE "UserContribution"', "SELECT 1", ["removed something", "table public.UserContribution"]),
        (
            'ALTER TABLE "User" RENAME "name" TO "n"',
            'ALTER TABLE "User" RENAME "n" TO "name"',
            [
                "removed or renamed something",
                "public.User: name",
                "cannot be distinguished from drop and create: restore",
            ],
        ),
        (
            'ALTER TABLE "User" RENAME TO "Person"',
            'ALTER TABLE "Person" RENAME TO "User"',
            [
                "removed or renamed something",
                "table public.User",
                "cannot be distinguished from drop and create: restore",
            ],
        ),
    ],
)
def test_what_only_the_backup_has_no_sql_brings_back(plain, up, down, words):
    Drop(plain, up).refused(down, ["only the backup has", *words])


def test_what_only_pg_dump_sees_is_seen(plain):
    """A comparison by our own queries would accept such down-SQL."""
    with plain.session(user=OWNER) as cursor:
        cursor.execute(
            "CREATE PUBLICATION p FOR TABLE \"User\" WHERE (id <> 'x');"
            " CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple)"
        )
    up = (
        'ALTER PUBLICATION p SET TABLE "User"; ALTER TEXT SEARCH CONFIGURATION mine DROP MAPPING FOR url;'
        ' ALTER TABLE "User" ALTER "name" SET COMPRESSION pglz, ALTER "email" SET STATISTICS 9'
    )
    words = ["publication table public.p User", "configuration public.mine", "SET COMPRESSION pglz", "SET STATISTICS 9"]
    Drop(plain, up).refused("SELECT 1", words)


def test_on_the_copy_of_a_rehearsal(plain):
    """A deploy proves the down-SQL on the database on which it rehearsed the migration, and keeps that database."""
    drop = Drop.__new__(Drop)
    drop.live, drop.before = plain, plain.backup()
    run = plain.begun("deploy", {"commit": "new"})
    name = verify(run, drop.before, "restored", keep=True).database
    elsewhere = dataclasses.replace(run, connection=run.connection.with_database(name))
    dataclasses.replace(plain, site=elsewhere).run("receipts.sql")
    facts = rehearse_down(run, drop.before, scratch=name, given=DOWN)
    assert facts.proved and facts.dropped_tables == ["public.ReceiptData"], facts
    assert name in plain.names()
    plain.run("receipts.sql")
    with pytest.raises(Refused, match="no backup of the database as it is"):
        take_out(run, LossPolicy(0))
    run.operation.write("emergency_backup", "done", backup=plain.backup("emergency").backup_id)
    assert take_out(run, LossPolicy(0)).changed
    drop.is_as_before()
    assert not rehearse_down(run, drop.before, scratch=plain.name, given=DOWN).proved


def test_values_that_could_not_be_put_back(plain):
    plain.execute("CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (1); ALTER TABLE keyless OWNER TO " + OWNER)
    drop = Drop(plain, "ALTER TABLE keyless ADD b int")
    plain.execute("UPDATE keyless SET b = 2")
    drop.refused("ALTER TABLE keyless DROP b", ["no key by which its rows are known; 1 rows hold a value in b"])
    assert plain.value("SELECT b FROM keyless") == 2


def test_rows_written_since_the_emergency_backup(drop):
    site = drop.proved()
    drop.live.execute(RECEIPT % (1, 1))
    with pytest.raises(Refused, match="Rows were written since the emergency backup.*public.ReceiptData has 1 rows"):
        take_out(site, LossPolicy(100))
    assert drop.live.value('SELECT count(*) FROM "ReceiptData"') == 1


def test_an_object_that_came_after_the_proof(drop):
    site = drop.proved()
    drop.live.execute('CREATE INDEX late ON "User" ("name")')
    with pytest.raises(BackstopError, match="index public.late would be added"):
        take_out(site, LossPolicy(0))
    assert drop.live.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")


@pytest.mark.parametrize("killed", [False, True])
def test_a_change_beside_the_migration_that_only_pg_dump_sees(drop, killed):
    """It is found after the COMMIT: the migration is reverted, the operation ends, and the difference is reported."""
    site = drop.proved()
    drop.live.execute('ALTER TABLE "User" ALTER "email" SET STATISTICS 9')
    if killed:
        assert run_killed(site, "down.committed") == -signal.SIGKILL
        assert settle(site).changed is True
    result = take_out(site, LossPolicy(0))
    assert result.changed is not killed and result.migrations == ["20251108000000_add_receipt_data"]
    (told,) = result.differences
    assert "public.User is changed" in told and "SET STATISTICS 9" in told
    assert take_out(site, LossPolicy(0)).differences == [told]
    drop.is_as_before()


@pytest.mark.parametrize("failpoint", ["down.ran", "down.committed"])
def test_ctrl_c(drop, failpoint):
    site = drop.proved()
    with interrupted_at(failpoint):
        take_out(site, LossPolicy(0))
    assert take_out(site, LossPolicy(0)).changed is (failpoint == "down.ran")
    drop.is_as_before()


def test_a_comparison_that_fails_after_the_commit(drop, monkeypatch):
    """The change is neither reported as a failure nor as unchanged."""
    site = drop.proved()
    find = client_tools.find_client_tools

    def reach(place):
        if place == "down.committed":
            monkeypatch.setattr(site_module, "find_client_tools", lambda major, _folder: find(major, "/nowhere"))

    monkeypatch.setattr(down_module, "reach", reach)
    result = take_out(site, LossPolicy(0))
    assert result.changed and "could not be compared: " in result.differences[0]
    drop.is_as_before()


def test_a_failed_migration_is_another_scenario(drop):
    drop.live.execute("UPDATE _prisma_migrations SET finished_at = NULL WHERE id = 'm2'")
    with pytest.raises(Refused, match="A migration is marked as failed.*rollback_failed_migration"):
        drop.proof(DOWN)


def test_a_reader_that_does_not_go(drop, monkeypatch):
    """The lock timeout ends the attempt, and nothing is changed."""
    monkeypatch.setattr(down_module, "_LOCK_TIMEOUT", "300ms")
    site = drop.proved()
    with drop.live.session() as cursor:
        cursor.execute('BEGIN; SELECT * FROM "ReceiptData"')
        with pytest.raises(Refused, match="lock"):
            take_out(site, LossPolicy(0))
        cursor.execute("ROLLBACK")
    assert take_out(site, LossPolicy(0)).changed
    drop.is_as_before()


def run_killed(site, failpoint, log=None):
    """Run take_out() in a process that is killed at a failpoint; its exit status."""

    def work():
        os.environ["BACKSTOP_FAILPOINT"] = failpoint
        if log:
            os.environ["BACKSTOP_FAILPOINT_LOG"] = str(log)
        failpoints._counts.clear()
        take_out(site, LossPolicy(1))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_anywhere_the_next_run_finishes(drop, failpoint):
    drop.live.execute(RECEIPT % (1, 1))
    site = drop.proved()
    assert run_killed(site, failpoint) == -signal.SIGKILL
    result = take_out(site, LossPolicy(1))
    assert result.lost_rows == 1 and result.dropped_tables == ["public.ReceiptData"]
    drop.is_as_before()
    assert take_out(site, LossPolicy(1)).changed is False
    assert [loss["file"] for loss in result.losses] and os.path.isfile(result.losses[0]["file"])


def test_what_was_not_journalled_is_found(drop):
    """After a failure the playbook queries the database: a process may have been killed right after its COMMIT."""
    site = drop.proved()
    assert settle(site) is None
    assert run_killed(site, "down.before-commit") == -signal.SIGKILL
    assert settle(site) is None
    assert run_killed(site, "down.committed") == -signal.SIGKILL
    assert settle(site).changed is True
    assert site.operation.facts("down")["backup"] == site.operation.facts("emergency_backup")["backup"]
    assert settle(site).changed is False


def test_a_deploy_that_was_cut_off_after_it_took_the_migration_out(plain):
    """The database shows that the migration was reverted; the command in the refusal finishes the rollback."""
    drop = Drop.__new__(Drop)
    drop.live, drop.before = plain, plain.backup()
    run = plain.begun("deploy", {"commit": "new"})
    run.operation.write("stop", "done")
    plain.run("receipts.sql")
    now = plain.backup("emergency")
    run.operation.write("emergency_backup", "done", backup=now.backup_id)
    assert rehearse_down(run, drop.before, now, given=DOWN).proved
    assert run_killed(run, "down.committed") == -signal.SIGKILL
    # The run that adopts it checks the database, as the role does before it continues: tests/unit/roles/test_said.py.
    again = plain.begun("deploy", {"commit": "new"})
    assert again.operation.id == run.operation.id and settle(again)
    drop.is_as_before()
    plan = plan_revert(plain.site, None)
    assert plan["needed"] and plan["backup"] == drop.before.backup_id and not plan["history_differences"]
    back = plain.begun("rollback", {"scenario": "complete", "backup": plan["backup"]})
    assert Operation.load(plain.store, run.operation.id).outcome == "abandoned"
    build_successor(back, drop.before)
    assert revert(back, drop.before, LossPolicy(0)).lost_rows == 0
    drop.is_as_before()


def test_the_list_is_whole(drop, tmp_path):
    assert run_killed(drop.proved(), "none", tmp_path / "log") == 0
    assert (tmp_path / "log").read_text().split() == FAILPOINTS


def test_where_the_sql_comes_from(tmp_path):
    (tmp_path / "down.sql").write_text("SELECT 1", "utf-8")
    assert find_down_sql(["a"], given="SELECT 2").source == "given"
    assert find_down_sql(["a"], file=str(tmp_path / "down.sql")).text == "SELECT 1"
    with pytest.raises(Refused, match="no down-SQL"):
        find_down_sql(["a"])
    with pytest.raises(BackstopError, match="cannot be read"):
        find_down_sql(["a"], file=str(tmp_path / "none.sql"))
    (tmp_path / "bad.sql").write_bytes(b"\xff")
    with pytest.raises(Refused, match="not UTF-8"):
        find_down_sql(["a"], file=str(tmp_path / "bad.sql"))
