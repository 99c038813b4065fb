# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy, every rollback and an undo, killed with SIGKILL at a random step: ansible-playbook, or the running module.

The next run finishes, and at every moment one database has the live name and accepts the application. A failure
prints the seed; BACKSTOP_TEST_SEED repeats it. All failpoints, one by one, are in test_killed_operations.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from typing import Dict, Iterator, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from demo import application
from support.broken_releases import mended
from support.demo_site import Condition, DemoSite
from support.receipts import CORRUPT, RECEIPTS, with_receipts
from support.watcher import Watcher

#: The longest time in seconds between the beginning of a task and the kill of its playbook.
LATEST = 1.5
PLAYBOOKS = {
    "deploy": "deploy_receiptdata.yml",
    "failed migration": "rollback_failed_migration.yml",
    "application errors": "rollback_application_errors.yml",
    "corrupted table": "rollback_corrupted_table.yml",
    "revert": "rollback_complete.yml",
    "release alone": "rollback_complete.yml",
    "undo": "undo_rollback.yml",
}
FAILPOINTS: Dict[str, str] = {
    "deploy": """
        operation.directory operation.created release.before-rename release.prepared
        step.backup.began backup.dumping backup.before-manifest backup.before-rename backup.committed step.backup.done
        step.drill.began restore.created restore.restored drill.compared step.drill.acted
        rehearsal.migrated step.rehearsal.done step.fence.began fence.cleared step.fence.done
        migrate.before migrate.after step.migrate.acted step.migrate.done
        release.before-activate release.activated step.post_backup.began step.post_backup.done operation.closed
        """,
    "failed migration": """
        operation.directory operation.created step.clean.began clean.before-commit clean.committed step.clean.acted
        step.clean.done step.resolve.began resolve.one step.resolve.acted step.resolve.done operation.closed
        """,
    "corrupted table": """
        operation.directory operation.created step.restore_table.began table.locked backup.dumping backup.committed
        table.backed-up table.updated table.deleted table.inserted table.proved table.before-commit table.committed
        step.restore_table.acted step.restore_table.done operation.closed
        """,
    "application errors": """
        operation.directory operation.created step.emergency_backup.began backup.dumping backup.before-rename
        step.emergency_backup.done step.down_proof.began restore.created restore.compared down.counted down.ran
        down.proved step.down_proof.acted step.down_proof.done step.fence.began fence.cleared step.fence.done
        step.down.began down.fenced down.before-commit down.committed step.down.acted step.down.done
        release.before-activate release.activated operation.closed
        """,
    "revert": """
        operation.directory operation.created step.build.began restore.created restore.restored restore.compared
        step.build.done step.swap.began swap.fenced swap.counted swap.renaming swap.before-commit swap.committed
        step.swap.done release.before-activate release.activated operation.closed
        """,
    "release alone": """
        operation.directory operation.created release.before-activate release.activated operation.closed
        """,
    "undo": """
        operation.directory operation.created step.swap.began swap.fenced swap.counted swap.renaming swap.before-commit
        swap.committed step.swap.acted step.swap.done release.before-activate release.activated operation.closed
        """,
}
TASKS: Dict[str, List[str]] = {
    "deploy": [
        "Begin the operation",
        "Prepare the release beside the running one",
        "Evaluate the gates",
        "Back up the database",
        "Restore the backup and compare it, and run the pending migrations on the copy",
        "Test the old release on the new schema",
        "Prove the down-SQL if requested, and drop the copy",
        "Record the beginning of the downtime",
        "Stop every process of the application",
        "Fence writers out, back up again where needed, and migrate",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Test the running application",
        "Record the end of the downtime",
        "Close the operation",
    ],
    "failed migration": [
        "Begin the operation",
        "Stop every process of the application",
        "Count what would be lost, then roll the database back",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Close the operation",
    ],
    "corrupted table": [
        "Read the state and make the plan",
        "Begin the operation",
        "Count what would be lost, then roll the database back",
        "Close the operation",
    ],
    "application errors": [
        "Begin the operation",
        "Build and prove what it needs, and refuse a loss while the application runs",
        "Stop every process of the application",
        "Count what would be lost, then roll the database back",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Close the operation",
    ],
    "revert": [
        "Begin the operation",
        "Build and prove what it needs, and refuse a loss while the application runs",
        "Stop every process of the application",
        "Count what would be lost, then roll the database back",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Close the operation",
    ],
    "release alone": [
        "Begin the operation",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Close the operation",
    ],
    "undo": [
        "Begin the operation",
        "Build and prove what it needs, and refuse a loss while the application runs",
        "Stop every process of the application",
        "Count what would be lost, then roll the database back",
        "Make the release the current one",
        "Run the current release and wait for its health",
        "Close the operation",
    ],
}


def kill_a_module(site: DemoSite, what: str, chance: random.Random, variables: Dict[str, object]) -> None:
    """The module is killed in the middle of its work; the playbook continues as after any failure."""
    failpoint = chance.choice(FAILPOINTS[what].split())
    print("%s: module killed at %s" % (what, failpoint))
    log = site.places.directory / "failpoints.log"
    log.unlink(missing_ok=True)
    environment = {"BACKSTOP_FAILPOINT": failpoint, "BACKSTOP_FAILPOINT_LOG": str(log)}
    run = site.play(PLAYBOOKS[what], environment=environment, **variables)
    print(run.output)
    assert failpoint in log.read_text().split()
    assert run.status != 0


