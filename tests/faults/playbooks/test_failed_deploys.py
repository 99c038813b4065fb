# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy that fails reverts database and release, reports it and ends as a failure; once fixed it succeeds."""

from __future__ import annotations

import dataclasses
from typing import Dict

import pytest
from support.broken_releases import FIRST, MIGRATION, SURPRISE
from support.demo_site import Condition, DemoSite, Run

DEPLOY = "deploy_receiptdata.yml"
ON_LIVE = "this fails on the live database only"
#: Short timeouts for events that never happen.
SHORT: Dict[str, object] = {
    "application_health_timeout": 5,
    "application_start_timeout": 10,
    "deploy_post_backup": False,
}
NEW_ROW = [
    {"name": "list users", "path": "/api/users?limit=1", "save": {"user": "users.0.id"}},
    {
        "name": "create a purchase",
        "method": "POST",
        "path": "/api/purchases",
        "body": {"userId": "${user}", "totalTokens": 1, "totalPayment": 1, "purchaseDate": "2025-11-08T02:00:00Z"},
        "status": 201,
    },
    {"name": "list receipts", "path": "/api/receipts"},
]


def failed(site: DemoSite, release: str, *words: str, **variables: object) -> Run:
    """A deploy of a broken release was rolled back: the former release runs, only what must be kept is left."""
    process = site.process()
    run = site.play(DEPLOY, deploy_revision=release, **{**SHORT, **variables})
    run.must_say("was rolled back", "runs again and is healthy", "run the deploy again", *words)
    assert site.process() != process
    assert site.outcomes() == ["rolled_back"]
    assert site.databases("backstop_scratch_") == []
    return run


def same(one: Condition, other: Condition, *besides: str) -> bool:
    """Whether two conditions are equal except for some fields."""
    return dataclasses.replace(one, **{name: getattr(other, name) for name in besides}) == other


def deploys_now(site: DemoSite) -> None:
    """The fixed release is deployed, and a second run finds nothing to do."""
    done = site.play(DEPLOY, deploy_post_backup=False)
    assert done.status == 0, done.output
    assert site.running() == site.commits["et-100"]
    assert site.applied() == (FIRST, MIGRATION)
    assert site.outcomes()[-1] == "done"
    assert site.databases("backstop_scratch_") == []
    again = site.play(DEPLOY)
    assert (again.status, again.changed) == (0, 0), again.output


def would_deploy(site: DemoSite) -> None:
    """Check mode shows that all gates are open again."""
    checked = site.play(DEPLOY, "--check")
    assert checked.status == 0, checked.output
    assert "would rehearse and then apply: " + MIGRATION in checked.output


# The migration fails


@pytest.mark.fault("deploy", "a migration that fails in the rehearsal", by="the rehearsal, without downtime")
def test_a_migration_that_fails_everywhere(site: DemoSite) -> None:
    """The rehearsal finds it: the application is not even stopped."""
    with site.unchanged():
        run = site.play(DEPLOY, deploy_revision="fails-everywhere")
    run.must_say("Nothing was changed", "never stopped", MIGRATION, "on a copy", '"NoSuchTable" does not exist')
    assert "fix the migration" in run.said and "rollback" not in run.said
    assert site.outcomes() == ["failed"]
    assert site.databases("backstop_") == []


@pytest.mark.fault("deploy", "a migration that fails and leaves nothing", by="resolved; the old release runs")
def test_a_migration_that_leaves_nothing(site: DemoSite) -> None:
    """Its statements are one transaction, so only the history has to be fixed."""
    before = site.condition()
    failed(site, "fails-live", MIGRATION, ON_LIVE, "as before, the migration left nothing")
    assert site.condition() == before
    would_deploy(site)


@pytest.mark.fault("deploy", "a migration that fails and leaves objects", by="leftovers dropped, digests equal")
def test_a_migration_that_leaves_objects(site: DemoSite) -> None:
    """It has a COMMIT and follows another migration: what both added is removed in place, and from the history."""
    before = site.condition()
    options = {"deploy_expected_migrations": [MIGRATION, SURPRISE]}
    failed(site, "leaves-objects", SURPRISE, ON_LIVE, "what the migration left was removed", **options)
    assert site.condition() == before
    would_deploy(site)


@pytest.mark.fault("deploy", "a migration that fails and changed rows", by="complete revert")
def test_a_migration_that_changes_rows(site: DemoSite) -> None:
    """Existing rows and columns were changed: the database that was copied right before takes over."""
    before = site.condition()
    said = ("the safety copy of this database became live", "is kept as backstop_retired_")
    run = failed(site, "changes-rows", MIGRATION, ON_LIVE, *said, deploy_safety_copy="template")
    assert "a copy of every file" in run.text
    after = site.condition()
    assert same(after, before, "databases", "live_oid")
    assert len(set(after.databases) - set(before.databases)) == 1
    deploys_now(site)


# The release fails after its migration


