# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The work on a database, beside the runbook's own commands."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import threading
import time
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Run, Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
)
from demo.postgres_server import Cluster

from benchmarks.measuring import Comparison

DATABASE, TEST_DATABASE = "electricity_tokens", "electricity_tokens_test"
#: What limits a figure, for the page.
DUMP = "gzip of the client and the server's COPY; beside them the text of every row, which is hashed"
RESTORE = "the server's COPY and index builds; then one pass over every row"
#: A change of scattered rows: one in this many.
ONE_IN = {"loss": 1000, "repair": 100}


class Clients:
    """Clients that read continuously and reconnect when disconnected; measure the longest time without an answer."""

    def __init__(self, url: str, count: int = 20) -> None:
        self._url, self._stop = url, threading.Event()
        self.longest_gap = 0.0
        self._answers = [0] * count
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        self.wait_for_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.wait_for_all()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_all(self) -> None:
        """Return when every client has received another answer."""
        before = list(self._answers)
        while any(now == then for now, then in zip(self._answers, before)):
            time.sleep(0.001)

    def _work(self, number: int) -> None:
        connection, last = None, time.monotonic()
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = psycopg2.connect(self._url)
                    connection.autocommit = True
                connection.cursor().execute('SELECT 1 FROM "User" LIMIT 1')
            except psycopg2.Error:
                connection = None
                continue
            now = time.monotonic()
            if self._answers[number]:
                self.longest_gap = max(self.longest_gap, now - last)
            self._answers[number] += 1
            last = now
            self._stop.wait(0.01)
        if connection is not None:
            connection.close()


