# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encryption with age: files are encrypted while they are written, and decrypted while they are read.

Public keys (recipients) are not secret. A private key (identity) is only ever a path here: age reads the file itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import stat
import subprocess
import threading
from typing import IO, Iterator, List, Optional, Sequence, Tuple

from .durable_files import file_error, private_file
from .errors import BackstopError, CouldNotVerify, Refused
from .processes import Running, describe_failure, find_program

#: Suffix of encrypted files.
SUFFIX = ".age"
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{20,}|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]+(?: [^\r\n]*)?")
_BLOCK = 1 << 20
#: age's errors about the identity, not about the file that it decrypts.
_NOT_FOR_THIS_IDENTITY = "no identity matched"
_BAD_IDENTITY = (
    "unknown identity type",
    "malformed secret key",
    "no secret keys",
    "could not read passphrase",
    'reading "',
)


def require_recipients(recipients: Sequence[str]) -> None:
    """:raises Refused: a value is not a public key; it is not shown, because it may be a private one"""
    for number, recipient in enumerate(recipients, 1):
        if not _RECIPIENT.fullmatch(recipient):
            private = recipient.strip().upper().startswith("AGE-SECRET-KEY")
            raise Refused(
                "A recipient is not a public key of age",
                found="number %d is %s" % (number, "a private key" if private else "something else"),
                expected="age1..., as age-keygen prints it, or a public key of ssh",
                hint="remove the private key here, and create a new one" if private else None,
            )


def find_age() -> str:
    path = find_program("age")
    if path is None:
        raise Refused(
            "The program age is missing on this host",
            found="none in PATH",
            expected="age 1.0 or newer, for encrypted backups",
            hint="install it: apt-get install age",
        )
    return path


@dataclasses.dataclass(frozen=True)
class Encrypted:
    """An encrypted file, and the identity file that can decrypt it."""

    path: str
    identity: str


def require_identity(path: str) -> str:
    """The path of an identity file that other users cannot read.

    :raises CouldNotVerify: it is missing or cannot be read
    """
    try:
        with open(path, "rb") as stream:
            state = os.fstat(stream.fileno())
    except OSError as error:
        raise CouldNotVerify(
            "The identity of age cannot be read",
            found="%s: %s" % (path, error.strerror),
            expected="a file of age-keygen",
        ) from None
    if stat.S_IMODE(state.st_mode) & 0o077:
        raise Refused(
            "Other users can read the identity of age",
            found="%s has mode %04o" % (path, stat.S_IMODE(state.st_mode)),
            expected="0600",
            hint="create a new identity; anyone who saw this one can read every backup encrypted to it",
        )
    return path


class Decrypting(Running):
    """age, which writes a decrypted file to standard output. Its reader must check the exit status too."""

    def __init__(self, source: Encrypted, keep_open: Sequence[int] = ()) -> None:
        self._source = source
        identity = require_identity(source.identity)
        super().__init__([find_age(), "--decrypt", "--identity", identity, source.path], keep_open=keep_open)

    def failure(self, what: str, status: int, hint: Optional[str] = None) -> BackstopError:
        """Our own message where age complains about the identity: its message could quote that file."""
        said = self.stderr_text
        if _NOT_FOR_THIS_IDENTITY in said:
            return CouldNotVerify(
                "The identity does not open this backup",
                found="%s is not a recipient of %s" % (self._source.identity, self._source.path),
                hint="give the identity of a recipient that the manifest names",
            )
        if any(mark in said for mark in _BAD_IDENTITY):
            return CouldNotVerify(
                "The identity of age cannot be used",
                found=self._source.identity,
                expected="a file of age-keygen, or a private ssh key, without a passphrase",
            )
        return BackstopError(
            "The encrypted file cannot be decrypted completely",
            found=describe_failure(self.argv[0], status, _without_advertising(said)),
            hint="use another backup",
        )


def _without_advertising(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if "report unexpected or unhelpful errors" not in line)


