# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the deploy of the next release: what runs, what the database contains, and that the store has both deploys."""

from __future__ import annotations

import pytest
from deployed_site import FIRST, RECEIPTS, Site

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-deploy")


def test_the_next_release_runs(site: Site) -> None:
    assert site.runs("next")


def test_its_migration_is_applied_and_nothing_is_lost(site: Site) -> None:
    assert site.applied() == [FIRST, RECEIPTS, "20251201000000_add_note"]
    assert site.sql('SELECT count(*), count("note") FROM "TokenPurchase"') == "400|0"
    assert site.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = '\"TokenPurchase_note_idx\"'::regclass") == "t"
    assert site.databases() == ["electricity_tokens", "postgres"]


def test_each_deploy_has_its_backups(site: Site) -> None:
    assert [manifest["kind"] for manifest in site.manifests()] == ["pre-migration", "post-migration"] * 2
    assert [(operation.kind, operation.outcome) for operation in site.operations()] == [("deploy", "done")] * 2