class Database:
    """A database, its store, and both sides of each comparison."""

    def __init__(self, cluster: Cluster, folder: pathlib.Path, statements: str, name: str) -> None:
        self.cluster, self.folder, self.name = cluster, folder, name
        folder.mkdir()
        cluster.create_database(self.name)
        cluster.sql(statements, self.name)
        connection = Settings.from_url(cluster.url(self.name))
        store = Store(str(folder / "store"))
        self.site = Site(connection, connection.with_database("postgres"), store, str(cluster.bin_dir))
        self.size = int(cluster.sql("SELECT pg_database_size('%s')" % self.name))
        self._place: Optional[BackupPlace] = None

    def remove(self) -> None:
        self.drop_others()
        self.cluster.sql("DROP DATABASE %s WITH (FORCE)" % self.name)
        shutil.rmtree(self.folder)

    def drop_others(self) -> None:
        """Databases that a comparison left: retired, scratch and test databases."""
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', '%s')"
        for name in self.cluster.sql(query % self.name).split():
            if name.startswith(("backstop_", self.name)):
                self.cluster.sql('DROP DATABASE "%s" WITH (FORCE)' % name)

    def program(self, name: str, *arguments: str, database: Optional[str] = None) -> None:
        argv = [str(self.cluster.bin_dir / name), *arguments]
        environment = {**os.environ, **self.cluster.environment(database or self.name)}
        subprocess.run(argv, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @property
    def dump(self) -> pathlib.Path:
        return self.folder / "runbook.dump"

    def runbook_dump(self) -> Dict[str, float]:
        self.program("pg_dump", "--format=custom", "--file=%s" % self.dump, "-d", self.name)
        return {"size": self.dump.stat().st_size}

    def backup(self) -> Dict[str, float]:
        made = make_backup(self.site, "pre-migration")
        size = manifests.load(made).archive.size
        shutil.rmtree(made.path)
        return {"size": size}

    @property
    def place(self) -> BackupPlace:
        """A backup that stays."""
        if self._place is None:
            self._place = make_backup(self.site, "pre-migration")
            self.runbook_dump()
        return self._place

    def backups(self) -> Comparison:
        return Comparison(
            "backup",
            "verified backup: dump, digest of every table, archive decoded, sha256, fsync",
            "`pg_dump --format=custom`",
            self.backup,
            self.runbook_dump,
            {"wall": 0.45, "cpu": 0.75, "size": 1.15},
            DUMP,
        )

    # Restores

    def new_test_database(self) -> None:
        self.drop_others()
        self.cluster.sql("CREATE DATABASE %s" % TEST_DATABASE)

    def runbook_restore(self) -> None:
        self.program("pg_restore", "-d", TEST_DATABASE, str(self.dump), database=TEST_DATABASE)

    def drills(self) -> Comparison:
        place = self.place
        return Comparison(
            "drill",
            "drill: restore, ANALYZE, every table and definition compared",
            "`pg_restore` into a test database",
            lambda: run_drill(self.site, place) and None,
            self.runbook_restore,
            {"wall": 1.25},
            RESTORE,
            self.drop_others,
            self.new_test_database,
            self.drop_others,
        )

    # A complete revert

    def new_run(self) -> Run:
        return self.site.run(Operation.create(self.site.store, "rollback", {"database": self.name}))

    def reverted(self) -> float:
        """Revert completely; the seconds from the beginning of the fence to the end."""
        run = self.new_run()
        build_successor(run, self.place)
        started = time.monotonic()
        revert(run, self.place, LossPolicy(0))
        seconds = time.monotonic() - started
        run.operation.close("done")
        return seconds

    def gap(self, work: Callable[[], object]) -> Dict[str, float]:
        with Clients(self.cluster.url(self.name)) as clients:
            work()
        return {"gap": clients.longest_gap}

    def restore_in_place(self) -> None:
        self.program("pg_restore", "-d", self.name, "--clean", "--if-exists", str(self.dump))

    def gaps(self) -> Comparison:
        assert self.place
        return Comparison(
            "gap",
            "complete revert: longest time without an answer for 20 clients that reconnect",
            "`pg_restore --clean --if-exists` in place",
            lambda: self.gap(self.reverted),
            lambda: self.gap(self.restore_in_place),
            {"gap": 0.02},
            "the rename, for which no session may be connected",
            self.drop_others,
            self.drop_others,
            self.drop_others,
        )

    def digest_pass(self, database: Optional[str] = None) -> None:
        with self.site.connect(database) as session:
            for table in catalog.tables(session):
                digests.table_digest(session, table.source, table.columns)

    def timed_pass(self) -> Dict[str, float]:
        started = time.monotonic()
        self.digest_pass()
        return {"seconds": time.monotonic() - started}

    def fences(self) -> Comparison:
        assert self.place
        return Comparison(
            "fence",
            "complete revert, nothing written since: time behind the fence",
            "one digest pass over all tables",
            lambda: {"seconds": self.reverted()},
            self.timed_pass,
            {"seconds": 1.2},
            "one pass over every row of the live database",
            self.drop_others,
            self.drop_others,
            self.drop_others,
        )

    def losses(self) -> Comparison:
        """The count of a revert after one row in a thousand changed: each time, for the copy takes over."""
        place, changed = self.place, "UPDATE \"TokenPurchase\" SET note = 'x' WHERE hashtext(id) %% %d = 0 OR id = 'p1'"

        def lossy() -> Dict[str, float]:
            run = self.new_run()
            build_successor(run, place)
            self.cluster.sql(changed % ONE_IN["loss"], self.name)
            started = time.monotonic()
            facts = revert(run, place, LossPolicy(1 << 40))
            seconds = time.monotonic() - started
            run.operation.close("done")
            assert facts.lost_rows
            return {"seconds": seconds}

        return Comparison(
            "loss",
            "complete revert after one row in 1,000 changed, scattered: time behind the fence, losses counted and kept",
            "one digest pass over all tables",
            lossy,
            self.timed_pass,
            {"seconds": 2.0},
            "one pass over every row, then one over the tables that differ",
            self.drop_others,
            self.drop_others,
            self.drop_others,
        )

    # One table

    def corrupt(self) -> None:
        update = 'UPDATE "ReceiptData" SET "totalAmount" = -1 WHERE hashtext(id) %% %d = 0 OR id = \'r1\''
        self.cluster.sql(update % ONE_IN["repair"], self.name)

    def repair(self) -> None:
        run = self.new_run()
        found = restore_table(run, TableRestoreRequest("ReceiptData"), self.place.backup_id, again=True)
        assert found.changed, found
        run.operation.close("done")

    def repairs(self) -> Comparison:
        assert self.place
        rows = self.folder / "receipts.sql"
        self.program("pg_dump", "-d", self.name, "--data-only", '--table="ReceiptData"', "--file=%s" % rows)

        def reload() -> None:
            quietly = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.name]
            self.program("psql", *quietly, "-c", 'TRUNCATE TABLE "ReceiptData" CASCADE')
            self.program("psql", *quietly, "-f", str(rows))

        return Comparison(
            "repair",
            "one table restored after one row in 100 was corrupted; saved before and proved, readers are not blocked",
            "`TRUNCATE` and `psql` with the table's rows",
            self.repair,
            reload,
            {"wall": 0.5},
            "the backup of what is replaced, and three passes over the table",
            self.corrupt,
            self.corrupt,
        )


def each(work: Callable[[], object], count: int) -> Dict[str, float]:
    """Seconds of some work for each of its tables."""
    started = time.monotonic()
    work()
    return {"each": (time.monotonic() - started) / count}


def tables(many: Database, few: Database, counts: Sequence[int]) -> List[Comparison]:
    """Work on a database of many tables beside the same on one of few tables of the same size, for each table."""
    assert many.place and few.place
    kinds: Dict[str, Callable[[Database], object]] = {
        "backup": Database.backup,
        "drill": lambda database: run_drill(database.site, database.place),
        "revert": Database.reverted,
    }

    def drop() -> None:
        many.drop_others()
        few.drop_others()

    def beside(kind: str, work: Callable[[Database], object]) -> Comparison:
        return Comparison(
            "tables-" + kind,
            "%s of %d tables, for each table" % (kind, counts[0]),
            "the same of %d tables" % counts[1],
            lambda: each(lambda: work(many), counts[0]),
            lambda: each(lambda: work(few), counts[1]),
            {"each": 1.2},
            "the questions for each table",
            drop,
            drop,
            drop,
        )

    return [beside(kind, work) for kind, work in kinds.items()]


@contextlib.contextmanager
def database(cluster: Cluster, folder: pathlib.Path, statements: str, name: str = DATABASE) -> Iterator[Database]:
    made = Database(cluster, folder / name, statements, name)
    try:
        yield made
    finally:
        made.remove()
