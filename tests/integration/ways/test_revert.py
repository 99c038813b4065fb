# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The complete revert and its undo under load: a rename, nothing overwritten, no loss without being counted."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import threading
import time

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    quote_identifier,
    retired_name,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_force import last_swap
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import (
    build_successor,
    revert,
    settle,
    undo,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.databases import APP, OWNER, REALISTIC, Workers
from support.prisma_database import until

INSERT = 'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (%s, 1, now(), \'u1\')'
EVERYTHING = 10**9


def prepared(live, place):
    """A rollback whose new database is built; its run."""
    run = live.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    return run


def reverted(live, place, accept=0):
    site = prepared(live, place)
    result = revert(site, place, LossPolicy(accept, objects=EVERYTHING))
    site.operation.close("done")
    return site, result


def undone(live, operation, accept=0):
    run = live.begun("undo", {"undoes": operation.id})
    result = undo(run, operation, LossPolicy(accept, objects=EVERYTHING))
    run.operation.close("done")
    return run, result


def equals_backup(live, place):
    with live.site.connect() as session:
        return not compare_tables(session, load(place)).tables


def ids_in(live, database):
    """The purchases of a database, also of a retired one."""
    name = quote_identifier(database)
    allowed = live.value("SELECT datallowconn FROM pg_database WHERE datname = $$%s$$" % database, "postgres")
    if not allowed:
        live.execute("ALTER DATABASE %s ALLOW_CONNECTIONS true" % name, "postgres")
    found = {name for (name,) in live.rows('SELECT "id" FROM "TokenPurchase"', database)}
    if not allowed:
        live.execute("ALTER DATABASE %s ALLOW_CONNECTIONS false" % name, "postgres")
    return found


def ids_kept(site):
    """The purchases that the operation wrote into its file."""
    path = pathlib.Path(site.operation.file("lost-rows")) / "public.TokenPurchase.copy"
    return {line.split("\t")[0] for line in path.read_text("utf-8").splitlines()}


def test_revert_and_undo(plain):
    """The runbook's restore over the live database leaves it half restored; here it is renamed and can be restored."""
    place = plain.backup()
    plain.run("receipts.sql")
    former = plain.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    site, result = reverted(plain, place)
    assert result.changed and result.lost_rows == 0 and result.backup == place.backup_id
    assert equals_backup(plain, place)
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    retired = retired_name(site.operation.id, plain.name)
    assert plain.names() == [retired, plain.name] and result.retired == retired
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        psycopg2.connect(plain.cluster.url(retired))

    assert revert(site, place, LossPolicy(0)).changed is False and build_successor(site, place).changed is False
    assert plan_revert(plain.site, place.backup_id)["needed"] is False
    assert last_swap(plain.site).id == site.operation.id and plan_undo(plain.site, None)["needed"]

    back, facts = undone(plain, site.operation)
    assert facts.changed and facts.lost_rows == 0
    assert plain.value("SELECT oid FROM pg_database WHERE datname = current_database()") == former
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")
    assert plain.names() == [retired_name(back.operation.id, plain.name), plain.name]
    assert undo(back, site.operation, LossPolicy(0)).changed is False
    assert plan_undo(plain.site, None)["needed"] is False


def test_properties_go_with_the_name(databases):
    """Owner, privileges, settings, comment and connection limit, and every object that the migration did not change."""
    live = databases.make("shop", REALISTIC, user=None)
    place = live.backup()
    live.execute('ALTER TABLE "User" ADD COLUMN more text; CREATE TABLE new ()')
    # The restore prints some expressions differently; the migrated live database still has them for the comparison.
    reverted(live, place)
    assert equals_backup(live, place)
    limit, comment = live.rows(
        "SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'", "postgres"
    )[0]
    assert (limit, comment) == (77, 'it\'s \\ the "shop" 电')
    with live.session(user=APP) as cursor:
        cursor.execute("SHOW timezone")
        assert cursor.fetchone() == ("Africa/Harare",)


def test_a_backup_that_was_drilled_before_the_migration(databases):
    """Objects that the migration dropped are also compared as a restore prints them: their definitions are loaded."""
    live = databases.make("shop", REALISTIC, user=None)
    verify(live.site, live.backup(), "restored")
    last = live.backup()
    live.execute('ALTER TABLE "User" DROP CONSTRAINT user_kind; DROP VIEW "PurchaseView" CASCADE')
    reverted(live, last)
    assert equals_backup(live, last)
    # This backup was never drilled.
    live.execute("CREATE VIEW unseen AS SELECT * FROM \"User\" WHERE \"kind\" IN ('home', 'farm')")
    undrilled = live.backup()
    live.execute("DROP VIEW unseen")
    reverted(live, undrilled)
    assert equals_backup(live, undrilled) and live.value("SELECT to_regclass('unseen') IS NOT NULL")


@pytest.mark.fault("deploy", "complete revert that would lose more than accepted", by="refused, nothing changed")
def test_more_loss_than_accepted_changes_nothing(plain):
    place = plain.backup()
    with plain.session(user=OWNER) as writer:
        writer.execute(INSERT, ("one",))
        writer.execute('UPDATE "User" SET "name" = NULL WHERE "id" IN (\'u1\', \'u2\')')
        writer.execute('DELETE FROM "UserContribution" WHERE "id" = \'c1\'')
        site = prepared(plain, place)
        before = plain.names()
        with pytest.raises(Refused, match="4 rows would be lost, more than the accepted 3") as caught:
            revert(site, place, LossPolicy(3))
        assert caught.value.found.split("; ") == [
            "public.TokenPurchase: 1 inserted",
            "public.User: 2 updated",
            "public.UserContribution: 1 deleted",
        ]
        assert "rollback_accept_lost_rows=4" in caught.value.hint
        assert plain.names() == before and not os.path.exists(site.operation.file("lost-rows"))
        # The same session continues: it was not terminated.
        writer.execute(INSERT, ("two",))
    assert revert(site, place, LossPolicy(5)).lost_rows == 5
    assert ids_kept(site) == {"one", "two"}
    assert equals_backup(plain, place)


# Under load


class Client:
    """Reads and writes, and reconnects when its session is terminated, as an application's pool does."""

    def __init__(self, live, number):
        self.live, self.number = live, number
        self.committed, self.errors = [], set()
        #: for each connection, what each transaction saw: the database, and whether the migration is applied there
        self.connections = []
        self.longest_gap, self._last = 0.0, None

    def __call__(self, stop):
        connection = None
        for count in itertools.count():
            if stop.is_set():
                return
            try:
                if connection is None:
                    connection = psycopg2.connect(self.live.cluster.url(self.live.name, user=OWNER))
                    self.connections.append(set())
                self._transaction(connection, "w%d-%d" % (self.number, count))
                stop.wait(0.005)
            except psycopg2.Error as error:
                self.errors.add(str(error).strip().splitlines()[-1].split(": ")[-1].strip())
                connection = None

    def _transaction(self, connection, name):
        cursor = connection.cursor()
        cursor.execute(INSERT, (name,))
        cursor.execute(SEEN)
        self.connections[-1].add(cursor.fetchone())
        connection.commit()
        self.committed.append(name)
        now = time.monotonic()
        if self._last is not None:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now


SEEN = (
    'SELECT oid::int, to_regclass(\'public."ReceiptData"\') IS NOT NULL, (SELECT count(*) FROM "User")'
    " FROM pg_database WHERE datname = current_database()"
)


def watch(live, seen):
    """At every moment one database has the live name and accepts connections."""

    def work(stop):
        with live.session(database="postgres") as cursor:
            while not stop.is_set():
                cursor.execute("SELECT oid::int, datallowconn FROM pg_database WHERE datname = %s", (live.name,))
                seen.append(tuple(cursor.fetchall()))

    return work


@pytest.mark.fault("deploy", "complete revert and undo under 20 clients", by="every acknowledged row counted")
def test_twenty_clients_through_a_swap_and_its_undo(plain):
    """Each write that a client saw committed is in the live database or was counted and kept, and a client sees the
    complete database before or after, and never both in one session."""
    place = plain.backup()
    plain.run("receipts.sql")
    clients = [Client(plain, number) for number in range(20)]
    seen = []
    with Workers(watch(plain, seen), *clients):
        until(lambda: all(client.committed for client in clients), "all clients write")
        site, result = reverted(plain, place, EVERYTHING)
        marks = [len(client.committed) for client in clients]
        until(lambda: all(len(client.committed) > mark for client, mark in zip(clients, marks)), "all clients go on")
        back, facts = undone(plain, site.operation, EVERYTHING)
        marks = [len(client.committed) for client in clients]
        until(lambda: all(len(client.committed) > mark for client, mark in zip(clients, marks)), "all clients go on")
    print("longest gap of %d clients: %.3f s" % (len(clients), max(client.longest_gap for client in clients)))
    assert result.attempts == facts.attempts == 1
    migrated, reverted_to = result.former_oid, result.live_oid
    for client in clients:
        sights = [sight for connection in client.connections for sight in connection]
        assert all(len(connection) <= 1 for connection in client.connections), client.connections
        # Migrated, reverted, and migrated again: no client went back in between.
        order = [oid for oid, group in itertools.groupby(sight[0] for sight in sights)]
        assert order == [migrated, reverted_to, migrated]
        assert {sight[1:] for sight in sights if sight[0] == migrated} == {(True, 20)}
        assert {sight[1:] for sight in sights if sight[0] == reverted_to} == {(False, 20)}
    assert all(len(rows) == 1 and rows[0][1] for rows in seen) and len({rows[0][0] for rows in seen}) == 2
    committed = {name for client in clients for name in client.committed}
    first, second = ids_in(plain, plain.name), ids_in(plain, retired_name(back.operation.id, plain.name))
    assert committed <= first | second
    lost = {name for name in second if name.startswith("w")}
    assert lost and facts.lost_rows == len(lost)
    assert ids_kept(back) == lost
    # Only the server's own messages made the clients reconnect.
    told = set().union(*(client.errors for client in clients))
    assert told <= {
        "terminating connection due to administrator command",
        "server closed the connection unexpectedly",
        "This probably means the server terminated abnormally before or while processing the request.",
        "before or while processing the request.",
        'database "shop" does not exist',
        "It seems to have just been dropped or renamed.",
    }, told


def test_what_no_table_lock_keeps_out_is_not_lost_uncounted(plain):
    """A new table and a large object can be written despite the locks, after the count."""
    place = plain.backup()
    made = []

    def write_elsewhere(stop):
        connection = None
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                if connection is None:
                    connection = psycopg2.connect(plain.cluster.url(plain.name, user=OWNER))
                    connection.autocommit = True
                cursor = connection.cursor()
                cursor.execute("CREATE TABLE late_%d AS SELECT 1 AS a" % number)
                made.append("late_%d" % number)
                cursor.execute("SELECT lo_from_bytea(%s, 'x')", (100000 + number,))
                made.append(100000 + number)
                stop.wait(0.02)
            except psycopg2.Error:
                connection = None

    with Workers(write_elsewhere):
        until(lambda: made, "something was made")
        try:
            site, result = reverted(plain, place, EVERYTHING)
        except BackstopError as error:
            # A clear refusal is also correct: nothing was lost.
            assert "nothing was changed" in error.hint
            return
    retired = retired_name(site.operation.id, plain.name)
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % retired, "postgres")
    tables = plain.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'late_%'", retired)
    objects = plain.value("SELECT count(*) FROM pg_largeobject_metadata", retired)
    assert result.lost_rows == tables + objects


