# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the rollback: the receipts are those of the backup, purchases are unchanged, the application kept running."""

from __future__ import annotations

import datetime

import pytest
from deployed_site import AFTER, Site, succeeds

testinfra_hosts = ["local://"]
RECEIPTS = """SELECT count(*), min("transactionDateTime"), max("transactionDateTime"),
                     round(sum("totalAmountZWG")::numeric, 2) FROM "ReceiptData\""""
CORRUPTED = """SELECT count(*), count(*) FILTER (WHERE "totalAmountZWG" = 'NaN') FROM "ReceiptData\""""


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-rollback-corrupted-table")


def test_the_receipts_are_right_again(site: Site) -> None:
    assert site.sql(RECEIPTS) == "200|2025-11-08 00:00:00|2025-11-08 00:00:00|1220.00"
    assert site.sql(CORRUPTED) == "200|0"


def test_the_purchases_are_untouched_and_nothing_is_left(site: Site) -> None:
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"
    assert site.databases() == ["electricity_tokens", "postgres"]


def test_the_application_went_on(site: Site) -> None:
    """It has been running since before the backup of the table."""
    assert site.runs(AFTER)
    (process,) = site.processes()
    (backup,) = [manifest for manifest in site.manifests() if manifest["kind"] == "daily"]
    created = datetime.datetime.fromisoformat(backup["created"].replace("Z", "+00:00"))
    assert process["pm2_env"]["pm_uptime"] / 1000 < created.timestamp()


def test_what_was_wrong_is_kept_and_comes_back_by_the_undo(site: Site) -> None:
    (deploy, rollback) = site.operations()
    assert (rollback.kind, rollback.outcome) == ("rollback", "done")
    assert [manifest["kind"] for manifest in site.manifests()][-1] == "emergency"
    succeeds("undo_rollback")
    assert site.sql(CORRUPTED) == "195|30"
