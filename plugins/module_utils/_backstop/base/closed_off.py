# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running a command in isolation: the kernel keeps it and its child processes from every network and from every
server's socket on the host, except for relayed connections. See :mod:`.closed_program`."""

from __future__ import annotations

import array
import contextlib
import inspect
import socket
import sys
import threading
from typing import Iterator, List, Sequence, Tuple

from . import closed_program
from .carrying import carry
from .errors import Refused

_SECONDS_TO_CLOSE = 30


def _program(role: str) -> List[str]:
    return [sys.executable, "-c", inspect.getsource(closed_program), role]


def closed_server(command: Sequence[str]) -> List[str]:
    """The argument list that runs a server which can connect to nothing, nor can its children; it listens only on Unix
    sockets. Every user may do so on Linux (x86_64, aarch64); elsewhere the server does not start.
    """
    return [*_program("server"), *command]


class NotClosedOff(Refused):
    """This host does not allow a program to be isolated."""


class ClosedOff:
    """The connection to an isolated command. Use as a context manager around the running command."""

    def __init__(self, port: int) -> None:
        """:param port: port on the loopback addresses inside, on which the listeners of :meth:`wait` listen"""
        self._port = port
        self._ours, self._theirs = socket.socketpair()
        self._lock = threading.Lock()

    def __enter__(self) -> "ClosedOff":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ours.close()
        self._theirs.close()

    @property
    def keep_open(self) -> int:
        """The descriptor that the program must inherit."""
        return self._theirs.fileno()

    def argv(self, command: Sequence[str]) -> List[str]:
        return [*_program("client"), str(self.keep_open), str(self._port), *command]

    def wait(self) -> List[socket.socket]:
        """Wait until the program is isolated; the command starts then. Returns the listeners inside.

        :raises NotClosedOff: it cannot be isolated; the command was not started
        """
        self._theirs.close()  # so that its end is detected
        self._ours.settimeout(_SECONDS_TO_CLOSE)
        try:
            text, found = self._receive()
        except OSError as error:
            text, found = str(error).encode(), []
        if not text.startswith(b"R"):
            raise NotClosedOff(
                "A program cannot be isolated from the network on this host",
                found=text[1:].decode(errors="replace") or "it ended without output",
                hint="allow user namespaces (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
            )
        return found

    def new_socket(self) -> socket.socket:
        """A TCP socket inside, not yet connected."""
        with self._lock:
            self._ours.sendall(b"s")
            _text, found = self._receive()
        if not found:
            raise ConnectionError("the program has ended")
        return found[0]

    def _receive(self) -> Tuple[bytes, List[socket.socket]]:
        numbers = array.array("i")
        text, ancillary, _flags, _address = self._ours.recvmsg(
            1024, socket.CMSG_SPACE(4 * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for _level, _kind, content in ancillary:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
        return text, [socket.socket(fileno=number) for number in numbers]


@contextlib.contextmanager
def let_in(room: ClosedOff, port: int) -> Iterator[None]:
    """Relay connections to a port on this host's loopback address to the same port inside."""
    alive, end = socket.socketpair()
    threads: List[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), room.new_socket() as inside:
            inside.connect(("127.0.0.1", port))
            carry(client, inside, alive)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", port)) as listener:
        accepting = threading.Thread(target=listen, daemon=True)
        accepting.start()
        try:
            yield
        finally:
            # Wakes accept(), which close() does not.
            listener.shutdown(socket.SHUT_RDWR)
            end.close()
            for thread in (accepting, *threads):
                thread.join(5)
            alive.close()
