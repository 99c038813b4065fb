# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollbacks and undos on a host without Ansible; also begun by playbook and finished by the command, and vice versa."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import Beginning, begin
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    open_operations,
    operations_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import STOP
from support.databases import OWNER, PASSWORD
from support.module_runner import run_module
from support.pgbouncer import ADMIN, ADMIN_PASSWORD, pgbouncer
from support.prisma_project import PrismaProject

OK, FAILED, USAGE = range(3)
STOPPED = "--application-stopped"
FIRST, RECEIPTS = "20251001000000_init", "20251108000000_add_receipt_data"
#: A controller process from before the last reboot.
DEAD = {"host": socket.gethostname(), "boot_id": "another", "pid": 1, "start": "1"}


def write_rows(live):
    live.execute("""
        CREATE TEMPORARY TABLE late AS SELECT u.*, n FROM "User" u, generate_series(1, 3) n WHERE u.id = 'u1';
        UPDATE late SET id = 'late-' || n, email = 'late-' || n; ALTER TABLE late DROP COLUMN n;
        INSERT INTO "User" SELECT * FROM late""")


@pytest.fixture
def backed_up(backstop):
    """A backup, and three rows that were written since."""
    backstop.before = backstop.live.backup(commit="a" * 40)
    write_rows(backstop.live)
    return backstop


def users(backstop):
    return backstop.live.value("SELECT count(*) FROM \"User\" WHERE id LIKE 'late-%'")


def test_a_rollback_and_its_undo(backed_up):
    """Shown, refused, done, found done, undone."""
    asked = backed_up("plan", "shop", "--scenario", "complete", "--json")
    assert asked.status == OK and {loss["table"]: loss["inserted"] for loss in asked.json["losses"]}["public.User"] == 3
    names = backed_up.live.names()
    checked = backed_up("rollback", "shop", "--check")
    assert checked.status == OK and "refused unless --accept-lost-rows N allows it" in checked.stdout
    assert "backstop rollback shop" in checked.stdout and (backed_up.live.names(), users(backed_up)) == (names, 3)

    nobody = backed_up("rollback", "shop")
    assert nobody.status == USAGE and STOPPED in nobody.stderr and not operations_of(backed_up.live.store, "shop")
    refused = backed_up("rollback", "shop", STOPPED)
    assert refused.status == FAILED and "3 rows would be lost" in refused.stderr
    assert "--accept-lost-rows 3" in refused.stderr and "Nothing was rolled back" in refused.stderr
    assert (backed_up.live.names(), users(backed_up)) == (names, 3)
    assert not open_operations(backed_up.live.store)

    done = backed_up("rollback", "shop", STOPPED, "--accept-lost-rows", 3, "--json")
    assert done.status == OK and (done.json["way"], done.json["lost_rows"]) == ("restore", 3), done.stderr
    assert users(backed_up) == 0 and done.json["retired"] in backed_up.live.names()
    assert "start release " + "a" * 40 in " ".join(done.json["story"]).lower()
    again = backed_up("rollback", "shop", STOPPED)
    assert again.status == OK and "as this leaves it already" in again.stdout, again.stderr

    assert backed_up("undo", "shop", "--check").status == OK and users(backed_up) == 0
    undone = backed_up("undo", "shop", STOPPED)
    assert undone.status == OK and users(backed_up) == 3, undone.stderr
    assert [one.outcome for one in operations_of(backed_up.live.store, "shop")] == ["failed", "done", "done"]
    page, junit = backed_up.folder / "page.html", backed_up.folder / "junit.xml"
    told = backed_up("report", "shop", "--html", str(page), "--junit", str(junit))
    assert told.status == OK and told.stdout.startswith("Undo of ") and "backstop undo shop --check" in told.stdout
    assert "<h1>Undo of " in page.read_text("utf-8") and "<testsuites" in junit.read_text("utf-8")
    assert backed_up("report", "shop", "--json").json["kind"] == "undo"
    whole = backed_up("report", "shop", "--whole-store", "--html", str(page))
    assert (
        whole.status == OK
        and "3 operations, 1 without success." in whole.stdout
        and "Store report" in page.read_text("utf-8")
    )
    assert backed_up("report", "shop", "--whole-store", "--junit", str(junit)).status == USAGE


@pytest.mark.parametrize("answer", ["stopped", "not yet", None])
def test_the_operator_is_asked_on_a_terminal(backed_up, answer):
    """When all is prepared and nothing has changed; any other answer, or none, changes nothing."""
    live, names = backed_up.live, backed_up.live.names()
    terminal, theirs = os.openpty()
    with backed_up.start("rollback", "shop", "--accept-lost-rows", 3, stdin=theirs) as process:
        os.close(theirs)
        asked = next(line for line in process.stderr if "Stop the application now, then type: stopped" in line)
        assert "All is prepared" in asked and users(backed_up) == 3 and len(live.names()) == len(names) + 1
        os.write(terminal, b"\x04" if answer is None else answer.encode() + b"\n")
        stdout, stderr = process.communicate(timeout=60)
    os.close(terminal)
    (operation,) = operations_of(live.store, "shop")
    if answer == "stopped":
        assert process.returncode == OK and (users(backed_up), operation.outcome) == (0, "done"), stderr
        assert "start release " + "a" * 40 in stdout.lower() and "Downtime: " in stdout
        return
    assert process.returncode == USAGE and (users(backed_up), operation.outcome) == (3, "failed"), stderr
    assert "Nothing was rolled back: The application was not stopped" in stderr
    assert operation.last(STOP) is None and live.names() == names


