# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the Prisma Migrate of a release, with argument lists and with secrets only in its environment."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets as random
import selectors
import time
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple

from ..base.errors import BackstopError, Refused
from ..base.processes import Running, redact
from ..base.remedies import Action, remedy
from .configuration import entry_of, find_node, find_prisma
from .engine import find_engine, guarded, write_config
from .failures import Failure, PrismaError, analyse, plain_text, started_migrations
from .history import APPLIED, FAILED, ROLLED_BACK, compare, read_folder, read_rows
from .project import Project
from .sessions import Backend, end_backends
from .urls import database_of, has_secret, schema_of, secrets_in, with_session_settings, without_password

#: No network requests, no colours; DEBUG would print the URL.
_ENVIRONMENT = {
    "CHECKPOINT_DISABLE": "1",
    "PRISMA_HIDE_UPDATE_MESSAGE": "1",
    "NO_COLOR": "1",
    "FORCE_COLOR": "0",
    "DEBUG": "",
}

Listener = Callable[[str], None]
#: Runs a relay to the database of a URL, and yields a URL of it without secrets.
Relay = Callable[[str], ContextManager[str]]

#: Tested major versions.
SUPPORTED = (6, 7)


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """The output of a finished Prisma command."""

    status: int
    stdout: str
    stderr: str


@dataclasses.dataclass(frozen=True)
class Deployed:
    """The result of a deploy."""

    #: Names in order of application; empty when nothing was pending.
    applied: List[str]
    seconds: float
    stdout: str


@dataclasses.dataclass(frozen=True)
class ServerSession:
    """Prisma's session on the server."""

    #: its application_name; unique to this run
    name: str = dataclasses.field(default_factory=lambda: "backstop_prisma_" + random.token_hex(4))
    #: how long a statement may wait for a lock before the migration fails
    lock_timeout_ms: Optional[int] = None
    #: how long one statement may take
    statement_timeout_ms: Optional[int] = None

    def url(self, url: str) -> str:
        given = {"lock_timeout": self.lock_timeout_ms, "statement_timeout": self.statement_timeout_ms}
        settings = {name: "%dms" % value for name, value in given.items() if value is not None}
        return with_session_settings(url, settings, self.name)


@dataclasses.dataclass(frozen=True)
class _Call:
    arguments: Sequence[str]
    url: str
    #: in seconds, for the whole command
    timeout: Optional[float]
    #: file descriptors that Prisma inherits
    keep_open: Sequence[int] = ()
    on_line: Optional[Listener] = None
    #: whether a schema that is not in one of Prisma's usual places is named by ``--schema``
    name_schema: bool = True


