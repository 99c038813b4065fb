# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the rollback: the former release runs on both hosts, on the new schema; nothing is lost. Then it is undone."""

from __future__ import annotations

from typing import List

import pytest
from deployed_site import AFTER, BEFORE, FIRST, RECEIPTS, Site, play, succeeds

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def sites() -> List[Site]:
    return [Site("backstop-errors-app1"), Site("backstop-errors-app2")]


def test_the_former_release_runs_on_both(sites: List[Site]) -> None:
    assert [site.runs(BEFORE) for site in sites] == [True, True]


def test_the_database_keeps_the_new_schema(sites: List[Site]) -> None:
    assert sites[0].applied() == [FIRST, RECEIPTS] and sites[0].has_table("ReceiptData")
    assert sites[0].databases() == ["electricity_tokens", "postgres"]
    (deploy, rollback) = sites[0].operations()
    assert (rollback.kind, rollback.outcome) == ("rollback", "done")
    assert rollback.header["request"]["method"] == "code_only"


def test_the_store_is_on_the_runner_alone(sites: List[Site]) -> None:
    assert sites[1].host.check_output("ls -A /var/backups") == ""


def test_one_host_alone_is_refused(sites: List[Site]) -> None:
    run = play("undo_rollback", "--limit", sites[1].name)
    assert run.status != 0
    run.must_say("Not in this run", sites[0].name, "Nothing was changed")


def test_the_undo(sites: List[Site]) -> None:
    assert succeeds("undo_rollback").changed > 0
    assert [site.runs(AFTER) for site in sites] == [True, True]
