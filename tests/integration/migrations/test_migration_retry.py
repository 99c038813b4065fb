# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A migration that waits too long for a lock is retried, but only if it is proved to have left nothing."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.retry import apply_patiently
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from support.databases import SQL, Workers
from support.prisma_database import until
from support.prisma_project import PrismaProject

pytestmark = pytest.mark.prisma

INIT, NEXT = "20251001000000_init", "20251108000000_next"
MADE = (SQL / "plain.sql").read_text("utf-8").split("CREATE TABLE _prisma_migrations")[0]
BLOCKED = 'ALTER TABLE "User" ADD COLUMN "tariff" text;'
#: Long enough that a migration that need not wait never fails because of it.
LOCK_TIMEOUT_MS = 400


@pytest.fixture
def deploy(plain, tmp_path):
    """A deploy with its backup; applies one migration."""
    checksum = hashlib.sha256(MADE.encode()).hexdigest()
    plain.execute("UPDATE _prisma_migrations SET checksum = '%s'" % checksum)
    site = plain.begun("deploy")
    with journaled_step(site, "backup") as facts:
        facts["backup"] = plain.backup().backup_id

    def run(sql, lock_retries, site=site):
        project = PrismaProject.create(tmp_path / "release", {INIT: MADE, NEXT: sql})
        limits = Limits([NEXT], LOCK_TIMEOUT_MS, lock_retries=lock_retries)
        return apply_patiently(site, project.prisma(), limits, required_steps=())

    return run


def states(live):
    with live.site.connect() as session:
        rows = history.read_rows(session.cursor()) or []
    return [row.state for row in rows if row.migration_name == NEXT]


def reader(live, released):
    """Block an ALTER TABLE, but not readers, until a condition is true."""

    def work(stop):
        with live.session() as cursor:
            cursor.execute('BEGIN; LOCK TABLE "User" IN ACCESS SHARE MODE')
            until(lambda: stop.is_set() or released(), "the lock may be released")
            cursor.execute("ROLLBACK")

    return work


def is_locked(live):
    return live.value(
        "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.relation = '\"User\"'::regclass AND l.mode = 'AccessShareLock' AND a.state = 'idle in transaction')"
    )


@pytest.mark.fault("deploy", "lock timeout of a migration, then free", by="retried after a proof that nothing was left")
def test_it_is_tried_again_until_the_lock_is_free(plain, deploy):
    with Workers(reader(plain, lambda: "rolled_back" in states(plain))):
        until(lambda: is_locked(plain), "the table is locked")
        result = deploy(BLOCKED, 20)
    assert result.applied == [NEXT] and result.lock_retries >= 1
    assert states(plain) == ["rolled_back"] * result.lock_retries + ["applied"]
    assert plain.value("SELECT count(*) FROM pg_attribute WHERE attname = 'tariff'") == 1


@pytest.mark.parametrize("retries, failed", [(0, ["failed"]), (1, ["rolled_back", "failed"])])
def test_it_is_not_tried_for_ever(plain, deploy, retries, failed):
    with Workers(reader(plain, lambda: False)):
        until(lambda: is_locked(plain), "the table is locked")
        with pytest.raises(PrismaError) as caught:
            deploy(BLOCKED, retries)
    assert caught.value.sqlstate == "55P03" and states(plain) == failed


@pytest.mark.fault("deploy", "lock timeout of a migration that left something", by="not retried")
@pytest.mark.parametrize(
    "first",
    [
        "CREATE TABLE left_over (id int); COMMIT; ",
        'UPDATE "User" SET name = upper(name); COMMIT; ',
    ],
)
def test_what_left_something_is_not_tried_again(plain, deploy, first):
    with Workers(reader(plain, lambda: False)):
        until(lambda: is_locked(plain), "the table is locked")
        with pytest.raises(PrismaError):
            deploy(first + BLOCKED, 5)
    assert states(plain) == ["failed"]


def test_another_error_is_not_tried_again(plain, deploy):
    with pytest.raises(PrismaError) as caught:
        deploy("SELECT 1/0;", 5)
    assert caught.value.sqlstate == "22012" and states(plain) == ["failed"]


def test_without_an_operation_nothing_can_be_proved(plain, deploy):
    with Workers(reader(plain, lambda: False)):
        until(lambda: is_locked(plain), "the table is locked")
        with pytest.raises(PrismaError):
            deploy(BLOCKED, 5, site=plain.site)
    assert states(plain) == ["failed"]
