# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A way to a server that needs no password, for a program that would show one: a socket in a private directory.

A program that connects there is let in without being asked. Behind the socket this process opens a connection of its
own, gives the server the password, and carries every byte in both directions. Startup message, answers, COPY,
notices and errors are the program's and the server's own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import struct
import tempfile
import threading
from typing import Callable, Iterator, List, Tuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ..base.errors import BackstopError, Refused
from ..base.private_directory import private_directory
from .connection import Settings
from .server_login import SSL_REQUEST, log_in, pack, reach_server, read_exactly

#: Of the socket's name; the directory tells relays apart.
_PORT = 5432
#: Parameters that concern the way to the server, which is ours; and its secrets.
_OURS = ("host", "password", "sslmode", "sslaccept", "sslcert", "sslrootcert", "sslidentity", "sslpassword")
_GSS_REQUEST, _CANCEL_REQUEST = 80877104, 80877102
#: libpq's limit is the server's: MAX_STARTUP_PACKET_LENGTH.
_LONGEST_STARTUP = 10000
_LONGEST_PATH = 107
_BLOCK = 65536
#: How long a program may take for its startup message, and a connection to end.
_PATIENCE = 10.0
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@contextlib.contextmanager
def relayed(url: str) -> Iterator[str]:
    """Keep a relay to the server of a URL; yields the same URL through its socket, which holds no secret."""
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
            relay = _Relay(listener, settings)
            try:
                yield _through(url, settings.user, folder)
            finally:
                relay.close()


def _through(url: str, user: str, folder: str) -> str:
    parts = urlsplit(url)
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in _OURS]
    query = urlencode([*pairs, ("host", folder)], quote_via=quote)
    return "%s://%s@localhost:%d%s?%s" % (parts.scheme, quote(user, safe=""), _PORT, parts.path, query)


class _Relay:
    """Listens in one thread and serves each connection in one of its own."""

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._listener = listener
        self._settings = settings
        # Its other end is closed for all to see when the relay ends.
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
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._alive, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _events in selector.select()]
                if self._alive in ready:
                    return
                client, _address = self._listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        # Whatever goes wrong with one connection is told to its program, if that still listens.
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
        _require_user(startup, self._settings.user)
        with reach_server(self._settings) as server:
            if log_in(server, self._settings, startup, client.sendall):
                # A side that breaks off ends both; each sees it by itself.
                with contextlib.suppress(OSError):
                    _carry(client, server, self._alive)


def _is_ours(client: socket.socket) -> bool:
    """The directory lets nobody else in; the kernel is asked too, where it can be."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _pid, user, _group = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.geteuid())


def _startup_message(client: socket.socket) -> Tuple[int, bytes]:
    """The code and all bytes of the message that says what the program wants; empty where it says nothing."""
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


def _require_user(startup: bytes, user: str) -> None:
    words = startup[8:].split(b"\0")
    named = dict(zip(words[::2], words[1::2])).get(b"user", b"")
    if named != user.encode():
        raise Refused("The relay is for another user", found=named.decode(errors="replace"), expected=user)


def _tell(client: socket.socket, text: str) -> None:
    fields = (b"SFATAL", b"VFATAL", b"C08006", b"M" + text.encode())
    with contextlib.suppress(OSError):
        client.sendall(pack(b"E", b"\0".join(fields) + b"\0\0"))


class _Way:
    """One direction of a connection; what was read is sent on before more is read."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = b""
        self.ended = False

    @property
    def over(self) -> bool:
        return self.ended and not self.waiting

    def move(self) -> bool:
        """Whether anything could be moved without waiting."""
        moved = False
        with contextlib.suppress(*_LATER):
            if not self.waiting and not self.ended:
                self.waiting = self.source.recv(_BLOCK)
                self.ended = not self.waiting
                moved = True
        with contextlib.suppress(*_LATER):
            if self.waiting:
                self.waiting = self.waiting[self.target.send(self.waiting) :]
                moved = True
        return moved


def _carry(client: socket.socket, server: socket.socket, alive: socket.socket) -> None:
    """Carry bytes until one side ends, or the relay."""
    client.setblocking(False)
    server.setblocking(False)
    there, back = _Way(client, server), _Way(server, client)
    while not (there.over or back.over):
        # Asked before waiting: TLS may hold bytes back of which a selector knows nothing.
        if any([there.move(), back.move()]):
            continue
        with selectors.DefaultSelector() as selector:
            selector.register(alive, selectors.EVENT_READ)
            for incoming, outgoing in ((there, back), (back, there)):
                events = 0 if incoming.waiting else selectors.EVENT_READ
                events |= selectors.EVENT_WRITE if outgoing.waiting else 0
                if events:
                    selector.register(incoming.source, events)
            if any(key.fileobj is alive for key, _events in selector.select()):
                return
