# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trying a release: started by a plain command on its own port, tested, and ended with all its processes.

It is isolated: it reaches no network and no server on this host but the one database that is relayed to it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, Callable, ContextManager, Dict, Generic, Iterator, List, Mapping, Optional, Sequence, TypeVar

from ..base.closed_off import ClosedOff, let_in
from ..base.environment_file import secrets_in, secrets_of_values
from ..base.errors import BackstopError, Refused
from ..base.processes import ERROR_TAIL, Running
from .commands import search_path
from .supervisor import Surroundings, check_command
from .system_processes import POLL_SECONDS
from .web import wait_healthy

Value = TypeVar("Value")
#: Serves the listeners on the release's database port as long as the context lasts.
Serve = Callable[[Sequence[socket.socket]], ContextManager[Any]]


@dataclass(frozen=True)
class Start:
    """How a release is started."""

    command: Sequence[str]
    cwd: str
    port: int
    port_variable: str = "PORT"
    environment: Mapping[str, str] = field(default_factory=dict)
    node_bin_dir: Optional[str] = None


@dataclass(frozen=True)
class Health:
    """When a release counts as healthy."""

    #: without one, a listener on the port is enough
    url: str = ""
    #: what the answer must have
    expect: Optional[Any] = None
    #: in seconds
    timeout: float = 60


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """A successful trial."""

    #: of the callback
    value: Value
    #: from the start to the first healthy answer
    seconds_to_health: float
    #: of the whole trial
    seconds: float


def free_port(other_than: int = 0) -> int:
    """A port on which no process listens."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port != other_than:
            return port


def check_port(port: int) -> None:
    """Refuse a port that is in use: another program would answer."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            probe = socket.socket(family)
        except OSError:
            continue  # no IPv6 here
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except PermissionError as error:
                raise Refused("This user may not listen on the port", found="port %d" % port) from error
            except OSError as error:
                if family == socket.AF_INET6:
                    continue
                raise Refused(
                    "The port for the trial is not free",
                    found="%s:%d: %s" % (address, port, error.strerror),
                    hint="choose another port, or 0 for any that is free",
                ) from error


class Trial:
    """A running release."""

    def __init__(self, program: Running, inside: ClosedOff, command: Sequence[str], port: int) -> None:
        self._program = program
        self._inside = inside
        self._port = port
        self._command = list(command)

    def check_alive(self) -> None:
        status = self._program.process.poll()
        if status is not None:
            self._program.wait(5)  # until the rest of its output is read
            raise BackstopError(
                "The release ended during its trial",
                found="%s ended with status %d" % (" ".join(self._command), status),
                hint="its output is in the details",
            )

    def wait_listening(self, timeout: float) -> None:
        """Wait until the release accepts connections."""
        deadline = time.monotonic() + timeout
        while True:
            self.check_alive()
            with contextlib.suppress(ConnectionError), self._inside.new_socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise BackstopError(
                    "The release does not listen on its port",
                    found="no connection to 127.0.0.1:%d in %g seconds" % (self._port, timeout),
                    hint="make sure that it reads its port from the environment",
                )
            time.sleep(POLL_SECONDS)

    def output_tail(self) -> List[str]:
        """The last lines of the release's output, without secrets."""
        return self._program.stderr_text[-ERROR_TAIL:].splitlines()[-20:]


@contextlib.contextmanager
def started(start: Start, database_port: int = 5432, serve_database: Optional[Serve] = None) -> Iterator[Trial]:
    """Start a release in isolation, and end it with all its processes when the context is left.

    :param database_port: port on the loopback addresses where the release finds what ``serve_database`` serves
    :param serve_database: without it there is no database
    :raises NotClosedOff: it cannot be isolated here; it was not started
    """
    if not os.path.isdir(start.cwd):
        raise Refused("The release to try does not exist", found="no directory " + start.cwd)
    check_port(start.port)
    own = {start.port_variable: str(start.port), "PATH": search_path(start.node_bin_dir)}
    settings: Dict[str, str] = {**start.environment, **own}
    secrets = [*secrets_of_values(start.environment), *secrets_in(os.path.join(start.cwd, ".env"))]
    check_command(start.command, Surroundings(start.cwd, settings, secrets))
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(ClosedOff(database_port))
        program = stack.enter_context(
            Running(
                inside.argv(start.command),
                environment=settings,
                cwd=start.cwd,
                stdout=subprocess.DEVNULL,
                secrets=secrets,
                keep_open=[inside.keep_open],
            )
        )
        listeners = inside.wait()
        for listener in listeners:
            stack.enter_context(listener)
        if serve_database is not None:
            stack.enter_context(serve_database(listeners))
        stack.enter_context(let_in(inside, start.port))
        # End it first: its relayed connections end with it.
        stack.callback(program.stop)
        yield Trial(program, inside, start.command, start.port)


def run(
    start: Start,
    callback: Callable[[], Value],
    health: Health,
    *,
    database_port: int = 5432,
    serve_database: Optional[Serve] = None,
) -> Outcome[Value]:
    """Start a release, wait for its health, run the callback, end the release.

    For the database see started().

    :raises BackstopError: with the end of the release's output in ``details["output"]``
    """
    begun = time.monotonic()
    with started(start, database_port, serve_database) as trial:
        try:
            if health.url:
                wait_healthy(health.url, health.expect, timeout=health.timeout, alive=trial.check_alive)
            else:
                trial.wait_listening(health.timeout)
            healthy = time.monotonic()
            value = callback()
        except BackstopError as error:
            error.details.setdefault("output", trial.output_tail())
            raise
    return Outcome(value, healthy - begun, time.monotonic() - begun)
