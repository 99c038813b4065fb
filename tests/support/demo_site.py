# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real site, made with the demo's own code: server, database, application under pm2, inventory; and its playbooks.

site = DemoSite.create(directory)
site.add_release("broken", {"src/server.js": "process.exit(1)"})
run = site.play("deploy_receiptdata.yml", deploy_revision="broken")
assert run.status == 2 and "was rolled back" in run.said
site.deploy()                                  # ET-100, quickly
site.reset()                                   # as it was before ET-100
site.destroy()
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import psycopg2
import pytest
import yaml
from demo import application, inventory, node_tools, ports, repository
from demo.node_tools import Node
from demo.places import Places
from demo.postgres_server import Cluster

from . import bytecode
from .prisma_project import cache_directory, tools
from .snapshots import Snapshot

ANSIBLE = pathlib.Path(sys.executable).parent / "ansible-playbook"
PM2_SOURCE = pathlib.Path(node_tools.__file__).parent / "pm2"
SERVER = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "lc_messages": "C"}
ROWS = 400
#: Every spelling of the password contains this text, which is used nowhere else: a match means a leaked password.
#: It differs in each process: tests in another process run Prisma as the runbook does, which shows the password.
MARK = "qZ7v" + secrets.token_hex(6)
PASSWORD = MARK + "@p ss/w#rd:%41"
#: In the environment of every process that a playbook of ours starts.
OURS = "BACKSTOP_TEST_SITE"
PATIENCE = 240
#: A longer message would not be read.
LONGEST_MESSAGE = 1000
_TASK = re.compile(r"^TASK \[(?:.* : )?(.+)\] \*+$")
_FATAL = re.compile(r"^fatal: \[[^]]+\](?: -> [^:]+)?: (?:FAILED|UNREACHABLE)! => ?$")


class TestPlaces(Places):
    """The demo's paths, with installed programs shared between test runs."""

    __test__ = False

    @property
    def npm_cache(self) -> pathlib.Path:
        return cache_directory() / "npm"

    @property
    def pm2(self) -> pathlib.Path:
        return cache_directory() / "pm2"

    @property
    def built(self) -> pathlib.Path:
        """node_modules of the release ET-100, which broken releases link to."""
        return self.directory / "built"


@dataclasses.dataclass
class Run:
    """A finished playbook run."""

    status: int
    output: str
    seconds: float

    @property
    def failures(self) -> List[Dict[str, Any]]:
        """Result of each task that failed, in order."""
        found, lines = [], self.output.splitlines()
        for number, line in enumerate(lines):
            if _FATAL.match(line):
                block = []
                for following in lines[number + 1 :]:
                    if not following.startswith("    "):
                        break
                    block.append(following)
                found.append(yaml.safe_load("\n".join(block)))
        return found

    @property
    def said(self) -> str:
        """The last failure's message: the last text on the screen."""
        assert self.failures, self.output
        return str(self.failures[-1]["msg"])

    @property
    def text(self) -> str:
        """The output in one line: Ansible's display may break lines anywhere."""
        return " ".join(self.output.split())

    def must_say(self, *words: str) -> None:
        """The run failed, and the last message contains these words and is short and clear."""
        assert self.status != 0, self.output
        said = self.said
        for word in words:
            assert word in said, said
        assert "Traceback" not in self.output, self.output
        assert len(said) <= LONGEST_MESSAGE and "\n" not in said, said
        sentences = [sentence for sentence in re.split(r"(?<=[.!?]) ", said) if len(sentence) > 20]
        assert len(sentences) == len(set(sentences)), said

    @property
    def changed(self) -> int:
        """Number of tasks that changed something, from the recap."""
        return sum(int(number) for number in re.findall(r"\bchanged=(\d+)", self.output.rpartition("PLAY RECAP")[2]))

    @property
    def tasks(self) -> List[str]:
        return [match.group(1) for match in map(_TASK.match, self.output.splitlines()) if match]


