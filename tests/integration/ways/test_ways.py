# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every way of rolling back, by its two calls: made from the operation's request, prepared, applied, settled."""

from __future__ import annotations

import types

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.request import request_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import apply, prepare, settle
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs

RECEIPT = """INSERT INTO "ReceiptData" ("id", "purchaseId", "totalAmountZWG", "transactionDateTime")
  VALUES ('r1', 'p000001', 1.5, '2025-11-08')"""
DOWN = 'DROP TABLE "ReceiptData"'
NAMES = ("20251001000000_init", "20251108000000_add_receipt_data")


class Back:
    """A migrated database, its backup from before, and the release with the migration."""

    def __init__(self, live, folder):
        self.live, self.before = live, live.backup()
        live.run("receipts.sql")
        for name in NAMES:
            (folder / name).mkdir(parents=True)
            (folder / name / "migration.sql").write_text("SELECT 1")
        self.prisma = types.SimpleNamespace(project=types.SimpleNamespace(migrations=lambda: str(folder)))

    def programs(self, down=DOWN):
        return Programs(prisma=lambda: self.prisma, down_sql=down)

    def asked(self, **request):
        run = self.live.begun("rollback", {"backup": self.before.backup_id, **request})
        run.operation.header["facts"] = {"former_commit": "new", "commit": "old"}
        return run

    def undo(self, done):
        plan = plan_undo(self.live.site, done.operation.id)
        return self.live.begun(*request_of(self.live.site, Asked("undo"), plan))

    def deployed(self, **journal):
        """A deploy whose migration was completed, and which fails after it."""
        run = self.live.begun("deploy", {"commit": "new"})
        run.operation.write("backup", "done", backup=self.before.backup_id)
        run.operation.write("migrate", "done", applied=list(NAMES[1:]))
        for step, facts in journal.items():
            run.operation.write(step, "done", **facts)
        return run

    def receipts(self):
        return self.live.value("SELECT to_regclass('public.\"ReceiptData\"') IS NOT NULL")


@pytest.fixture
def back(plain, tmp_path):
    return Back(plain, tmp_path / "migrations")


def taken(run, programs, consent=Consent()):  # noqa: B008
    """Prepare and apply; a second call finds it done."""
    prepare(run, programs, consent)
    way, outcome = apply(run, programs, consent)
    assert apply(run, programs, consent)[1].changed is (way.name == "code_only")
    found = settle(run)
    assert found.state == ("as_before" if way.name == "code_only" else "in_force")
    run.operation.close("done")
    return way.name, outcome


def test_a_swap_and_its_undo(back):
    run = back.asked(scenario="complete")
    assert settle(run).state == "as_before"
    name, outcome = taken(run, back.programs())
    assert name == "restore" and not back.receipts()
    assert "Lost rows: 0." in outcome.story[0] and outcome.facts.retired in outcome.story[1]
    undo = back.undo(run)
    name, outcome = taken(undo, back.programs())
    assert name == "restore" and back.receipts()
    # An undo is a change like any other.
    assert taken(back.undo(undo), back.programs())[0] == "restore" and not back.receipts()


def test_in_place_and_its_undo(back):
    run = back.asked(scenario="complete", method="in_place")
    name, outcome = taken(run, back.programs())
    assert name == "in_place" and not back.receipts() and outcome.facts.emergency in outcome.story[1]
    assert taken(back.undo(run), back.programs())[0] == "in_place" and back.receipts()


def test_a_migration_is_taken_out(back):
    back.live.execute(RECEIPT)
    run = back.asked(scenario="application_errors", method="drop")
    with pytest.raises(Refused, match="1 rows would be lost"):
        prepare(run, back.programs(), Consent())
    assert back.receipts() and settle(run).state == "as_before"
    name, outcome = taken(run, back.programs(), Consent(LossPolicy(1)))
    assert name == "drop" and not back.receipts() and outcome.facts.lost_rows == 1
    with pytest.raises(Refused, match="cannot be undone by itself"):
        plan_undo(back.live.site, run.operation.id)


def test_down_sql_that_is_not_proved_hands_over(back):
    run = back.asked(scenario="application_errors", method="drop")
    with pytest.raises(Refused, match="is not proved: table public.ReceiptData would be left"):
        prepare(run, back.programs("SELECT 1"), Consent(restore=False))
    way, _ready, reasons = prepare(run, back.programs("SELECT 1"), Consent())
    assert way.name == "restore" and reasons[0].endswith("The database is restored instead.")
    assert taken(run, back.programs("SELECT 1"))[0] == "restore" and not back.receipts()


def test_the_release_alone(back):
    run = back.asked(scenario="application_errors", method="code_only")
    name, outcome = taken(run, back.programs())
    assert name == "code_only" and outcome.story == ["Nothing in the database was changed."] and back.receipts()
    assert run.operation.facts("code") == {"commit": "old"}


PROOF = {"proved": False, "reasons": ["x"], "source": "given", "sha256": ""}


@pytest.mark.parametrize(
    ("journal", "way", "database"),
    [
        ({"old_release": {"works": True}}, "code_only", "keeps the new schema, on which the former release was proved"),
        ({"old_release": {"works": False}}, "restore", "a database restored from "),
        ({"old_release": {"works": False}, "down_proof": PROOF}, "restore", "a database restored from "),
    ],
)
def test_a_deploy_goes_back_by_itself(back, journal, way, database):
    """It uses what its rehearsal proved, without any loss."""
    run = back.deployed(**journal)
    found, outcome = apply(run, back.programs(), Consent())
    assert found.name == way and outcome.database.startswith(database)
    assert back.receipts() is (way == "code_only")


def test_a_deploy_takes_nothing_that_loses_a_row(back):
    back.live.execute(RECEIPT)
    run = back.deployed(old_release={"works": False})
    with pytest.raises(Refused, match="1 rows would be lost"):
        apply(run, back.programs(), Consent())
    assert back.receipts() and settle(run).state == "as_before"


def test_a_deploy_that_did_not_migrate_leaves_the_database(back):
    run = back.live.begun("deploy", {"commit": "new"})
    way, outcome = apply(run, back.programs(), Consent())
    assert way.name == "code_only" and outcome.database == "was not changed" and not outcome.changed


def test_an_operation_that_asks_for_nothing(back):
    with pytest.raises(Refused, match="names no backup to go back to"):
        prepare(back.live.begun("rollback", {}), back.programs(), Consent())
