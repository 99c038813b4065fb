# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safety copy of a deploy: made while nobody can connect, taken by a revert in place of a restore, and dropped."""

from __future__ import annotations

import dataclasses

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    retired_name,
    safety_copy_name,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import server
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.database_properties import (
    read_properties,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.template_copy import FILES
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import FENCE, PROOFS, SAFETY_COPY
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import retired, safety_copies
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import clean_up
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import (
    build_successor,
    revert,
    undo,
)
from support.databases import OWNER, REALISTIC

INSERT = (
    'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (\'new\', 1, now(), \'u1\')'
)
EVERYTHING = 10**9


def fenced(live):
    """A deploy behind its fence; its run, its backup, and what the fence found."""
    place = live.backup()
    run = live.begun("deploy")
    for step in PROOFS["deploy"]:
        run.operation.write(step, "done")
    return run, place, fence(run, place, 0, FILES)


def copied(live):
    """A deploy that made a safety copy, and migrated; its run and its backup."""
    run, place, found = fenced(live)
    assert found.same
    live.run("receipts.sql")
    run.operation.close("done")
    return run, place


def prepared(live, place):
    run = live.begun("rollback", {"backup": place.backup_id})
    return run, build_successor(run, place)


def oid(live, name):
    return live.value("SELECT oid::bigint FROM pg_database WHERE datname = $$%s$$" % name, "postgres")


def open_(live, name):
    return live.value("SELECT datallowconn FROM pg_database WHERE datname = $$%s$$" % name, "postgres")


def test_it_has_the_properties_of_the_live_database(databases):
    live = databases.make("shop", REALISTIC, user=None)
    run, place, found = fenced(live)
    made = run.operation.result(SAFETY_COPY)
    assert found.same and made.backup == place.backup_id and made.oid == oid(live, made.copy)
    with live.site.administer() as admin:
        ours, theirs = (read_properties(admin, name) for name in (live.name, made.copy))
    assert theirs == dataclasses.replace(ours, allow_connections=False)
    assert ours.allow_connections and len(ours.settings) > 1 and ours.comment


def test_a_revert_takes_it_and_restores_nothing(plain, monkeypatch):
    run, place = copied(plain)
    former, copy = oid(plain, plain.name), run.operation.result(SAFETY_COPY)
    monkeypatch.setattr("subprocess.Popen", None)  # no program may be needed
    back, built = prepared(plain, place)
    assert built.changed and built.database == copy.copy and not build_successor(back, place).changed
    result = revert(back, place, LossPolicy(0))
    monkeypatch.undo()
    assert result.changed and result.lost_rows == 0 and oid(plain, plain.name) == copy.oid
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    back.operation.close("done")
    assert plain.names() == [retired_name(back.operation.id, plain.name), plain.name]
    with plain.site.connect() as session:
        assert not compare_tables(session, load(place)).tables

    forth = plain.begun("undo", {"undoes": back.operation.id})
    assert undo(forth, back.operation, LossPolicy(0)).changed and oid(plain, plain.name) == former


def test_what_was_written_since_is_counted_and_a_refusal_keeps_the_copy(plain):
    run, place = copied(plain)
    copy = run.operation.result(SAFETY_COPY).copy
    plain.execute(INSERT)
    back, _built = prepared(plain, place)
    with pytest.raises(Refused, match="1 row"):
        revert(back, place, LossPolicy(0, objects=EVERYTHING))
    assert not open_(plain, copy) and open_(plain, plain.name)
    assert revert(back, place, LossPolicy(1, objects=EVERYTHING)).lost_rows == 1
    assert plain.rows('SELECT 1 FROM "TokenPurchase" WHERE "id" = \'new\'') == []


def test_rows_that_are_carried_over_go_into_it(plain):
    _run, place = copied(plain)
    plain.execute(INSERT)
    back, _built = prepared(plain, place)
    revert(back, place, LossPolicy(1, objects=EVERYTHING, reapply=Reapply("apply")))
    assert plain.value('SELECT count(*) FROM "TokenPurchase" WHERE "id" = \'new\'') == 1


def test_another_backup_is_restored_as_ever(plain):
    place = plain.backup()
    copied(plain)
    _back, built = prepared(plain, place)
    assert built.database.startswith("backstop_scratch_")


def test_nothing_is_copied_that_differs_from_the_backup(plain):
    place = plain.backup()
    run = plain.begun("deploy")
    for step in PROOFS["deploy"]:
        run.operation.write(step, "done")
    plain.execute(INSERT)
    assert not fence(run, place, 0, FILES).same
    assert plain.names() == ["shop"] and open_(plain, "shop")


def test_a_session_that_comes_back_prevents_it(plain, monkeypatch):
    """The database is open again, and nothing is left."""
    left = []

    def come_back(admin, name, allowed):
        if not allowed:
            left.append(psycopg2.connect(plain.cluster.url(plain.name, user=OWNER)))
        allow(admin, name, allowed)

    allow = server.allow_connections
    monkeypatch.setattr(server, "allow_connections", come_back)
    with pytest.raises(Refused, match="Other sessions are active"):
        fenced(plain)
    left[0].close()
    assert plain.names() == ["shop"] and open_(plain, "shop")


def test_a_prepared_transaction_prevents_it(plain):
    plain.as_owner("BEGIN; SELECT 1; PREPARE TRANSACTION 'left'")
    with pytest.raises(Refused, match="cannot be copied") as caught:
        fenced(plain)
    assert "prepared transaction left" in caught.value.found and open_(plain, "shop")


def test_a_database_that_a_killed_deploy_left_closed_is_opened(plain):
    """Only if its fence was interrupted, and nobody works on it any more."""
    run = plain.begun("deploy")
    plain.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false", "postgres")
    with pytest.raises(BackstopError, match="not currently accepting"):
        plain.site.connect()
    run.operation.write(FENCE, "began")
    with run.operation.lock.held(), pytest.raises(BackstopError, match="not currently accepting"):
        plain.site.connect()
    plain.site.connect().close()
    assert open_(plain, "shop")
    run.operation.write(FENCE, "done")
    plain.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false", "postgres")
    with pytest.raises(BackstopError, match="not currently accepting"):
        plain.site.connect()


def test_it_is_dropped_when_a_younger_backup_is_verified(plain):
    run, place, _found = fenced(plain)
    name = safety_copy_name(run.operation.id, plain.name)

    def reasons(**keywords):
        return [(one["name"], one["action"], one["reason"]) for one in retired.prune(plain.site, **keywords)]

    assert reasons(copy_days=0) == [(name, "kept", "operation %s is open" % run.operation.id)]
    run.operation.close("done")
    assert "younger than 1 days" in reasons()[0][2]
    assert reasons(copy_days=0) == [(name, "kept", "no backup that was made since is verified")]
    plain.backup("post-migration")
    assert reasons(copy_days=0, check=True)[0][1] == "dropped" and oid(plain, name)
    assert reasons(copy_days=0)[0][1] == "dropped" and plain.names() == ["shop"]
    assert reasons(copy_days=0) == []


def test_the_next_operation_drops_it_at_its_end(plain, monkeypatch):
    """Nobody has to remember it; the copy of a deploy of today stays."""
    run, _place = copied(plain)
    later = plain.begun("rollback")
    plain.backup("post-migration")
    later.operation.close("failed")
    assert clean_up(later) == []
    monkeypatch.setattr(safety_copies, "DEFAULT_DAYS", 0)
    assert clean_up(later) == [safety_copy_name(run.operation.id, plain.name)] and plain.names() == ["shop"]


def test_a_role_that_does_not_own_it_leaves_it(plain):
    run, _place = copied(plain)
    plain.backup("post-migration")
    plain.execute("ALTER DATABASE %s OWNER TO postgres" % safety_copy_name(run.operation.id, plain.name), "postgres")
    (found,) = retired.prune(plain.site, copy_days=0)
    assert (found["action"], found["reason"]) == ("kept", "this role does not own it")
