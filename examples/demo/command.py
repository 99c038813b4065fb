# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What demo.sh does: ``python3 -m demo.command``."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError

from . import application, children, inventory, node_tools, ports, programs, repository, virtual_environment
from .node_tools import Node
from .places import Places
from .postgres_server import Cluster, find_bin_dir, major_of, other_place, server_account, wheel_is_needed
from .programs import DemoError
from .state import State
from .steps import Reporter, Steps

OLDEST_PYTHON = (3, 11)
ROWS = 3000
DEPLOY = "deploy_receiptdata.yml"
LOCK_SECONDS = 300.0
DESCRIPTION = """\
The main job of this collection on real parts, in .demo/ of this checkout: a PostgreSQL server, an application with
Prisma under pm2, and Ansible that deploys its next release.

  ./demo.sh [--rows N]           prepare all, then run deploy_receiptdata.yml
  ./demo.sh up [--rows N]        only prepare: application and database as they were before ET-100
  ./demo.sh run PLAYBOOK [ARGS]  run a playbook of the collection on the demo
  ./demo.sh env                  print `export` lines for a shell:  eval "$(./demo.sh env)"
  ./demo.sh status               say what runs
  ./demo.sh stop                 end what was started; `up` starts it again
  ./demo.sh clean                end it and remove all of it
"""