class Prisma:
    """The Prisma CLI of one release.

    :param project: where Prisma works: the release, or a subdirectory
    :param environment: further variables for Prisma, without secrets (PRISMA_SCHEMA_ENGINE_BINARY)
    :param relay: relay to the database where Prisma would show a password
    :param offline: only for commands that read no database, which any version may do
    """

    def __init__(
        self,
        project: Project,
        *,
        environment: Optional[Mapping[str, str]] = None,
        relay: Optional[Relay] = None,
        offline: bool = False,
    ) -> None:
        self.project = project
        self._package = find_prisma(self.project.path)
        self._entry = entry_of(self._package)
        self.node = find_node(project.node_bin_dir)
        # An engine that is a script finds this Node.js too.
        path = os.path.dirname(self.node) + os.pathsep + os.environ.get("PATH", os.defpath)
        self._environment = {"PATH": path, **_ENVIRONMENT, **(environment or {})}
        self._relay = relay
        self._offline = offline
        #: Prisma passes the URL to its engine as an argument.
        self._configured = self._major() >= 7 or self.project.configuration().datasource
        self._engine = find_engine(self.project.path, self._package, self._environment)

    def version(self) -> str:
        """Prisma's version, from its package: `prisma version` would start all its engines."""
        try:
            with open(os.path.join(self._package, "package.json"), encoding="utf-8") as stream:
                return str(json.load(stream)["version"])
        except (OSError, ValueError, KeyError) as error:
            raise Refused(
                "The version of Prisma cannot be read", found=str(error), hint="run `npm ci` again"
            ) from error

    def _major(self) -> int:
        version = self.version()
        major = version.split(".", maxsplit=1)[0]
        if not major.isdigit() or (int(major) not in SUPPORTED and not self._offline):
            raise Refused(
                "This Prisma is not supported",
                found="Prisma " + version,
                expected="Prisma " + " or ".join(str(known) for known in SUPPORTED),
            )
        return int(major)

    def migrate_deploy(
        self,
        url: str,
        *,
        cursor: Any,
        session: Optional[ServerSession] = None,
        timeout: Optional[float] = None,
        keep_open: Sequence[int] = (),
        on_line: Optional[Listener] = None,
    ) -> Deployed:
        """Apply the pending migrations.

        When Prisma is interrupted (timeout, signal), its session on the server is terminated too.

        :param cursor: of a session in the same database, in autocommit; while it is open the database cannot be dropped
        :param timeout: in seconds, for the whole command
        :param keep_open: file descriptors that Prisma inherits (a lock that must live as long as Prisma)
        :param on_line: called with each line as Prisma prints it
        :raises PrismaError: Prisma failed; its rows in the history show what was applied
        """
        folder = read_folder(self.project.migrations())
        started = time.monotonic()
        call = _Call(["migrate", "deploy"], url, timeout, keep_open, on_line)
        said = self._act(call, cursor, session or ServerSession())
        seconds = time.monotonic() - started
        state = compare(folder, read_rows(cursor, schema_of(url)))
        left = state.pending + state.failed
        if left:
            raise _not_done("prisma migrate deploy", said, "pending or failed: " + ", ".join(left))
        return Deployed(started_migrations(said.stdout), seconds, said.stdout)

    def migrate_resolve(
        self,
        url: str,
        *,
        cursor: Any,
        applied: Optional[str] = None,
        rolled_back: Optional[str] = None,
        timeout: Optional[float] = 60,
    ) -> None:
        """Mark one migration as applied or as rolled back, without running its SQL."""
        if (applied is None) == (rolled_back is None):
            raise AssertionError("give applied or rolled_back")
        flag, name = ("--applied", applied) if applied is not None else ("--rolled-back", rolled_back)
        call = _Call(["migrate", "resolve", "%s=%s" % (flag, name)], url, timeout)
        said = self._act(call, cursor, ServerSession())
        states = [row.state for row in read_rows(cursor, schema_of(url)) or () if row.migration_name == name]
        if FAILED in states or (APPLIED if applied is not None else ROLLED_BACK) not in states:
            found = "%s is %s" % (name, ", ".join(states) or "not in the history")
            raise _not_done("prisma migrate resolve", said, found)

    def migrate_diff(self, url: str, to_schema: str) -> str:
        """SQL that changes this project's schema to another one, from Prisma's own comparison of the two files.

        No database is read: what a migration does beyond the schema (triggers, functions, rows) is not included.

        :param url: for the variables that the schema reads; an engine may connect, but changes nothing
        :param to_schema: the other schema, a file or folder
        """
        schema = self.project.schema()
        kind = "schema-datamodel" if self._major() < 7 else "schema"
        arguments = ["migrate", "diff", "--from-" + kind, schema, "--to-" + kind, to_schema, "--script"]
        return self._diff(arguments, url, 60).stdout.strip() + "\n"

    def schema_script(self, url: str) -> bytes:
        """SQL that creates the release's Prisma schema in an empty database.

        :param url: of any database; Prisma requires one but reads nothing in it
        """
        arguments = schema_script_arguments(self.version(), self.project.schema())
        said = self._diff(arguments, url, 120)
        if not said.stdout.strip():
            raise BackstopError("Prisma wrote no SQL for the schema", found=said.stderr.strip()[-500:] or "no output")
        return said.stdout.encode() + b"\n"

    def _diff(self, arguments: Sequence[str], url: str, timeout: float) -> CommandResult:
        said = self._run(_Call(arguments, url, timeout, name_schema=False))
        if said.status != 0:
            raise analyse("prisma migrate diff", said.stdout, said.stderr)
        return said

    def _act(self, call: _Call, cursor: Any, session: ServerSession) -> CommandResult:
        """Run a command that changes the database; raises unless it succeeds."""
        _require_same_database(cursor, call.url)
        what = "prisma " + " ".join(call.arguments[:2])
        try:
            said = self._run(dataclasses.replace(call, url=session.url(call.url)))
        except _TookTooLong as late:
            _raise_late(what, late, end_backends(cursor, session.name))
        except BaseException:
            with contextlib.suppress(Exception):  # report the first error
                end_backends(cursor, session.name)
            raise
        if said.status != 0:
            raise analyse(what, said.stdout, said.stderr)
        return said

    def _run(self, call: _Call) -> CommandResult:
        argv = [self.node, self._entry, *call.arguments]
        if self.project.schema_path and call.name_schema:
            argv += ["--schema", self.project.schema_path]
        hidden = secrets_in(call.url)
        # Only the whole URL is looked for in argv: a password may be one of its words, such as "prisma".
        with contextlib.ExitStack() as stack:
            words, variables = stack.enter_context(self._guarded(call.url))
            program = stack.enter_context(
                Running(
                    argv + words,
                    environment={**self._environment, **variables},
                    cwd=self.project.path,
                    secrets=[call.url] if has_secret(call.url) else [],
                    keep_open=call.keep_open,
                )
            )
            output = []
            for line in _lines(program, call.timeout):
                line = redact(plain_text(line), hidden)
                output.append(line)
                if call.on_line is not None:
                    call.on_line(line)
            status = program.wait()
            return CommandResult(status, "\n".join(output), redact(program.stderr_text, hidden))

    @contextlib.contextmanager
    def _guarded(self, url: str) -> Iterator[Tuple[List[str], Dict[str, str]]]:
        """Arguments and variables with which the CLI works on the URL's database without showing its password."""
        project = self.project
        names = project.url_variables()
        if not self._configured:
            with guarded(self._engine, url, names, without_password(url)) as guard:
                yield (["--config", project.config_path] if project.config_path else []), guard.variables
            return
        with contextlib.ExitStack() as stack:
            shown = stack.enter_context(self._without_password(url))
            guard = stack.enter_context(guarded(self._engine, shown, names, shown))
            config = write_config(guard.folder, self._entry, project)
            yield ["--config", config], guard.variables

    @contextlib.contextmanager
    def _without_password(self, url: str) -> Iterator[str]:
        """A URL to the same database without secrets."""
        if not has_secret(url):
            yield url
        elif self._relay is None:
            raise AssertionError("a password, and no way to the database without it")
        else:
            with self._relay(url) as way:
                yield way


