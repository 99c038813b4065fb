# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy that is refused shows what to do about it, and has changed and stopped nothing."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any, Callable, Dict, List, Tuple

import pytest
from demo import application, repository
from support.broken_releases import FIRST, MIGRATION, SURPRISE
from support.demo_site import DemoSite, sparse_file

DEPLOY = "deploy_receiptdata.yml"
TYPO = "electricity_token"
Variables = Dict[str, Any]


# Before an operation begins


def elsewhere(**parts: object) -> Callable[[DemoSite], Variables]:
    """The site's connection with one wrong part."""
    return lambda site: {"backstop_connection": {"url": site.url(), **parts}}


def with_option(**options: object) -> Callable[[DemoSite], Variables]:
    return lambda _site: options


BEFORE: Dict[str, Tuple[Callable[[DemoSite], Variables], List[str]]] = {
    "a wrong password": (elsewhere(password="none-of-it"), ["password", "check user and password"]),
    "an unreachable host": (elsewhere(port=1), ["No PostgreSQL server answers at 127.0.0.1:1", "Connection refused"]),
    "a missing database": (
        elsewhere(database=TYPO),
        ["no database " + TYPO, application.DATABASE, "check the database's name"],
    ),
    "a missing revision": (with_option(deploy_revision="et-10"), ["et-10", "did you mean et-100"]),
    "a store that cannot be written": (with_option(backstop_store="/sys/store"), ["/sys/store", "right to write"]),
}


@pytest.mark.fault("input", "wrong variables of the playbooks", by="refused before anything begins")
@pytest.mark.parametrize("case", BEFORE)
def test_refused_before_anything_begins(site: DemoSite, case: str) -> None:
    variables, words = BEFORE[case]
    with site.unchanged():
        run = site.play(DEPLOY, **variables(site))
    run.must_say(*words)
    assert run.changed == 0
    assert site.operations() == []


def test_a_host_left_out(site: DemoSite) -> None:
    """One database serves all hosts, so a deploy goes to all of them or to none."""
    inventory = site.inventory_with("another-host")
    with site.unchanged():
        run = site.play(DEPLOY, "-i", str(inventory), "--limit", "localhost")
    run.must_say("another-host", "--limit", "all or to none")
    assert site.operations() == []


def test_a_branch_that_moves_between_two_hosts(site: DemoSite, tmp_path: pathlib.Path) -> None:
    """All hosts take the commit that the first one found; another host's repository must have it."""
    other = tmp_path / "other.git"
    repository.git(other, "init", "--quiet", "--bare")
    files = repository.files_of(("base",))
    later = repository.commit(other, files, "later", "2026-01-01T09:00:00+00:00", parents=[])
    repository.git(other, "update-ref", "refs/heads/main", later)
    own = {"application_root": str(tmp_path / "root"), "application_repository": str(other)}
    inventory = site.inventory_with("another-host", **own)
    with site.unchanged():
        run = site.play(DEPLOY, "-i", str(inventory), deploy_revision="main")
    run.must_say("does not have this revision", site.commits["et-100"], "push the commit")
    assert re.search(r"fatal: \[another-host\]: FAILED", run.output)
    assert site.operations() == []


def test_a_migration_that_breaks_a_rule(site: DemoSite) -> None:
    squawk = str(pathlib.Path(sys.executable).parent / "squawk")
    rule = "prefer-timestamp-tz"
    chosen: Variables = {"deploy_lint": True, "deploy_lint_program": squawk, "deploy_lint_stop": [rule]}
    with site.unchanged():
        run = site.play(DEPLOY, "--check", **chosen)
    run.must_say("breaks a rule of deploy_lint_stop", MIGRATION + " line 14 (%s)" % rule, "Fix the migration")
    assert site.operations() == []


# Gates


def refused(site: DemoSite, **variables: object) -> str:
    """The message of a deploy that is refused while the application runs."""
    with site.unchanged():
        run = site.play(DEPLOY, **variables)
    run.must_say("Nothing was changed", "the application was never stopped")
    assert site.outcomes() == ["failed"]
    assert site.databases("backstop_") == []
    return run.said


@pytest.mark.parametrize(
    "release, words",
    [
        (
            "wrong-in-three-ways",
            [
                "edited afterwards: " + FIRST,
                "put the file back",
                "not expected: " + SURPRISE,
                "add them to the expected migrations",
                "cluster_statements",
                "CREATE ROLE reporting",
                "by hand",
            ],
        ),
        ("forgets-the-past", ["does not know: " + FIRST, "deploy a release that holds them"]),
    ],
)
def test_migrations_that_are_not_as_expected(site: DemoSite, release: str, words: List[str]) -> None:
    said = refused(site, deploy_revision=release)
    assert all(word in said for word in words), said


