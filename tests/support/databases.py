# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One real server for all tests of a run, and a separate database for each test, copied from a template.

A folder's conftest.py imports the fixtures::

    from support.databases import cluster, databases, plain, realistic, seed

``plain`` belongs to a role that is no superuser and looks as Prisma leaves it; ``realistic`` has an object of every
kind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import random
import threading
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Sequence, Set

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import quote_identifier
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Run, Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin, this_controller
from demo.postgres_server import Cluster

SQL = pathlib.Path(__file__).resolve().parent / "realistic_database"
#: Owns the databases; may create databases, is no superuser. Its password must be quoted everywhere.
OWNER, PASSWORD = "shop_owner", "s3cr3t p@ss/w#rd %41 'ä\\"
APP, REPORT, ODD_ROLE = "shop_app", "shop_report", 'odd "role" é'
PLAIN, REALISTIC = "template_plain", "template_realistic"
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_prepared_transactions": "4",
    "wal_level": "logical",
    "max_replication_slots": "4",
    "max_wal_senders": "4",
}
#: Databases that tests and the library created.
_NOT_OURS = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname !~ '^(template_|postgres$)' ORDER BY 1"
_CLUSTER = pytest.StashKey[Cluster]()


def run_sql(cluster: Cluster, database: str, sql: str, user: Optional[str] = None) -> None:
    with session(cluster, database, user) as cursor:
        cursor.execute(sql)


@contextlib.contextmanager
def session(cluster: Cluster, database: str, user: Optional[str] = None) -> Iterator[Any]:
    """A cursor in autocommit; default is the superuser."""
    connection = psycopg2.connect(cluster.url(database, user=user))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


@dataclasses.dataclass
class Live:
    """A live database, and the library's view of it with a store of its own."""

    cluster: Cluster
    site: Site

    @property
    def name(self) -> str:
        return self.site.database

    @property
    def store(self) -> Store:
        return self.site.store

    def session(self, user: Optional[str] = None, database: Optional[str] = None) -> ContextManager[Any]:
        """A cursor in autocommit; default is the superuser in the live database."""
        return session(self.cluster, self.name if database is None else database, user)

    def execute(self, sql: str, database: Optional[str] = None) -> None:
        with self.session(database=database) as cursor:
            cursor.execute(sql)

    def rows(self, sql: str, database: Optional[str] = None) -> List[Any]:
        with self.session(database=database) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def value(self, sql: str, database: Optional[str] = None) -> Any:
        return self.rows(sql, database)[0][0]

    def run(self, script: str) -> None:
        """Run a file of this folder's SQL as the owner."""
        self.as_owner((SQL / script).read_text("utf-8"))

    def as_owner(self, *statements: str) -> None:
        with self.session(user=OWNER) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def backup(
        self, kind: str = "pre-migration", *, tables: Optional[Sequence[str]] = None, **keywords: Any
    ) -> BackupPlace:
        """:param tables: back up only these"""
        if tables is not None:
            keywords["form"] = BackupOptions(tables=tables)
        return make_backup(self.site, kind, **keywords)

    def begun(self, kind: str, request: Optional[Dict[str, Any]] = None, *, dead: bool = False) -> Run:
        """A new operation on this database.

        :param dead: by a run that no longer exists, so that modules that the test starts may work on it
        """
        controller = {} if dead else this_controller()
        operation, _adopted = begin(self.store, kind, self.name, request or {}, controller)
        return self.site.run(operation)

    def names(self) -> List[str]:
        """Every database of the server except our templates."""
        with session(self.cluster, "postgres") as cursor:
            cursor.execute(_NOT_OURS)
            return [name for (name,) in cursor.fetchall()]