class Playing:
    """A playbook that is running."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: pathlib.Path) -> None:
        self._started = time.monotonic()
        self._lines: List[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for_task(self, name: str) -> bool:
        """Wait until a task begins; False when the playbook ended before."""

        def begun() -> bool:
            return any(match and match.group(1) == name for match in map(_TASK.match, self._lines))

        with self._news:
            self._news.wait_for(lambda: begun() or self.process.poll() is not None, PATIENCE)
            return begun()

    def kill(self) -> None:
        """Like `kill -9`: kills only ansible-playbook; its child processes live on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> Run:
        status = self.process.wait(PATIENCE)
        # Orphans of a killed run keep the pipe open.
        self._reader.join(1 if status < 0 else PATIENCE)
        return Run(status, "".join(self._lines), time.monotonic() - self._started)


@dataclasses.dataclass(frozen=True)
class Condition:
    """The site's state, which no refused or rolled back run may change."""

    #: all schemas and rows, without the history
    contents: str
    #: applied migrations
    applied: Tuple[str, ...]
    databases: Tuple[str, ...]
    live_oid: int
    roles: Tuple[str, ...]
    #: commit of the current link, and of the process that answers
    current: str
    running: str


@dataclasses.dataclass(frozen=True)
class Process:
    """The application under pm2: the same values mean that it was never stopped."""

    pid: int
    restarts: int
    started_ms: int


