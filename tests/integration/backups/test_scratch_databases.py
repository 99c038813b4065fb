# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role that is no superuser can drop a scratch database while any session is connected to it."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.database_properties import (
    drop_scratch_database,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.server import other_sessions
from support.databases import OWNER, run_sql, session
from support.prisma_database import until

SCRATCH = "backstop_scratch_20251108t020000z_3fa9c1_drill"
#: A table whose vacuum keeps a worker busy for minutes.
BUSY = """
CREATE TABLE busy (a int) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO busy SELECT generate_series(1, 50000);
DELETE FROM busy WHERE a % 2 = 0;
"""
WORKER = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '%s'" % SCRATCH


@pytest.fixture
def scratch(cluster, plain):
    run_sql(cluster, "postgres", 'CREATE DATABASE "%s" OWNER %s' % (SCRATCH, OWNER))
    return SCRATCH


def test_an_autovacuum_worker_is_in_it(cluster, plain, scratch) -> None:
    """FORCE requires the right to end it, which only a superuser has; after a drill one is there sooner or later."""
    with session(cluster, "postgres") as root:
        root.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        root.execute("SELECT pg_reload_conf()")
        try:
            run_sql(cluster, scratch, BUSY, user=OWNER)

            def working() -> bool:
                root.execute(WORKER)
                return bool(root.fetchone()[0])

            until(working, "an autovacuum worker in the scratch database")
            with plain.site.administer() as admin:
                assert other_sessions(admin, scratch) == [], "a worker of the server is nobody's session"
                assert drop_scratch_database(admin, scratch)
                assert not drop_scratch_database(admin, scratch)
        finally:
            root.execute("ALTER SYSTEM RESET autovacuum_naptime")
            root.execute("SELECT pg_reload_conf()")


def test_a_session_that_this_role_may_not_end(cluster, plain, scratch) -> None:
    refusal = pytest.raises(Refused, match="may not end a session of another one")
    with session(cluster, scratch), plain.site.administer() as admin, refusal as refused:
        drop_scratch_database(admin, scratch)
    assert "end that session yourself" in (refused.value.hint or "")


def test_only_scratch_databases(plain) -> None:
    with plain.site.administer() as admin, pytest.raises(Refused, match="Only scratch databases"):
        drop_scratch_database(admin, plain.name)
