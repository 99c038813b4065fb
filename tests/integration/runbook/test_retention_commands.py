# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runbook's commands for retention: what they do, and what this collection does in the same place.

Each docstring quotes the command; the test runs it unchanged.
"""

from __future__ import annotations

import datetime
import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from support.made_backups import made_backup

CLEANUP = 'find backups/daily -name "backup-*.dump" -mtime +7 -delete'
CLEANUP_WEEKLY = 'find backups/weekly -name "backup-*.dump" -mtime +28 -delete'
DAILY = (
    "pg_dump -h localhost -U postgres -d electricity_tokens --format=custom"
    ' --file="backups/daily/backup-%s.dump" 2>&1 | logger -t db-backup'
)


def days_ago(days):
    return utc_now() - datetime.timedelta(days=days)


def aged(path, days):
    then = days_ago(days).timestamp()
    os.utime(path, (then, then))


def test_seven_failed_dumps_and_one_good(live, shell):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete"""
    shell.run("mkdir -p backups/daily")
    for day in range(8, 0, -1):
        wrong = "" if day == 8 else "PGPASSWORD=wrong "
        assert shell.run(wrong + DAILY % day).returncode == 0
        aged(shell.folder / "backups" / "daily" / ("backup-%d.dump" % day), day + 0.1)
    assert [path.stat().st_size > 0 for path in shell.files()] == [False] * 7 + [True]
    assert shell.run(CLEANUP).returncode == 0
    assert len(shell.files()) == 7 and all(path.stat().st_size == 0 for path in shell.files())

    good = live.backup("daily")
    for day in range(7, 0, -1):
        made_backup(live.store, "daily", days_ago(-1 + day / 8), database=live.name, level=None)
    kept = prune(live.store, Policy(days=1, weeks=1), max_share=1, now=days_ago(-30))
    assert [decision.keep for decision in kept] == [True] * 8
    verify(live.site, good, "restored")


def test_a_job_that_stalled_for_a_month(shell, databases):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete; find backups/weekly ... -mtime +28 -delete"""
    live = databases.make("shop")
    shell.run("mkdir -p backups/daily backups/weekly; touch backups/{daily,weekly}/backup-{1,2,3}.dump")
    for path in shell.files():
        aged(path, 30)
    assert shell.run(CLEANUP + " && " + CLEANUP_WEEKLY).returncode == 0
    assert shell.files() == []

    for day in (30, 31, 32):
        made_backup(live.store, "daily", days_ago(day))
    assert all(decision.keep for decision in prune(live.store, Policy()))


def test_seven_days_are_eight(shell):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete"""
    shell.run("mkdir -p backups/daily; touch backups/daily/backup-x.dump")
    aged(shell.folder / "backups" / "daily" / "backup-x.dump", 7.9)
    shell.run(CLEANUP)
    assert len(shell.files()) == 1


def test_a_copied_file_is_as_young_as_its_copy(live, shell):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete: goes by the file's time, which any copy renews"""
    shell.run("mkdir -p backups/daily; touch backups/daily/backup-x.dump")
    aged(shell.folder / "backups" / "daily" / "backup-x.dump", 100)
    shell.run("cp -r backups copied && rm -r backups && mv copied backups")
    shell.run(CLEANUP)
    assert len(shell.files()) == 1

    old, *newer = [made_backup(live.store, "daily", days_ago(day)) for day in range(100, 2, -12)]
    for place in newer:
        os.utime(place.file("archive.dump"), (0, 0))
        os.utime(place.path, (0, 0))
    gone = [decision.item.backup_id for decision in prune(live.store, Policy()) if not decision.keep]
    assert gone[0] == old.backup_id and newer[-1].backup_id not in gone


def test_where_nothing_was_backed_up_yet(live, shell):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete: before the directories are made"""
    assert shell.run(CLEANUP).returncode == 1
    assert prune(live.store, Policy()) == []


@pytest.mark.parametrize("other", ["electricity_tokens_test", "Electricity_tokens"])
def test_another_database_in_the_same_directory(databases, live, shell, other):
    """find backups/daily -name "backup-*.dump" -mtime +7 -delete: one pattern for all databases"""
    shell.run("mkdir -p backups/daily; touch backups/daily/backup-%s.dump" % other)
    aged(shell.folder / "backups" / "daily" / ("backup-%s.dump" % other), 9)
    shell.run(CLEANUP)
    assert shell.files() == []

    only = databases.make(other).backup("daily")
    for day in range(-40, 0):
        made_backup(live.store, "daily", days_ago(day), database=live.name)
    decisions = prune(live.store, Policy(), max_share=1, now=days_ago(-50))
    assert only.backup_id not in [decision.item.backup_id for decision in decisions if not decision.keep]
    assert sum(not decision.keep for decision in decisions) > 20
    verify(live.site, only, "checksum")


def test_a_pre_migration_backup_among_others(live, shell):
    """ls -lh backups/pre-migration/  ("review manually"): nothing shows which one belongs to the live migration"""
    run = live.begun("deploy")
    live.site = run
    place = live.backup("pre-migration")
    run.operation.write("backup", "done", backup=place.backup_id)
    run.operation.write("migrate", "done", applied=["x"])
    run.operation.close("done")
    made_backup(live.store, "pre-migration", days_ago(-150), database=live.name)
    decisions = prune(live.store, Policy(), now=days_ago(-200))
    told = {decision.item.backup_id: decision for decision in decisions}[place.backup_id]
    assert told.keep and "a rollback of the last migration" in "; ".join(told.reasons)
