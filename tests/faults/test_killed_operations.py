# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed with SIGKILL at every failpoint, an operation is finished by the next run; the live database stays."""

from __future__ import annotations

import collections
import signal
from typing import Dict, List

import pytest

# Each operation passes these places, in this order; test_the_list_is_whole holds the lists to what really happens.
DEPLOY = [
    "operation.directory",
    "operation.created",
    "step.backup.began",
    "backup.snapshot",
    "backup.dumping",
    "backup.dumped",
    "backup.before-manifest",
    "backup.before-rename",
    "backup.committed",
    "step.backup.acted",
    "step.backup.done",
    "step.drill.began",
    "restore.created",
    "restore.restored",
    "restore.compared",
    "drill.compared",
    "step.drill.acted",
    "step.drill.done",
    "step.rehearsal.began",
    "rehearsal.migrated",
    "step.rehearsal.acted",
    "step.rehearsal.done",
    "step.fence.began",
    "fence.cleared",
    "step.fence.acted",
    "step.fence.done",
    "step.migrate.began",
    "migrate.before",
    "migrate.after",
    "step.migrate.acted",
    "step.migrate.done",
    "operation.closed",
]
REVERT = [
    "operation.directory",
    "operation.created",
    "step.build.began",
    "restore.created",
    "restore.restored",
    "restore.compared",
    "step.build.acted",
    "step.build.done",
    "step.swap.began",
    "swap.fenced",
    "swap.counted",
    "swap.renaming",
    "swap.before-commit",
    "swap.committed",
    "step.swap.acted",
    "step.swap.done",
    "operation.closed",
]
UNDO = [
    "operation.directory",
    "operation.created",
    "step.swap.began",
    "swap.fenced",
    "swap.counted",
    "swap.renaming",
    "swap.before-commit",
    "swap.committed",
    "step.swap.acted",
    "step.swap.done",
    "operation.closed",
]


def occurrences(names: List[str]) -> List[str]:
    """Names with the number of their occurrence, as BACKSTOP_FAILPOINT takes them."""
    seen: Dict[str, int] = collections.Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append("%s#%d" % (name, seen[name]))
    return numbered


def kill_and_finish(site, what: str, failpoint: str) -> None:
    with site.watch() as watcher:
        killed = site.run(what, failpoint)
        assert killed.returncode == -signal.SIGKILL, (killed.returncode, killed.stderr)
        for _run in range(3):
            outcome = site.succeed(what)["outcome"]
            if outcome in ("done", "nothing"):
                break
    assert outcome in ("done", "nothing")
    assert watcher.looks > 10
    assert not watcher.wrong
    assert site.databases("backstop_scratch_") == []


@pytest.mark.parametrize("failpoint", occurrences(DEPLOY))
def test_a_killed_deploy_is_finished(site, failpoint: str) -> None:
    before = site.contents()
    kill_and_finish(site, "deploy", failpoint)
    after = site.contents()
    assert after.pop("ReceiptData") == "0|0"
    assert after.pop("migrations").split("\n")[-1] == "20251108000000_add_receipt_data"
    assert {**before, "migrations": None} == {**after, "migrations": None}
    assert not list(site.store.glob("*/.partial-*"))


@pytest.mark.parametrize("failpoint", occurrences(REVERT))
def test_a_killed_revert_is_finished(site, failpoint: str) -> None:
    before = site.contents()
    site.succeed("deploy")
    kill_and_finish(site, "revert", failpoint)
    assert site.contents() == before
    assert len(site.databases("backstop_retired_")) == 1
    assert site.succeed("revert") == {"outcome": "nothing"}


@pytest.mark.parametrize("failpoint", occurrences(UNDO))
def test_a_killed_undo_is_finished(site, failpoint: str) -> None:
    site.succeed("deploy")
    deployed = site.contents()
    site.succeed("revert")
    kill_and_finish(site, "undo", failpoint)
    assert site.contents() == deployed
    assert len(site.databases("backstop_retired_")) == 1
    assert site.succeed("undo") == {"outcome": "nothing"}


def test_the_list_is_whole(site, tmp_path) -> None:
    """A failpoint that is added to the library without a line above would never be tested."""
    for what, wanted in (("deploy", DEPLOY), ("revert", REVERT), ("undo", UNDO)):
        log = tmp_path / what
        done = site.run(what, log=log)
        assert done.returncode == 0, done.stderr
        assert log.read_text().split() == wanted, what
