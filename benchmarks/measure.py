# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure our work beside the runbook's own commands, and write the page about it. Started by benchmarks/run."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from demo import postgres_server
from demo.postgres_server import Cluster
from support import demo_site

from benchmarks import database_work, databases, deploy_work, page, playbook_work
from benchmarks.database_work import Database
from benchmarks.measuring import Comparison, measured

ROOT = pathlib.Path(__file__).resolve().parent.parent
FEW_TABLES = 50
#: Comparisons on the example's data; on other data only the first two mean something.
ON_EXAMPLE: List[Callable[[Database], Comparison]] = [
    Database.backups,
    Database.drills,
    Database.gaps,
    Database.fences,
    Database.losses,
    Database.repairs,
]
NAMES = ("backup", "drill", "gap", "fence", "loss", "repair", "tables", "module", "deploy", "idle")


class Measuring:
    """A server, what to measure on it, and the results so far."""

    def __init__(
        self, cluster: Cluster, folder: pathlib.Path, runs: int, names: Sequence[str] = NAMES, warm_up: bool = True
    ) -> None:
        self.cluster, self.folder, self.runs, self.names, self.warm_up = cluster, folder, runs, names, warm_up
        self.version = cluster.sql("SHOW server_version").split()[0]
        self.results: List[Dict[str, Any]] = []

    def measure(self, comparison: Comparison, data: str, cluster: Optional[Cluster] = None) -> None:
        """:param cluster: whose CPU time counts, if it is not the one of this object"""
        before, started = os.getloadavg()[0], time.monotonic()
        found = measured(comparison, self.runs, cluster or self.cluster, warm_up=self.warm_up)
        found.update(
            data=data,
            server="PostgreSQL " + self.version,
            load=[round(before, 2), round(os.getloadavg()[0], 2)],
            cores=len(os.sched_getaffinity(0)),
            at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )
        self.results.append(found)
        said = ", ".join("%s %s" % (fact, ratio) for fact, ratio in found["ratios"].items())
        print("%6.0f s  %s, %s: %s" % (time.monotonic() - started, comparison.name, data, said), flush=True)

    def wanted(self, name: str) -> bool:
        return name.split("-")[0] in self.names

    def on(self, statements: str, data: str, kinds: Sequence[Callable[[Database], Comparison]]) -> None:
        with database_work.database(self.cluster, self.folder, statements) as made:
            for make in kinds:
                comparison = make(made)
                if self.wanted(comparison.name):
                    self.measure(comparison, "%s, %.0f MB" % (data, made.size / page.MEGABYTE))

    def everything(self, sizes: Sequence[float], other_size: float, tables: int) -> None:
        """:param sizes: of the example's data in GB; :param other_size: of wide text and large objects"""
        for size in sizes:
            self.on(databases.example(size), "example", ON_EXAMPLE)
        if self.wanted("backup") or self.wanted("drill"):
            self.on(databases.wide_text(other_size), "wide text", ON_EXAMPLE[:2])
            self.on(databases.large_objects(other_size), "large objects", ON_EXAMPLE[:2])
        if tables and self.wanted("tables"):
            self.many_tables(tables)
        if self.wanted("module"):
            self.measure(playbook_work.module_calls(self.folder), "an empty store")
        if self.wanted("deploy") or self.wanted("idle"):
            with deploy_work.site(self.folder / "site") as made:
                self.deploys(deploy_work.Deploys(made))

    def deploys(self, on: deploy_work.Deploys) -> None:
        for comparison in on.comparisons():
            if self.wanted(comparison.name):
                self.measure(comparison, "the example, %d purchases" % demo_site.ROWS, on.site.cluster)

    def many_tables(self, count: int) -> None:
        few = max(1, min(FEW_TABLES, count // 4))
        many_sql, few_sql = databases.many_tables(count), databases.many_tables(few)
        with database_work.database(self.cluster, self.folder, many_sql, "many_tables") as many, database_work.database(
            self.cluster, self.folder, few_sql, "few_tables"
        ) as one:
            for comparison in database_work.tables(many, one, (count, few)):
                self.measure(comparison, "tables of 50 rows")


def server(choice: Optional[str], folder: pathlib.Path) -> Tuple[Cluster, pathlib.Path]:
    """A server with the settings of its package, except for more locks, which many tables need."""
    if choice:
        os.environ[postgres_server.CHOICE] = choice
    made = Cluster.create(folder / "postgres", options={"max_locks_per_transaction": "1024"})
    made.start()
    return made, folder / "work"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1, 4], help="of the example's data in GB")
    parser.add_argument("--other-size", type=float, default=0.5, help="of wide text and large objects in GB")
    parser.add_argument("--tables", type=int, default=5000, help="of the database of many tables; 0 leaves it out")
    parser.add_argument("--runs", type=int, default=5, help="that count, of each side")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="what to measure")
    parser.add_argument("--server", help="`wheel` (PostgreSQL 18 from PyPI) or a folder with the programs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs", help="folder of the page")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="backstop-bench-") as name:
        os.chmod(name, 0o755)
        cluster, work = server(given.server, pathlib.Path(name))
        work.mkdir()
        try:
            measuring = Measuring(cluster, work, given.runs, given.only)
            measuring.everything(given.sizes, given.other_size, given.tables)
        finally:
            cluster.destroy()
    given.out.mkdir(parents=True, exist_ok=True)
    page.write(given.out, page.merged(page.load(given.out), measuring.results))
    print("written: %s" % (given.out / page.MARKDOWN))


if __name__ == "__main__":
    main()
