# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server, a migrated application database, and operations that can be killed at any failpoint."""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
from typing import Any, Dict, Iterator, List, Optional

import pytest
from demo.postgres_server import Cluster
from support.forks import Forks
from support.prisma_project import PrismaProject, tools
from support.snapshots import Snapshot
from support.watcher import Watcher

ROLE = "electricity_tokens"
INIT = """
CREATE TABLE "User" ("id" TEXT PRIMARY KEY, "email" TEXT NOT NULL UNIQUE);
CREATE TABLE "TokenPurchase" ("id" TEXT PRIMARY KEY, "userId" TEXT NOT NULL REFERENCES "User"("id") ON DELETE CASCADE,
  "totalPayment" DOUBLE PRECISION NOT NULL);
"""
RECEIPTS = """
CREATE TABLE "ReceiptData" ("id" TEXT PRIMARY KEY, "purchaseId" TEXT NOT NULL UNIQUE
  REFERENCES "TokenPurchase"("id") ON DELETE CASCADE ON UPDATE CASCADE);
"""
MIGRATION = "20251108000000_add_receipt_data"
#: The live database of the snapshots.
SNAPSHOT = "tokens"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    server = Cluster.create(tmp_path_factory.mktemp("postgres"), options={"fsync": "off"})
    try:
        server.start()
        server.create_role(ROLE, "LOGIN CREATEDB", password="p@ss w/rd")
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> PrismaProject:
    """The new release; its first migration is applied in every database of these tests."""
    return PrismaProject.create(
        tmp_path_factory.mktemp("release") / "new", {"20251001000000_init": INIT, MIGRATION: RECEIPTS}
    )


@pytest.fixture(scope="session")
def template(cluster, project) -> str:
    """A database in its state before the deploy, to copy."""
    cluster.create_database("before", owner=ROLE)
    script = project.script(MIGRATION).read_bytes()
    project.remove(MIGRATION)
    project.run("migrate", "deploy", url=cluster.url("before", user=ROLE) + "?schema=public", accept=[0])
    project.add(MIGRATION, script.decode())
    cluster.sql(
        """INSERT INTO "User" SELECT 'u' || g, g || '@example.org' FROM generate_series(1, 20) g;
        INSERT INTO "TokenPurchase" SELECT 'p' || g, 'u' || (1 + g % 20), g * 1.5 FROM generate_series(1, 200) g""",
        "before",
        user=ROLE,
    )
    return "before"


@pytest.fixture(scope="session")
def driver() -> Iterator[Forks]:
    with Forks("support.operation_driver") as forks:
        yield forks


class Site:
    """One database with its store; runs operations on it in separate processes."""

    def __init__(
        self, cluster: Cluster, name: str, project: PrismaProject, folder: pathlib.Path, driver: Forks
    ) -> None:
        self.cluster, self.folder, self.driver = cluster, folder, driver
        self.name = name
        self.store = folder / "store"
        self.settings = folder / "settings.json"
        given = {
            "url": cluster.url(self.name, user=ROLE) + "?schema=public",
            "store": str(self.store),
            "client_bin_dir": str(cluster.bin_dir),
            "data_directory": str(folder),
            "project": str(project.path),
            "node_bin_dir": str(tools().node.bin_dir),
            "prisma_environment": tools().environment,
            "expected": [MIGRATION],
        }
        self.settings.write_text(json.dumps(given), encoding="utf-8")

    def run(
        self, what: str, failpoint: Optional[str] = None, log: Optional[pathlib.Path] = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run an operation; killed at the failpoint if one is named."""
        environment = {}
        if failpoint:
            environment["BACKSTOP_FAILPOINT"] = failpoint
        if log:
            environment["BACKSTOP_FAILPOINT_LOG"] = str(log)
        return self.driver.run([what, str(self.settings)], environment)

    def succeed(self, what: str) -> Dict[str, Any]:
        done = self.run(what)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sql(self, text: str) -> str:
        return self.cluster.sql(text, self.name, user=ROLE).strip()

    def contents(self) -> Dict[str, str]:
        """Contents of the live database: rows of each table, and the names of applied migrations."""
        names = self.sql(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        found = {
            name: self.sql('SELECT count(*), coalesce(sum(hashtext(t.*::text)), 0) FROM "%s" t' % name)
            for name in names.splitlines()
            if name != "_prisma_migrations"
        }
        found["migrations"] = self.sql(
            "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
            " ORDER BY 1"
        )
        return found

    def databases(self, prefix: str) -> List[str]:
        """Databases of this site's operations, by prefix."""
        operations = os.listdir(self.store / "operations") if (self.store / "operations").is_dir() else []
        stems = [name.lower().replace("-", "_") for name in operations]
        found = self.cluster.sql(
            "SELECT datname FROM pg_database WHERE datname LIKE '%s%%'" % prefix.replace("_", r"\_")
        ).split()
        return [name for name in found if any(stem in name for stem in stems)]

    def watch(self) -> Watcher:
        return Watcher(self.cluster, self.name)


@pytest.fixture
def site(cluster, template, project, tmp_path, driver) -> Site:
    """A site before the deploy."""
    name = "tokens_%d" % random.SystemRandom().randrange(1 << 40)
    cluster.sql('CREATE DATABASE "%s" TEMPLATE "%s" OWNER %s' % (name, template, ROLE))
    return Site(cluster, name, project, tmp_path, driver)


@pytest.fixture(scope="session")
def snapshots(cluster, template, project, tmp_path_factory, driver) -> Dict[str, Snapshot]:
    """Snapshots of one site after its deploy, and after the revert that followed."""
    folder = tmp_path_factory.mktemp("snapshots")
    cluster.sql('CREATE DATABASE "%s" TEMPLATE "%s" OWNER %s' % (SNAPSHOT, template, ROLE))
    site = Site(cluster, SNAPSHOT, project, folder, driver)
    taken = {}
    for state, what in (("deployed", "deploy"), ("reverted", "revert")):
        site.succeed(what)
        taken[state] = Snapshot(cluster, folder / state)
        taken[state].take(SNAPSHOT, site.store)
    return taken


@pytest.fixture
def original(cluster, template, project, tmp_path, driver) -> Dict[str, str]:
    """Contents of every site before the deploy."""
    folder = tmp_path / "original"
    folder.mkdir()
    return Site(cluster, template, project, folder, driver).contents()


@pytest.fixture
def deployed(cluster, snapshots, project, tmp_path, driver) -> Site:
    snapshots["deployed"].put_back(tmp_path / "store")
    return Site(cluster, SNAPSHOT, project, tmp_path, driver)


@pytest.fixture
def reverted(cluster, snapshots, project, tmp_path, driver) -> Site:
    snapshots["reverted"].put_back(tmp_path / "store")
    return Site(cluster, SNAPSHOT, project, tmp_path, driver)