@pytest.mark.pgbouncer
def test_pooled_clients_wait(backed_up, tmp_path):
    live = backed_up.live
    with pgbouncer(live.cluster, {"shop": live.name}) as bouncer:
        console = {"host": "127.0.0.1", "port": bouncer.port, "user": ADMIN, "password": ADMIN_PASSWORD}
        (tmp_path / "poolers").write_text(json.dumps([{"console": console}]))
        (tmp_path / "poolers").chmod(0o600)
        backed_up.configure(poolers=str(tmp_path / "poolers"))
        with contextlib.closing(bouncer.client("shop")) as client:
            done = backed_up("rollback", "shop", STOPPED, "--accept-lost-rows", 3, "--json")
            assert done.status == OK and done.json["pooled"]["pools"] == ["shop at 127.0.0.1:%d" % bouncer.port], done
            cursor = client.cursor()
            cursor.execute("SELECT count(*) FROM \"User\" WHERE id LIKE 'late-%'")
            assert cursor.fetchone() == (0,) and bouncer.paused() == []
        undone = backed_up("undo", "shop", STOPPED, "--json")
        assert undone.status == OK and undone.json["pooled"]["pools"] and bouncer.paused() == []


@pytest.fixture
def release(backed_up, tmp_path):
    """The release with both migrations."""
    made = PrismaProject.create(tmp_path / "release", {FIRST: "SELECT 1;", RECEIPTS: "SELECT 1;"})
    environment = made.tools.environment
    return ["--project", made.path, "--node-bin-dir", made.tools.node.bin_dir], environment


@pytest.mark.prisma
def test_a_failed_migration(backed_up, release, tmp_path):
    """Refused without the release while the application runs; refused, because it needs a restore; done; found done."""
    live, (options, environment) = backed_up.live, release
    with live.session(user=OWNER) as cursor:
        cursor.execute(
            "CREATE TABLE half (a int); INSERT INTO _prisma_migrations VALUES"
            " ('m2', repeat('c', 64), NULL, '%s', NULL, NULL, '2025-11-08', 0)" % RECEIPTS
        )
    backed_up.configure(application=commands(tmp_path))
    arguments = ["rollback", "shop", "--scenario", "failed_migration", "--release", "a" * 40]
    plan = backed_up("plan", "shop")
    assert "RUN NEXT: backstop rollback shop --scenario failed_migration" in plan.stdout, plan.stdout
    refused = backed_up.run(*arguments, environment=environment)
    assert refused.status == FAILED and "give the directory of the release" in refused.stderr
    assert not (tmp_path / "application.log").exists()
    refused = backed_up.run(*arguments, *options, environment=environment)
    assert refused.status == FAILED and "3 rows would be lost" in refused.stderr, refused
    assert "start the release that belongs to the database" in refused.stderr
    live.execute("DELETE FROM \"User\" WHERE id LIKE 'late-%'")
    done = backed_up.run(*arguments, *options, "--json", environment=environment)
    assert done.status == OK and (done.json["way"], done.json["outcome"]) == ("leftovers", "dropped"), done.stderr
    assert live.value("SELECT to_regclass('half') IS NULL")
    assert live.rows("SELECT id, rolled_back_at IS NULL FROM _prisma_migrations ORDER BY 1") == [
        ("m1", True), ("m2", False),
    ]  # fmt: skip
    assert (tmp_path / "application.log").read_text().splitlines()[-2:] == ["stop", "start " + "a" * 40]
    again = backed_up.run(*arguments, *options, environment=environment)
    assert again.status == OK and "as this leaves it already" in again.stdout, again


@pytest.mark.prisma
def test_application_errors(backed_up, release, tmp_path):
    """Down-SQL takes the migration out and keeps the rows that were written since."""
    live, (options, environment) = backed_up.live, release
    live.run("receipts.sql")
    (tmp_path / "down.sql").write_text('DROP TABLE "ReceiptData";')
    arguments = ["rollback", "shop", "--scenario", "application_errors", "--method", "drop", STOPPED, *options]
    arguments += ["--down-sql-file", tmp_path / "down.sql", "--json"]
    checked = backed_up.run(*arguments, "--check", environment=environment)
    assert checked.status == OK and live.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL"), checked
    done = backed_up.run(*arguments, environment=environment)
    assert done.status == OK and (done.json["way"], done.json["migrations"]) == ("drop", [RECEIPTS]), done.stderr
    assert live.value("SELECT to_regclass('\"ReceiptData\"') IS NULL") and users(backed_up) == 3
    assert live.rows("SELECT id FROM _prisma_migrations") == [("m1",)]
    assert "start release " + "a" * 40 in " ".join(done.json["story"]).lower()
    again = backed_up.run(*arguments, environment=environment)
    assert again.status == OK and not again.json["changed"], again


