# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 2: the migration succeeded, the application has errors. The plan reports it, the playbook fixes it."""

from __future__ import annotations

import dataclasses

from demo import application
from support.broken_releases import FIRST, MIGRATION
from support.demo_site import DemoSite, Run

DEPLOY, PLAN, ROLLBACK = "deploy_receiptdata.yml", "rollback_plan.yml", "rollback_application_errors.yml"
UNDO = "undo_rollback.yml"
RECEIPT = """INSERT INTO "ReceiptData" ("id", "purchaseId", "kwhPurchased", "energyCostZWG", "debtZWG", "reaZWG",
  "vatZWG", "totalAmountZWG", "tenderedZWG", "transactionDateTime", "updatedAt")
  SELECT 'kept', "id", 1, 1, 1, 1, 1, 1, 1, now(), now() FROM "TokenPurchase" LIMIT 1"""


def done(run: Run) -> Run:
    assert run.status == 0, run.output
    return run


def nothing_to_do(site: DemoSite, playbook: str, **variables: object) -> None:
    process = site.process()
    assert done(site.play(playbook, **variables)).changed == 0
    assert site.process() == process


def planned(site: DemoSite, *words: str) -> None:
    """The plan is read-only and shows these words."""
    before, files = site.condition(), site.files()
    run = done(site.play(PLAN))
    assert run.changed == 0
    for word in words:
        assert word in run.text, run.output
    assert (site.condition(), site.files()) == (before, files)


def checked(site: DemoSite, *words: str, **variables: object) -> None:
    """--check shows the same plan without effect."""
    before, files = site.condition(), site.files()
    run = done(site.play(ROLLBACK, "--check", **variables))
    assert run.changed == 1
    for word in words:
        assert word in run.text, run.output
    assert (site.condition(), site.files()) == (before, files)


def test_the_old_release_on_the_new_schema(site: DemoSite) -> None:
    """Nothing is lost: the database and the rows written since stay as they are."""
    old = site.condition()
    site.deploy()
    site.sql(RECEIPT)
    deployed = site.condition()
    planned(site, "SCENARIO: nothing", "applied since the backup: " + MIGRATION)

    application.stop(site.places, site.node)
    planned(
        site,
        "SCENARIO: application_errors",
        "is NOT healthy",
        "works on the new schema",
        "Loss: none",
        "RUN NEXT: ansible-playbook backstop.postgres.rollback_application_errors --check",
    )
    checked(site, "Step 2: start release %s on the new schema" % site.commits["before-et-100"])
    # The rehearsal proved it, but now it is unhealthy: the newer release is started again, and the message says so.
    sick = site.play(ROLLBACK, rollback_revision="never-healthy", application_health_timeout=5)
    sick.must_say(
        "is unhealthy on the current schema",
        "did not become healthy",
        "The database was not touched",
        "release %s runs again" % site.commits["et-100"],
        "ansible-playbook backstop.postgres.rollback_application_errors -e rollback_method=restore",
    )
    assert site.condition() == deployed and site.outcomes() == ["done", "failed"]
    done(site.play(ROLLBACK))
    now = site.condition()
    assert now.running == now.current == old.current
    assert dataclasses.replace(now, running=deployed.running, current=deployed.current) == deployed
    nothing_to_do(site, ROLLBACK)

    done(site.play(UNDO))
    assert site.condition() == deployed
    nothing_to_do(site, UNDO)
    assert site.outcomes() == ["done", "failed", "done", "done"]


def test_the_migration_is_taken_out(site: DemoSite) -> None:
    """Prisma generates the SQL from both schemas; lost rows are counted first. The next deploy would apply it again."""
    old = site.condition()
    done(site.play(DEPLOY, deploy_post_backup=False, deploy_smoke_tests_before=[]))
    site.sql(RECEIPT)
    deployed = site.condition()

    refused = site.play(ROLLBACK, rollback_method="drop", rollback_down_sql="SELECT 1")
    refused.must_say("Nothing was rolled back", "is not proved: table public.ReceiptData would be left")
    checked(site, "run the down-SQL and take %s out" % MIGRATION, "public.ReceiptData: 1 inserted")
    refused = site.play(ROLLBACK)
    refused.must_say("1 rows would be lost", "public.ReceiptData: 1 inserted", "Nothing was rolled back")
    assert site.condition() == deployed

    said = done(site.play(ROLLBACK, rollback_accept_lost_rows=1)).text
    assert "Lost rows: 1, kept in" in said and "Taken out: " + MIGRATION in said
    now = site.condition()
    assert dataclasses.replace(now, live_oid=old.live_oid) == old and now.applied == (FIRST,)
    nothing_to_do(site, ROLLBACK)
    site.play(UNDO).must_say("cannot be undone by itself", "rollback_complete -e rollback_backup=")

    assert site.databases("backstop_") == []
    again = done(site.play(DEPLOY, "--check"))
    assert "would rehearse and then apply: " + MIGRATION in again.text
