# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy by its playbook beside the commands that it runs, typed by hand without a pause, on a real site."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from demo import application, repository
from support.demo_site import DemoSite, tools, until

from benchmarks.measuring import Comparison

PLAYBOOK = "deploy_receiptdata.yml"
COPY = application.DATABASE + "_copy"
STATUS = ["npx", "--no-install", "prisma", "migrate", "status"]


@contextlib.contextmanager
def site(folder: pathlib.Path) -> Iterator[DemoSite]:
    """A site whose modules are sent and compiled for each task, as they are for users; tests keep them."""
    made = DemoSite.create(folder)
    made.faster_modules = {}
    try:
        yield made
    finally:
        made.destroy()


class Client:
    """Asks the application for its health again and again; the longest time without a good answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest_gap = 0.0

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.02):
            if application.health(self._port)["status"] == "ok":
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - last)
                last = now


class Deploys:
    """A site before its deploy, and both sides of each comparison.

    :param install: whether a deploy installs and builds its release, as the first one of a revision does
    """

    def __init__(self, site: DemoSite, *, install: bool = True) -> None:
        self.site, self.install = site, install
        self.commit = site.commits[repository.AFTER]

    @property
    def hand(self) -> pathlib.Path:
        """The release that is made by hand."""
        return self.site.places.directory / "typed"

    def before(self) -> None:
        """The site before ET-100."""
        self.site.reset()
        shutil.rmtree(self.hand, ignore_errors=True)
        if self.install:
            shutil.rmtree(application.releases(self.site.places).path(self.commit), ignore_errors=True)

    def comparisons(self) -> List[Comparison]:
        return [
            Comparison(
                "deploy",
                "`%s` whole, from the release's checkout to the second backup" % PLAYBOOK,
                "its external commands typed by hand: git, npm, build, `pg_dump`, `pg_restore`, prisma, pm2",
                lambda: self._seen_by_a_client(self._play),
                lambda: self._seen_by_a_client(self._type),
                {"wall": 1.5, "gap": 1.5},
                "Ansible's cost of each task; in the downtime the start of Node, Prisma and pm2",
                self.before,
                self.before,
                own_memory=False,
            ),
            Comparison(
                "idle",
                "the same deploy a second time, which finds nothing to do",
                "`prisma migrate status` three times",
                self._play,
                self._ask_for_status,
                {"wall": 2.0},
                "the start of Ansible, and its cost of each task",
                self._deployed,
                self._deployed,
                own_memory=False,
            ),
        ]

    def _seen_by_a_client(self, deploy: Callable[[], None]) -> Dict[str, float]:
        with Client(self.site.port) as client:
            deploy()
        return {"gap": client.longest_gap}

    def _play(self) -> None:
        run = self.site.play(PLAYBOOK)
        if run.status or self.site.running() != self.commit:
            raise SystemExit(run.output)

    def _deployed(self) -> None:
        if application.current_commit(self.site.places) != self.commit:
            self.before()
            self._play()

    def _ask_for_status(self) -> None:
        for _time in range(3):
            self._run(STATUS, self.site.places.current)

    def _type(self) -> None:
        """What a careful person types for the same effect."""
        release = self.hand if self.install else self._built()
        if self.install:
            self._run(["git", "clone", "--branch", repository.AFTER, self.site.places.repository, release])
            (release / ".env").symlink_to(self.site.places.environment_file)
            for argv in (application.INSTALL, application.GENERATE, application.BUILD):
                self._run(argv, release)
        archive = self.site.places.directory / "typed.dump"
        dump = [*self._client("pg_dump"), "--format=custom", "--file=%s" % archive, application.DATABASE]
        self._run(dump)
        self._run([*self._client("createdb"), COPY])
        self._run([*self._client("pg_restore"), "--dbname=" + COPY, archive])
        copy = self.site.cluster.url(COPY, application.ROLE)
        self._run(application.MIGRATE, release, DATABASE_URL=copy)
        self._pm2("stop", application.NAME)
        self._run(application.MIGRATE, release)
        # pm2 restarts an application in its old directory.
        self._pm2("delete", application.NAME)
        self._pm2("start", application.ECOSYSTEM_FILE, cwd=release)
        until(lambda: self.site.running() == self.commit, lambda: "the release is not healthy")
        self._run(dump)

    def _built(self) -> pathlib.Path:
        return pathlib.Path(application.releases(self.site.places).path(self.commit))

    def _client(self, name: str) -> List[str]:
        return [str(self.site.cluster.bin_dir / name)]

    def _pm2(self, *arguments: str, cwd: Optional[pathlib.Path] = None) -> None:
        self._run([self.site.places.pm2_executable, *arguments], cwd, PM2_HOME=str(self.site.places.pm2_home))

    def _run(self, argv: List[Any], cwd: Optional[pathlib.Path] = None, **variables: str) -> None:
        server = self.site.cluster.environment(application.DATABASE, application.ROLE)
        settings = {**server, **application.npm_settings(self.site.places), **tools().environment, **variables}
        self.site.node.run(argv, cwd=cwd or self.site.places.directory, environment=settings)
