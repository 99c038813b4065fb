# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After deploy, revert and undo: the new release runs again, on the database that had retired, with its later row."""
from __future__ import annotations

from typing import Any

import pytest
from deployed_site import AFTER, Site


@pytest.fixture
def site(host: Any) -> Site:
    return Site(host)


def test_the_new_release_runs_again(site: Site) -> None:
    health = site.health()
    assert (health["status"], health["version"], health["release"]) == ("ok", "1.5.0", site.commit(AFTER))


def test_what_the_revert_would_have_lost_is_there_again(site: Site) -> None:
    assert site.sql("""SELECT count(*) FROM "User" WHERE email = 'after-the-deploy@example.com'""") == "1"
    assert site.sql('SELECT count(*) FROM "ReceiptData"') == "0"


def test_the_reverted_database_is_kept_and_accepts_no_application(site: Site) -> None:
    others = [name for name in site.databases() if name not in ("electricity_tokens", "postgres")]
    assert len(others) == 1
    assert not others[0].startswith("backstop_scratch_")
    assert site.sql("SELECT datallowconn FROM pg_database WHERE datname = 'electricity_tokens'") == "t"
    assert site.sql("SELECT datallowconn FROM pg_database WHERE datname = '%s'" % others[0]) == "f"
