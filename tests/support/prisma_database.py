# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases that tests migrate, and their histories."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import MIGRATION_LOCK
from demo.postgres_server import Cluster

from .prisma_project import PrismaProject

#: The application's role: no superuser. Its password tests every kind of quoting.
ROLE, PASSWORD = "electricity_tokens", "p@ss/w#rd $HOME%ä'"


@dataclass
class Database:
    """One database that belongs to the application's role."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        return self.cluster.url(self.name, user=ROLE) + "?schema=public"

    @contextlib.contextmanager
    def session(self, user: str = ROLE) -> Iterator[Any]:
        """A cursor in autocommit."""
        connection = psycopg2.connect(self.cluster.url(self.name, user=user))
        connection.autocommit = True
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def rows(self) -> Optional[List[history.HistoryRow]]:
        with self.session() as cursor:
            return history.read_rows(cursor)

    def state(self, project: PrismaProject) -> history.MigrationState:
        return history.compare(history.read_folder(str(project.migrations)), self.rows())

    def value(self, sql: str) -> Any:
        with self.session() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def execute(self, sql: str) -> None:
        with self.session() as cursor:
            cursor.execute(sql)

    def elsewhere(self, sql: str) -> None:
        """Run a statement as the same role in another database."""
        with Database(self.cluster, "postgres").session() as cursor:
            cursor.execute(sql)

    def has(self, table: str) -> bool:
        return self.value("SELECT to_regclass('public.\"%s\"') IS NOT NULL" % table)

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Hold Prisma's lock, as another deploy would."""
        with self.session() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            yield

    @contextlib.contextmanager
    def table_lock(self, table: str) -> Iterator[None]:
        """Lock a table against every other session."""
        with self.session() as cursor:
            cursor.execute('BEGIN; LOCK TABLE "%s" IN ACCESS EXCLUSIVE MODE' % table)
            yield
            cursor.execute("ROLLBACK")


def until(condition, what, seconds=30):
    """Wait for a condition outside this process; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("this did not happen in %s seconds: %s" % (seconds, what))
