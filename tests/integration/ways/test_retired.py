# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A retired database is dropped only when its time has passed and a verified dump contains all its contents."""

from __future__ import annotations

import dataclasses
import json

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import level_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import retired as retired_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import prune, retired_databases
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.databases import OWNER
from support.module_runner import run_module

EVERYTHING = 10**9


@pytest.fixture
def reverted(plain):
    """A database that was reverted: the former live one is retired; the backup, and the name of the retired one."""
    place = plain.backup()
    plain.run("receipts.sql")
    plain.as_owner("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
    run = plain.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    result = revert(run, place, LossPolicy(EVERYTHING, objects=EVERYTHING))
    run.operation.close("done")
    return place, result.retired


def pruned(live, **keywords):
    found = prune(live.site, **keywords)
    assert json.dumps(found)
    return [(one["name"], one["action"], one["reason"]) for one in found]


def closed(live, name):
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        psycopg2.connect(live.cluster.url(name))
    return True


def write_to(live, name, sql):
    live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % name, "postgres")
    live.execute(sql, name)
    live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS false' % name, "postgres")


def test_it_is_kept_within_its_undo_window(plain, reverted):
    _place, name = reverted
    [(found, action, reason)] = pruned(plain, dump=True)
    assert (found, action) == (name, "kept") and reason.startswith("its undo window ends at ")
    assert not plain.store.backups("emergency")
    [(_name, action, reason)] = pruned(plain, window_days=1 / 86400 / 1000, dump=True, check=True)
    assert action == "dropped" and "a dump of it would be made" in reason
    assert name in plain.names() and not plain.store.backups("emergency")


def test_it_is_kept_without_a_dump(plain, reverted):
    """The backup that was restored is of this very database, but from long before it was retired."""
    place, name = reverted
    verify(plain.site, place, "restored")
    assert pruned(plain, window_days=0) == [(name, "kept", "no backup of it is verified to level restored")]
    assert name in plain.names()


def test_dumped_proved_and_dropped(plain, reverted):
    place, name = reverted
    [(_name, action, reason)] = pruned(plain, window_days=0, dump=True)
    [dump] = plain.store.backups("emergency")
    assert action == "dropped" and dump.backup_id in reason and level_of(dump) == "restored"
    assert plain.names() == [plain.name]
    # The journal of the operation that retired it records it.
    with plain.site.administer() as admin:
        assert retired_databases(plain.site, admin) == []
    assert pruned(plain, window_days=0, dump=True) == []
    # The revert is still known to be in effect.
    assert plan_revert(plain.site, place.backup_id)["needed"] is False
    with pytest.raises(BackstopError, match="nothing to undo"):
        plan_undo(plain.site, None)
    # It can be restored: a database built from the dump takes over.
    run = plain.begun("rollback", {"backup": dump.backup_id})
    build_successor(run, dump)
    revert(run, dump, LossPolicy(EVERYTHING))
    assert plain.value('SELECT count(*) FROM "User" WHERE "id" = \'new\'') == 1


def test_a_dump_that_is_only_readable(plain, reverted):
    _place, name = reverted
    assert pruned(plain, window_days=0, level="readable", dump=True)[0][1] == "dropped"
    assert level_of(plain.store.backups("emergency")[0]) == "readable" and name not in plain.names()


def test_a_dump_from_before_its_last_rows_does_not_do(plain, reverted):
    """A dump of this very database, verified, but rows were written to it since."""
    _place, name = reverted
    inside = dataclasses.replace(plain.site, connection=plain.site.connection.with_database(name))
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % name, "postgres")
    dump = dataclasses.replace(plain, site=inside).backup("daily")
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS false' % name, "postgres")
    write_to(plain, name, 'UPDATE "User" SET "name" = \'late\' WHERE "id" = \'new\'')
    [(_name, action, reason)] = pruned(plain, window_days=0, level="readable")
    assert action == "kept" and reason == (
        "backup %s does not hold the same: table public.User has 21 rows with other contents" % dump.backup_id
    )
    assert closed(plain, name)
    write_to(plain, name, 'UPDATE "User" SET "name" = NULL WHERE "id" = \'new\'; CREATE VIEW later AS SELECT 1')
    assert "public.later" in pruned(plain, window_days=0, level="readable")[0][2]
    # If a new dump is allowed, it contains everything.
    assert pruned(plain, window_days=0, level="readable", dump=True)[0][1] == "dropped"
    assert plain.names() == [plain.name]


