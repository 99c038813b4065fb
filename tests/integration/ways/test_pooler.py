# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer in front of the database: its clients wait during a swap, and continue whatever its result."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from unittest import mock

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import (
    evaluation as gates_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import (
    GATES,
    evaluate,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.inputs import GateInputs
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.pgbouncer import Pooler
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import PAUSE_POOLS
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import handover
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import (
    build_successor,
    revert,
    settle,
    undo,
)
from support.databases import OWNER, Workers
from support.interruptions import killed_at
from support.module_runner import run_module
from support.pgbouncer import ADMIN, ADMIN_PASSWORD, pgbouncer
from support.prisma_database import until

pytestmark = pytest.mark.pgbouncer

INSERT = 'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (%s, 1, now(), \'u1\')'
EVERYTHING = 10**9


@pytest.fixture
def bouncer(cluster, plain):
    with pgbouncer(cluster, {"shop": plain.name, "Re_ports": plain.name, "elsewhere": "postgres"}) as started:
        yield started


def begun(live, kind, *poolers, **request):
    return dataclasses.replace(live.begun(kind, request), poolers=poolers)


def prepared(live, place, *poolers):
    run = begun(live, "rollback", *poolers, backup=place.backup_id)
    build_successor(run, place)
    return run


class Client:
    """Works through the pool, and counts any error as a failure."""

    def __init__(self, connect, name, statement=INSERT):
        self._connect, self.name, self.statement, self.committed = connect, name, statement, []

    def __call__(self, stop):
        connection = self._connect()
        with contextlib.closing(connection):
            for count in itertools.count():
                if stop.is_set():
                    return
                cursor = connection.cursor()
                cursor.execute(self.statement, ("%s-%d" % (self.name, count),))
                self.committed.append("%s-%d" % (self.name, count))
                cursor.execute('SELECT count(*) FROM "User"')
                assert cursor.fetchone() == (20,)


def go_on(clients):
    marks = [len(client.committed) for client in clients]
    until(lambda: all(len(client.committed) > mark for client, mark in zip(clients, marks)), "all clients go on")


def test_pooled_clients_see_no_error_through_a_revert_and_its_undo(plain, cluster, bouncer):
    """Two PgBouncers, three pools."""
    place = plain.backup()
    with pgbouncer(cluster, {"shop": plain.name}) as other:
        clients = [
            Client(lambda one=one: one.client("shop"), "c%d" % number)
            for number, one in enumerate([bouncer, other] * 2)
        ]
        poolers = [bouncer.pooler(), other.pooler(pools=("shop",))]
        with Workers(*clients) as workers:
            go_on(clients)
            site = prepared(plain, place, *poolers)
            result = revert(site, place, LossPolicy(EVERYTHING))
            site.operation.close("done")
            go_on(clients)
            back = begun(plain, "undo", *poolers, undoes=site.operation.id)
            facts = undo(back, site.operation, LossPolicy(EVERYTHING))
            back.operation.close("done")
            go_on(clients)
            assert not workers.failed
            assert bouncer.paused() == other.paused() == []
            for done in (result, facts):
                assert sorted(done.pooled.pools) == sorted(
                    [
                        "shop at 127.0.0.1:%d" % bouncer.port,
                        "Re_ports at 127.0.0.1:%d" % bouncer.port,
                        "shop at 127.0.0.1:%d" % other.port,
                    ]
                )
                assert done.pooled.held == [] and done.ended_sessions == [] and done.pooled.seconds > 0


def test_pooled_clients_wait_through_a_restore_in_place(plain, bouncer):
    place = plain.backup()
    plain.execute(INSERT % "'lost'")
    client = Client(lambda: bouncer.client("shop"), "c", 'SELECT * FROM "TokenPurchase" WHERE id = %s')
    with Workers(client):
        go_on([client])
        run = begun(plain, "rollback", bouncer.pooler(), backup=place.backup_id)
        result = revert_in_place(run, place, LossPolicy(1))
        go_on([client])
    assert len(result.pooled.pools) == 2 and bouncer.paused() == []
    assert plain.value("SELECT count(*) FROM \"TokenPurchase\" WHERE id = 'lost'") == 0


# Failures


def test_a_refused_revert_lets_them_go_on(plain, bouncer):
    place = plain.backup()
    site = prepared(plain, place, bouncer.pooler())
    plain.execute(INSERT % "'one'")
    with pytest.raises(Refused, match="1 rows would be lost"):
        revert(site, place, LossPolicy(0))
    assert bouncer.paused() == [] and site.operation.done(PAUSE_POOLS)
    with contextlib.closing(bouncer.client("shop")) as connection:
        connection.cursor().execute("SELECT 1")


@pytest.mark.parametrize("failpoint", ["swap.counted", "swap.committed"])
def test_a_killed_revert_leaves_a_pause_that_the_next_run_ends(plain, bouncer, failpoint):
    place = plain.backup()
    site = prepared(plain, place, bouncer.pooler(pools=("shop",)))
    killed_at(failpoint, lambda: revert(site, place, LossPolicy(0)))
    assert bouncer.paused() == ["shop"]
    again = site
    if failpoint == "swap.counted":
        assert settle(again) is None and bouncer.paused() == []
    assert revert(again, place, LossPolicy(0)).changed is (failpoint != "swap.committed")
    assert bouncer.paused() == []
    with contextlib.closing(bouncer.client("shop")) as connection:
        connection.cursor().execute("SELECT 1")


def test_a_killed_restore_in_place_too(plain, bouncer):
    place = plain.backup()
    run = begun(plain, "rollback", bouncer.pooler(pools=("shop",)), backup=place.backup_id)
    killed_at("in-place.committed", lambda: revert_in_place(run, place, LossPolicy(0)))
    assert bouncer.paused() == ["shop"]
    assert revert_in_place(run, place, LossPolicy(0)).changed is False
    assert bouncer.paused() == []


def test_without_the_pooler_a_re_run_tells_the_command(plain, bouncer):
    place = plain.backup()
    site = prepared(plain, place, bouncer.pooler(pools=("shop",)))
    killed_at("swap.committed", lambda: revert(site, place, LossPolicy(0)))
    with pytest.raises(
        BackstopError, match="have been waiting since operation %s was interrupted" % site.operation.id
    ) as caught:
        revert(dataclasses.replace(site, poolers=()), place, LossPolicy(0))
    assert 'RESUME "shop"' in caught.value.hint and str(bouncer.port) in caught.value.hint
    # It was reported once, and does not block later runs.
    assert revert(dataclasses.replace(site, poolers=()), place, LossPolicy(0)).changed is False
    # Another operation of this database, whose poolers are configured, also finds it.
    site.operation.close("abandoned")
    other = begun(plain, "undo", bouncer.pooler(pools=("shop",)), undoes=site.operation.id)
    settle(other)
    assert bouncer.paused() == []


def test_a_pooler_that_went_away_meanwhile(plain, bouncer, monkeypatch):
    """The swap is done and is not reported as failed; the remaining steps are shown."""
    place = plain.backup()
    site = prepared(plain, place, bouncer.pooler(pools=("shop",)))
    rename = handover.Fence.rename

    def rename_and_lose_it(*arguments):
        result = rename(*arguments)
        bouncer.process.kill()
        bouncer.process.wait()
        return result

    monkeypatch.setattr(handover.Fence, "rename", rename_and_lose_it)
    with pytest.raises(BackstopError, match="The work is done, but clients of PgBouncer still wait") as caught:
        revert(site, place, LossPolicy(0))
    assert 'RESUME "shop"' in caught.value.hint and ADMIN_PASSWORD not in str(caught.value)
    assert settle.__module__ and plain.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'backstop_retired_%'")


# Clients that keep their sessions


def test_session_pooling_is_bounded_and_the_choice_is_told(plain, cluster):
    place = plain.backup()
    with pgbouncer(cluster, {"shop": plain.name}, mode="session") as bouncer:
        with contextlib.closing(bouncer.client("shop")) as connection:
            cursor = connection.cursor()
            cursor.execute("SET application_name = 'report'; SELECT 1")
            site = prepared(plain, place, bouncer.pooler(wait_seconds=0.3))
            with pytest.raises(Refused, match="keep their sessions") as caught:
                revert(site, place, LossPolicy(0))
            assert OWNER in caught.value.found and "session pooling" in caught.value.found
            assert "held: end" in caught.value.hint and bouncer.paused() == []
            cursor.execute("SELECT 1")  # the session was not terminated
            site = dataclasses.replace(site, poolers=[bouncer.pooler(wait_seconds=0.3, held="end")])
            result = revert(site, place, LossPolicy(0))
            assert len(result.pooled.held) == len(result.ended_sessions) == 1
            assert OWNER in result.pooled.held[0]
            with pytest.raises(psycopg2.Error):
                cursor.execute("SELECT 1")
        assert bouncer.paused() == []
        with contextlib.closing(bouncer.client("shop")) as connection:
            connection.cursor().execute("SELECT 1")


def test_how_a_console_is_given():
    """PgBouncer's own default port and database, in every notation of the rest."""
    for given, port, database in (
        ({"host": "10.0.0.6"}, 6432, "pgbouncer"),
        ({"url": "postgresql://boss:secret@10.0.0.6"}, 6432, "pgbouncer"),
        ({"url": "postgresql://boss:secret@10.0.0.6:7000/console"}, 7000, "console"),
        ({"url": "postgresql://boss:secret@10.0.0.6", "port": 7001}, 7001, "pgbouncer"),
    ):
        pooler = Pooler.from_mapping({"console": given, "pools": [], "wait": 10, "held": "refuse"})
        assert (pooler.console.port, pooler.console.database) == (port, database)
        assert pooler.address == "10.0.0.6:%d" % port and "secret" not in repr(pooler)


# Wrong configurations


def test_pools_that_are_not_what_was_said(plain, bouncer):
    place = plain.backup()
    for pools, found in ((("shopp",), "did you mean shop"), (("elsewhere",), "correct the pools")):
        site = prepared(plain, place, bouncer.pooler(pools=pools))
        with pytest.raises(Refused, match="has no pool %s that points to database shop" % pools) as caught:
            revert(site, place, LossPolicy(0))
        assert found in caught.value.hint and "elsewhere points to postgres" in caught.value.found
        site.operation.close("done")
    console = dataclasses.replace(bouncer.pooler().console, password="wrong")
    site = prepared(plain, place, bouncer.pooler(console=console))
    with pytest.raises(Refused, match="console of PgBouncer at 127.0.0.1:%d cannot be reached" % bouncer.port):
        revert(site, place, LossPolicy(0))
    bouncer.say('PAUSE "shop"')
    site = dataclasses.replace(site, poolers=[bouncer.pooler()])
    with pytest.raises(Refused, match="paused already"):
        revert(site, place, LossPolicy(0))
    assert bouncer.paused() == ["shop"], "somebody else's pause is not ours to end"


def gates(site):
    asked = ("direct_connection", "administration_connection", "release_connection", "poolers")
    question = GateInputs(files=[], expected=[], release_connections=lambda: {"DATABASE_URL": site.connection})
    with mock.patch.object(gates_module, "GATES", [gate for gate in GATES if gate[0] in asked]):
        return {gate.name: gate for gate in evaluate(site, question)}


def through(bouncer, settings, pool):
    return dataclasses.replace(settings, port=bouncer.port, database=pool)


def test_the_gates_refuse_it_as_a_connection_and_look_at_it_as_a_pooler(plain, bouncer):
    site = dataclasses.replace(plain.site, poolers=[bouncer.pooler()])
    found = gates(site)
    assert found["direct_connection"].passed and found["poolers"].passed
    assert "shop at 127.0.0.1:%d (transaction pooling; its clients wait for 60 seconds" % bouncer.port in (
        found["poolers"].found
    )
    pooled = dataclasses.replace(site, connection=through(bouncer, site.connection, "shop"))
    found = gates(pooled)
    assert not found["direct_connection"].passed and "through a pooler" in found["direct_connection"].found
    assert found["release_connection"].passed, "the application may use it"
    pooled = dataclasses.replace(site, administration=through(bouncer, site.administration, "elsewhere"))
    found = gates(pooled)
    assert not found["administration_connection"].passed
    assert "through a pooler" in found["administration_connection"].found
    bouncer.say('PAUSE "shop"')
    paused = gates(site)["poolers"]
    assert not paused.passed and "is paused" in paused.found
    bouncer.process.kill()
    bouncer.process.wait()
    gone = gates(site)["poolers"]
    assert not gone.passed and "cannot be reached" in gone.found


def test_the_module_pauses_and_shows_no_secret(plain, bouncer, tmp_path):
    place = plain.backup()
    site = plain.begun("rollback", {"backup": place.backup_id}, dead=True)
    answer = run_module(
        tmp_path,
        "rollback",
        {
            "connection": {"url": plain.cluster.url(plain.name, user=OWNER)},
            "client_bin_dir": str(plain.cluster.bin_dir),
            "store": plain.store.root,
            "operation": site.operation.id,
            "poolers": [
                {
                    "console": {"port": bouncer.port, "host": "127.0.0.1", "user": ADMIN, "password": ADMIN_PASSWORD},
                    "pools": ["shop"],
                }
            ],
        },
    )
    assert not answer.failed and answer.result["pooled"]["pools"] == ["shop at 127.0.0.1:%d" % bouncer.port]
    assert ADMIN_PASSWORD not in answer.printed and bouncer.paused() == []