def test_a_failed_migration_in_the_history(site: DemoSite) -> None:
    with site.session() as cursor:
        insert = "INSERT INTO _prisma_migrations (id, checksum, migration_name, logs) VALUES ('1', 'x', %s, 'ERROR')"
        cursor.execute(insert, (MIGRATION,))
    said = refused(site)
    assert "failed or were interrupted: " + MIGRATION in said, said
    assert "rollback_failed_migration" in said, said


def test_what_runs_is_no_release(site: DemoSite) -> None:
    """As before the first deploy by the collection: a failed deploy could not restart it, and no backup names it."""
    site.run_by_hand()
    said = refused(site)
    for words in (
        "The running application is not a release",
        str(site.by_hand),
        "deploy the revision that runs now first",
    ):
        assert words in said, said
    backup = site.play("pre_migration_backup.yml")
    assert backup.status == 0, backup.output
    with site.unchanged():
        rollback = site.play("rollback_complete.yml")
    rollback.must_say("The release to run afterwards is unknown", "-e rollback_revision=", "Nothing was changed")
    # Do what the gate's message says.
    adopted = site.play("deploy.yml", deploy_revision="before-et-100", deploy_expected_migrations=[])
    assert adopted.status == 0, adopted.output
    assert site.running() == site.commits["before-et-100"]
    assert site.process().restarts == 0 and not site.runs_by_hand()


def test_a_folder_where_the_link_goes(site: DemoSite) -> None:
    """The folder may be the only copy of the application."""
    site.run_by_hand()
    site.by_hand.rename(site.places.current)
    try:
        run = site.play(DEPLOY)
        run.must_say("Nothing is overwritten", str(site.places.current), "move it out of the way")
        assert site.operations() == []
        assert (site.places.current / "package.json").is_file()
    finally:
        site.places.current.rename(site.by_hand)


@pytest.mark.fault("deploy", "a full store, or no client programs", by="gates")
def test_a_full_store_and_missing_client_programs(site: DemoSite) -> None:
    """A database that is larger than the free space; the message also shows everything else that is wrong."""
    with sparse_file(site.database_directory(), site.places.directory):
        said = refused(site, backstop_client_bin_dir="/usr/sbin")
    for word in ("store: The store has too little free space", "database_disk:", "client_tools:", "4 of 30 gates"):
        assert word in said, said


def test_a_waiver_without_a_reason(site: DemoSite) -> None:
    said = refused(site, deploy_waivers={"store": " "})
    assert "gives no reason" in said, said


def test_a_waiver_of_no_gate(site: DemoSite) -> None:
    said = refused(site, deploy_waivers={"stor": "the disk grows tomorrow"})
    assert "stor" in said, said
    assert "did you mean store" in said, said


# Later, still before downtime


def test_an_unknown_table(site: DemoSite) -> None:
    """The tables to check are looked up on the rehearsal's copy, so that a typing error costs no downtime."""
    said = refused(site, deploy_tables=[{"name": "ReceiptsData"}, {"name": "User"}])
    assert "ReceiptsData" in said, said
    assert "perhaps ReceiptData" in said, said


@pytest.mark.fault("deploy", "a locked table before a deploy", by="a gate")
def test_a_locked_table(site: DemoSite) -> None:
    with site.session() as cursor:
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase" IN ACCESS EXCLUSIVE MODE')
        with site.unchanged(readable=False):
            run = site.play(DEPLOY)
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
        cursor.execute("ROLLBACK")
    run.must_say("TokenPurchase", "backend %d" % pid, "pg_terminate_backend", "Nothing was changed")
    assert site.outcomes() == ["failed"]
    assert site.condition() == site.before


@pytest.mark.fault("deploy", "two deployers", by="the lock of the operation")
def test_a_second_deploy_while_one_runs(site: DemoSite) -> None:
    hook = site.hook_that_waits()
    first = site.start(DEPLOY, deploy_before_downtime=str(hook.tasks))
    hook.wait_until_reached()
    try:
        second = site.play(DEPLOY)
        (running,) = site.operations()
        second.must_say("Another deploy of database electricity_tokens is running", running["id"], "wait for it to end")
        assert site.running() == site.commits["before-et-100"]
    finally:
        hook.release()
    done = first.end()
    assert done.status == 0, done.output
    assert site.running() == site.commits["et-100"]
    assert site.outcomes() == ["done"]
    again = site.play(DEPLOY)
    assert (again.status, again.changed) == (0, 0), again.output
