# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 3 of the runbook by playbook: corrupted receipts are restored from a table backup, and this is undone."""

from __future__ import annotations

import pytest
from support.demo_site import DemoSite
from support.receipts import CORRUPT, RECEIPTS, with_receipts

PLAYBOOK = "rollback_corrupted_table.yml"


@pytest.mark.fault("deploy", "a table corrupted, restored, and that undone", by="digests of every table")
def test_corrupted_and_put_right_and_undone(site: DemoSite) -> None:
    site.deploy()
    site.sql(RECEIPTS)
    backup = site.play("pre_migration_backup.yml", backup_tables=["ReceiptData"], backup_kind="daily")
    assert backup.status == 0 and "200 rows of 1 tables" in backup.text, backup.output
    backup = site.play("pre_migration_backup.yml", "--check", backup_tables=["ReceiptData"])
    assert "would back up table ReceiptData of postgresql://" in backup.text, backup.output
    elsewhere = {"restore_drill_where": "cluster", "restore_drill_scratch_directory": str(site.places.directory)}
    drill = site.play("restore_drill.yml", "--check", **elsewhere)
    assert "restore it into a scratch cluster" in drill.text, drill.output
    right, process = with_receipts(site), site.process()
    site.sql(CORRUPT)
    wrong = with_receipts(site)

    with site.unchanged():
        files = site.files()
        checked = site.play(PLAYBOOK, "--check")
        assert checked.status == 0 and checked.changed > 0, checked.output
        assert "public.ReceiptData: 5 missing, 30 changed, 0 newer than the backup" in checked.text, checked.output
        assert "samples" not in checked.text and "[]" not in checked.text, checked.output
        assert site.files() == files
        report = site.play(PLAYBOOK, rollback_mode="repair")
        assert (report.status, report.changed) == (0, 0) and "only a report" in report.text, report.output

    restored = site.play(PLAYBOOK)
    assert restored.status == 0, restored.output
    assert "Now public.ReceiptData: 200 rows; transactionDateTime from 20" in restored.text, restored.output
    # The application was never stopped.
    assert with_receipts(site) == right and site.process() == process
    again = site.play(PLAYBOOK)
    assert (again.status, again.changed) == (0, 0) and "did this already" in again.text, again.output

    checked = site.play("undo_rollback.yml", "--check")
    assert checked.status == 0 and checked.changed > 0 and with_receipts(site) == right, checked.output
    assert "public.ReceiptData: 0 missing, 30 changed, 5 newer than the backup" in checked.text, checked.output
    undone = site.play("undo_rollback.yml")
    assert undone.status == 0, undone.output
    assert with_receipts(site) == wrong and site.process() == process
    again = site.play("undo_rollback.yml")
    assert (again.status, again.changed) == (0, 0), again.output
    assert site.outcomes()[-2:] == ["done", "done"]

    # Once more, with the application stopped in the meantime and a row that the backup does not have.
    site.sql(RECEIPTS.replace("LIMIT 200", "OFFSET 300 LIMIT 1"))
    refused = site.play(PLAYBOOK)
    refused.must_say("1 rows would be lost", "rollback_accept_lost_rows=1")
    restored = site.play(PLAYBOOK, rollback_accept_lost_rows=1, rollback_stop_application=True)
    assert restored.status == 0, restored.output
    assert with_receipts(site) == right and site.process() != process
