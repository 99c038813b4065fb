# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed with SIGKILL at any failpoint, an operation is finished by the next run; the live database stays."""

from __future__ import annotations

import collections
import json
import signal
from typing import Dict, List

import pytest

# Each operation passes these failpoints, in this order; test_the_list_is_whole compares the lists with real runs.
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
    "step.check.began",
    "step.check.acted",
    "step.check.done",
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
#: With a safety copy: while nobody can connect to the live database.
COPY = [
    "safety-copy.closed",
    "step.safety_copy.began",
    "safety-copy.made",
    "step.safety_copy.acted",
    "step.safety_copy.done",
]
#: An undo first backs up the database that comes back.
KEEP = [
    "step.keep.began",
    "retired.opened",
    "backup.snapshot",
    "backup.dumping",
    "backup.dumped",
    "backup.before-manifest",
    "backup.before-rename",
    "backup.committed",
    "retired.dumped",
    "step.keep.acted",
    "step.keep.done",
]
UNDO = [
    "operation.directory",
    "operation.created",
    *KEEP,
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
#: Further failpoints when rows are carried over.
CARRY = ["reapply.proved", "reapply.saved", "reapply.committed"]
#: An undo builds a copy to compare with before it begins its swap.
BASE = ["restore.created", "restore.restored", "restore.compared"]
WRITE = """
INSERT INTO "TokenPurchase" VALUES ('since', 'u1', 7.5);
UPDATE "User" SET "email" = 'since@example.org' WHERE "id" = 'u2';
DELETE FROM "TokenPurchase" WHERE "id" = 'p3';
"""


def with_carry(names: List[str]) -> List[str]:
    """The failpoints of an operation that carries rows over."""
    counted = names.index("swap.counted")
    return names[:counted] + CARRY + names[counted:]


def occurrences(names: List[str]) -> List[str]:
    """Names with the number of their occurrence, in the format of BACKSTOP_FAILPOINT."""
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


@pytest.mark.fault("deploy", "deploy killed at each of its failpoints", by="the next run finishes it")
@pytest.mark.parametrize("failpoint", occurrences(DEPLOY))
def test_a_killed_deploy_is_finished(site, failpoint: str) -> None:
    before = site.contents()
    kill_and_finish(site, "deploy", failpoint)
    after = site.contents()
    assert after.pop("ReceiptData") == "0|0"
    assert after.pop("migrations").split("\n")[-1] == "20251108000000_add_receipt_data"
    assert {**before, "migrations": None} == {**after, "migrations": None}
    assert not list(site.store.glob("*/.partial-*"))


@pytest.mark.fault("deploy", "deploy killed while it copied the database", by="the next run opens it and finishes")
@pytest.mark.parametrize("failpoint", COPY)
def test_a_deploy_killed_while_it_copied_the_database(site, failpoint: str) -> None:
    """Nobody can connect then; the next run lets them in, and its copy takes over in a revert, killed or not."""
    original = site.contents()
    assert site.run("deploy_with_copy", failpoint).returncode == -signal.SIGKILL
    assert site.succeed("deploy_with_copy")["outcome"] == "done"
    (copy,) = site.databases("backstop_copy_")
    assert site.contents()["ReceiptData"] == "0|0"
    assert [entry["copy"] for entry in journal_of(site) if entry["step"] == "safety_copy"][-1] == copy
    kill_and_finish(site, "revert", "swap.renaming")
    assert site.contents() == original and site.databases("backstop_copy_") == []


def journal_of(site) -> List[Dict[str, object]]:
    """The journal lines of the only operation, for steps that were done."""
    (path,) = site.store.glob("operations/*/journal.jsonl")
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [entry for entry in entries if entry["event"] == "done"]


@pytest.mark.parametrize("failpoint", ["step.rehearsal.done", "down.ran"])
def test_a_proof_that_was_killed_is_repeated_alone(site, failpoint: str) -> None:
    assert site.run("deploy_with_down", failpoint).returncode == -signal.SIGKILL
    site.succeed("deploy_with_down")
    done = journal_of(site)
    steps = [entry["step"] for entry in done]
    assert [steps.count(step) for step in ("backup", "drill", "rehearsal", "down_proof")] == [1, 1, 1, 1]
    assert [entry["proved"] for entry in done if entry["step"] == "down_proof"] == [True]
    assert site.databases("backstop_scratch_") == []


@pytest.mark.fault("deploy", "deploy killed behind its final backup", by="the next run finishes it")
@pytest.mark.parametrize("failpoint", ["backup.dumped", "step.backup.done", "step.migrate.began"])
def test_a_deploy_killed_behind_its_final_backup_is_finished(site, failpoint: str) -> None:
    """Rows written before the fence are in the final backup, which is not repeated once it is exact."""
    assert site.run("deploy", "step.rehearsal.done").returncode == -signal.SIGKILL
    site.sql(WRITE)
    assert site.run("deploy", failpoint).returncode == -signal.SIGKILL
    made = {path.name for path in site.store.glob("pre-migration/tokens*")}
    site.succeed("deploy")
    backups = {path.name for path in site.store.glob("pre-migration/tokens*")}
    assert len(backups) == 2 and (backups == made) == (failpoint != "backup.dumped")
    (last,) = backups - {min(backups)}
    done = journal_of(site)
    steps = [entry["step"] for entry in done]
    assert [entry["backup"] for entry in done if entry["step"] == "backup"][-1] == last
    assert [steps.count(step) for step in ("drill", "rehearsal", "migrate", "check")] == [1, 1, 1, 1]


@pytest.mark.fault("deploy", "complete revert killed at each of its failpoints", by="the next run finishes it")
@pytest.mark.parametrize("failpoint", occurrences(REVERT))
def test_a_killed_revert_is_finished(deployed, original, failpoint: str) -> None:
    kill_and_finish(deployed, "revert", failpoint)
    assert deployed.contents() == original
    assert len(deployed.databases("backstop_retired_")) == 1
    assert deployed.succeed("revert") == {"outcome": "nothing"}


#: A deploy is killed at each failpoint of a backup.
UNDO_ALONE = [name for name in UNDO if not name.startswith("backup.")]


@pytest.mark.fault("deploy", "undo killed at each of its failpoints", by="the next run finishes it")
@pytest.mark.parametrize("failpoint", occurrences(UNDO_ALONE))
def test_a_killed_undo_is_finished(reverted, original, failpoint: str) -> None:
    kill_and_finish(reverted, "undo", failpoint)
    with_receipts = {"ReceiptData": "0|0", "migrations": original["migrations"] + "\n20251108000000_add_receipt_data"}
    assert reverted.contents() == {**original, **with_receipts}
    assert len(reverted.databases("backstop_retired_")) == 1
    assert reverted.succeed("undo") == {"outcome": "nothing"}


# With rows that are carried over: those written before the run, and those written after it was killed


def kill_write_and_finish(site, what: str, failpoint: str) -> None:
    """The application continues after the run was killed; rows that it writes then are carried over as well."""
    killed = site.run(what, failpoint)
    assert killed.returncode == -signal.SIGKILL, (killed.returncode, killed.stderr)
    retired = len(site.databases("backstop_retired_"))
    site.sql("DELETE FROM \"TokenPurchase\" WHERE \"id\" IN ('since', 'p5')")
    for _run in range(3):
        if site.succeed(what)["outcome"] in ("done", "nothing"):
            break
    assert site.databases("backstop_scratch_") == []
    assert retired <= len(site.databases("backstop_retired_")) == 1
    assert site.sql("SELECT \"id\" FROM \"TokenPurchase\" WHERE \"id\" IN ('since', 'p3', 'p5')") == ""
    assert site.sql('SELECT count(*), (SELECT "email" FROM "User" WHERE "id" = \'u2\') FROM "TokenPurchase"') == (
        "198|since@example.org"
    )


@pytest.mark.fault(
    "deploy", "revert that carries rows killed at each of its failpoints", by="the next run finishes it, with the rows"
)
@pytest.mark.parametrize("failpoint", ["step.build.done", *CARRY, "swap.renaming", "swap.before-commit"])
def test_a_killed_revert_carries_what_was_written_since(deployed, failpoint: str) -> None:
    deployed.sql(WRITE)
    kill_write_and_finish(deployed, "revert_and_carry", failpoint)
    assert deployed.succeed("revert_and_carry") == {"outcome": "nothing"}


@pytest.mark.fault(
    "deploy", "undo that carries rows killed at each of its failpoints", by="the next run finishes it, with the rows"
)
@pytest.mark.parametrize("failpoint", [*CARRY, "swap.renaming", "swap.before-commit"])
def test_a_killed_undo_carries_what_was_written_since(reverted, failpoint: str) -> None:
    reverted.sql(WRITE)
    kill_write_and_finish(reverted, "undo_and_carry", failpoint)
    assert reverted.succeed("undo_and_carry") == {"outcome": "nothing"}


def test_the_list_of_what_carries_is_whole(deployed, tmp_path) -> None:
    site = deployed
    site.sql(WRITE)
    begins = UNDO.index("step.swap.began")
    undo = UNDO[:begins] + BASE + UNDO[begins:]
    for what, wanted in (("revert_and_carry", with_carry(REVERT)), ("undo_and_carry", with_carry(undo))):
        log = tmp_path / what
        done = site.run(what, log=log)
        assert done.returncode == 0, done.stderr
        assert log.read_text().split() == wanted, what
        site.sql('UPDATE "User" SET "email" = \'again@example.org\' WHERE "id" = \'u4\'')


def test_the_list_is_whole(site, tmp_path) -> None:
    """A failpoint that is added to the library but not to the lists above would never be tested."""
    fenced = DEPLOY.index("fence.cleared") + 1
    copied = [*DEPLOY[:fenced], *COPY, *DEPLOY[fenced:]]
    reverted = [name for name in REVERT if not name.startswith("restore.")]
    runs = (
        ("deploy", DEPLOY),
        ("revert", REVERT),
        ("undo", UNDO),
        ("revert", REVERT),
        ("deploy_with_copy", copied),
        ("revert", reverted),
    )
    for number, (what, wanted) in enumerate(runs):
        log = tmp_path / str(number)
        done = site.run(what, log=log)
        assert done.returncode == 0, done.stderr
        assert log.read_text().split() == wanted, what