def kill_the_playbook(site: DemoSite, what: str, chance: random.Random, variables: Dict[str, object]) -> None:
    """ansible-playbook is killed; a running module continues until it is done."""
    task, seconds = chance.choice(TASKS[what]), chance.uniform(0, LATEST)
    print("%s: playbook killed %.2f s after the beginning of: %s" % (what, seconds, task))
    playing = site.start(PLAYBOOKS[what], **variables)
    reached = playing.wait_for_task(task)
    time.sleep(seconds)
    playing.kill()
    print(playing.end().output)
    assert reached


def cut_off(site: DemoSite, what: str, chance: random.Random, **variables: object) -> None:
    """Kill a run, then do what a user does: run it again."""
    chance.choice([kill_a_module, kill_the_playbook])(site, what, chance, variables)
    run = site.play(PLAYBOOKS[what], **variables)
    assert run.status == 0, run.output
    assert site.outcomes()[-1] == "done"
    assert site.databases("backstop_scratch_") == [], what
    assert not list(site.places.store.glob("*/.partial-*")), what


def succeeds(site: DemoSite, playbook: str, **variables: object) -> None:
    run = site.play(playbook, **variables)
    assert run.status == 0, run.output


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@contextlib.contextmanager
def watched(site: DemoSite) -> Iterator[None]:
    with Watcher(site.cluster, application.DATABASE) as watcher:
        yield
    assert watcher.looks > 100
    assert not watcher.wrong


@pytest.mark.fault("deploy", "playbooks of deploy, revert and undo killed at random", by="the next run finishes it")
def test_deploy_revert_and_undo(site: DemoSite, chance: random.Random) -> None:
    # A separate release, so that it has to be prepared.
    revision = "killed"
    commit = site.add_release(revision, mended(revision))
    variables: Dict[str, object] = {"deploy_revision": revision}
    before = site.condition()
    states: Dict[str, Condition] = {"revert": before}
    with watched(site):
        for what in ("deploy", "revert", "undo"):
            cut_off(site, what, chance, **variables)
            now = site.condition()
            states.setdefault("deploy", now)
            expected = states["revert"] if what == "revert" else states["deploy"]
            assert (now.contents, now.applied) == (expected.contents, expected.applied), what
            assert now.running == now.current == (before.current if what == "revert" else commit), what
    again = site.play(PLAYBOOKS["undo"], **variables)
    assert (again.status, again.changed) == (0, 0), again.output


@pytest.mark.fault("deploy", "playbook after a failed migration killed at random", by="the next run finishes it")
def test_a_failed_migration(site: DemoSite, chance: random.Random) -> None:
    before = site.condition()
    succeeds(site, "pre_migration_backup.yml")
    site.migrate_by_hand("leaves-objects")
    assert site.condition() != before
    with watched(site):
        cut_off(site, "failed migration", chance)
    assert site.condition() == before


@pytest.mark.fault("deploy", "playbooks of table and release rollback killed at random", by="the next run finishes it")
def test_a_corrupted_table_and_application_errors(site: DemoSite, chance: random.Random) -> None:
    before = site.condition()
    site.deploy()
    site.sql(RECEIPTS)
    succeeds(site, "pre_migration_backup.yml", backup_tables=["ReceiptData"], backup_kind="daily")
    right = with_receipts(site)
    site.sql(CORRUPT)
    assert with_receipts(site) != right
    with watched(site):
        cut_off(site, "corrupted table", chance)
        assert with_receipts(site) == right

        cut_off(site, "application errors", chance, rollback_method="drop", rollback_accept_lost_rows=200)
    now = site.condition()
    assert dataclasses.replace(now, live_oid=before.live_oid) == before


@pytest.mark.fault("deploy", "playbook of the release's rollback killed at random", by="the next run finishes it")
def test_a_rollback_of_the_release_alone(site: DemoSite, chance: random.Random) -> None:
    """After a deploy that changed nothing in the database, which stays unchanged, also by the run that finishes."""
    site.deploy()
    wanted = site.condition()
    site.run_release(site.commits["before-et-100"])
    facts = {"former_commit": wanted.current}
    Operation.create(
        Store(str(site.places.store)), "deploy", {"database": application.DATABASE, "request": {}, "facts": facts}
    ).close("done")
    with watched(site):
        cut_off(site, "release alone", chance)
    assert site.condition() == wanted
    # A run whose way back was killed too is closed as failed; the next one is then an operation of its own.
    found = [operation for operation in site.operations() if operation["kind"] == "rollback"]
    assert [operation["outcome"] for operation in found] == ["failed"] * (len(found) - 1) + ["done"]
    for operation in found:
        assert operation["request"] == {"scenario": "complete", "backup": None, "method": "code_only"}
    assert not [name for name in site.databases() if name.startswith("backstop_")]
