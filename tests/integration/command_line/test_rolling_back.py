# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollbacks and undos on a host without Ansible; also begun by playbook and finished by the command, and vice versa."""

from __future__ import annotations

import signal
import socket
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    open_operations,
    operations_of,
)
from support.databases import OWNER, PASSWORD
from support.module_runner import run_module

OK, FAILED, USAGE = range(3)
STOPPED = "--application-stopped"
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
    operation, _adopted = begin(live.store, plan["kind"], "shop", plan["request"], DEAD, facts={"commit": "a" * 40})
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
