# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the undo: the new release runs again, on the retired database, with the row that was written later."""

from __future__ import annotations

import pytest
from deployed_site import AFTER, FIRST, RECEIPTS, Site, succeeds

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-rollback-complete")


def test_the_new_release_runs_again(site: Site) -> None:
    assert site.runs(AFTER)
    assert site.applied() == [FIRST, RECEIPTS]


def test_what_the_revert_had_lost_is_there_again(site: Site) -> None:
    assert site.sql("""SELECT count(*) FROM "User" WHERE email = 'after-the-deploy@example.com'""") == "1"


def test_the_reverted_database_is_kept_and_accepts_no_application(site: Site) -> None:
    (other,) = [name for name in site.databases() if name not in ("electricity_tokens", "postgres")]
    assert not other.startswith("backstop_scratch_")
    query = "SELECT datallowconn FROM pg_database WHERE datname = '%s'"
    assert (site.sql(query % "electricity_tokens", "postgres"), site.sql(query % other, "postgres")) == ("t", "f")


def test_a_second_undo_finds_nothing_to_do(site: Site) -> None:
    process = site.process()
    assert succeeds("undo_rollback").changed == 0
    assert site.process() == process
