# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the rollback of a failed migration: its changes are removed, its row says so, and a deploy is possible."""

from __future__ import annotations

import pytest
from deployed_site import BEFORE, FIRST, RECEIPTS, Site, succeeds

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-rollback-failed-migration")


def test_nothing_of_the_migration_is_left(site: Site) -> None:
    assert not site.has_table("ReceiptData")
    assert site.applied() == [FIRST]
    row = "SELECT finished_at IS NULL, rolled_back_at IS NOT NULL FROM _prisma_migrations WHERE migration_name = '%s'"
    assert site.sql(row % RECEIPTS) == "t|t"


def test_nothing_else_changed(site: Site) -> None:
    assert site.runs(BEFORE)
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"
    assert site.databases() == ["electricity_tokens", "postgres"]


def test_it_is_one_operation(site: Site) -> None:
    assert [(operation.kind, operation.outcome) for operation in site.operations()] == [("rollback", "done")]


def test_the_mended_release_could_be_deployed(site: Site) -> None:
    succeeds("deploy_receiptdata", "--check").must_say("would rehearse and then apply: " + RECEIPTS)