class Demo:
    """The demo of this checkout."""

    def __init__(self, places: Places, reporter: Reporter) -> None:
        self.places = places
        self.reporter = reporter
        self._cluster: Cluster | None = None
        self._node: Node | None = None
        self._prisma: dict[str, str] = {}
        self._commits: dict[str, str] = {}
        self._settings_changed = False
        self._state: State | None = None

    # What is known

    @property
    def state(self) -> State:
        self._state = self._state or State(self.places)
        return self._state

    @property
    def cluster(self) -> Cluster:
        self._cluster = self._cluster or Cluster.open(self.places.cluster)
        return self._cluster

    @property
    def node(self) -> Node:
        self._node = self._node or node_tools.find_node(self.places.programs, str(self.places.python))
        return self._node

    @property
    def port(self) -> int:
        port = self.state.number("application_port")
        if port is None:
            raise DemoError("The demo is not prepared", found="no port was chosen", do="run ./demo.sh up")
        return port

    @property
    def prepared(self) -> bool:
        """True once the application was healthy for the first time; later changes are up to the playbooks."""
        return self.places.state_file.exists() and self.state.get("prepared") is True

    def check_prepared(self) -> None:
        if not self.prepared:
            found = f"no application in {self.places.directory}"
            raise DemoError("The demo is not prepared", found=found, do="run ./demo.sh up")

    # Preparing

    def up(self, rows: int | None) -> None:
        """Prepare what is missing and start what does not run."""
        self._check_machine()
        self._check_rows(rows)
        steps = Steps(self.reporter)
        pip_for_postgres = wheel_is_needed(self.places.cluster)
        pip_for_node = node_tools.wheel_is_needed()
        steps.add("python", self._python)
        steps.add("ansible", self._ansible, after=["python"])
        steps.add("repository", self._repository)
        steps.add("postgres", self._postgres, after=["python"] if pip_for_postgres else [])
        steps.add("node", self._find_node, after=["python"] if pip_for_node else [])
        steps.add("engine", self._engine, after=["node"])
        steps.add("pm2", self._pm2, after=["node"])
        steps.add("settings", self._write_settings, after=["postgres", "engine", "repository"])
        if self.prepared:
            steps.add("start", self._start_again, after=["settings", "pm2"])
        else:
            steps.add("release", self._release, after=["settings"])
            steps.add("database", self._database, after=["release"])
            steps.add("start", self._start_first, after=["database", "pm2"])
        steps.run()

    def _check_machine(self) -> None:
        if shutil.which("git") is None:
            raise DemoError("git is missing", found="no program git in PATH", do="install git")
        root = self.state.get("checkout")
        if root is None:
            self.state.set("checkout", str(self.places.checkout))
        elif root != str(self.places.checkout):
            raise DemoError(
                "This demo was made in another place, which its programs remember",
                found=str(root),
                do="run ./demo.sh clean, then ./demo.sh again",
            )

    def _check_rows(self, rows: int | None) -> None:
        """Remember the number of rows that was asked for; data that was loaded stays as it is."""
        loaded = self.state.number("rows")
        if loaded is None:
            self.state.set("rows_wanted", rows or self.state.number("rows_wanted") or ROWS)
        elif rows not in (None, loaded):
            raise DemoError(
                "The demo has its data already",
                found=f"{loaded} purchases, asked for {rows}",
                do="run ./demo.sh clean first, or leave --rows out",
            )

    def _python(self) -> str:
        made = virtual_environment.make(self.places.environment)
        version = ".".join(str(part) for part in sys.version_info[:3])
        return f"Python {version} environment " + ("made" if made else "is there")

    def _ansible(self) -> str:
        installed = virtual_environment.install_requirements(self.places.environment)
        return "Ansible and the PostgreSQL driver " + ("installed" if installed else "are there")

    def _repository(self) -> str:
        self._commits = repository.make(self.places.repository)
        tags = ", ".join(f"{tag} is {commit[:10]}" for tag, commit in self._commits.items())
        return f"Application's repository: {tags}"

    def _postgres(self) -> str:
        if not (self.places.cluster / "cluster.json").exists():
            programs_dir = find_bin_dir(self.places.programs / "postgres", str(self.places.python))
            self._cluster = Cluster.create(self.places.cluster, bin_dir=programs_dir, options={"lc_messages": "C"})
        self._check_server_programs()
        was_running = self.cluster.running()
        self.cluster.start()
        self.cluster.create_role(application.ROLE, "LOGIN CREATEDB NOSUPERUSER NOCREATEROLE")
        origin = "from a wheel" if "pginstall" in self.cluster.bin_dir.parts else "of this machine"
        what = "runs" if was_running else "started"
        cluster = self.cluster
        return f"PostgreSQL {cluster.major} {origin} {what} on 127.0.0.1:{cluster.port} as {cluster.os_user}"

    def _check_server_programs(self) -> None:
        found = major_of(self.cluster.bin_dir, server_account())
        if found != self.cluster.major:
            raise DemoError(
                "The programs of the demo's database server are gone",
                found=f"{self.cluster.bin_dir} holds {f'version {found}' if found else 'no PostgreSQL'}",
                do=f"install PostgreSQL {self.cluster.major} again, or run ./demo.sh clean",
            )

    def _find_node(self) -> str:
        version = ".".join(str(part) for part in self.node.version)
        origin = "from a wheel" if self.node.bin_dir.is_relative_to(self.places.programs) else "of this machine"
        return f"Node {version} {origin}"

    def _engine(self) -> str:
        remembered = self.state.get("prisma_engine")
        if remembered is None or os.environ.get(node_tools.ENGINE_CHOICE):
            remembered = "native" if node_tools.native_engine_can_be_had() else "stand-in"
            self.state.set("prisma_engine", remembered)
        if remembered == "native":
            self._prisma = dict(node_tools.QUIET_PRISMA)
            return "Prisma's own schema engine is used; Prisma downloads it"
        self._prisma = node_tools.prisma_environment(self.places.prisma_engine, self.node, self.places.npm_cache)
        why = "is not wanted" if os.environ.get(node_tools.ENGINE_CHOICE) else "cannot be downloaded"
        return f"Prisma's own schema engine {why}: its WebAssembly build stands in for it"

    def _pm2(self) -> str:
        source = Path(__file__).resolve().parent / "pm2"
        installed = node_tools.install_project(source, self.places.pm2, self.node, self.places.npm_cache)
        return "pm2 " + ("installed" if installed else "is there")

    def _write_settings(self) -> str:
        port = self.state.number("application_port")
        if port is None or (application.health(port).get("version") is None and not ports.is_free(port)):
            port = ports.choose([self.cluster.port])
            self.state.set("application_port", port)
        self._settings_changed = application.write_environment_file(self.places, self.cluster, port)
        inventory.write(self.places, self.cluster, self.node, self._prisma, port)
        return ""

    def _release(self) -> str:
        commit = self._commits[repository.BEFORE]
        try:
            application.release(self.places, self.node, self._prisma, commit)
        except BackstopError as error:
            if self.state.get("prisma_engine") != "native":
                raise
            hint = f"if Prisma's engine cannot be downloaded, take the stand-in: {node_tools.ENGINE_CHOICE}=stand-in"
            raise DemoError("The release could not be built", found=str(error), do=hint) from error
        return f"Release {commit[:10]} installed, generated and built"

    def _database(self) -> str:
        rows = self.state.number("rows_wanted") or ROWS
        commit = self._commits[repository.BEFORE]
        line = application.make_database(self.places, self.cluster, self.node, self._prisma, commit, rows)
        self.state.set("rows", rows)
        return line

    def _start_first(self) -> str:
        application.start_first(self.places, self.node, self._commits[repository.BEFORE], self.port)
        self.state.set("prepared", True)
        return f"Application started under pm2, http://127.0.0.1:{self.port}"

    def _start_again(self) -> str:
        return application.start_again(self.places, self.node, self.port, self._settings_changed)

    # Using

    def shell_settings(self) -> dict[str, str]:
        """Variables for PostgreSQL's tools, Prisma, pm2 and the collection."""
        settings = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.cluster.port),
            "PGUSER": application.ROLE,
            "PGDATABASE": application.DATABASE,
            "PGPASSFILE": str(self.places.password_file),
            "DATABASE_URL": application.database_url(self.cluster),
            "BACKSTOP_STORE": str(self.places.store),
            "APPLICATION_URL": f"http://127.0.0.1:{self.port}",
            "PM2_HOME": str(self.places.pm2_home),
            "ANSIBLE_CONFIG": str(self.places.ansible_config),
            **node_tools.QUIET_PRISMA,
        }
        if self.state.get("prisma_engine") != "native":
            settings |= node_tools.prisma_environment(self.places.prisma_engine, self.node, self.places.npm_cache)
        return settings

    def tool_folders(self) -> list[Path]:
        pm2 = self.places.pm2_executable.parent
        return [self.places.environment / "bin", self.cluster.bin_dir, self.node.bin_dir, pm2]

    def print_environment(self) -> None:
        self.check_prepared()
        for name, value in self.shell_settings().items():
            print(f"export {name}={shlex.quote(value)}")
        folders = ":".join(shlex.quote(str(folder)) for folder in self.tool_folders())
        print(f"export PATH={folders}:$PATH")

    def playbook(self, name: str, arguments: Sequence[str]) -> int:
        """Run a playbook with the demo's inventory from the collection's playbooks folder; return its exit status."""
        self.check_prepared()
        if not self.cluster.running():
            raise DemoError("The demo does not run", found="its database server is stopped", do="run ./demo.sh up")
        path = self._find_playbook(name)
        folders = [str(folder) for folder in self.tool_folders()[:1]]
        environment = dict(
            os.environ,
            ANSIBLE_CONFIG=str(self.places.ansible_config),
            PATH=os.pathsep.join([*folders, os.environ.get("PATH") or os.defpath]),
            **application.npm_settings(self.places),
        )
        environment.setdefault("ANSIBLE_STDOUT_CALLBACK", "backstop.postgres.story")
        environment.pop("PYTHONPATH", None)
        program = str(self.places.environment / "bin" / "ansible-playbook")
        argv = [program, "-i", str(self.places.hosts), str(path), *arguments]
        return children.run_in_foreground(argv, environment, self.places.playbooks)

    def _find_playbook(self, name: str) -> Path:
        given = Path(name)
        candidates = [given.absolute(), self.places.playbooks / name, self.places.playbooks / f"{name}.yml"]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        known = ", ".join(sorted(path.name for path in self.places.playbooks.glob("*.yml"))) or "none"
        raise DemoError("There is no such playbook", found=name, do=f"name a file or one of the collection's: {known}")

    def print_status(self) -> None:
        if not (self.places.cluster / "cluster.json").exists():
            print(f"No demo in {self.places.directory}")
            return
        server = "runs" if self.cluster.running() else "is stopped"
        print(f"PostgreSQL {self.cluster.major} {server}, 127.0.0.1:{self.cluster.port}, log {self.cluster.log}")
        print(f"Databases: {self._databases()}; store: {self._store()}")
        if not self.prepared:
            print("The application is not deployed yet: run ./demo.sh up")
            return
        commit = application.current_commit(self.places) or "unknown"
        process = application.status(self.places, self.node)
        answer = application.health(self.port)
        release = f"release {commit[:10]}, health: {answer['status']}, http://127.0.0.1:{self.port}"
        print(f"Application {process} under pm2, {release}")
        print(f"Prisma's engine: {self.state.get('prisma_engine')}; purchases at first: {self.state.get('rows')}")

    def _databases(self) -> str:
        """The application's database and the databases that the collection keeps for it."""
        if not self.cluster.running():
            return "not known while the server is stopped"
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1 DESC"
        return ", ".join(self.cluster.sql(query).splitlines()) or "none"

    def _store(self) -> str:
        backups = len(list(self.places.store.glob("*/*/manifest.json")))
        operations = len(list(self.places.store.glob("operations/*/")))
        return f"{backups} backups, {operations} operations"

    def say_where_things_are(self) -> None:
        commit = application.current_commit(self.places) or "unknown"
        tags = {found: tag for tag, found in self._commits.items()}
        answer = application.health(self.port)
        release = f"{commit[:10]} ({tags[commit]})" if commit in tags else commit[:10]
        self.reporter.say(f"""
Application  http://127.0.0.1:{self.port}  health: {answer["status"]}  release: {release}
Server       127.0.0.1:{self.cluster.port}  PostgreSQL {self.cluster.major}  log: {self.cluster.log}
Databases    {self._databases()}
Store        {self.places.store}  {self._store()}
Releases     {self.places.application}/releases  logs: {self.places.pm2_home}/logs
Inventory    {self.places.hosts}
Next         ./demo.sh run PLAYBOOK   eval "$(./demo.sh env)"   ./demo.sh status | stop | clean""")

    # Ending

    def stop(self) -> None:
        """Stop the application, pm2's daemon and the server, in this order."""
        if self.places.pm2_executable.exists() and self.places.pm2_home.exists():
            ended = application.stop(self.places, self.node)
            self.reporter.say("Application and pm2 " + ("ended" if ended else "did not run"))
        if (self.places.cluster / "cluster.json").exists():
            running = self.cluster.running()
            self.cluster.stop()
            self.reporter.say("PostgreSQL " + ("ended" if running else "did not run"))

    def clean(self) -> None:
        """Stop, and remove all that the demo made, also outside its directory."""
        self.stop()
        if (self.places.cluster / "cluster.json").exists():
            self.cluster.destroy()
        outside = [other_place(self.places.cluster), other_place(self.places.programs / "postgres")]
        for path in [*outside, self.places.pm2_home, self.places.directory]:
            if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path)
        self.reporter.say(f"Removed {self.places.directory}")


