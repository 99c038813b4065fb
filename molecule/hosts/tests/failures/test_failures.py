# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application host is unreachable, frozen or unhealthy: all hosts revert, and the last message names both kinds."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from deployed_site import BEFORE, FIRST, Run, Site, play
from four_hosts import APP1, APP2, Hosts

testinfra_hosts = ["local://"]
SCENARIO = pathlib.Path(__file__).resolve().parents[2]
PODMAN = SCENARIO.parents[1] / "tests" / "hosts" / "podman"
#: Short timeouts for events that never happen.
OPTIONS = {"application_health_timeout": 6, "deploy_post_backup": False}


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def podman(*arguments: str) -> None:
    subprocess.run([str(PODMAN), *arguments], check=True, stdout=subprocess.DEVNULL)


def wait_until_healthy(site: Site) -> None:
    site.host.check_output("timeout 60 python3 /opt/backstop/tests/hosts/wait_until_healthy.py")


def failed(hosts: Hosts, *words: str, **variables: object) -> Run:
    """A deploy that ended as a failure and was rolled back."""
    run = play("deploy_receiptdata", **{**OPTIONS, **variables})
    assert run.status != 0, run.output
    run.must_say("was rolled back", *words)
    operation = hosts.runner.operations()[-1]
    assert (operation.kind, operation.outcome) == ("deploy", "rolled_back")
    assert [name for name in hosts.runner.databases() if name.startswith("backstop_scratch_")] == []
    return run


def database_is_as_before(hosts: Hosts) -> bool:
    purchases = hosts.runner.sql('SELECT count(*) FROM "TokenPurchase"')
    return (hosts.runner.applied(), hosts.runner.has_table("ReceiptData"), purchases) == ([FIRST], False, "400")


def test_at_the_beginning(hosts: Hosts) -> None:
    assert hosts.both_run(BEFORE) and database_is_as_before(hosts)


def test_the_first_host_is_gone_after_the_migration(hosts: Hosts) -> None:
    """The former release was not tested on the new schema, so the database is reverted too."""
    try:
        failed(
            hosts,
            APP1 + " could not be reached",
            "runs again and is healthy on %s." % APP2,
            "Needs manual action: %s (cannot be reached" % APP1,
            "became live",
            gone=APP1,
            deploy_after_migrate=str(SCENARIO / "hooks" / "vanish.yml"),
            deploy_smoke_tests_before=[],
        )
    finally:
        podman("exec", APP1, "systemctl", "start", "ssh")
    assert list(hosts.runner.operations()[-1].closed["needs_a_person"]) == [APP1]
    assert database_is_as_before(hosts) and hosts.second.runs(BEFORE)
    # What the user does.
    hosts.first.pm2("start", "electricity-tokens")
    wait_until_healthy(hosts.first)


def test_a_host_is_stuck_before_the_downtime(hosts: Hosts) -> None:
    try:
        failed(
            hosts,
            "runs again and is healthy on %s." % APP1,
            "Needs manual action: %s (cannot be reached" % APP2,
            "Database: was not changed",
            stuck=APP2,
            deploy_before_downtime=str(SCENARIO / "hooks" / "freeze.yml"),
            application_host_timeout=20,
            application_stop_timeout=10,
            application_answer_timeout=15,
        )
    finally:
        podman("unpause", APP2)
    assert list(hosts.runner.operations()[-1].closed["needs_a_person"]) == [APP2]
    # What the user does. The host carries out only now what it received while it was frozen.
    for words in (["kill", "ssh"], ["restart", "ssh"], ["start", "electricity-tokens"]):
        podman("exec", APP2, "systemctl", *words)
    wait_until_healthy(hosts.second)
    assert database_is_as_before(hosts) and hosts.both_run(BEFORE)


def test_one_host_is_sick_with_the_new_release(hosts: Hosts) -> None:
    """This host expects the former release's version, so it is healthy again after the rollback."""
    expected = "{{ (inventory_hostname == '%s') | ternary({'version': '1.4.0'}, {}) }}" % APP2
    failed(
        hosts,
        APP2 + ": The application did not become healthy",
        "runs again and is healthy on %s, %s." % (APP1, APP2),
        application_health_expect=expected,
        deploy_smoke_tests_before=[],
    )
    assert hosts.runner.operations()[-1].closed["needs_a_person"] == {}
    assert database_is_as_before(hosts) and hosts.both_run(BEFORE)


def test_a_run_without_one_of_them_is_refused(hosts: Hosts) -> None:
    run = play("deploy_receiptdata", "--limit", APP2)
    assert run.status != 0, run.output
    run.must_say("Not in this run", APP1, "Nothing was changed")
    assert hosts.both_run(BEFORE)
