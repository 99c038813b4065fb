# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small application in a git repository, and a root for its releases, for tests of releases and pm2."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases
from demo.node_tools import Node

SOURCE = pathlib.Path(__file__).resolve().parent / "tiny_application"
PASSWORD = "s3cret/pa$$"
DATABASE_URL = "postgresql://tiny:s3cret%2Fpa%24%24@127.0.0.1:5432/tiny"
SECOND_MIGRATION = "SELECT 'ü';\r\n"


def cache_folder() -> pathlib.Path:
    """The folder for programs between runs: one for each user, because others cannot write into root's."""
    folder = pathlib.Path(tempfile.gettempdir()) / ("backstop-tests-%d" % os.getuid())
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


def git(repository: pathlib.Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *settings, "-C", str(repository), *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


@dataclass
class Repository:
    """A git repository of the small application."""

    path: pathlib.Path

    def commit(self, version: str, tag: Optional[str] = None, **files: str) -> str:
        """Commit the application with another version, and further files; ``__`` in their names stands for a slash."""
        (self.path / "version.json").write_text(json.dumps({"version": version}))
        for name, content in files.items():
            path = self.path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        git(self.path, "add", "--all")
        git(self.path, "commit", "--quiet", "--message", "version " + version)
        if tag:
            git(self.path, "tag", "--annotate", tag, "--message", tag)
        return git(self.path, "rev-parse", "HEAD")


def make_repository(path: pathlib.Path) -> Repository:
    """Two commits: tags ``one`` and ``two``, the second with a second migration."""
    shutil.copytree(SOURCE, path)
    git(path, "init", "--quiet")
    made = Repository(path)
    made.commit("1", "one")
    made.commit("2", "two", **{"prisma__migrations__20250202000000_second__migration.sql": SECOND_MIGRATION})
    return made


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Let only one of several test processes install something."""
    with open(cache_folder() / (name + ".lock"), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@dataclass
class Site:
    """A root for releases with its shared environment file."""

    root: pathlib.Path
    repository: Repository
    node: Node
    port: int

    @property
    def releases(self) -> Releases:
        return Releases(str(self.root), str(self.repository.path), lock_wait=20)

    @property
    def environment_file(self) -> pathlib.Path:
        return self.root / "shared" / ".env"

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self.port

    @property
    def commands(self) -> List[List[str]]:
        return [["node", "build.js"]]

    def write_environment(self, **settings: str) -> None:
        values = {"PORT": str(self.port), "DATABASE_URL": DATABASE_URL, **settings}
        self.environment_file.parent.mkdir(parents=True, exist_ok=True)
        self.environment_file.write_text("".join("%s=%s\n" % item for item in values.items()))
        self.environment_file.chmod(0o600)

    def prepare(self, revision: str, environment: Optional[Dict[str, str]] = None) -> str:
        """Resolve and prepare a revision; its commit."""
        commit = self.releases.resolve(revision)
        self.releases.prepare(
            commit,
            self.commands,
            node_bin_dir=str(self.node.bin_dir),
            environment=environment,
            shared_links={".env": str(self.environment_file)},
        )
        return commit
