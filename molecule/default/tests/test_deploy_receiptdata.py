# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the deploy of ET-100: what runs, what the database and the store contain, and that no leftovers remain."""

from __future__ import annotations

import pytest
from deployed_site import AFTER, FIRST, RECEIPTS, STORE, Site

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-deploy-receiptdata")


def test_the_new_release_runs_and_is_healthy(site: Site) -> None:
    assert site.runs(AFTER)
    assert site.health()["version"] == "1.5.0"
    assert [process["pm2_env"]["status"] for process in site.processes()] == ["online"]


def test_the_migration_is_applied_and_nothing_is_lost(site: Site) -> None:
    assert site.applied() == [FIRST, RECEIPTS]
    assert site.sql('SELECT count(*) FROM "ReceiptData"') == "0"
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"


def test_no_database_is_left_behind(site: Site) -> None:
    assert site.databases() == ["electricity_tokens", "postgres"]


def test_one_backup_before_and_one_after_however_often_it_ran(site: Site) -> None:
    assert [manifest["kind"] for manifest in site.manifests()] == ["pre-migration", "post-migration"]
    assert [operation.outcome for operation in site.operations()] == ["done"]


def test_the_store_is_its_owners_alone(site: Site) -> None:
    assert site.host.check_output("find %s -perm /077 -not -type l", STORE) == ""


def test_the_password_is_in_no_file_of_the_store(site: Site) -> None:
    for spelling in ("p@ss:w/rd %1", "p%40ss%3Aw%2Frd%20%251"):
        assert site.host.run("grep -rlF %s %s", spelling, STORE).rc == 1
