# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma projects for tests: real Prisma, installed once per machine and shared by links.

project = PrismaProject.create(tmp_path / "release", {"20250101000000_init": 'CREATE TABLE "A" (id int)'})
project.add("20250102000000_more", 'CREATE TABLE "B" (id int)')
project.prisma().migrate_deploy(url, cursor=cursor)       # through the library
project.run("migrate", "status", url=url)                 # as a user would run it
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.relay import relayed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Prisma
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from demo import node_tools

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = pathlib.Path(__file__).resolve().parent / "prisma_package"
PACKAGE_OF_PRISMA_7 = PACKAGE.with_name("prisma_7_package")
ENTRY = pathlib.Path("node_modules", "prisma", "build", "index.js")
#: Two tests that start at once wait for one installation.
INSTALL_SECONDS = 600

SCHEMA = """\
generator client {
  provider   = "prisma-client-js"
  engineType = "client"
}

datasource db {
  provider = "postgresql"
  url      = env("DATABASE_URL")
}
"""
LOCK = 'provider = "postgresql"\n'


def cache_directory() -> pathlib.Path:
    """Where downloaded programs and packages are kept between runs."""
    return pathlib.Path(os.environ.get("BACKSTOP_TEST_CACHE") or ROOT / ".test" / "cache")


@dataclass(frozen=True)
class Tools:
    """What Prisma needs to run."""

    node: node_tools.Node
    #: An installed npm project with Prisma in its node_modules.
    installed: pathlib.Path
    #: Which engine to use; nothing secret.
    environment: Dict[str, str]


@functools.lru_cache(maxsize=None)
def tools() -> Tools:
    """Node and Prisma, installed into the cache if they are missing."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(str(cache / "prisma.lock")).held(INSTALL_SECONDS):
        node = node_tools.find_node(cache / "node")
        installed = cache / "prisma-cli"
        node_tools.install_project(PACKAGE, installed, node)
        if node_tools.native_engine_can_be_had():
            # Packages run no scripts when they are installed, so the engine is downloaded now.
            node.run(["node", installed / ENTRY, "version"], cwd=installed)
            environment = dict(node_tools.QUIET_PRISMA)
        else:
            environment = node_tools.prisma_environment(cache / "prisma-engine", node)
    return Tools(node, installed, environment)


@functools.lru_cache(maxsize=None)
def tools_of_prisma_7() -> Tools:
    """The same with Prisma 7; if the native engine cannot be downloaded, its stand-in is in the same installation."""
    node = tools().node
    cache = cache_directory()
    installed = cache / "prisma-7"
    with FileLock(str(cache / "prisma.lock")).held(INSTALL_SECONDS):
        node_tools.install_project(PACKAGE_OF_PRISMA_7, installed, node)
        if "PRISMA_SCHEMA_ENGINE_BINARY" not in tools().environment:
            node.run(["node", installed / ENTRY, "version"], cwd=installed)
            return Tools(node, installed, dict(node_tools.QUIET_PRISMA))
        engine = installed / "engine"
        shutil.copytree(node_tools.ENGINE_SOURCE, engine, dirs_exist_ok=True)
        program = engine / "schema-engine"
        program.write_text("#!/bin/sh\nexec '%s' '%s' \"$@\"\n" % (node.bin_dir / "node", engine / "schema-engine.js"))
        program.chmod(0o755)
    return Tools(node, installed, {"PRISMA_SCHEMA_ENGINE_BINARY": str(program), **node_tools.QUIET_PRISMA})


class PrismaProject:
    """A release with a Prisma schema and migrations."""

    def __init__(self, path: pathlib.Path, with_tools: Optional[Tools] = None) -> None:
        self.path = path
        self.tools = with_tools or tools()
        self.migrations = path / "prisma" / "migrations"

    @classmethod
    def create(
        cls,
        path: pathlib.Path,
        migrations: Mapping[str, str],
        schema: str = SCHEMA,
        with_tools: Optional[Tools] = None,
    ) -> "PrismaProject":
        """Make a project; with Prisma 6 if no tools are given.

        :param migrations: name to SQL
        """
        project = cls(path, with_tools)
        project.migrations.mkdir(parents=True)
        (path / "prisma" / "schema.prisma").write_text(schema, encoding="utf-8")
        (project.migrations / "migration_lock.toml").write_text(LOCK, encoding="utf-8")
        (path / "node_modules").symlink_to(project.tools.installed / "node_modules")
        for name, sql in migrations.items():
            project.add(name, sql)
        return project

    def script(self, name: str) -> pathlib.Path:
        return self.migrations / name / "migration.sql"

    def add(self, name: str, sql: str) -> None:
        """Add a migration, or replace the text of an existing one."""
        self.script(name).parent.mkdir(exist_ok=True)
        self.script(name).write_bytes(sql.encode())

    def remove(self, name: str) -> None:
        shutil.rmtree(self.migrations / name)

    def prisma(self, **keywords: Any) -> Prisma:
        """The library's Prisma on this project."""
        places = {key: keywords.pop(key) for key in ("schema_path", "config_path") if key in keywords}
        project = Project(str(self.path), node_bin_dir=str(self.tools.node.bin_dir), **places)
        return Prisma(project, **{"environment": self.tools.environment, "relay": relayed, **keywords})

    def run(self, *arguments: str, url: str, accept: Sequence[int] = range(256)) -> "subprocess.CompletedProcess[str]":
        """Prisma's own command line, as `npx prisma ...` would run it."""
        return self.tools.node.run(
            ["node", self.path / ENTRY, *arguments], cwd=self.path, environment=self._variables(url), accept=accept
        )

    def start(self, *arguments: str, url: str) -> "subprocess.Popen[bytes]":
        """Like `run`, but without waiting for the end, in a separate process group."""
        node = self.tools.node
        return subprocess.Popen(
            [node.bin_dir / "node", self.path / ENTRY, *arguments],
            cwd=self.path,
            env=node.environment(self._variables(url)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _variables(self, url: str) -> Dict[str, str]:
        return {**self.tools.environment, "DATABASE_URL": url, "NO_COLOR": "1"}