def test_a_session_that_sits_in_a_transaction_with_locks(plain):
    place = plain.backup()
    site = prepared(plain, place)
    with plain.session(user=OWNER) as idle:
        idle.execute("BEGIN")
        idle.execute(INSERT, ("never committed",))
        result = revert(site, place, LossPolicy(0))
        with pytest.raises(psycopg2.Error):
            idle.execute("COMMIT")
    assert result.lost_rows == 0 and len(result.ended_sessions) <= 1
    assert "never committed" not in ids_in(plain, retired_name(site.operation.id, plain.name))


def test_writers_that_lock_in_another_order(plain):
    """Two tables, locked in another order than the fence does: the revert does not end by a deadlock."""
    place = plain.backup()

    def work(stop):
        while not stop.is_set():
            try:
                connection = psycopg2.connect(plain.cluster.url(plain.name, user=OWNER))
                while not stop.is_set():
                    cursor = connection.cursor()
                    cursor.execute('UPDATE "UserContribution" SET "userId" = "userId" WHERE "id" = \'c7\'')
                    stop.wait(0.05)
                    cursor.execute('UPDATE "TokenPurchase" SET "totalTokens" = 7 WHERE "id" = \'p000001\'')
                    connection.commit()
            except psycopg2.Error:
                continue

    with Workers(work, work, work):
        _site, result = reverted(plain, place, EVERYTHING)
    assert result.lost_rows <= 1


