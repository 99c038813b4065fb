# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the revert: the old release on the old schema; lost rows are kept, and so is the database that had them."""

from __future__ import annotations

import pytest
from deployed_site import BEFORE, FIRST, STORE, Site

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-rollback-complete")


def test_the_old_release_runs_on_the_old_schema(site: Site) -> None:
    assert site.runs(BEFORE)
    assert site.applied() == [FIRST] and not site.has_table("ReceiptData")
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"


def test_what_was_lost_is_a_file_with_the_command_that_puts_it_back(site: Site) -> None:
    files = site.host.check_output("ls %s/operations/*/lost-rows" % STORE)
    assert "README.txt" in files and "User" in files


def test_the_former_database_is_kept_and_closed(site: Site) -> None:
    (retired,) = [name for name in site.databases() if name.startswith("backstop_retired_")]
    assert site.sql("SELECT datallowconn FROM pg_database WHERE datname = '%s'" % retired, "postgres") == "f"
    assert len(site.databases()) == 3