def decrypt(source: Encrypted, keep_open: Sequence[int] = ()) -> bytes:
    """The whole content of a small encrypted file, in memory."""
    with Decrypting(source, keep_open) as program:
        content = program.stdout.read()
        program.check("A file cannot be decrypted")
        return content


class Encrypting:
    """A new file, encrypted for recipients while it is written; use as a context manager and finish() at the end."""

    def __init__(self, path: str, recipients: Sequence[str], keep_open: Sequence[int] = ()) -> None:
        if not recipients:
            raise AssertionError("no recipient")
        require_recipients(recipients)
        self.path = path
        argv = [find_age(), "--encrypt"]
        for recipient in recipients:
            argv += ["--recipient", recipient]
        self._age = Running(argv, stdin=subprocess.PIPE, keep_open=keep_open)
        self._digest = hashlib.sha256()
        self._error: Optional[OSError] = None
        self._copying = threading.Thread(target=self._copy, daemon=True)
        self._copying.start()

    def __enter__(self) -> "Encrypting":
        return self

    def __exit__(self, *_exc: object) -> None:
        # The thread ends when age does; its pipe must not be closed before.
        self.stop()
        self._age.__exit__()

    def stop(self) -> None:
        """End age if it still runs; what it wrote so far stays."""
        self._age.stop()
        self._copying.join()

    def _copy(self) -> None:
        """Write age's output to the file and to the digest."""
        try:
            with private_file(self.path) as stream:
                for block in iter(lambda: os.read(self._age.stdout.fileno(), _BLOCK), b""):
                    self._digest.update(block)
                    stream.write(block)
        except OSError as error:
            self._error = error
            # Else age, and the process that writes to it, would wait for ever.
            self._age.process.kill()

    def write(self, block: bytes) -> None:
        """:raises BrokenPipeError: age has ended; finish() reports why"""
        self._age.stdin.write(block)

    def finish(self) -> str:
        """Wait until all is on disk; returns the sha256 of age's output.

        :raises BackstopError: the file is incomplete
        """
        with contextlib.suppress(BrokenPipeError):
            self._age.stdin.close()
        status = self._age.wait()
        self._copying.join()
        if self._error is not None:
            raise file_error("An encrypted file could not be written", self.path, self._error)
        if status != 0:
            found = describe_failure(self._age.argv[0], status, _without_advertising(self._age.stderr_text))
            raise BackstopError("age could not encrypt", found=found)
        return self._digest.hexdigest()


def encrypt(content: bytes, path: str, recipients: Sequence[str], keep_open: Sequence[int] = ()) -> str:
    """Write a small encrypted file; returns the sha256 of its content."""
    with Encrypting(path, recipients, keep_open) as target:
        with contextlib.suppress(BrokenPipeError):
            target.write(content)
        return target.finish()


class Tee:
    """Copies a stream to an encrypted file and to other programs, in its own thread.

    A program may stop reading early; its exit status shows whether it succeeded.
    """

    def __init__(self, source: IO[bytes], target: Encrypting, readers: Sequence[Running]) -> None:
        self._source, self._target = source, target
        self._readers: List[Running] = list(readers)
        #: whether writing the file failed, so that the source was closed early
        self.cut_off = False
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        sinks: List[Tuple[IO[bytes], Running]] = [(reader.stdin, reader) for reader in self._readers]
        try:
            for block in self._blocks():
                self._target.write(block)
                for sink in list(sinks):
                    try:
                        sink[0].write(block)
                        sink[0].flush()
                    except BrokenPipeError:
                        sinks.remove(sink)
        except BrokenPipeError:
            # age has ended: the process that writes to us must end, not wait.
            self.cut_off = True
            self._source.close()
        for reader in self._readers:
            with contextlib.suppress(OSError):
                reader.stdin.close()

    def _blocks(self) -> Iterator[bytes]:
        return iter(lambda: os.read(self._source.fileno(), _BLOCK), b"")

    def wait(self) -> None:
        self._thread.join()
