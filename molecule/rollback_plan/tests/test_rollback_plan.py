# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan reports what is wrong, and never changes anything. The tests depend on each other, in order."""

from __future__ import annotations

import pytest
from deployed_site import AFTER, RECEIPTS, Site, succeeds

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-rollback-plan")


def planned(site: Site, *words: str) -> None:
    before = site.files(), site.databases()
    run = succeeds("rollback_plan")
    run.must_say(*words)
    assert run.changed == 0
    assert (site.files(), site.databases()) == before


def test_all_is_well(site: Site) -> None:
    assert site.runs(AFTER)
    planned(site, "SCENARIO: nothing", "applied since the backup: " + RECEIPTS)


def test_the_application_does_not_work(site: Site) -> None:
    site.pm2("stop", "electricity-tokens")
    command = "RUN NEXT: ansible-playbook backstop.postgres.rollback_application_errors --check"
    planned(site, "SCENARIO: application_errors", "is NOT healthy", "Loss: none", command)
    site.pm2("start", "electricity-tokens")


def test_a_migration_failed(site: Site) -> None:
    site.sql("""INSERT INTO _prisma_migrations (id, checksum, migration_name, logs, started_at, applied_steps_count)
                VALUES ('f', 'c', '20251201000000_failed', 'it failed', now(), 0)""")
    planned(site, "SCENARIO: failed_migration", "20251201000000_failed")