@pytest.mark.fault("deploy", "an application that crash-loops", by="health check; rolled back")
def test_a_release_that_crashes(site: DemoSite) -> None:
    """The former release was not tested on the new schema, so the database is reverted too, and nothing is lost."""
    before = site.condition()
    failed(
        site, "crashes", "does not stay up", "this release cannot start", "became live", deploy_smoke_tests_before=[]
    )
    assert same(site.condition(), before, "databases", "live_oid")
    would_deploy(site)


def test_a_release_that_crashes_and_its_down_sql_was_proved(site: DemoSite) -> None:
    """No second database is needed: Prisma's SQL reverts the migration, as the rehearsal proved."""
    before = site.condition()
    options = {"deploy_smoke_tests_before": [], "deploy_down_sql": "auto"}
    failed(site, "crashes", "does not stay up", "was taken out again by its down-SQL", **options)
    assert site.condition() == before
    would_deploy(site)


@pytest.mark.fault("deploy", "an application whose smoke tests fail", by="smoke tests; rolled back")
def test_a_release_whose_smoke_tests_fail(site: DemoSite) -> None:
    failed(site, "lacks-receipts", "smoke tests failed", "create its receipt: status 404", "keeps the new schema")


def test_a_first_deploy(site: DemoSite) -> None:
    """There is no former release: none runs then, and the next deploy is a first one again."""
    before = site.contents()
    site.forget_releases()
    run = site.play(DEPLOY, deploy_revision="never-healthy", **SHORT)
    run.must_say(
        "was rolled back", "did not become healthy", "No release was there before, so none runs", "became live"
    )
    assert site.contents() == before
    assert not site.places.current.is_symlink()
    would_deploy(site)


@pytest.mark.fault("deploy", "a way back that would lose rows", by="not taken without consent")
def test_a_loss_is_not_taken_for_granted(site: DemoSite) -> None:
    """The rollback would lose a row that the new release wrote: the run stops and shows the one command to run."""
    before = site.condition()
    tests = {"deploy_smoke_tests_before": [], "deploy_smoke_tests_after": NEW_ROW}
    run = site.play(DEPLOY, deploy_revision="lacks-receipts", **tests, **SHORT)
    run.must_say("list receipts", "1 rows would be lost", "public.TokenPurchase: 1 inserted", "is stopped")
    assert "ansible-playbook backstop.postgres.rollback_complete -e rollback_backup=" in run.said
    assert site.outcomes() == [None]
    assert site.databases("backstop_") == []
    (page,) = site.places.store.glob("operations/*/report.html")
    assert "Not finished" in page.read_text() and "its own rollback failed" in page.read_text()

    backup = run.said.split("rollback_backup=")[1].split()[0]
    back = site.play("rollback_complete.yml", "-e", "rollback_backup=" + backup, "-e", "rollback_accept_lost_rows=1")
    assert back.status == 0, back.output
    assert same(site.condition(), before, "databases", "live_oid")
    assert site.outcomes() == ["abandoned", "done"]
    assert list(site.places.store.glob("operations/*/lost-rows/*TokenPurchase*"))
    assert site.databases("backstop_scratch_") == []


@pytest.mark.fault("deploy", "deploy killed on its way back", by="the next run finishes it")
def test_cut_off_on_the_way_back(site: DemoSite) -> None:
    """Killed right after the swap: the same deploy does not continue, and the command that it names finishes."""
    before = site.condition()
    options: Dict[str, object] = {"deploy_revision": "crashes", "deploy_smoke_tests_before": [], **SHORT}
    run = site.play(DEPLOY, environment={"BACKSTOP_FAILPOINT": "swap.committed"}, **options)
    assert run.status != 0, run.output
    assert site.outcomes() == [None]
    again = site.play(DEPLOY, **options)
    again.must_say("was interrupted in its rollback", "rollback_complete")
    back = site.play("rollback_complete.yml")
    assert back.status == 0, back.output
    assert "Nothing in the database was changed." in back.text
    after = site.condition()
    assert len(set(after.databases) - set(before.databases)) == 1
    assert (after.contents, after.applied, after.running) == (before.contents, before.applied, before.running)
    assert site.outcomes() == ["abandoned", "done"]


# After the downtime


def test_a_failure_after_the_downtime(site: DemoSite) -> None:
    """The new release already serves requests; neither the failure nor the run that finishes stops it again."""
    hook = site.places.directory / "failing-hook.yml"
    hook.write_text("- {name: Tell the cache, ansible.builtin.fail: {msg: the cache does not answer}}\n", "utf-8")
    run = site.play(DEPLOY, deploy_after_downtime=str(hook))
    run.must_say("runs and is healthy, but the deploy is not finished", "the cache does not answer", "without stopping")
    assert site.running() == site.commits["et-100"]
    assert site.outcomes() == [None]
    (page,) = site.places.store.glob("operations/*/report.html")
    assert "the cache does not answer" in page.read_text() and "It is open. To continue it" in page.read_text()
    process = site.process()
    done = site.play(DEPLOY)
    assert done.status == 0, done.output
    assert site.process() == process
    assert site.outcomes() == ["done"]
    assert MIGRATION in done.text.split("Migrations applied")[1]
