# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the work on the database takes beside the runbook's own commands, on a server of this machine.

    PYTHONPATH=playbooks/collections:examples python benchmarks/database_work.py [--rows 1000000] [--runs 3]

Needs the test environment (.test/venv). Prints a table in Markdown: the shortest of the runs, in seconds.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import subprocess
import tempfile
import threading
import time
from typing import Callable, Dict, List

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from demo.postgres_server import Cluster

DATABASE = "electricity_tokens"
SCHEMA = """
CREATE TABLE "User" (id text PRIMARY KEY, email text NOT NULL UNIQUE, name text);
CREATE TABLE "TokenPurchase" (id text PRIMARY KEY, "userId" text NOT NULL REFERENCES "User"(id) ON DELETE CASCADE,
  "totalTokens" float8 NOT NULL, "totalPayment" float8 NOT NULL, "purchaseDate" timestamp(3) NOT NULL, note text);
CREATE INDEX ON "TokenPurchase" ("purchaseDate");
CREATE TABLE "UserContribution" (id text PRIMARY KEY, "purchaseId" text NOT NULL UNIQUE
  REFERENCES "TokenPurchase"(id) ON DELETE CASCADE, "contributionAmount" float8 NOT NULL);
INSERT INTO "User" SELECT 'u' || g, g || '@example.org', 'User ' || g FROM generate_series(1, 1000) g;
INSERT INTO "TokenPurchase" SELECT 'p' || g, 'u' || (1 + g % 1000), g * 0.1, g * 1.1,
  timestamp '2025-01-01' + g * interval '1 minute', md5(g::text) FROM generate_series(1, {rows}) g;
INSERT INTO "UserContribution" SELECT 'c' || g, 'p' || g, g * 0.3 FROM generate_series(1, {rows}, 2) g;
ANALYZE;
"""


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


class Bench:
    """The server and the measurements on it."""

    def __init__(self, folder: pathlib.Path, rows: int, runs: int) -> None:
        self.folder, self.runs = folder, runs
        self.cluster = Cluster.create(folder / "postgres")
        self.cluster.start()
        self.cluster.create_database(DATABASE)
        self.cluster.sql(SCHEMA.format(rows=rows), DATABASE)
        connection = Settings.from_url(self.cluster.url(DATABASE))
        self.site = Site(
            connection, connection.with_database("postgres"), Store(str(folder / "store")), str(self.cluster.bin_dir)
        )

    def program(self, name: str, *arguments: str, database: str = DATABASE) -> None:
        argv = [str(self.cluster.bin_dir / name), *arguments]
        environment = {**os.environ, **self.cluster.environment(database)}
        subprocess.run(argv, env=environment, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def best(self, work: Callable[[], object]) -> float:
        times: List[float] = []
        for _run in range(self.runs):
            started = time.monotonic()
            work()
            times.append(time.monotonic() - started)
        return min(times)

    def runbook_dump(self) -> None:
        self.program("pg_dump", "-Fc", "-f", str(self.folder / "runbook.dump"), "-d", DATABASE)

    def runbook_restore(self) -> None:
        self.cluster.sql("DROP DATABASE IF EXISTS electricity_tokens_test")
        self.cluster.sql("CREATE DATABASE electricity_tokens_test")
        self.program("pg_restore", "-d", "electricity_tokens_test", str(self.folder / "runbook.dump"))

    def backup(self) -> BackupPlace:
        return make_backup(self.site, "pre-migration")

    def revert(self, place: BackupPlace, changed: int) -> Dict[str, float]:
        self.cluster.sql(
            "UPDATE \"TokenPurchase\" SET note = 'x' WHERE id IN (SELECT 'p' || generate_series(1, %d))" % changed,
            DATABASE,
        )
        run = self.site.run(Operation.create(self.site.store, "rollback", {"database": DATABASE}))
        started = time.monotonic()
        build_successor(run, place)
        built = time.monotonic()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        facts = revert(run, place, LossPolicy(changed))
        ended = time.monotonic()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        assert facts["lost_rows"] == changed, facts
        run.operation.close("done")
        return {
            "build": built - started,
            "swap": ended - built,
            "closed": facts["seconds_closed"],
            "megabytes": grown,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstop-bench-") as folder:
        os.chmod(folder, 0o755)
        bench = Bench(pathlib.Path(folder), given.rows, given.runs)
        try:
            report(bench, given.rows)
        finally:
            bench.cluster.destroy()


def report(bench: Bench, rows: int) -> None:
    runbook_dump, runbook_restore = bench.best(bench.runbook_dump), bench.best(bench.runbook_restore)
    backup = bench.best(bench.backup)
    place = bench.backup()
    drill = bench.best(lambda: run_drill(bench.site, place))
    unchanged, changed = bench.revert(place, 0), bench.revert(place, 1000)
    with Clients(bench.cluster.url(DATABASE)) as clients:
        bench.revert(place, 0)
    size = bench.cluster.sql("SELECT pg_size_pretty(pg_database_size('%s'))" % DATABASE).strip()
    print("%d purchases, %s, PostgreSQL %d, best of %d runs\n" % (rows, size, bench.cluster.major, bench.runs))
    print("| work | seconds |\n|---|---|")
    for what, seconds in (
        ("runbook: `pg_dump -Fc`, nothing verified", runbook_dump),
        ("backup: dump, digests of every table, whole archive read back, sha256, fsync", backup),
        ("runbook: `pg_restore` into a test database, nothing compared", runbook_restore),
        ("drill: restore, ANALYZE, every table and definition compared", drill),
        ("complete revert: new database built and compared, application running", unchanged["build"]),
        ("complete revert: loss counted and swapped, nothing written since", unchanged["swap"]),
        ("complete revert: loss counted, kept and swapped, 1000 rows changed since", changed["swap"]),
        ("of which newcomers wait", changed["closed"]),
        ("20 clients that connect again, nothing written since: longest time without an answer", clients.longest_gap),
    ):
        print("| %s | %.2f |" % (what, seconds))
    print("\nMemory that the swap with 1000 rows changed took beyond the one before: %.1f MB" % changed["megabytes"])


if __name__ == "__main__":
    main()
