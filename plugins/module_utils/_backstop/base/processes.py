# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running programs: argument lists only, exit status always checked, secrets never shown, nothing left running."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, cast

from .errors import BackstopError, Refused
from .progress import followed
from .secret_texts import passwords_of_url

#: Length of a program's error output in an error, in characters from its end.
ERROR_TAIL = 2000
HIDDEN = "********"
#: Time to drain output after a program has ended: its remaining children can keep its pipes open for ever.
_DRAIN_SECONDS = 5.0
#: The umask is per process: two threads that start programs must not restore each other's value.
_UMASK_LOCK = threading.Lock()


@dataclass
class Finished:
    """The result of a program that has ended."""

    argv: List[str]
    status: int
    stdout: str
    stderr: str
    #: its raw output: secrets are hidden in the texts only, where they may be part of a common word
    output: bytes = b""


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    with _UMASK_LOCK:
        before = os.umask(mask)
        try:
            yield
        finally:
            os.umask(before)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text."""
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def gives_away(part: str, secret: str) -> bool:
    """Whether an argument shows a secret as such. A password may also be a common word, such as the database's name."""
    if secret in part and passwords_of_url(secret):
        return True
    return (
        ":%s@" % secret in part or re.search(r"(?i)passw(or)?d['\" ]*[=:]['\" ]*" + re.escape(secret), part) is not None
    )


def find_program(name: str, folders: Sequence[str] = ()) -> Optional[str]:
    """Path of a program in the given folders, else in PATH."""
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return shutil.which(name)


def stat_fields(pid: int) -> List[str]:
    """State, parent, group and further fields of a process (proc(5)); empty where the system reports nothing."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def child_environment(extra: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """The environment for a child: ours, with English messages, without variables that change where libpq connects or
    what rclone does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "RCLONE_"))}
    environment.update(LC_ALL="C.UTF-8", LANG="C.UTF-8", LANGUAGE="")
    environment.update(extra or {})
    return environment


