# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A streaming hot standby: reported with its lag, followed through a swap, and unreachable when a COMMIT waits."""

from __future__ import annotations

import contextlib
import dataclasses

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import surroundings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import replication
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    handover as swap,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    in_place,
    retired,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import swap as revert_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import notes
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from support.databases import session
from support.prisma_database import until
from support.standby import NAME, hot_standby

OID = "SELECT oid::int FROM pg_database WHERE datname = current_database()"


@pytest.fixture(scope="module")
def standby(cluster):
    with hot_standby(cluster) as started:
        yield started


def as_superuser(live):
    """A site that may read the replay position of a standby."""
    settings = Settings.from_url(live.cluster.url(live.name))
    return dataclasses.replace(live.site, administration=settings.with_database("postgres"))


def gate(site):
    with site.connect() as there:
        return surroundings.standbys(site, there, None)


def prepared(live, place):
    site = as_superuser(live).run(live.begun("rollback").operation)
    build_successor(site, place)
    return site


def test_the_gate_and_the_plan_tell_it_with_its_lag(plain, standby):
    with plain.site.administer() as admin:
        (hidden,) = replication.standbys(admin)
    assert (hidden.name, hidden.lag) == (NAME, None) and "lag hidden" in str(hidden)
    site = as_superuser(plain)
    until(lambda: "%s at 127.0.0.1 (streaming, async, 0 bytes behind)" % NAME in gate(site), "it caught up")
    with standby.replay_paused():
        plain.execute("CREATE TABLE more ()")
        with site.administer() as admin:
            assert replication.follow(admin, 0.1)[0].lag > 0
        assert " bytes behind" in gate(site) and " 0 bytes behind" not in gate(site)
    said = " ".join(notes(site, "complete"))
    assert NAME in said and replication.SESSIONS_THERE in said


def test_a_swap_is_followed_and_prune_ends_who_stayed(plain, standby):
    """A rename causes no conflict there: a session that is open on the standby stays in the former database,
    until that is dropped."""
    place = plain.backup()
    former = plain.value(OID)
    until(lambda: standby.value("SELECT count(*) FROM pg_database WHERE datname = 'shop'"), "it has the database")
    with contextlib.closing(standby.connect("shop")) as stayed:
        cursor = stayed.cursor()
        site = prepared(plain, place)
        result = revert(site, place, LossPolicy(0))
        site.operation.close("done")
        assert [(one["name"], one["lag"]) for one in result.standbys] == [(NAME, 0)] and result.confirmed
        assert "Standby %s has replayed it. Sessions that are open on a standby" % NAME in result.standbys_summary
        cursor.execute(OID)
        assert cursor.fetchone()[0] == former, "the standby was expected to keep sessions through a rename"
        assert standby.value(OID, "shop") == plain.value(OID) != former
        (pruned,) = retired.prune(site, window_days=0, level="readable", dump=True)
        assert pruned["action"] == "dropped" and "sessions in it on standbys (%s) end" % NAME in pruned["reason"]

        def ended():
            try:
                cursor.execute("SELECT 1")
            except psycopg2.Error:
                return True
            return False

        until(ended, "the session there ends")


def test_one_that_lags_does_not_hold_the_swap_up(plain, standby, monkeypatch):
    monkeypatch.setattr(revert_module, "FOLLOW_SECONDS", 0.2)
    place = plain.backup()
    site = prepared(plain, place)
    with standby.replay_paused():
        result = revert(site, place, LossPolicy(0))
        assert result.changed and result.standbys[0]["lag"] > 0
        assert "Standby %s is %d bytes behind." % (NAME, result.standbys[0]["lag"]) in result.standbys_summary


# Synchronous ones


@pytest.fixture
def waits_for(cluster):
    """Make every COMMIT wait for a standby of this name."""

    def wait_for(name):
        with session(cluster, "postgres") as cursor:
            cursor.execute("SET synchronous_commit = local")
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = '%s'" % name)
            cursor.execute("ALTER SYSTEM SET synchronous_commit = 'on'")
            cursor.execute("SELECT pg_reload_conf()")
        until(lambda: shown() == [name, "on"], "the server has read it")

    def shown():
        with session(cluster, "postgres") as cursor:
            cursor.execute("SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit')")
            return list(cursor.fetchone())

    yield wait_for
    with session(cluster, "postgres") as cursor:
        cursor.execute("SET synchronous_commit = local")
        for name in ("synchronous_standby_names", "synchronous_commit"):
            cursor.execute("ALTER SYSTEM RESET " + name)
        cursor.execute("SELECT pg_reload_conf()")
    until(lambda: shown() == ["", "off"], "the server has read it")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(replication, "CONFIRM_SECONDS", 0.3)


def test_a_synchronous_one_confirms(plain, standby, waits_for):
    waits_for(NAME)
    assert "sync, " in gate(as_superuser(plain))


def test_one_that_is_gone_is_told_before_anything(plain, waits_for, impatient):
    """Every COMMIT would hang, and with it every session that waits for its locks."""
    place = plain.backup()
    built = prepared(plain, place)
    before = plain.names()
    waits_for("gone")
    site = plain.site
    for act in (
        lambda: gate(site),
        lambda: build_database(site, place, scratch_name(new_id(), "new")),
        lambda: revert(built, place, LossPolicy(0)),
        lambda: in_place.revert_in_place(built, place, LossPolicy(0)),
    ):
        with pytest.raises(Refused, match="synchronous standbys do not answer") as caught:
            act()
        assert "synchronous_standby_names = gone" in caught.value.found
    assert plain.names() == before


def test_one_that_goes_right_before_the_commit(plain, waits_for, impatient, monkeypatch):
    """The swap is done here; that no standby confirmed it is reported."""
    place = plain.backup()
    site = prepared(plain, place)
    require = replication.require_confirming

    def require_then_lose_it(admin):
        require(admin)
        waits_for("gone")

    monkeypatch.setattr(swap.replication, "require_confirming", require_then_lose_it)
    result = revert(site, place, LossPolicy(0))
    assert result.changed and result.confirmed is False
    assert result.standbys_summary.startswith("No synchronous standby has confirmed it")