def schema_script_arguments(version: str, schema: str) -> List[str]:
    """The command that writes a schema as SQL, in the syntax of this version of Prisma."""
    target = "--to-schema-datamodel" if int(version.split(".")[0]) < 7 else "--to-schema"
    return ["migrate", "diff", "--from-empty", target, schema, "--script"]


class _TookTooLong(Exception):
    def __init__(self, seconds: float, output: List[str]) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.output = output


def _lines(program: Running, timeout: Optional[float]) -> Iterator[str]:
    """The lines of a program's output, as they come, until it has ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    printed: List[str] = []
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        while True:
            # Check the process, not the pipe: a child may keep the pipe open, or the process may close it and continue.
            ended = program.process.poll() is not None
            ready = selector.select(0 if ended else 0.05)
            if ended and not ready:
                break
            block = os.read(program.stdout.fileno(), 65536) if ready else b""
            if ready and not block:
                selector.unregister(program.stdout)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                printed.append(line.decode(errors="replace"))
                yield printed[-1]
            if deadline is not None and time.monotonic() >= deadline:
                raise _TookTooLong(timeout or 0, printed)
    if rest:
        yield rest.decode(errors="replace")


def _require_same_database(cursor: Any, url: str) -> None:
    """Prisma creates a missing database, so it must exist, and the session keeps it."""
    cursor.execute("SELECT pg_catalog.current_database()")
    connected = cursor.fetchone()[0]
    if connected != database_of(url):
        raise Refused(
            "Prisma would use another database than the one that was checked",
            found="the URL names %s" % database_of(url),
            expected=connected,
        )


def _not_done(what: str, said: CommandResult, found: str) -> PrismaError:
    """Prisma also exits with status 0 when its engine dies early: its promises are then never settled."""
    return PrismaError(
        "%s reported success without doing its work" % what,
        Failure(started=started_migrations(said.stdout)),
        found=found + "; Prisma's output: " + " ".join((said.stderr.strip() or said.stdout).split())[-500:],
        hint="see whether Prisma's engine can run on this host (`npx prisma version`)",
    )


def _raise_late(what: str, late: _TookTooLong, left: Sequence[Backend]) -> NoReturn:
    started = started_migrations("\n".join(late.output))
    on_server = "its session on the server was ended too"
    if left:
        on_server = "its session on the server is still there: pid " + ", ".join(str(one.pid) for one in left)
    raise PrismaError(
        "%s took too long and was ended" % what,
        Failure(migration=started[-1] if started else None, started=started),
        found="it ran longer than %g seconds; %s" % (late.seconds, on_server),
        hint=remedy(
            "see what state the migrations are in (%s): one that was interrupted counts as failed",
            Action.MIGRATION_STATE,
        ),
    )
