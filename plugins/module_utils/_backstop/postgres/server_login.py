# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to PostgreSQL at protocol level: the socket, TLS, and password authentication.

For the relay, which relays another program's messages and needs the raw connection; libpq exposes its own only without
TLS. Secrets stay in this process.

https://www.postgresql.org/docs/current/protocol-flow.html, RFC 5802 and RFC 7677 (SCRAM-SHA-256), RFC 4013 (SASLprep)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import stringprep
import struct
import unicodedata
from typing import Callable, Dict, Optional, Tuple

from ..base.errors import BackstopError, Refused
from .connection import Settings

SSL_REQUEST = 80877103
_TLS_NEEDED = ("require", "verify-ca", "verify-full")
_MECHANISM = b"SCRAM-SHA-256"
_LONGEST_MESSAGE = 1 << 20

#: A message of the server: its type, and its content after the length.
Message = Tuple[bytes, bytes]


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Exactly this many bytes; fewer only if the other side ended."""
    content = b""
    while len(content) < size:
        block = connection.recv(size - len(content))
        if not block:
            break
        content += block
    return content


def pack(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def read_message(connection: socket.socket) -> Message:
    head = read_exactly(connection, 5)
    size = struct.unpack("!i", head[1:])[0] - 4 if len(head) == 5 else -1
    content = read_exactly(connection, size) if 0 <= size <= _LONGEST_MESSAGE else b""
    if len(content) != size or (head[:1] == b"R" and size < 4):
        raise BackstopError("The server closed the connection before authentication")
    return head[:1], content


# Connecting


def reach_server(settings: Settings) -> socket.socket:
    """A connection on which only TLS was negotiated, by the same rules as libpq's sslmode.

    :raises OSError: no server answers, or the certificate is not the expected one (ssl.SSLError)
    """
    if settings.host.startswith("/"):
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.settimeout(settings.connect_timeout)
        local.connect(os.path.join(settings.host, ".s.PGSQL.%d" % settings.port))
        return local
    plain = socket.create_connection((settings.host, settings.port), settings.connect_timeout)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return plain if settings.sslmode == "disable" else _with_tls(plain, settings)
    except BaseException:
        plain.close()
        raise


def _with_tls(plain: socket.socket, settings: Settings) -> socket.socket:
    plain.sendall(struct.pack("!ii", 8, SSL_REQUEST))
    if read_exactly(plain, 1) == b"S":
        return _tls_context(settings).wrap_socket(plain, server_hostname=settings.host)
    if settings.sslmode in _TLS_NEEDED:
        raise BackstopError(
            "The server does not support TLS, and the connection requires it (sslmode=%s)" % settings.sslmode
        )
    return plain


def _tls_context(settings: Settings) -> ssl.SSLContext:
    own = os.path.expanduser("~/.postgresql/root.crt")
    authority = settings.sslrootcert or (own if os.path.exists(own) else "")
    strict = settings.sslmode == "verify-full" or dict(settings.prisma).get("sslaccept") == "strict"
    checked = strict or settings.sslmode == "verify-ca" or (settings.sslmode == "require" and bool(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = strict
    context.verify_mode = ssl.CERT_REQUIRED if checked else ssl.CERT_NONE
    if checked and authority not in ("", "system"):
        context.load_verify_locations(authority)
    elif checked:
        context.load_default_certs()
    return context


# Authentication


def log_in(connection: socket.socket, settings: Settings, startup: bytes, pass_on: Callable[[bytes], None]) -> bool:
    """Send a program's startup message and answer authentication requests until the server accepts the login.

    :param startup: the program's own message, which names database, user and options
    :param pass_on: gets the messages for the program: notices, the server's refusal, AuthenticationOk
    :returns: whether the server accepted the login
    :raises BackstopError: the authentication method is not supported, or the server does not prove that it knows the
        password
    """
    connection.sendall(startup)
    scram: Optional[Scram] = None
    while True:
        kind, content = read_message(connection)
        if kind != b"R":
            pass_on(pack(kind, content))
            if kind == b"E":
                return False
            continue
        (asked,) = struct.unpack("!i", content[:4])
        if asked == 0:
            if scram is not None and not scram.proved:
                raise _no_proof()
            pass_on(pack(kind, content))
            return True
        if asked == 10:
            if _MECHANISM not in content[4:].split(b"\0"):
                raise _not_known(asked)
            scram = Scram(settings.password)
        connection.sendall(_answer(asked, content[4:], settings, scram))


def _answer(asked: int, content: bytes, settings: Settings, scram: Optional["Scram"]) -> bytes:
    if asked == 3:
        return pack(b"p", settings.password.encode() + b"\0")
    if asked == 5:
        return pack(b"p", _md5(settings, content) + b"\0")
    if scram is None:
        raise _not_known(asked)
    if asked == 10:
        first = scram.first()
        return pack(b"p", _MECHANISM + b"\0" + struct.pack("!i", len(first)) + first)
    if asked == 11:
        return pack(b"p", scram.final(content))
    if asked == 12:
        scram.verify(content)
        return b""
    raise _not_known(asked)


def _not_known(asked: int) -> Refused:
    return Refused(
        "The server requires another authentication method than a password",
        found="authentication request %d" % asked,
        expected="scram-sha-256, md5 or password in pg_hba.conf",
    )


def _no_proof() -> BackstopError:
    return BackstopError("The server did not prove that it knows the password")


def _md5(settings: Settings, salt: bytes) -> bytes:
    inner = hashlib.md5(settings.password.encode() + settings.user.encode()).hexdigest().encode()
    return b"md5" + hashlib.md5(inner + salt).hexdigest().encode()


class Scram:
    """SCRAM-SHA-256 for one login, without channel binding, like libpq without TLS."""

    def __init__(self, password: str, nonce: Optional[str] = None) -> None:
        self._password = prepared(password).encode()
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
        self._signature = b""
        #: Whether the server has proved that it knows the password too.
        self.proved = False

    def first(self) -> bytes:
        # The server takes the user's name from the startup message.
        return b"n,," + self._bare()

    def _bare(self) -> bytes:
        return b"n=,r=" + self._nonce.encode()

    def final(self, challenge: bytes) -> bytes:
        given = _attributes(challenge)
        try:
            nonce, salt, rounds = given["r"], base64.b64decode(given["s"]), int(given["i"])
        except (KeyError, ValueError):
            raise BackstopError("The server's authentication request cannot be read") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce or rounds < 1:
            raise BackstopError("The server's authentication request does not match ours")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds)
        without_proof = b"c=biws,r=" + nonce.encode()
        signed = b",".join((self._bare(), challenge, without_proof))
        key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(key).digest(), signed)
        self._signature = _hmac(_hmac(salted, b"Server Key"), signed)
        proof = bytes(left ^ right for left, right in zip(key, signature))
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, final: bytes) -> None:
        said = _attributes(final).get("v", "").encode()
        self.proved = bool(self._signature) and hmac.compare_digest(said, base64.b64encode(self._signature))
        if not self.proved:
            raise _no_proof()


def _attributes(text: bytes) -> Dict[str, str]:
    return {part[:1]: part[2:] for part in text.decode("utf-8", "replace").split(",") if part[1:2] == "="}


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def prepared(password: str) -> str:
    """A password as PostgreSQL normalises it (SASLprep); unchanged if the rules forbid it."""
    mapped = "".join(
        " " if stringprep.in_table_c12(letter) else letter for letter in password if not stringprep.in_table_b1(letter)
    )
    text = unicodedata.normalize("NFKC", mapped)
    return text if text and not _forbidden(text) else password


def _forbidden(text: str) -> bool:
    tables = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if any(table(letter) for table in tables for letter in text):
        return True
    right_to_left = [stringprep.in_table_d1(letter) for letter in text]
    if not any(right_to_left):
        return False
    both = any(stringprep.in_table_d2(letter) for letter in text)
    return both or not (right_to_left[0] and right_to_left[-1])