def _die_with_parent() -> None:
    """Linux: the kernel kills the child when its parent dies, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG = 1)."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)


_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


class Running:
    """A program that runs in its own session; use as a context manager, which ends it if it still runs."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        stdin: Optional[int] = subprocess.DEVNULL,
        stdout: Optional[int] = subprocess.PIPE,
        secrets: Iterable[str] = (),
        keep_open: Sequence[int] = (),
        umask: int = 0o077,
        fed_by: Optional["Running"] = None,
    ) -> None:
        """:param fed_by: a program whose output this one reads; it ends with this one, and its failure is this one's"""
        self.argv = [str(part) for part in argv]
        self._fed_by = fed_by
        self._secrets = list(secrets)
        if any(gives_away(part, secret) for part in self.argv for secret in self._secrets if secret):
            raise AssertionError("a secret in an argument list")
        try:
            with _umask(umask):
                self.process = subprocess.Popen(
                    self.argv,
                    env=child_environment(environment),
                    cwd=cwd,
                    stdin=fed_by.stdout if fed_by is not None else stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=tuple(keep_open),
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            if fed_by is not None:
                fed_by.__exit__()
            raise Refused(
                "A program could not be started", found="%s: %s" % (self.argv[0], error.strerror or error)
            ) from error
        if fed_by is not None:
            # Only the program may read the pipe: its writer must get SIGPIPE when it ends.
            fed_by.stdout.close()
        self._stderr: List[bytes] = []
        # Read stderr at once: a child that fills the pipe would wait for ever.
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        _read_all(cast(IO[bytes], self.process.stderr).fileno(), self._stderr)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self._fed_by is not None:
            self._fed_by.__exit__()

    @property
    def stdout(self) -> IO[bytes]:
        return cast(IO[bytes], self.process.stdout)

    @property
    def stdin(self) -> IO[bytes]:
        return cast(IO[bytes], self.process.stdin)

    def stop(self, grace_seconds: float = 5) -> None:
        """End the program and all processes that it started."""
        for what in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, what)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_seconds)
        # Children of the program may outlive it; their group still has its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def bytes_counted(self, counter: str) -> int:
        """Bytes that this program, or the one that feeds it, has read or written, as the kernel counts them.

        :param counter: ``rchar`` or ``wchar``, see proc(5); network connections count too
        """
        pid = self._fed_by.process.pid if self._fed_by is not None else self.process.pid
        with open("/proc/%d/io" % pid, encoding="ascii") as stream:
            return int(dict(line.split(": ") for line in stream)[counter])

    def wait(self, timeout: Optional[float] = None) -> int:
        """Exit status of the program; the caller checks it."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise BackstopError(
                "A program took too long and was ended",
                found="%s ran longer than %g seconds" % (os.path.basename(self.argv[0]), timeout or 0),
            ) from None
        self._reader.join(_DRAIN_SECONDS)
        if self._fed_by is not None:
            self._fed_by.require_fed(timeout)
        return status

    def require_fed(self, timeout: Optional[float] = None) -> None:
        """Raise unless this program wrote all that its reader wanted: a reader may stop before the end."""
        status = self.wait(timeout)
        if status not in (0, -signal.SIGPIPE):
            raise self.failure("A program that feeds another one failed", status)

    def failure(self, what: str, status: int, hint: Optional[str] = None) -> BackstopError:
        return BackstopError(what, found=describe_failure(self.argv[0], status, self.stderr_text), hint=hint)

    @property
    def stderr_text(self) -> str:
        return redact(b"".join(self._stderr).decode(errors="replace"), self._secrets)

    def check(self, what: str, timeout: Optional[float] = None, hint: Optional[str] = None) -> None:
        """Wait for the end and raise unless the status is 0.

        :param what: what failed, for the error: "pg_dump failed"
        """
        status = self.wait(timeout)
        if status != 0:
            raise self.failure(what, status, hint)


def describe_failure(program: str, status: int, stderr: str) -> str:
    """One line on how a program ended, with the end of its error output."""
    name = os.path.basename(program)
    if status < 0:
        how = "%s was killed by signal %d" % (name, -status)
    else:
        how = "%s ended with status %d" % (name, status)
    said = " | ".join(line.strip() for line in stderr.strip()[-ERROR_TAIL:].splitlines() if line.strip())
    return how + (": " + said if said else ", without output")


def run(
    argv: Sequence[str],
    *,
    environment: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
    data: Optional[bytes] = None,
    timeout: Optional[float] = None,
    secrets: Iterable[str] = (),
    keep_open: Sequence[int] = (),
    check: Optional[str] = None,
    fed_by: Optional[Running] = None,
    watch: Optional[Callable[[Running], None]] = None,
) -> Finished:
    """Run a program to its end.

    :param data: its standard input
    :param timeout: in seconds; then it and its children are ended
    :param secrets: texts to hide in its output and in errors
    :param check: the error's message if the status is not 0; None leaves the check to the caller
    :param fed_by: a program whose output it reads on standard input; it ends with it, and its failure is an error
    :param watch: called about once a second while it runs; see followed()
    """
    secrets = list(secrets)
    with Running(
        argv,
        environment=environment,
        cwd=cwd,
        stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
        secrets=secrets,
        keep_open=keep_open,
        fed_by=fed_by,
    ) as program:
        output: List[bytes] = []
        reader = threading.Thread(target=_read_all, args=(program.stdout.fileno(), output), daemon=True)
        reader.start()
        if data is not None:
            with contextlib.suppress(BrokenPipeError):
                program.stdin.write(data)
            with contextlib.suppress(BrokenPipeError):
                program.stdin.close()
        with followed(lambda: watch(program)) if watch else contextlib.nullcontext():
            status = program.wait(timeout)
        reader.join(_DRAIN_SECONDS)
        written = b"".join(output)
        stdout = redact(written.decode(errors="replace"), secrets)
        if check and status != 0:
            raise BackstopError(check, found=describe_failure(argv[0], status, program.stderr_text or stdout))
        return Finished(program.argv, status, stdout, program.stderr_text, written)


def _read_all(descriptor: int, blocks: List[bytes]) -> None:
    """Read to the end. Not through the stream object: closing that would wait for a blocked read."""
    with contextlib.suppress(OSError):
        for block in iter(lambda: os.read(descriptor, 65536), b""):
            blocks.append(block)


@dataclass
class _Deferral:
    """Deferred signals of this process; there is only one object, because a process has only one handler per signal."""

    depth: int = 0
    interrupted: Optional[BackstopError] = None


_DEFERRAL = _Deferral()


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Around code that must not be interrupted: an error of signals_as_errors() is raised at the end instead."""
    _DEFERRAL.depth += 1
    try:
        yield
    finally:
        _DEFERRAL.depth -= 1
    if _DEFERRAL.depth == 0 and _DEFERRAL.interrupted is not None:
        interrupted, _DEFERRAL.interrupted = _DEFERRAL.interrupted, None
        raise interrupted


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """Turn SIGINT (Ctrl-C), SIGTERM and SIGHUP into an error, so that cleanup code runs."""

    def stop(number: int, _frame: object) -> None:
        error = BackstopError("Interrupted", found="signal %d" % number, hint="run this again")
        if _DEFERRAL.depth == 0:
            raise error
        _DEFERRAL.interrupted = error

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _DEFERRAL.interrupted = None
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
