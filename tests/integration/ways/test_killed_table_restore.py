# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed with SIGKILL at any failpoint, a table restore has happened or has not; the next run finishes it."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests
from support.databases import OWNER
from support.forks import Forks

#: The failpoints of an undo, in their order; test_the_list_is_whole compares the list with real runs.
UNDO = [
    "operation.directory",
    "operation.created",
    "step.restore_table.began",
    "table.staged",
    "table.locked",
    "backup.snapshot",
    "backup.dumping",
    "backup.dumped",
    "backup.before-manifest",
    "backup.before-rename",
    "backup.committed",
    "table.backed-up",
    "table.parked",
    "table.updated",
    "table.deleted",
    "table.inserted",
    "table.proved",
    "table.before-commit",
    "table.committed",
    "step.restore_table.acted",
    "step.restore_table.done",
    "operation.closed",
]
#: A restore is planned first.
RESTORE = ["table.staged", *UNDO]
SPOIL = """
UPDATE "User" SET "email" = 'x' WHERE "id" = 'u1'; UPDATE "User" SET "email" = 'u1@example.org' WHERE "id" = 'u2';
UPDATE "User" SET "email" = 'u2@example.org' WHERE "id" = 'u1'; UPDATE "User" SET "name" = NULL WHERE "id" = 'u5';
"""


@pytest.fixture(scope="module")
def driver():
    with Forks("support.table_driver") as forks:
        yield forks


@pytest.fixture
def spoiled(plain, tmp_path, driver):
    """A database with a backup and users that were corrupted since, and a way to run the driver."""
    plain.backup()
    right = digest(plain)
    plain.as_owner(SPOIL)
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "url": plain.cluster.url(plain.name, user=OWNER),
                "store": plain.store.root,
                "client_bin_dir": str(plain.cluster.bin_dir),
                "table": "User",
            }
        ),
        "utf-8",
    )

    def run(what, **environment):
        return driver.run([what, str(settings)], environment)

    return plain, right, run


def digest(live):
    with live.site.connect() as session:
        return [digests.table_digest(session, table.source, table.columns) for table in catalog.tables(session)]


def killed_and_finished(spoiled, what, failpoint, after):
    live, _right, run = spoiled
    before = digest(live)
    killed = run(what, BACKSTOP_FAILPOINT=failpoint)
    assert killed.returncode == -signal.SIGKILL, (failpoint, killed.stderr)
    happened = UNDO.index(failpoint.split("#")[0]) >= UNDO.index("table.committed")
    assert digest(live) == (after if happened else before), failpoint
    again = run(what)
    assert again.returncode == 0, (failpoint, again.stderr)
    assert json.loads(again.stdout)["outcome"] == ("nothing" if failpoint == "operation.closed" else "done"), failpoint
    assert digest(live) == after, failpoint


@pytest.mark.fault("deploy", "restore of a table killed at each of its failpoints", by="the next run finishes it")
@pytest.mark.parametrize("half", [0, 1])
def test_a_killed_restore_is_finished(spoiled, half):
    live, right, run = spoiled
    for failpoint in UNDO[half::2]:
        killed_and_finished(spoiled, "restore", failpoint.replace("table.staged", "table.staged#2"), right)
        # As if no restore had ever happened.
        shutil.rmtree(live.store.root + "/operations")
        live.as_owner(SPOIL)
    assert not [name for name in os.listdir(live.store.root + "/emergency") if name.startswith(".")]


@pytest.mark.fault("deploy", "undo of a table's restore killed", by="the next run finishes it")
def test_a_killed_undo_is_finished(spoiled):
    live, right, run = spoiled
    wrong = digest(live)
    for failpoint in ("table.backed-up", "table.before-commit", "table.committed", "step.restore_table.done"):
        assert run("restore").returncode == 0
        assert digest(live) == right
        killed_and_finished(spoiled, "undo", failpoint, wrong)
        assert json.loads(run("undo").stdout) == {"outcome": "nothing"}


def test_the_list_is_whole(spoiled, tmp_path):
    _live, _right, run = spoiled
    for what in ("restore", "undo"):
        log = tmp_path / what
        done = run(what, BACKSTOP_FAILPOINT_LOG=str(log))
        assert done.returncode == 0, done.stderr
        assert log.read_text().split() == (UNDO if what == "undo" else RESTORE)


def test_a_predecessor_whose_session_lives_on_is_ended(spoiled):
    """Its lock would keep the next run waiting until that gives up."""
    live, right, run = spoiled
    assert run("restore", BACKSTOP_FAILPOINT="table.locked").returncode == -signal.SIGKILL
    (operation,) = live.store.operation_ids()
    with live.session(user=OWNER) as cursor:
        cursor.execute(
            "SET application_name = 'backstop %s'; BEGIN; LOCK TABLE \"User\" IN SHARE ROW EXCLUSIVE MODE" % operation
        )
        done = run("restore")
        assert done.returncode == 0, done.stderr
    assert digest(live) == right