class DemoSite:
    """One host with the application as before ET-100, and means to restore this state."""

    TEMPLATE = "before_et_100"

    def __init__(self, places: TestPlaces, cluster: Cluster, node: Node) -> None:
        self.places, self.cluster, self.node = places, cluster, node
        self.port = 0
        #: Settings with which Ansible's modules start sooner.
        self.faster_modules = bytecode.environment()
        self.commits: Dict[str, str] = {}
        self.before: Optional[Condition] = None
        self._deployed = Snapshot(cluster, places.directory / "deployed")

    # Making and removing it

    @classmethod
    def create(cls, directory: pathlib.Path) -> "DemoSite":
        places = TestPlaces(directory)
        node = tools().node
        node_tools.install_project(PM2_SOURCE, places.pm2, node, places.npm_cache)
        cluster = Cluster.create(places.cluster, options=SERVER)
        site = cls(places, cluster, node)
        try:
            site._prepare()
        except BaseException:
            site.destroy()
            raise
        return site

    def _prepare(self) -> None:
        self.cluster.start()
        self.cluster.create_role(application.ROLE, "LOGIN CREATEDB NOSUPERUSER", password=PASSWORD)
        self.commits = repository.make(self.places.repository)
        before, after = self.commits[repository.BEFORE], self.commits[repository.AFTER]
        self.port = ports.choose([self.cluster.port])
        application.write_environment_file(self.places, self.cluster, self.port)
        inventory.write(self.places, self.cluster, self.node, tools().environment, self.port)
        for commit in (before, after):
            application.release(self.places, self.node, tools().environment, commit)
        application.make_database(self.places, self.cluster, self.node, tools().environment, before, ROWS)
        self.cluster.sql("CREATE DATABASE %s TEMPLATE %s" % (self.TEMPLATE, application.DATABASE))
        self.places.built.mkdir()
        source = pathlib.Path(application.releases(self.places).path(after)) / "node_modules"
        shutil.copytree(source, self.places.built / "node_modules", copy_function=os.link, symlinks=True)
        application.start_first(self.places, self.node, before, self.port)
        self.before = self.condition()

    def destroy(self) -> None:
        self.wait_for_orphans()
        application.stop(self.places, self.node)
        self.cluster.destroy()
        for folder in (self.places.pm2_home, self.places.directory):
            shutil.rmtree(folder, ignore_errors=True)

    # Releases

    def add_release(self, tag: str, changes: Mapping[str, Optional[str]]) -> str:
        """Create a commit on top of ET-100 with a tag.

        :param changes: path to content; None removes the file
        """
        if tag in self.commits:
            return self.commits[tag]
        files = repository.files_of(("base", "et-100"))
        folder = self.places.directory / "changes" / tag
        for name, content in changes.items():
            files.pop(name, None)
            if content is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
                files[name] = path
        parents = [self.commits[repository.AFTER]]
        date = "2025-11-09T09:00:00+00:00"
        commit = repository.commit(self.places.repository, files, tag, date, parents=parents)
        repository.git(self.places.repository, "update-ref", "refs/tags/" + tag, commit)
        self.commits[tag] = commit
        return commit

    def prepare_by_hand(self, tag: str, *commands: Sequence[str]) -> pathlib.Path:
        """Make the release of a commit; its directory."""
        made, commit = application.releases(self.places), self.commits[tag]
        links = {".env": str(self.places.environment_file)}
        made.prepare(commit, commands, node_bin_dir=str(self.node.bin_dir), shared_links=links)
        return pathlib.Path(made.path(commit))

    @property
    def install(self) -> List[str]:
        return ["cp", "-al", str(self.places.built / "node_modules"), "."]

    def migrate_by_hand(self, tag: str) -> None:
        """Migrate as the runbook does: `prisma migrate deploy` in a release, here one whose migration fails."""
        release = self.prepare_by_hand(tag, self.install)
        environment = {**application.npm_settings(self.places), **tools().environment}
        self.node.run(application.MIGRATE, cwd=release, environment=environment, accept=[1])

    # Playbooks

    def start(
        self, playbook: str, *arguments: str, environment: Optional[Mapping[str, str]] = None, **variables: object
    ) -> Playing:
        """Start a playbook of the collection.

        :param variables: extra variables
        """
        given = {**self.defaults(str(variables.get("deploy_revision", ""))), **variables}
        values = self.places.directory / "extra" / ("%d.json" % time.monotonic_ns())
        values.parent.mkdir(mode=0o700, exist_ok=True)
        values.write_text(json.dumps(given), encoding="utf-8")
        argv = [str(ANSIBLE), "-i", str(self.places.hosts), "-e", "@%s" % values, playbook, *arguments]
        settings = {
            **os.environ,
            **application.npm_settings(self.places),
            "ANSIBLE_CONFIG": str(self.places.ansible_config),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            OURS: str(self.places.directory),
            **self.faster_modules,
            **(environment or {}),
        }
        return Playing(argv, settings, self.places.playbooks)

    def play(
        self, playbook: str, *arguments: str, environment: Optional[Mapping[str, str]] = None, **variables: object
    ) -> Run:
        """Run a playbook to its end."""
        return self.start(playbook, *arguments, environment=environment, **variables).end()

    def defaults(self, revision: str) -> Dict[str, object]:
        """Variables that save time: short timeouts, and broken releases are not installed from the network."""
        values: Dict[str, object] = {
            "application_keep_releases": 100,
            "application_stable_seconds": 0.5,
            "application_health_timeout": 20,
        }
        if revision not in ("", repository.BEFORE, repository.AFTER):
            values["application_install_command"] = self.install
            values["application_generate_command"] = []
        return values

    def inventory_with(self, host: str, **variables: object) -> pathlib.Path:
        """A file that adds an application host with its variables to the inventory."""
        path = self.places.directory / "more-hosts.yml"
        path.write_text("application: {hosts: {%s: %s}}\n" % (host, json.dumps(variables)), encoding="utf-8")
        return path

    def hook_that_waits(self) -> "Hook":
        """A task file for one of the deploy's hooks."""
        return Hook(pathlib.Path(tempfile.mkdtemp(prefix="hook-", dir=self.places.directory)))

    # How it is

    def url(self) -> str:
        return application.database_url(self.cluster)

    def database_directory(self) -> pathlib.Path:
        """Where the server keeps the files of the live database."""
        path = self.sql("SELECT pg_relation_filepath('pg_class')")
        return (self.cluster.data / path).parent

    @contextlib.contextmanager
    def unchanged(self, readable: bool = True) -> Iterator[None]:
        """Nothing changes in the block, and the application is not stopped.

        :param readable: False if a lock keeps every session from reading
        """
        before, process = self.condition() if readable else None, self.process()
        yield
        if readable:
            assert self.condition() == before
        assert self.process() == process

    def sql(self, text: str, database: str = application.DATABASE) -> str:
        """Run statements as superuser."""
        return self.cluster.sql(text, database)

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """A cursor of the application's role in the live database, in autocommit."""
        connection = psycopg2.connect(self.cluster.url(application.DATABASE, application.ROLE))
        connection.autocommit = True
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def databases(self, prefix: str = "") -> List[str]:
        """All databases except our snapshots."""
        pattern = prefix.replace("_", r"\_") + "%"
        query = "SELECT datname FROM pg_database WHERE datname LIKE '%s' ORDER BY 1" % pattern
        return [name for name in self.sql(query, "postgres").split() if not name.startswith("snapshot_")]

    def contents(self) -> str:
        """A digest of all definitions and rows of the live database, by PostgreSQL's own dump; without the history."""
        argv = [self.cluster.bin_dir / "pg_dump", "--exclude-table=_prisma_migrations", "--no-password"]
        environment = self.cluster.environment(application.DATABASE)
        dumped = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, cwd="/").stdout
        # Newer versions write a random \restrict key into each dump.
        lines = [line for line in dumped.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict", b"--"))]
        return hashlib.sha256(b"\n".join(lines)).hexdigest()

    def applied(self) -> Tuple[str, ...]:
        query = "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
        return tuple(sorted(self.sql(query).split()))

    def condition(self) -> Condition:
        live = self.sql("SELECT oid FROM pg_database WHERE datname = '%s'" % application.DATABASE, "postgres")
        return Condition(
            contents=self.contents(),
            applied=self.applied(),
            databases=tuple(self.databases()),
            live_oid=int(live),
            roles=tuple(self.sql("SELECT rolname FROM pg_roles ORDER BY 1", "postgres").split()),
            current=application.current_commit(self.places) or "",
            running=self.running(),
        )

    def running(self) -> str:
        """The commit that reports healthy; else the application's answer."""
        answer = application.health(self.port)
        return str(answer.get("release") if answer["status"] == "ok" else answer["status"])

    def process(self) -> Process:
        found = application.pm2(self.places, self.node).processes(application.NAME)
        assert len(found) == 1, found
        return Process(found[0].pid, found[0].restarts, found[0].started_ms)

    def operations(self) -> List[Dict[str, Any]]:
        """Header and outcome of each operation of the store, oldest first."""
        found = []
        for path in sorted((self.places.store / "operations").glob("*/operation.json")):
            journal = [json.loads(line) for line in (path.parent / "journal.jsonl").read_text("utf-8").splitlines()]
            closed = [entry["outcome"] for entry in journal if entry["event"] == "closed"]
            header = json.loads(path.read_text("utf-8"))
            found.append({**header, "outcome": closed[-1] if closed else None, "journal": journal})
        return found

    def outcomes(self) -> List[Optional[str]]:
        return [operation["outcome"] for operation in self.operations()]

    def files(self) -> Dict[str, Tuple[int, int]]:
        """Size and modification time of every file of the store and of the releases, and the target of ``current``."""
        found = {}
        for root in (self.places.store, self.places.application):
            for folder, folders, names in os.walk(root):
                folders[:] = [name for name in folders if name != "node_modules"]
                for name in folders + names:
                    path = pathlib.Path(folder, name)
                    facts = path.lstat()
                    found[str(path)] = (0 if path.is_dir() else facts.st_size, facts.st_mtime_ns)
        return found

    # Back to the beginning

    def reset(self) -> None:
        """Restore the state before ET-100, with an empty store. Parts that already have this state are not changed."""
        self.wait_for_orphans()
        shutil.rmtree(self.places.store, ignore_errors=True)
        assert self.before is not None
        if self._database_was_touched():
            self._database_anew()
        commit = self.commits[repository.BEFORE]
        self.run_release(commit)
        self.before = self.condition()
        assert self.before.running == self.before.current == commit, self.before

    def run_release(self, commit: str) -> None:
        moved = application.releases(self.places).activate(commit)
        manager = application.pm2(self.places, self.node)
        healthy = self.running() == commit and application.status(self.places, self.node) == "online"
        if moved or not healthy:
            manager.delete(application.NAME)
            manager.start(application.NAME, str(self.places.current), application.ECOSYSTEM_FILE, stable=0)
            application.wait_until_healthy(self.places, self.port)

    @property
    def by_hand(self) -> pathlib.Path:
        return self.places.directory / "by-hand"

    def forget_releases(self) -> None:
        """Stop the application and remove the link to the current release."""
        application.pm2(self.places, self.node).delete(application.NAME)
        self.places.current.unlink()

    def run_by_hand(self) -> None:
        """Run the application in a separate folder, as before the first deploy by the collection."""
        if not self.by_hand.is_dir():
            shutil.copytree(self.places.current.resolve(), self.by_hand, copy_function=os.link, symlinks=True)
        self.forget_releases()
        manager = application.pm2(self.places, self.node)
        manager.start(application.NAME, str(self.by_hand), application.ECOSYSTEM_FILE, stable=0)
        application.wait_until_healthy(self.places, self.port)

    def runs_by_hand(self) -> bool:
        found = application.pm2(self.places, self.node).processes(application.NAME)
        return any(process.cwd.startswith(str(self.by_hand)) for process in found if process.running)

    def deploy(self) -> None:
        """Make the state after a deploy of ET-100, without a later backup. The deploy runs once; its result is kept."""
        snapshot = self._deployed
        manager = application.pm2(self.places, self.node)
        if not snapshot.taken:
            run = self.play("deploy_receiptdata.yml", deploy_post_backup=False)
            assert run.status == 0, run.output
            manager.delete(application.NAME)
            snapshot.take(application.DATABASE, self.places.store)
        else:
            manager.delete(application.NAME)
            snapshot.put_back(self.places.store)
        self.run_release(self.commits[repository.AFTER])

    def _database_was_touched(self) -> bool:
        assert self.before is not None
        try:
            now = self.condition()
        except Exception:  # if the state cannot be read for any reason, it is made again
            return True
        failed = self.sql("SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NULL")
        alike = dataclasses.replace(now, current=self.before.current, running=self.before.running)
        return alike != self.before or failed != "0"

    def _database_anew(self) -> None:
        names = [name for name in self.databases() if name.startswith(("backstop_", application.DATABASE))]
        for name in names:
            self.sql('DROP DATABASE "%s" WITH (FORCE)' % name, "postgres")
        for role in set(self.sql("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'", "postgres").split()):
            if role not in (application.ROLE, self.cluster.superuser):
                self.sql('DROP ROLE "%s"' % role, "postgres")
        given = (application.DATABASE, self.TEMPLATE, application.ROLE)
        self.sql("CREATE DATABASE %s TEMPLATE %s OWNER %s" % given, "postgres")

    def wait_for_orphans(self) -> None:
        """Wait until all processes left by killed playbooks have ended."""
        until(lambda: not self.orphans(), lambda: "processes of playbooks are left: %s" % self.orphans())

    def orphans(self) -> List[str]:
        """Processes that a playbook of this site started and that are no part of the application."""
        mark = ("%s=%s" % (OURS, self.places.directory)).encode()
        found = []
        for pid, command in processes():
            with contextlib.suppress(OSError):
                if mark in pathlib.Path("/proc", str(pid), "environ").read_bytes().split(b"\0"):
                    found.append("%d %s" % (pid, command))
        application_words = ("God Daemon", "dist/server.js")
        return [line for line in found if not any(word in line for word in application_words)]


class Hook:
    """Tasks at which a playbook waits until the test continues it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.tasks = folder / "wait.yml"
        self._reached, self._go_on = folder / "reached", folder / "go-on"
        file = {"path": str(self._reached), "state": "touch", "mode": "0600"}
        reached = {"name": "Tell the test", "ansible.builtin.file": file}
        wait = {"name": "Wait for the test", "ansible.builtin.wait_for": {"path": str(self._go_on), "sleep": 1}}
        self.tasks.write_text(yaml.safe_dump([reached, wait]), encoding="utf-8")

    def wait_until_reached(self) -> None:
        until(self._reached.exists, lambda: "the playbook does not come to its hook")

    def release(self) -> None:
        self._go_on.touch()


@contextlib.contextmanager
def sparse_file(directory: pathlib.Path, disk: pathlib.Path) -> Iterator[None]:
    """A file of the server that uses no space but has a size larger than the disk's free space."""
    path = directory / "999999999"
    path.touch()
    try:
        usage = shutil.disk_usage(disk)
        os.truncate(path, usage.free + (1 << 40))
        yield
    finally:
        path.unlink()


def processes() -> Iterator[Tuple[int, str]]:
    """Process id and arguments of every visible process."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:
                    yield int(entry.name), command


def until(condition: Callable[[], object], what: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait for a condition outside this process."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSite]:
    """The site for all tests of a run; folders whose conftest.py imports it share it."""
    made = DemoSite.create(tmp_path_factory.mktemp("site"))
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def site(the_site: DemoSite) -> DemoSite:
    the_site.reset()
    return the_site
