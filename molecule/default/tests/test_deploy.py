# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the deploy of ET-100: what runs, what the database has, what the store holds, and what is not left behind."""
from __future__ import annotations

from typing import Any

import pytest
from deployed_site import AFTER, HOME, STORE, Site


@pytest.fixture
def site(host: Any) -> Site:
    return Site(host)


def test_the_new_release_runs_and_is_healthy(site: Site) -> None:
    health = site.health()
    assert (health["status"], health["version"], health["release"]) == ("ok", "1.5.0", site.commit(AFTER))
    assert site.host.file(HOME + "/application/current").linked_to.endswith("/releases/" + site.commit(AFTER))
    assert [process["pm2_env"]["status"] for process in site.processes()] == ["online"]


def test_the_migration_is_applied_and_nothing_is_lost(site: Site) -> None:
    applied = site.sql('SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL ORDER BY 1')
    assert applied.splitlines() == ["20251001000000_init", "20251108000000_add_receipt_data"]
    assert site.sql('SELECT count(*) FROM "ReceiptData"') == "0"
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"


def test_no_database_is_left_behind(site: Site) -> None:
    assert site.databases() == ["electricity_tokens", "postgres"]


def test_one_backup_before_and_one_after_however_often_it_ran(site: Site) -> None:
    assert sorted(manifest["kind"] for manifest in site.manifests()) == ["post-migration", "pre-migration"]


def test_the_store_is_its_owners_alone(site: Site) -> None:
    open_to_others = site.host.check_output("find %s -perm /077 -not -type l", STORE)
    assert open_to_others == ""


def test_the_password_is_in_no_file_of_the_store(site: Site) -> None:
    for spelling in ("p@ss:w/rd %1", "p%40ss%3Aw%2Frd%20%251"):
        assert site.host.run("grep -rlF %s %s", spelling, STORE).rc == 1