@contextlib.contextmanager
def only_one(places: Places, reporter: Reporter) -> Iterator[None]:
    """Allow one run at a time. The lock is held until every program that a killed run started has ended installing."""
    places.directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline, warned = time.monotonic() + LOCK_SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DemoError("Another run of the demo is active", found=f"{places.lock} is locked") from None
            if not warned:
                reporter.say("Waiting for another run of the demo, or what is left of one, to end ...")
            warned = True
            time.sleep(0.2)
    programs.keep_open(descriptor)
    try:
        yield
    finally:
        programs.keep_open(None)
        os.close(descriptor)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("demo.sh", description=DESCRIPTION, formatter_class=as_written)
    parser.add_argument("--rows", type=row_count, help=f"purchases in the sample data (default {ROWS})")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    up = commands.add_parser("up")
    up.add_argument("--rows", type=row_count, default=argparse.SUPPRESS)
    run = commands.add_parser("run", add_help=False)
    run.add_argument("playbook")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    for name in ("env", "status", "stop", "clean"):
        commands.add_parser(name)
    return parser.parse_args(argv)


def row_count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000000")
    return int(text)


def act(options: argparse.Namespace) -> int:
    reporter = Reporter()
    demo = Demo(Places.here(), reporter)
    if options.command == "run":
        return demo.playbook(options.playbook, options.arguments)
    if options.command == "env":
        demo.print_environment()
    elif options.command == "status":
        demo.print_status()
    elif options.command in ("stop", "clean"):
        with only_one(demo.places, reporter):
            demo.stop() if options.command == "stop" else demo.clean()
    else:
        return bring_up(demo, options)
    return 0


def bring_up(demo: Demo, options: argparse.Namespace) -> int:
    with only_one(demo.places, demo.reporter):
        demo.up(options.rows)
    demo.reporter.say(f"Ready after {demo.reporter.seconds:.0f} s")
    status = 0
    if options.command is None:
        demo.reporter.say(f"Running {DEPLOY}\n")
        status = demo.playbook(DEPLOY, [])
        if status:
            demo.reporter.say(f"{DEPLOY} ended with status {status}: see its messages above")
    demo.say_where_things_are()
    return status


def main(argv: Sequence[str] | None = None) -> int:
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:3])
        hint = "Name another one: PYTHON=python3.12 ./demo.sh"
        print(f"The demo needs Python 3.11 or newer; this is {found}. {hint}", file=sys.stderr)
        return 1
    options = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return act(options)
    except (DemoError, BackstopError) as error:
        print(f"\ndemo.sh: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\ndemo.sh: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo.sh: interrupted; run it again to continue", file=sys.stderr)
        children.end_all()
        # Threads that wait for the programs that were just ended have nothing more to report.
        os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
