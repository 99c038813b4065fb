# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which sessions migrate a database now, as a real server reports them."""

from __future__ import annotations

import contextlib

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import (
    MIGRATION_LOCK,
    end_backends,
    lock_holders,
    running_backends,
)
from support.prisma_database import ROLE, Database


@contextlib.contextmanager
def named_session(database, name):
    connection = psycopg2.connect(database.cluster.url(database.name, user=ROLE), application_name=name)
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def test_nobody(database):
    with database.session() as cursor:
        assert running_backends(cursor) == []


def test_what_changes_within_our_own_transaction_is_seen(database):
    with database.session() as cursor:
        cursor.execute("BEGIN")
        assert lock_holders(cursor) == []
        with database.migration_lock():
            assert [one.user for one in lock_holders(cursor)] == [ROLE]
        cursor.execute("ROLLBACK")


def test_our_own_lock_does_not_count(database):
    with database.session() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        assert lock_holders(cursor) == []


def test_other_databases_and_other_locks_do_not_count(database, cluster):
    other = Database(cluster, "postgres")
    with other.migration_lock(), database.session() as elsewhere, database.session() as cursor:
        elsewhere.execute("SELECT pg_advisory_lock(%s, 1), pg_advisory_lock(1)", (MIGRATION_LOCK,))
        assert running_backends(cursor) == []


def test_another_roles_migration_is_seen(database, cluster):
    with Database(cluster, database.name).session(user="postgres") as other, database.session() as cursor:
        other.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        [holder] = lock_holders(cursor)
        assert holder.user == "postgres" and holder.state is None


def test_only_the_named_are_ended(database):
    name = "backstop_" + "x" * 80  # the server keeps the first 63 bytes
    with named_session(database, name), named_session(database, "other") as other, database.session() as cursor:
        assert [one.application_name for one in running_backends(cursor, name)] == [name[:63]]
        assert end_backends(cursor, name) == []
        assert running_backends(cursor, name) == []
        other.execute("SELECT 1")
        assert other.fetchone() == (1,)