# What cannot be swapped


@pytest.mark.fault("deploy", "complete revert with something in its way", by="refused, nothing changed")
@pytest.mark.parametrize(
    "obstacle, told",
    [
        ("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'waiting'", "prepared transaction waiting"),
        ("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')", "replication slot cdc"),
        (
            "CREATE SUBSCRIPTION sub CONNECTION 'host=/x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
            "subscription sub",
        ),
    ],
)
def test_obstacles_are_named_and_nothing_changes(plain, obstacle, told):
    place = plain.backup()
    site = prepared(plain, place)
    plain.execute(obstacle)
    before = plain.names()
    with pytest.raises(Refused, match="The database cannot be swapped") as caught:
        revert(site, place, LossPolicy(0))
    assert told in caught.value.found
    assert plain.names() == before
    plain.execute(INSERT % "'still here'")
    plain.execute("DROP SUBSCRIPTION IF EXISTS sub")


@pytest.mark.fault("deploy", "a restored copy that is not complete", by="it gets no live name")
def test_a_half_built_database_never_takes_over(plain):
    """As when the restore was killed and the swap is started alone, with --start-at-task."""
    place = plain.backup()
    site = prepared(plain, place)
    site.operation.write("build", "began")
    with pytest.raises(Refused, match="not built completely") as caught:
        revert(site, place, LossPolicy(EVERYTHING))
    assert "has not done: build" in caught.value.found
    assert plan_revert(plain.site, place.backup_id)["needed"] is True