def commands(folder, start_status=0):
    """Commands that record how they were called."""
    note = "import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + chr(10)); sys.exit(int(%d))"
    log = str(folder / "application.log")
    return {
        "stop": [sys.executable, "-c", note % 0, log, "stop"],
        "start": [sys.executable, "-c", note % start_status, log, "start", "${commit}"],
    }


def test_the_application_is_stopped_and_started(backed_up, tmp_path):
    backed_up.configure(application=commands(tmp_path))
    assert backed_up("rollback", "shop").status == FAILED  # refused while the application runs
    assert not (tmp_path / "application.log").exists()
    done = backed_up("rollback", "shop", "--accept-lost-rows", 3)
    assert done.status == OK and "Downtime: " in done.stdout, done.stderr
    assert (tmp_path / "application.log").read_text().splitlines() == ["stop", "start " + "a" * 40]


def test_an_application_that_does_not_start(backed_up, tmp_path):
    """The database stays reverted; the same command finishes the rollback."""
    backed_up.configure(application=commands(tmp_path, start_status=1))
    failed = backed_up("rollback", "shop", "--accept-lost-rows", 3)
    assert failed.status == FAILED and "The command that starts the application failed" in failed.stderr
    assert "backstop rollback shop" in failed.stderr and users(backed_up) == 0
    backed_up.configure(application=commands(tmp_path))
    assert backed_up("rollback", "shop", "--accept-lost-rows", 3).status == OK
    assert [one.outcome for one in operations_of(backed_up.live.store, "shop")] == ["done"]


def test_a_table(backed_up):
    """The application keeps running."""
    done = backed_up("rollback", "shop", "--table", "User", "--accept-lost-rows", 3, "--json")
    assert done.status == OK and done.json["way"] == "table" and users(backed_up) == 0, done.stderr
    assert done.json["story"][-1] == "Undo: backstop undo shop"
    assert backed_up("undo", "shop").status == OK and users(backed_up) == 3


def module(backstop, name, folder, **arguments):
    settings = backstop.live.site.connection
    return run_module(folder, name, {
        "connection": {
            "host": settings.host, "port": settings.port, "user": OWNER, "password": PASSWORD, "database": "shop",
        },
        "client_bin_dir": str(backstop.live.cluster.bin_dir), "store": backstop.live.store.root, **arguments,
    })  # fmt: skip


def test_begun_by_the_module_and_finished_by_the_command(backed_up, tmp_path, monkeypatch):
    live = backed_up.live
    plan = module(backed_up, "rollback_plan_info", tmp_path, scenario="complete").result
    operation, _adopted = begin(
        live.store, plan["kind"], "shop", plan["request"], DEAD, Beginning({"commit": "a" * 40})
    )
    given = {"operation": operation.id, "accept_lost_rows": 3}
    assert not module(backed_up, "rollback_prepare", tmp_path, **given).failed
    monkeypatch.setenv("BACKSTOP_FAILPOINT", "swap.committed")
    assert module(backed_up, "rollback", tmp_path, **given).failed
    monkeypatch.delenv("BACKSTOP_FAILPOINT")
    done = backed_up("rollback", "shop", STOPPED, "--accept-lost-rows", 3, "--json")
    assert done.status == OK and done.json["operation"] == operation.id, done.stderr
    assert users(backed_up) == 0 and not open_operations(live.store)


def test_begun_by_the_command_and_finished_by_the_module(backed_up, tmp_path):
    live = backed_up.live
    killed = backed_up.run(
        "rollback", "shop", STOPPED, "--accept-lost-rows", 3, environment={"BACKSTOP_FAILPOINT": "swap.committed"}
    )
    assert killed.status == -signal.SIGKILL, killed.stderr
    (operation,) = open_operations(live.store)
    begun = module(
        backed_up, "operation", tmp_path, state="begin", kind="rollback", request=operation.request,
    ).result  # fmt: skip
    assert begun["adopted"] and begun["operation"] == operation.id
    given = {"operation": operation.id, "accept_lost_rows": 3}
    assert not module(backed_up, "rollback_prepare", tmp_path, **given).failed
    done = module(backed_up, "rollback", tmp_path, **given)
    assert not done.failed and done.result["way"] == "restore" and users(backed_up) == 0, done.printed
    assert not module(backed_up, "operation", tmp_path, state="end", operation=operation.id, outcome="done").failed
    assert "as this leaves it already" in backed_up("rollback", "shop", STOPPED).stdout
