# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fence of a deploy: which sessions are in the database, and whether the backup still equals its contents."""

from __future__ import annotations

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations import fence as module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from support.databases import APP, OWNER, Workers
from support.prisma_database import until


@pytest.fixture
def fenced(plain):
    """A deploy that has its backup; the database, its run and the backup."""
    place = plain.backup()
    run = plain.begun("deploy")
    for step in module.PROOFS["deploy"]:
        run.operation.write(step, "done")
    return plain, run, place


@pytest.mark.parametrize("left_out", module.PROOFS["deploy"])
def test_without_the_gates_nobody_is_cut_off(plain, left_out):
    """As with --tags or --start-at-task."""
    place, site = plain.backup(), plain.begun("deploy")
    for step in set(module.PROOFS["deploy"]) - {left_out}:
        site.operation.write(step, "done")
    with plain.session(user=OWNER) as idle:
        with pytest.raises(Refused, match="an earlier step was left out") as caught:
            fence(site, place, 0)
        assert "has not done: " + left_out in caught.value.found
        idle.execute("SELECT 1")


def test_a_backup_that_was_cut_off_behind_an_earlier_fence(fenced):
    """The run before was killed in its final backup: the fence runs again, and reports that the backup is needed."""
    _live, site, place = fenced
    site.operation.write("backup", "began")
    assert fence(site, place, 0).same


def test_nobody_there_and_nothing_changed(fenced):
    _live, site, place = fenced
    result = fence(site, place, 0)
    assert result.same and result.differences == [] and result.ended_sessions == []


def test_an_index_that_was_made_since_the_backup_is_told(fenced):
    """Objects that the backup lacks count as a failed migration's leftovers, so a backup must contain the index."""
    live, site, place = fenced
    live.execute('CREATE INDEX by_name ON "User" ("name")')
    assert fence(site, place, 0).differences == ["index public.by_name is added"]


@pytest.mark.fault("deploy", "rows written after the backup", by="digests behind the fence")
def test_what_was_written_since_the_backup_is_told(fenced):
    live, site, place = fenced
    live.execute('UPDATE "User" SET "name" = NULL WHERE "id" = \'u1\'; CREATE TABLE new ()')
    result = fence(site, place, 0)
    assert not result.same
    assert result.differences == [
        "table public.User has 20 rows with other contents",
        "table public.new was not there",
    ]


def test_idle_sessions_are_ended(fenced):
    live, site, place = fenced
    with live.session(user=OWNER) as idle:
        result = fence(site, place, 0)
        assert len(result.ended_sessions) == 1 and OWNER in result.ended_sessions[0]
        with pytest.raises(psycopg2.Error):
            idle.execute("SELECT 1")


def test_a_session_in_a_transaction_is_waited_for_and_named(fenced):
    """It may be about to commit: the fence waits for it, and never terminates it."""
    live, site, place = fenced
    with live.session(user=OWNER) as busy:
        busy.execute("SET application_name = 'nightly job'; BEGIN; DELETE FROM \"UserContribution\"")
        with pytest.raises(Refused, match="Other sessions are active in the database") as caught:
            fence(site, place, 0.3)
        assert "nightly job" in caught.value.found and OWNER in caught.value.found
        busy.execute("COMMIT")
    result = fence(site, place, 0)
    assert result.differences == ["table public.UserContribution has 0 rows, not 400"]


def test_a_session_that_finishes_in_time(fenced):
    live, site, place = fenced
    began = []

    def finish(_stop):
        with live.session(user=OWNER) as busy:
            busy.execute('BEGIN; UPDATE "User" SET "name" = \'late\' WHERE "id" = \'u1\'')
            began.append(1)
            with live.session(database="postgres") as observer:
                until(lambda: looked(observer), "the fence looks")
            busy.execute("COMMIT")

    def looked(observer):
        observer.execute("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'backstop %'")
        return observer.fetchone()

    with Workers(finish):
        until(lambda: began, "the session is busy")
        result = fence(site, place, 20)
    assert result.differences == ["table public.User has 20 rows with other contents"]


@pytest.mark.fault("deploy", "clients that connect again behind the fence", by="ended until the fence is closed")
def test_a_pool_that_connects_again_and_again(fenced, monkeypatch):
    """An application on a forgotten host was not stopped: it is reported, and not waited for without limit."""
    live, site, place = fenced
    monkeypatch.setattr(module, "_GOING_SECONDS", 1)

    def pool(stop):
        while not stop.is_set():
            with live.session(user=OWNER) as cursor:
                try:
                    cursor.execute("SELECT 1")
                    while not stop.wait(0.01):
                        cursor.connection.poll()
                        cursor.execute("SELECT 1")
                        stop.wait(0.05)
                except psycopg2.Error:
                    continue

    with Workers(pool, pool):
        with live.session(database="postgres") as observer:
            until(lambda: connected(observer), "the pool is connected")
        with pytest.raises(Refused, match="Other sessions are active in the database"):
            fence(site, place, 0)


def connected(observer):
    observer.execute("SELECT 1 FROM pg_stat_activity WHERE datname = 'shop'")
    return observer.fetchone()


def test_sessions_of_other_roles_are_seen(fenced):
    """Without pg_read_all_stats their state is hidden, but they must not be overlooked."""
    live, site, place = fenced
    with live.session(user=APP):
        with pytest.raises(Refused, match="Other sessions are active in the database") as caught:
            fence(site, place, 0)
        assert APP in caught.value.found and "state hidden" in caught.value.found


def test_a_deploy_that_was_cut_off_between_two_migrations_keeps_the_backup_from_before(fenced):
    """A new one would contain the first migration, and a rollback to it would leave that in."""
    live, site, place = fenced
    live.run("receipts.sql")
    assert not fence(site, place, 0).same
    site.operation.write("migrate", "began")
    assert fence(site, place, 0).same
    live.execute('UPDATE "User" SET "name" = NULL WHERE "id" = \'u1\'')
    with pytest.raises(Refused, match="interrupted after some of its migrations") as caught:
        fence(site, place, 0)
    assert "table public.User has 20 rows with other contents" in caught.value.found