def test_sessions_of_others_that_may_not_be_ended(plain):
    """The owner can neither end another role's session nor see much of it: reported, and nothing changed."""
    plain.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO %s" % APP)
    place = plain.backup()
    site = prepared(plain, place)
    before = plain.names()
    with plain.session(user=APP) as other:
        other.execute('SELECT count(*) FROM "User"')
        with pytest.raises(BackstopError) as caught:
            revert(site, place, LossPolicy(0))
        assert APP in caught.value.found and "pg_signal_backend" in caught.value.hint
        assert plain.names() == before
        other.execute('SELECT count(*) FROM "User"')
        plain.execute("GRANT pg_signal_backend TO " + OWNER)
        try:
            result = revert(site, place, LossPolicy(0))
        finally:
            plain.execute("REVOKE pg_signal_backend FROM " + OWNER, "postgres")
    assert len(result.ended_sessions) == 1 and APP in result.ended_sessions[0]


NAMES = ['it\'s "a" \\ 电', "x" * 63, "é" * 31, "with space"]


@pytest.mark.fault("input", "complete revert of databases with such names", by="quoted")
@pytest.mark.parametrize("name", NAMES)
def test_databases_of_any_name(databases, name):
    live = databases.make(name)
    place = live.backup()
    live.execute('DROP TABLE "UserContribution"')
    site, result = reverted(live, place, EVERYTHING)
    assert equals_backup(live, place)
    _back, _facts = undone(live, site.operation)
    assert live.value("SELECT to_regclass('\"UserContribution\"') IS NULL")
    assert len(live.names()) == 2 and name in live.names()
    assert all(len(found.encode()) <= 63 for found in live.names())