def test_somebody_who_writes_while_it_is_open(plain, reverted, monkeypatch):
    """The dump's programs need to connect; a session that connects then and writes is found by the comparison."""
    _place, name = reverted
    writes = []

    def write(where):
        if where == "retired.dumped":
            writes.append(where)
            write_to(plain, name, "INSERT INTO \"User\" VALUES ('w%d', 'w%d@example.org')" % ((len(writes),) * 2))

    monkeypatch.setattr(retired_module, "reach", write)
    [(_name, action, reason)] = pruned(plain, window_days=0, level="readable", dump=True)
    assert action == "kept" and "table public.User has 22 rows, not 21" in reason
    assert name in plain.names() and closed(plain, name)


def test_an_interrupted_run_leaves_it_open_and_the_next_closes_it(plain, reverted):
    _place, name = reverted
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % name, "postgres")
    assert pruned(plain)[0][1] == "kept"
    assert closed(plain, name)


def test_what_else_keeps_it(plain, reverted):
    place, name = reverted
    plain.execute('CREATE DATABASE "backstop_retired_20200101t000000z_abcdef_shop"', "postgres")
    run = plain.begun("rollback", {"backup": place.backup_id, "more": 1})
    reasons = {name: reason for name, _action, reason in pruned(plain, window_days=0, dump=True)}
    assert reasons == {
        name: "operation %s is open" % run.operation.id,
        "backstop_retired_20200101t000000z_abcdef_shop": "no operation of this store retired it",
    }
    run.operation.close("done")
    write_to(plain, name, "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
    assert "it has a replication slot cdc" in [reason for _name, _action, reason in pruned(plain, window_days=0)]
    assert name in plain.names()


def test_what_an_undo_retired_is_pruned_too(plain, reverted):
    _place, name = reverted
    with plain.site.administer() as admin:
        [one] = retired_databases(plain.site, admin)
    told = retired_module.summary(plain.site)
    assert told.startswith("1, ") and " MB, the oldest " in told and " s old; " in told and "pg_retired_prune" in told
    back = plain.begun("undo", {"undoes": one.operation.id})
    undo(back, one.operation, LossPolicy(0))
    back.operation.close("done")
    [(found, action, _reason)] = pruned(plain, window_days=0, level="readable", dump=True)
    assert found != name and action == "dropped" and plain.names() == [plain.name]
    assert retired_module.summary(plain.site) == "none"


def test_the_modules(plain, reverted, tmp_path):
    place, name = reverted
    arguments = {
        "connection": {"url": plain.cluster.url(plain.name, user=OWNER)},
        "store": plain.store.root,
        "client_bin_dir": str(plain.cluster.bin_dir),
    }
    listed = run_module(tmp_path, "pg_backup_info", arguments)
    [one] = listed.result["retired"]
    assert one["name"] == name and one["database"] == plain.name and one["dump"] is None and one["size"] > 1000000
    assert one["age_days"] >= 0 and one["undo_window_end"] > one["retired_at"]
    assert [backup["backup"] for backup in listed.result["backups"]] == [place.backup_id]
    assert "retired" not in run_module(tmp_path, "pg_backup_info", {"store": plain.store.root}).result
    kept = run_module(tmp_path, "pg_retired_prune", arguments)
    assert not kept.result["changed"] and kept.result["dropped"] == []
    arguments.update(undo_window=0, level="readable", dump=True)
    assert run_module(tmp_path, "pg_retired_prune", arguments, check=True).result["dropped"] == [name]
    done = run_module(tmp_path, "pg_retired_prune", arguments)
    assert done.result["changed"] and done.result["dropped"] == [name] and done.result["freed"] == one["size"]
    assert plain.names() == [plain.name]
    assert not run_module(tmp_path, "pg_retired_prune", arguments).result["changed"]
