# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""More tables than one transaction can lock, on a server with a small lock table: everything works or is refused."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import probe
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import locks
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import diagnose
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from demo.postgres_server import Cluster
from support.databases import OWNER, PASSWORD, SQL, Databases, run_sql

#: Space for 20 * (30 + 1 + 1 + 1) = 660 locks.
SMALL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "wal_level": "minimal",
    "max_connections": "30",
    "max_locks_per_transaction": "20",
    "max_wal_senders": "0",
    "max_worker_processes": "1",
    "autovacuum_max_workers": "1",
}
ROOM = 660
#: With key, TOAST table, the TOAST table's index, types: 1 lock and 1 for the index to read, about 9 to drop.
TABLES = (
    "DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE 'CREATE TABLE t' || i || ' (id int PRIMARY KEY, v text)';"
    " END LOOP; END $$"
)
#: Number of tables created in one transaction.
AT_ONCE = 40


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    made = Cluster.create(tmp_path_factory.mktemp("small"), options=SMALL)
    try:
        made.start()
        made.create_role(OWNER, "LOGIN CREATEDB", password=PASSWORD)
        yield made
    finally:
        made.destroy()


@pytest.fixture
def make(small, tmp_path):
    with Databases(small, tmp_path / "store").dropped_afterwards() as databases:

        def database(tables):
            small.create_database("shop", owner=OWNER)
            run_sql(small, "shop", (SQL / "plain.sql").read_text("utf-8"), user=OWNER)
            for first in range(1, tables + 1, AT_ONCE):
                run_sql(small, "shop", TABLES % (first, min(first + AT_ONCE - 1, tables)), user=OWNER)
            return databases.existing("shop")

        yield database


def test_what_fits_works_throughout(make):
    """Nearly the whole lock table is used: no step needs more than it says."""
    live = make(215)
    with live.site.connect() as session:
        assert locks.lock_table(session).size == ROOM
        assert ROOM - 30 < locks.to_read_everything(session) + 200 <= ROOM
        assert "too small for a restore in place" in probe.lock_table(live.site, session, None)
    place = live.backup()
    assert verify(live.site, place, "restored").level == "restored"
    assert fence(live.site, place, 5).same
    facts = gather(live.site)
    assert diagnose(live.site, "complete", facts)["scenario"] == "complete"
    run = live.begun("rollback")
    build_successor(run, place)
    assert revert(run, place, LossPolicy(0)).attempts == 1
    run.operation.close("done")
    back = live.begun("undo", {"undoes": run.operation.id})
    assert undo(back, run.operation, LossPolicy(0)).attempts == 1
    back.operation.close("done")
    with pytest.raises(Refused, match="too small to restore in place") as caught:
        revert_in_place(live.begun("rollback"), place, LossPolicy(0))
    assert "rollback_restore_method=swap" in caught.value.hint


def test_what_does_not_is_refused_before_anything(make):
    live = make(300)
    with live.site.connect() as session, pytest.raises(Refused, match="lock table is too small") as caught:
        probe.lock_table(live.site, session, None)
    assert "room for %d locks (max_locks_per_transaction = 20)" % ROOM in caught.value.found
    assert "Set max_locks_per_transaction to" in caught.value.hint
    with pytest.raises(Refused, match="too small to back the whole database up"):
        live.backup()
    with pytest.raises(Refused, match="too small to fence writers out"):
        build_successor(live.begun("rollback"), BackupPlace("daily", "not-read", "not-read"))
    assert live.names() == ["shop"] and not list(live.store.backups())


def test_a_restore_in_place_that_just_fits_does_fit(make, monkeypatch):
    live = make(34)
    place = live.backup()
    needed = []
    require = locks.require_room

    def note(session, locks_needed, *rest):
        needed.append(locks_needed)
        require(session, locks_needed, *rest)

    monkeypatch.setattr(locks, "require_room", note)
    run = live.begun("rollback")
    assert revert_in_place(run, place, LossPolicy(0)).changed
    assert ROOM - 200 - 60 < needed[0] <= ROOM - 200, needed
