# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploy, revert and undo, killed with SIGKILL at a random step: ansible-playbook itself, or the module at work.

The next run finishes, and at every moment one database bears the live name and lets the application in. A failure
prints the seed; BACKSTOP_TEST_SEED repeats it. All failpoints, one by one, are in test_killed_operations.py.
"""
from __future__ import annotations

import os
import random
import time
from typing import Callable, Dict, List

import pytest
from demo import application
from support.broken_releases import mended
from support.demo_site import Condition, DemoSite
from support.watcher import Watcher

#: The longest that a playbook goes on after the beginning of a task before it is killed, in seconds.
LATEST = 1.5
PLAYBOOKS = {"deploy": "deploy_receiptdata.yml", "revert": "rollback_complete.yml", "undo": "undo_rollback.yml"}
FAILPOINTS: Dict[str, str] = {
    "deploy": """
        operation.directory operation.created release.before-rename release.prepared
        step.backup.began backup.dumping backup.before-manifest backup.before-rename backup.committed step.backup.done
        step.drill.began restore.created restore.restored drill.compared step.drill.acted
        rehearsal.migrated step.rehearsal.done step.fence.began fence.cleared step.fence.done
        migrate.before migrate.after step.migrate.acted step.migrate.done
        release.before-activate release.activated step.post_backup.began step.post_backup.done operation.closed
        """,
    "revert": """
        operation.directory operation.created step.build.began restore.created restore.restored restore.compared
        step.build.done step.swap.began swap.fenced swap.counted swap.renaming swap.before-commit swap.committed
        step.swap.done release.before-activate release.activated operation.closed
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
        "Verify the backup",
        "Run the pending migrations on the copy",
        "Try the old release on the new schema",
        "Drop the copy",
        "Note the beginning of the downtime",
        "See that nothing of the application runs under pm2",
        "Clear the database of other sessions and compare it with the backup",
        "Migrate",
        "Check tables and catalog",
        "Make the release the current one",
        "Run the current release under pm2",
        "Wait until the application is healthy",
        "Try the running application",
        "Note the end of the downtime",
        "Close the operation",
    ],
    "revert": [
        "Begin the operation",
        "Build a database from the backup, beside the live one",
        "See that nothing of the application runs under pm2",
        "Count what would be lost, then give the live name to the new database",
        "Make the release the current one",
        "Run the current release under pm2",
        "Wait until the application is healthy",
        "Close the operation",
    ],
    "undo": [
        "Begin the operation",
        "See that nothing of the application runs under pm2",
        "Count what would be lost, then give the live name back",
        "Make the release the current one",
        "Run the current release under pm2",
        "Wait until the application is healthy",
        "Close the operation",
    ],
}
Kill = Callable[[DemoSite, str, random.Random, Dict[str, object]], None]


def kill_a_module(site: DemoSite, what: str, chance: random.Random, variables: Dict[str, object]) -> None:
    """The module dies in the middle of its work; the playbook goes on as it does after any failure."""
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
    """ansible-playbook dies; a module that is at work goes on until it is done."""
    task, seconds = chance.choice(TASKS[what]), chance.uniform(0, LATEST)
    print("%s: playbook killed %.2f s after the beginning of: %s" % (what, seconds, task))
    playing = site.start(PLAYBOOKS[what], **variables)
    reached = playing.wait_for_task(task)
    time.sleep(seconds)
    playing.kill()
    print(playing.end().output)
    assert reached


def finish(site: DemoSite, what: str, variables: Dict[str, object]) -> None:
    """What a person does after a run was cut off: run it again."""
    run = site.play(PLAYBOOKS[what], **variables)
    assert run.status == 0, run.output
    assert site.outcomes()[-1] == "done"


@pytest.mark.parametrize("kill", [kill_a_module, kill_the_playbook])
def test_killed_and_run_again(site: DemoSite, kill: Kill) -> None:
    seed = int(os.environ.get("BACKSTOP_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print("repeat with BACKSTOP_TEST_SEED=%d" % seed)
    chance = random.Random(seed)
    # A release of its own, so that it has to be prepared.
    revision = kill.__name__.replace("_", "-")
    commit = site.add_release(revision, mended(revision))
    variables: Dict[str, object] = {"deploy_revision": revision}
    before = site.condition()
    states: Dict[str, Condition] = {"revert": before}
    with Watcher(site.cluster, application.DATABASE) as watcher:
        for what in ("deploy", "revert", "undo"):
            kill(site, what, chance, variables)
            finish(site, what, variables)
            now = site.condition()
            states.setdefault("deploy", now)
            expected = states["revert"] if what == "revert" else states["deploy"]
            assert (now.contents, now.applied) == (expected.contents, expected.applied), what
            assert now.running == now.current == (before.current if what == "revert" else commit), what
            assert site.databases("backstop_scratch_") == [], what
            assert not list(site.places.store.glob("*/.partial-*")), what
    assert watcher.looks > 100
    assert not watcher.wrong
    again = site.play(PLAYBOOKS["undo"], **variables)
    assert (again.status, again.changed) == (0, 0), again.output
