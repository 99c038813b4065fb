# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A relay to a server that needs no password, for a program that would show one: a socket in a private directory.

A program connects there without a password. This process opens its own connection, sends the password to the server,
and relays all bytes in both directions. Startup message, answers, COPY, notices and errors are those of the program and
the server.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import tempfile
import threading
from typing import Callable, Dict, Iterator, List, Sequence, Tuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ..base.carrying import carry
from ..base.errors import BackstopError, Refused
from ..base.private_directory import private_directory
from .connection import Settings
from .server_login import SSL_REQUEST, log_in, pack, reach_server, read_exactly

#: The port in the socket's name; the directory distinguishes relays.
_PORT = 5432
#: Parameters of the relay's own connection to the server, and secrets.
_OURS = ("host", "password", "sslmode", "sslaccept", "sslcert", "sslrootcert", "sslidentity", "sslpassword")
_GSS_REQUEST, _CANCEL_REQUEST = 80877104, 80877102
#: The limit of the server: MAX_STARTUP_PACKET_LENGTH.
_LONGEST_STARTUP = 10000
_LONGEST_PATH = 107
#: Timeout for a program's startup message, and for the end of a connection.
_PATIENCE = 10.0
#: Gets a program's startup message, returns the one for the server; raises to refuse it.
Admission = Callable[[bytes], bytes]


@contextlib.contextmanager
def relayed(url: str) -> Iterator[str]:
    """Run a relay to the server of a URL; yields the same URL with the relay's socket, without secrets."""
    settings = Settings.from_url(url)
    if "sslidentity" in dict(settings.prisma):
        raise Refused(
            "A certificate of the client cannot be used together with a password here",
            found="sslidentity and a secret in the connection's URL",
            hint="leave the password out if the server takes the certificate (cert in pg_hba.conf)",
        )
    with private_directory() as folder:
        path = os.path.join(folder, ".s.PGSQL.%d" % _PORT)
        if len(path.encode()) > _LONGEST_PATH:
            raise Refused(
                "The directory for temporary files has too long a name for a socket",
                found=tempfile.gettempdir(),
                hint="set TMPDIR to a directory with a shorter path",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen()
            with _serving([listener], settings, lambda startup: _require_user(startup, settings.user)):
                yield _through(url, settings.user, folder)


@contextlib.contextmanager
def only_to(listeners: Sequence[socket.socket], settings: Settings, also_called: str) -> Iterator[List[str]]:
    """Run a relay to a single database, for a program without any other database connection.

    :param listeners: TCP sockets that only that program can reach
    :param settings: the database; every connection uses its user
    :param also_called: name of another database, which is accepted as an alias
    :returns: requests that were refused, as they occur
    """
    refused: List[str] = []

    def admit(startup: bytes) -> bytes:
        try:
            return _for_copy(startup, settings, also_called)
        except Refused as error:
            refused.append(str(error.found))
            raise

    with _serving(listeners, settings, admit):
        yield refused


@contextlib.contextmanager
def _serving(listeners: Sequence[socket.socket], settings: Settings, admit: Admission) -> Iterator[None]:
    relay = _Relay(listeners, settings, admit)
    try:
        yield
    finally:
        relay.close()


def _through(url: str, user: str, folder: str) -> str:
    parts = urlsplit(url)
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in _OURS]
    query = urlencode([*pairs, ("host", folder)], quote_via=quote)
    return "%s://%s@localhost:%d%s?%s" % (parts.scheme, quote(user, safe=""), _PORT, parts.path, query)


class _Relay:
    """Listens in one thread and serves each connection in another."""

    def __init__(self, listeners: Sequence[socket.socket], settings: Settings, admit: Admission) -> None:
        self._listeners = listeners
        self._settings = settings
        self._admit = admit
        # Its other end is closed when the relay ends, which all threads can detect.
        self._alive, self._end = socket.socketpair()
        self._threads: List[threading.Thread] = []
        self._start(self._listen)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        self._end.close()
        for thread in list(self._threads):
            thread.join(_PATIENCE)
        self._alive.close()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (*self._listeners, self._alive):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _events in selector.select()]
                if self._alive in ready:
                    return
                for listener in self._listeners:
                    if listener in ready:
                        client, _address = listener.accept()
                        self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        # An error of one connection is sent to its program, if that is still connected.
        with client:
            try:
                self._connect(client)
            except BackstopError as error:
                _tell(client, str(error))
            except OSError as error:
                _tell(client, "The connection to %s failed: %s" % (self._settings.masked, error.strerror or error))

    def _connect(self, client: socket.socket) -> None:
        if not _is_ours(client):
            return
        client.settimeout(_PATIENCE)
        code, startup = _startup_message(client)
        if code == _CANCEL_REQUEST:
            with reach_server(self._settings) as server:
                server.sendall(startup)
                server.recv(1)
            return
        if not startup:
            return
        startup = self._admit(startup)
        with reach_server(self._settings) as server:
            if log_in(server, self._settings, startup, client.sendall):
                # If one side disconnects, both connections are closed.
                with contextlib.suppress(OSError):
                    carry(client, server, self._alive)


def _is_ours(client: socket.socket) -> bool:
    """The directory admits no other user; the kernel is asked too, where it can be."""
    if client.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return True
    _pid, user, _group = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.geteuid())


def _startup_message(client: socket.socket) -> Tuple[int, bytes]:
    """The code and all bytes of the first message; empty without one."""
    while True:
        head = read_exactly(client, 8)
        if len(head) < 8:
            return 0, b""
        size, code = struct.unpack("!ii", head)
        if not 8 <= size <= _LONGEST_STARTUP:
            return 0, b""
        if code not in (SSL_REQUEST, _GSS_REQUEST):
            rest = read_exactly(client, size - 8)
            return code, head + rest if len(rest) == size - 8 else b""
        client.sendall(b"N")


def _wanted(startup: bytes) -> Dict[bytes, bytes]:
    words = startup[8:].split(b"\0")
    return dict(zip(words[::2], words[1::2]))


def _require_user(startup: bytes, user: str) -> bytes:
    named = _wanted(startup).get(b"user", b"")
    if named != user.encode():
        raise Refused("The relay is for another user", found=named.decode(errors="replace"), expected=user)
    return startup


def _for_copy(startup: bytes, settings: Settings, also_called: str) -> bytes:
    """The startup message for the one database, if the program asked for it or its alias."""
    wanted = {key: value for key, value in _wanted(startup).items() if key}
    name = wanted.get(b"database", wanted.get(b"user", b"")).decode(errors="replace")
    if name not in (settings.database, also_called):
        raise Refused("This relay connects only to one database", found="database " + name, expected=settings.database)
    # A walsender can read all databases, whatever it names.
    if wanted.pop(b"replication", b"false") not in (b"false", b"off", b"no", b"0"):
        raise Refused("This relay connects only to one database", found="a connection for replication")
    wanted.update({b"user": settings.user.encode(), b"database": settings.database.encode()})
    content = startup[4:8] + b"".join(key + b"\0" + value + b"\0" for key, value in wanted.items()) + b"\0"
    return struct.pack("!i", len(content) + 4) + content


def _tell(client: socket.socket, text: str) -> None:
    fields = (b"SFATAL", b"VFATAL", b"C08006", b"M" + text.encode())
    with contextlib.suppress(OSError):
        client.sendall(pack(b"E", b"\0".join(fields) + b"\0\0"))