# Undo


def test_undo_counts_what_was_written_since(plain):
    place = plain.backup()
    plain.run("receipts.sql")
    site, _result = reverted(plain, place)
    plain.execute(INSERT % "'since'")
    with pytest.raises(Refused, match="1 rows would be lost") as caught:
        undone(plain, site.operation)
    assert "public.TokenPurchase: 1 inserted" in caught.value.found
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    assert not [name for name in plain.names() if "base" in name]


def test_undo_needs_the_retired_database(plain):
    place = plain.backup()
    site, result = reverted(plain, place)
    plain.execute('DROP DATABASE "%s"' % result.retired, "postgres")
    with pytest.raises(Refused, match="cannot be undone"):
        undone(plain, site.operation)
    with pytest.raises(Refused, match="nothing to undo"):
        plan_undo(plain.site, None)


def test_revert_again_after_an_undo(plain):
    """Reverted and undone in turn: each swap has its own operation, and the plan knows which is in effect."""
    place = plain.backup()
    plain.run("receipts.sql")
    first, _result = reverted(plain, place)
    undone(plain, first.operation)
    plan = plan_revert(plain.site, place.backup_id)
    assert plan["needed"] and plan["history_differences"]
    reverted(plain, place)
    assert equals_backup(plain, place) and plan_revert(plain.site, place.backup_id)["needed"] is False
    assert json.dumps(plan)


def forget_the_swap(operation) -> None:
    """As if the process had been killed right after its COMMIT: the journal has no entry."""
    path = pathlib.Path(operation.file("journal.jsonl"))
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [entry for entry in entries if (entry["step"], entry["event"]) != ("swap", "done")]
    assert len(kept) == len(entries) - 1
    path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))


def test_a_swap_that_was_not_journalled_is_found(plain):
    place = plain.backup()
    site = prepared(plain, place)
    assert settle(site) is None
    revert(site, place, LossPolicy(0))
    facts = site.operation.facts("swap")
    assert settle(site).changed is False
    forget_the_swap(site.operation)
    assert settle(site).changed is True
    found = site.operation.facts("swap")
    assert found.pop("finished_after_interruption") is True
    assert found == {key: facts[key] for key in found}
    site.operation.close("done")
    undone(plain, site.operation)


def test_an_undo_that_was_given_up_after_its_swap(plain):
    """The next one finds the swap already undone and changes nothing."""
    place = plain.backup()
    plain.run("receipts.sql")
    first, _result = reverted(plain, place)
    second, _facts = undone(plain, first.operation)
    forget_the_swap(second.operation)
    before = plain.names()
    again = plain.begun("undo", {"undoes": first.operation.id})
    assert undo(again, first.operation, LossPolicy(0)).changed is False
    assert plain.names() == before and plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")


@pytest.mark.fault("deploy", "two rollbacks at once", by="an advisory lock")
def test_a_revert_while_another_runs(plain):
    """Two at once: one waits for the other's lock, then finds it done."""
    place = plain.backup()
    site = prepared(plain, place)
    results = []
    barrier = threading.Barrier(2)

    def work(_stop):
        barrier.wait()
        results.append(revert(site, place, LossPolicy(0)).changed)

    with Workers(work, work) as workers:
        until(lambda: len(results) == 2 or workers.failed, "both end", 60)
    assert sorted(results) == [False, True]
    assert len(plain.names()) == 2