@dataclasses.dataclass
class Databases:
    """Makes databases for one test."""

    cluster: Cluster
    store: pathlib.Path

    def make(self, name: str, template: str = PLAIN, user: Optional[str] = OWNER) -> Live:
        """Copy a template.

        :param user: the role that the library connects as; None is the superuser
        """
        quoted = quote_identifier(name)
        run_sql(self.cluster, "postgres", "CREATE DATABASE %s TEMPLATE %s OWNER %s" % (quoted, template, OWNER))
        if template == REALISTIC:
            text = (SQL / "database.sql").read_text("utf-8").replace("%(name)s", quoted)
            run_sql(self.cluster, "postgres", text)
        return self.existing(name, user)

    def existing(self, name: str, user: Optional[str] = OWNER) -> Live:
        connection = Settings.from_url(self.cluster.url(name, user=user))
        administration = connection.with_database("postgres")
        site = Site(connection, administration, Store(str(self.store)), str(self.cluster.bin_dir))
        return Live(self.cluster, site)

    @contextlib.contextmanager
    def dropped_afterwards(self) -> Iterator["Databases"]:
        """Drop databases that tests and the library created in the block."""
        with session(self.cluster, "postgres") as cursor:
            cursor.execute(_NOT_OURS)
            before = cursor.fetchall()
        try:
            yield self
        finally:
            self._drop({name for (name,) in before})

    def _drop(self, but: Set[str]) -> None:
        with session(self.cluster, "postgres") as cursor:
            cursor.execute("SELECT gid, database FROM pg_prepared_xacts")
            for gid, name in cursor.fetchall():
                run_sql(self.cluster, name, "ROLLBACK PREPARED '%s'" % gid)
            cursor.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
            cursor.execute(_NOT_OURS)
            for name in [name for (name,) in cursor.fetchall() if name not in but]:
                cursor.execute("DROP DATABASE %s WITH (FORCE)" % quote_identifier(name))


def start_cluster(
    directory: pathlib.Path, bin_dir: Optional[pathlib.Path] = None, *, realistic: bool = True
) -> Cluster:
    """A server with the roles and templates that Databases.make copies.

    :param bin_dir: its programs, if not those of all tests
    :param realistic: with the template that needs a server with libxml and ICU
    """
    made = Cluster.create(directory, options=_OPTIONS, bin_dir=bin_dir)
    try:
        made.start()
        made.create_role(OWNER, "LOGIN CREATEDB", password=PASSWORD)
        for role in (APP, REPORT, ODD_ROLE):
            made.create_role(role, "LOGIN")
        made.create_database(PLAIN, owner=OWNER)
        run_sql(made, PLAIN, (SQL / "plain.sql").read_text("utf-8"), user=OWNER)
        if realistic:
            _make_realistic(made)
    except BaseException:
        made.destroy()
        raise
    return made


def _make_realistic(made: Cluster) -> None:
    made.create_database(REALISTIC, owner=OWNER)
    run_sql(made, REALISTIC, (SQL / "objects.sql").read_text("utf-8"))
    with session(made, REALISTIC) as cursor:
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'")
        if cursor.fetchone():
            cursor.execute((SQL / "trigram.sql").read_text("utf-8"))


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory) -> Cluster:
    """The one server of this run; folders that import this fixture share it."""
    if _CLUSTER not in request.config.stash:
        made = start_cluster(tmp_path_factory.mktemp("cluster"))
        request.config.stash[_CLUSTER] = made
        request.config.add_cleanup(made.destroy)
    return request.config.stash[_CLUSTER]


@pytest.fixture
def databases(cluster, tmp_path) -> Iterator[Databases]:
    with Databases(cluster, tmp_path / "store").dropped_afterwards() as made:
        yield made


@pytest.fixture(scope="module")
def shared_databases(cluster, tmp_path_factory) -> Iterator[Databases]:
    """For read-only tests of one file: their databases are made once."""
    with Databases(cluster, tmp_path_factory.mktemp("shared") / "store").dropped_afterwards() as made:
        yield made


@pytest.fixture
def plain(databases) -> Live:
    return databases.make("shop")


@pytest.fixture
def realistic(databases) -> Live:
    return databases.make("shop", REALISTIC, user=None)


@pytest.fixture
def seed() -> int:
    """A seed, printed when a test fails; set BACKSTOP_TEST_SEED to repeat a run."""
    value = int(os.environ.get("BACKSTOP_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print("repeat with BACKSTOP_TEST_SEED=%d" % value)
    return value


class Workers:
    """Threads that work until the block ends; an error in one of them fails the test."""

    def __init__(self, *targets: Any) -> None:
        self.stop = threading.Event()
        self._errors: List[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(target,), daemon=True) for target in targets]

    def _run(self, target: Any) -> None:
        try:
            target(self.stop)
        except BaseException as error:  # set at the end of the block
            self._errors.append(error)

    def __enter__(self) -> "Workers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: Any, *_exc: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(30)
        if kind is None and self._errors:
            raise self._errors[0]
        assert not any(thread.is_alive() for thread in self._threads)

    @property
    def failed(self) -> bool:
        return bool(self._errors)
