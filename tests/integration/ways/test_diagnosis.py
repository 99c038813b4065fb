# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rollback applies, determined from a real database: each scenario, nothing, ambiguous; what it would lose."""

from __future__ import annotations

import contextlib
import threading

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import read_folder
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import MIGRATION_LOCK
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import (
    diagnose,
    plan_application_errors,
    plan_failed_migration,
    plan_revert,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor
from support.databases import APP, OWNER, SQL, session
from support.prisma_database import until

INSERT = 'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (%s, 1, now(), \'u1\')'
RECEIPT = """INSERT INTO "ReceiptData" ("id", "purchaseId", "totalAmountZWG", "transactionDateTime")
  VALUES ('r1', 'p000001', 1.5, '2025-11-08')"""


class Site:
    """A live database with its backup from before the migration, and a journal of the deploy."""

    def __init__(self, live):
        self.live, self.before = live, live.backup()

    def deployed(self, works=False, **timing):
        run = self.live.begun("deploy", {"commit": "new"})
        operation = run.operation
        operation.header["facts"] = {"former_commit": "old"}
        operation.write("backup", "done", backup=self.before.backup_id)
        operation.write("old_release", "done", works=works)
        operation.write("stop", "done")
        self.live.run("receipts.sql")
        operation.write("migrate", "done", applied=["20251108000000_add_receipt_data"], seconds=0.0)
        operation.write("started", "done")
        operation.close("done")
        return operation

    def plan(self, healthy=None, scenario="auto", chosen=None, **keywords):
        facts = gather(self.live.site, healthy=healthy, **keywords)
        return diagnose(self.live.site, scenario, facts, chosen)


@pytest.fixture
def site(plain):
    return Site(plain)


def losses(plan):
    """By table: inserted, updated, deleted, exact."""
    return {
        loss["table"]: (loss["inserted"], loss["updated"], loss["deleted"], loss["exact"]) for loss in plan["losses"]
    }


def says(plan, *words):
    text = "\n".join(plan["report"])
    for word in words:
        assert word in text, text
    return text


def test_nothing(site):
    """A database equal to its backup, whether the application is healthy or has errors of its own."""
    for healthy in (True, None, False):
        plan = site.plan(healthy)
        assert (plan["scenario"], plan["next"]) == ("nothing", "nothing")
        says(plan, "SCENARIO: nothing", "3 of 3 tables hold exactly the rows of the backup")
    site.live.execute(INSERT % "'new'")
    assert site.plan(False)["scenario"] == "nothing"
    site.deployed()
    plan = site.plan(True)
    assert plan["scenario"] == "nothing" and plan["losses"] == []
    says(plan, "applied since the backup: 20251108000000_add_receipt_data", "2 of 3 tables")


def test_objects_of_every_kind(realistic):
    site = Site(realistic)
    assert site.plan(False)["scenario"] == "nothing"
    realistic.execute('ALTER TABLE "User" ALTER "email" SET STATISTICS 9')
    says(site.plan(False), "objects changed since the backup: table public.User is changed", "SET STATISTICS 9")
    plan = site.plan(True, "complete")
    assert len(plan["losses"]) > 5 and set(losses(plan).values()) == {(0, 0, 0, True)}


def test_no_backup_at_all(plain):
    facts = gather(plain.site, healthy=True)
    plan = diagnose(plain.site, "auto", facts)
    assert plan["scenario"] == "nothing" and plan["backup"] is None
    says(plan, "not known: There is no backup to revert to")
    plan = diagnose(plain.site, "auto", gather(plain.site, healthy=False))
    assert plan["scenario"] == "ambiguous" and plan["candidates"]


def test_a_failed_migration(site):
    site.live.run("receipts.sql")
    site.live.execute("UPDATE _prisma_migrations SET finished_at = NULL WHERE id = 'm2'")
    for healthy in (True, False):
        plan = site.plan(healthy)
        assert plan["scenario"] == "failed_migration"
        assert plan["next"] == "ansible-playbook backstop.postgres.rollback_failed_migration --check"
    says(plan, "marked as failed: 20251108000000_add_receipt_data", "objects added since the backup: ", "Step 1: ")


def test_after_a_deploy_that_changed_the_release_only(site):
    """A complete revert reverts the last deploy, which changed the release only; a second one does nothing."""
    site.deployed()
    header = {"database": site.live.name, "request": {"commit": "newer"}, "facts": {"former_commit": "new"}}
    Operation.create(site.live.store, "deploy", header).close("done")
    plan = plan_revert(site.live.site, None)
    assert (plan["needed"], plan["backup"], plan["commit"]) == (False, None, "new")
    assert plan_revert(site.live.site, site.before.backup_id)["needed"] is True
    plan = site.plan(False)
    assert plan["scenario"] == "complete" and plan["disk_needed"] == 0 and plan["losses"] == []
    assert plan["steps"] == ["stop the application", "start release new and check its health"]
    assert plan["next"] == "ansible-playbook backstop.postgres.rollback_complete --check"
    header["request"] = {"scenario": "complete", "backup": None, "method": "code_only"}
    rolled_back = Operation.create(site.live.store, "rollback", header)
    rolled_back.write("code", "done", commit="new")
    rolled_back.close("done")
    assert plan_revert(site.live.site, None)["commit"] == "new"
    site.live.execute('DELETE FROM "UserContribution" WHERE "id" = \'c1\'; DROP TABLE "UserContribution"')
    assert site.plan(False, "complete")["next"].endswith(" -e rollback_backup=" + site.before.backup_id)


def test_a_migration_that_is_applied_but_not_there(plain):
    """A rollback dropped a table but left the history unchanged: the plan used to answer that nothing was to run."""
    live, receipts = plain, (SQL / "receipts.sql").read_text("utf-8").split("INSERT INTO _prisma")[0]
    made = (SQL / "plain.sql").read_text("utf-8").split("CREATE TABLE _prisma")[0]
    old = history.from_mapping({"20251001000000_init": made.encode()})
    new = [*old, history.MigrationFile("20251108000000_add_receipt_data", receipts)]
    live.execute("UPDATE _prisma_migrations SET checksum = '%s'" % new[0].checksum)
    site = Site(live)
    site.deployed()
    live.execute("UPDATE _prisma_migrations SET checksum = '%s' WHERE id = 'm2'" % new[1].checksum)
    for files in (old, new):
        assert plan_failed_migration(live.site, None, lambda files=files: files)["needed"] is False
    assert site.plan(True, folder=lambda: new)["scenario"] == "nothing"
    live.execute('DROP TABLE "ReceiptData"')
    for files in (old, new):
        plan = site.plan(True, folder=lambda files=files: files)
        assert plan["scenario"] == "failed_migration", plan["report"]
        assert plan["next"] == "ansible-playbook backstop.postgres.rollback_failed_migration --check"
        plan = plan_failed_migration(live.site, None, lambda files=files: files)
        assert plan["needed"] and plan["applied"] == ["20251108000000_add_receipt_data"]
        assert "take out of the history, so that the next deploy applies them: " + plan["applied"][0] in plan["steps"]
    says(site.plan(True, folder=lambda: new), "made by applied migrations but missing: table public.ReceiptData")
    live.execute(INSERT % "'new'")
    assert site.plan(False, folder=lambda: new)["scenario"] == "complete"
    assert site.plan(True, folder=lambda: new)["candidates"] == ["nothing", "complete"]


def test_a_running_migration_is_waited_for(site):
    """Its row looks like that of one that failed."""
    site.live.run("receipts.sql")
    site.live.execute("UPDATE _prisma_migrations SET finished_at = NULL WHERE id = 'm2'")
    with site.live.session(user=OWNER) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        plan = site.plan(False)
    assert plan["scenario"] == "ambiguous" and plan["candidates"] == ["nothing", "failed_migration"]
    assert plan["next"].startswith("wait until the migration has ended")
    says(plan, "holds Prisma's lock", "It may be: ")
    assert site.plan(False)["scenario"] == "failed_migration"


def test_a_backend_of_a_killed_run_is_seen(site):
    with session(site.live.cluster, site.live.name, OWNER) as cursor:
        cursor.execute("SET application_name = 'prisma of backstop 20260101T000000Z-abcdef'; BEGIN; SELECT 1")
        assert site.plan(False)["scenario"] == "ambiguous"


def test_who_waits_for_the_lock_is_told_too(site):
    """One session migrates, another waits for it: both are named, and waiting is all there is to do."""
    with site.live.session(user=OWNER) as holder, site.live.session(user=OWNER) as waiter:
        waiter.execute("SET application_name = 'the other deploy'; SET lock_timeout = 0")
        holder.execute("SELECT pg_advisory_lock(%s), pg_backend_pid()", (MIGRATION_LOCK,))
        waiting = threading.Thread(target=_swallow, args=(waiter, "SELECT pg_advisory_lock(%d)" % MIGRATION_LOCK))
        waiting.start()
        try:
            until(lambda: site.live.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, "one waits")
            plan = site.plan(False)
        finally:
            site.live.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted")
            waiting.join(30)
    assert plan["scenario"] == "ambiguous" and plan["steps"] == [] and plan["losses"] == []
    says(
        plan,
        "holds Prisma's lock",
        "(the other deploy, %s) waits for Prisma's lock" % OWNER,
        "RUN NEXT: wait until the migration has ended",
    )


def _swallow(cursor, statement):
    with contextlib.suppress(psycopg2.Error):
        cursor.execute(statement)


def test_what_the_release_has_and_lacks(site, tmp_path):
    """The folder of the release that runs, compared with the history: pending migrations, and unknown ones."""
    site.deployed()
    folder = tmp_path / "migrations"
    for name in ("20251001000000_init", "20260101000000_next"):
        (folder / name).mkdir(parents=True)
        (folder / name / "migration.sql").write_text("SELECT 1")
    plan = site.plan(True, folder=lambda: read_folder(str(folder)))
    says(
        plan,
        "in the release but not applied: 20260101000000_next",
        "applied but not in the release that runs: 20251108000000_add_receipt_data",
    )


CHOICES = {
    "failed_migration": lambda site: plan_failed_migration(site, None),
    "application_errors": lambda site: plan_application_errors(site, "auto", None),
    "complete": lambda site: plan_revert(site, None),
}


@pytest.mark.parametrize("scenario", CHOICES)
def test_check_mode_of_each_rollback_tells_the_same(site, scenario):
    """The same facts, costs and losses as the plan that determines the scenario; only the command is without
    --check."""
    if scenario == "failed_migration":
        site.live.run("receipts.sql")
        site.live.execute("UPDATE _prisma_migrations SET finished_at = NULL WHERE id = 'm2'")
    else:
        site.deployed()
        site.live.execute(RECEIPT)
    if scenario == "complete":
        site.live.execute("""ALTER TABLE "User" DROP "name" """)
    found = site.plan(False)
    asked = site.plan(False, scenario, CHOICES[scenario](site.live.site))
    assert found["scenario"] == asked["scenario"] == asked["found_scenario"] == scenario
    assert asked["next"] + " --check" == found["next"]
    same = ("evidence", "losses", "backup", "level", "downtime_seconds", "recovery_seconds")
    assert {key: found[key] for key in same} == {key: asked[key] for key in same}
    # The server may vacuum in between, and the database has a few pages more or less.
    assert found["disk_needed"] == pytest.approx(asked["disk_needed"], abs=1 << 20)
    about = ("SCENARIO", "Fact", "Backup", "Loss", "Measured")
    assert [line for line in asked["report"] if line.startswith(about)] == [
        line for line in found["report"] if line.startswith(about)
    ]
    assert len(asked["steps"]) > 2 and bool(asked["losses"]) is (scenario != "failed_migration")


def test_application_errors_code_only(site):
    site.deployed(works=True)
    site.live.execute(RECEIPT)
    plan = site.plan(False)
    assert (plan["scenario"], plan["method"], plan["losses"]) == ("application_errors", "code_only", [])
    assert plan["disk_needed"] == 0 and plan["downtime_seconds"] is not None
    says(
        plan,
        "the release before deploy",
        "works on the new schema",
        "Loss: none",
        "RUN NEXT: ansible-playbook backstop.postgres.rollback_application_errors --check",
    )


def test_application_errors_drop(site):
    """Added objects can be dropped again; the rows in them are what would be lost, exactly."""
    site.deployed()
    site.live.execute(RECEIPT)
    site.live.execute(INSERT % "'new'")
    plan = site.plan(False)
    assert (plan["scenario"], plan["method"]) == ("application_errors", "drop")
    assert losses(plan) == {"public.ReceiptData": (1, 0, 0, True)}
    says(
        plan,
        "was not proved on the new schema",
        "public.ReceiptData: 1 inserted",
        "rollback_accept_lost_rows=1",
        "since the backup: index public.ReceiptData_pkey, index public.ReceiptData_purchaseId_key, table public",
    )
    assert plan["disk_needed"] > 0


def test_complete(site):
    """The migration changed existing objects, and the former release was not tested on the new schema."""
    site.deployed()
    site.live.execute("""ALTER TABLE "User" DROP "name" """)
    plan = site.plan(False)
    assert plan["scenario"] == "complete"
    says(plan, "objects of the backup that are missing: column public.User.name", "at least")
    assert losses(plan)["public.TokenPurchase"] == (0, 0, 0, True)


def test_drift_without_a_migration(site):
    site.live.execute("""ALTER TABLE "User" ALTER "name" SET DEFAULT 'x'""")
    assert site.plan(False)["scenario"] == "complete"
    plan = site.plan(True)
    assert plan["scenario"] == "ambiguous" and plan["candidates"] == ["nothing", "complete"]


def test_a_corrupted_table(site):
    site.live.execute("""DELETE FROM "UserContribution" WHERE "id" < 'c2'""")
    plan = site.plan(False)
    assert plan["scenario"] == "corrupted_table"
    assert "rollback_table=public.UserContribution" in plan["next"]
    says(plan, "fewer rows than in the backup: public.UserContribution")
    plan = site.plan(True)
    assert plan["scenario"] == "ambiguous" and plan["candidates"] == ["nothing", "corrupted_table"]


def test_a_table_that_cannot_be_read(site):
    site.live.execute(
        """REVOKE SELECT ON "UserContribution" FROM %s; ALTER TABLE "UserContribution" OWNER TO %s""" % (OWNER, APP)
    )
    plan = site.plan(True)
    assert plan["scenario"] == "corrupted_table"
    says(plan, "cannot be read: public.UserContribution", "permission denied")


def test_ambiguous_after_a_migration(site):
    """Unhealthy after the migration, and rows are missing: deleted by the application, or by another session?"""
    site.deployed()
    site.live.execute("""DELETE FROM "UserContribution" WHERE "id" = 'c1'""")
    plan = site.plan(False)
    assert plan["scenario"] == "ambiguous"
    assert plan["candidates"] == ["application_errors", "corrupted_table", "complete"]
    says(plan, "SCENARIO: ambiguous", "fewer rows than in the backup: public.UserContribution 399 of 400")


def test_nobody_asked_the_application(site):
    site.deployed()
    plan = site.plan(None)
    assert plan["scenario"] == "ambiguous" and "application_errors" in plan["candidates"]
    says(plan, "was not asked for its health")


def test_the_loss_of_a_revert_is_a_bound_until_a_copy_exists(site):
    site.deployed()
    site.live.execute(RECEIPT)
    site.live.execute(INSERT % "'one'")
    site.live.execute(INSERT % "'two'")
    site.live.execute("""UPDATE "TokenPurchase" SET "totalTokens" = 7 WHERE "id" < 'p000004'""")
    site.live.execute("""DELETE FROM "UserContribution" WHERE "id" = 'c9'""")
    before = site.plan(False, "complete")
    assert losses(before) == {
        "public.ReceiptData": (1, 0, 0, True),
        "public.TokenPurchase": (2, 3, 0, False),
        "public.User": (0, 0, 0, True),
        "public.UserContribution": (0, 0, 1, False),
    }
    says(
        before,
        "The facts suggest another scenario: ambiguous (not clear",
        "public.TokenPurchase: at least 2 inserted, 3 updated",
        "at least 7 rows in all",
    )

    run = site.live.begun("rollback", {"scenario": "complete"})
    build_successor(run, site.before)
    exact = losses(site.plan(False, "complete"))
    assert exact == {name: (*counts[:3], True) for name, counts in losses(before).items()}
    assert site.plan(False)["next"].startswith("ansible-playbook backstop.postgres.rollback_complete, with the other")


def test_transaction_numbers_that_tell_nothing_are_not_used(site):
    """After a rewrite every row looks new; then only the row counts and the digest are used."""
    site.live.execute("""UPDATE "User" SET "name" = 'x' WHERE "id" = 'u1'""")
    assert losses(site.plan(True, "complete"))["public.User"] == (0, 1, 0, False)
    site.live.execute("""ALTER TABLE "User" ALTER "name" TYPE text COLLATE "C" USING "name" || 'y'""")
    assert losses(site.plan(True, "complete"))["public.User"] == (0, 1, 0, False)


def test_invalid_indexes_and_the_folder_are_told(site, tmp_path):
    site.live.execute("""UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"User_email_key"'::regclass""")

    def folder():
        raise BackstopError("no such folder here")

    plan = site.plan(True, folder=folder)
    says(plan, "invalid indexes: public.User_email_key", "not known: the migrations folder could not be read: no such")


def test_levels_times_and_disk(site):
    verify(site.live.site, site.before, "restored")
    site.deployed()
    plan = site.plan(False, "complete")
    assert plan["level"] == "restored" and plan["recovery_seconds"] > 0
    assert plan["disk_needed"] >= site.live.value("SELECT pg_database_size(current_database())") // 2
    says(plan, "verified to level restored", "expected downtime: ", "Measured recovery time: ")


def test_the_choice_of_a_method(site):
    with pytest.raises(BackstopError, match="not proved on the new schema"):
        plan_application_errors(site.live.site, "code_only", None)
    site.deployed(works=False)
    chosen = plan_application_errors(site.live.site, "auto", None)
    assert (chosen["method"], chosen["needed"]) == ("drop", True)
    assert chosen["migrations"] == ["20251108000000_add_receipt_data"] and chosen["deployed_commit"] == "new"
    assert plan_application_errors(site.live.site, "restore", None)["method"] == "restore"
    site.live.execute("UPDATE _prisma_migrations SET finished_at = NULL WHERE id = 'm2'")
    with pytest.raises(BackstopError, match="rollback_failed_migration"):
        plan_application_errors(site.live.site, "auto", None)


def test_the_options_that_were_given(site):
    """Accepted losses and the rows that would be carried over; a rollback in progress does not recommend itself."""
    site.live.execute(INSERT % "'new'")
    site.live.execute("""DELETE FROM "UserContribution" WHERE "id" = (SELECT min("id") FROM "UserContribution")""")
    site.deployed()
    site.live.execute(RECEIPT)
    facts = gather(site.live.site, healthy=False)

    def told(runs=False, **options):
        plan = diagnose(site.live.site, "complete", facts, None, Asked(**options), runs=runs)
        return plan, [line for line in plan["report"] if line.startswith("Loss: ")], plan["report"][-1]

    plan, lines, last = told()
    assert lines[-1].startswith("Loss: at least 3 rows in all: refused unless -e rollback_accept_lost_rows=N allows")
    assert last == "RUN NEXT: ansible-playbook backstop.postgres.rollback_complete"
    plan, lines, last = told(accept_lost_rows=3, backup="b")
    assert lines[-1].startswith("Loss: at least 3 rows in all: accepted if there are no more than that, 3 may be")
    assert last.endswith("rollback_complete -e rollback_backup=b -e rollback_accept_lost_rows=3")
    plan, lines, last = told(reapply="apply", reapply_deletes=True)
    assert "public.TokenPurchase: at least 1 inserted; all would be carried over" in lines[0], lines
    assert "public.UserContribution: at least 1 deleted; all would be carried over" in "".join(lines), lines
    assert "public.ReceiptData: 1 inserted; none would be carried over: the backup does not have the table" in "".join(
        lines
    )
    assert "at least 3 rows in all, of which 1 cannot be carried over: refused unless" in lines[-1]
    assert last.endswith(" -e rollback_reapply=apply -e rollback_reapply_deletes=true")
    plan, lines, last = told(reapply="report", runs=True)
    assert "all could be carried over with -e rollback_reapply=apply" in lines[0] and "of which" not in lines[-1], lines
    assert "RUN NEXT" not in "".join(plan["report"])


def test_columns_that_only_moved_up(site):
    site.live.execute(
        """ALTER TABLE "TokenPurchase" DROP COLUMN "totalTokens", ALTER COLUMN "createdBy" DROP NOT NULL"""
    )
    facts = gather(site.live.site, healthy=True)
    assert facts.missing == ["column public.TokenPurchase.totalTokens"]
    assert facts.changed == ["column public.TokenPurchase.createdBy"]
    site.live.execute("""ALTER TABLE "User" RENAME COLUMN "name" TO x; ALTER TABLE "User" ADD COLUMN "name" text""")
    assert "column public.User.name" in gather(site.live.site, healthy=True).changed
