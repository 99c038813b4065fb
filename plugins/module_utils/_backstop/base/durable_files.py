# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that survive a crash: written to a temporary file, synced, renamed, never readable by other users; and locks
that are released when their holder dies."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import time
from typing import IO, Any, Callable, Dict, Iterator, Mapping, Optional, Type

from .errors import BackstopError, Locked, Refused

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def fsync_file(path: str, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: str) -> None:
    fsync_file(path, os.O_DIRECTORY)


def fsync_tree(path: str) -> None:
    """Sync every file and directory below a directory, and the directory itself."""
    for folder, _folders, files in os.walk(path):
        for name in files:
            fsync_file(os.path.join(folder, name))
        fsync_directory(folder)


def make_private_directory(path: str) -> None:
    """Create a directory with mode 0700 whatever the umask, including missing parents.

    An existing directory must be owned by this user; its mode is not widened.
    """
    try:
        if not os.path.isdir(path):
            parent = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(parent):
                make_private_directory(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, PRIVATE_DIRECTORY)
                os.chmod(path, PRIVATE_DIRECTORY)
                fsync_directory(parent)
    except OSError as error:
        raise file_error("A directory could not be created", path, error) from error


@contextlib.contextmanager
def private_file(path: str) -> Iterator[IO[bytes]]:
    """A new file with mode 0600, synced at the end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(stream.fileno(), PRIVATE_FILE)
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def write_file(path: str, content: bytes) -> None:
    """Write a whole file with mode 0600, atomically: readers see the old content or the new, also after a crash."""
    partial = "%s.partial.%d" % (path, os.getpid())
    try:
        with private_file(partial) as stream:
            stream.write(content)
        os.replace(partial, path)
        fsync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise file_error("A file could not be written", path, error) from error


def write_volatile(path: str, content: bytes) -> None:
    """Like write_file(), but what was written last may be lost in a crash of the host.

    :raises OSError: it could not be written
    """
    partial = "%s.partial.%d" % (path, os.getpid())
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    os.replace(partial, path)


def write_json(path: str, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def known_fields(kind: Type[Any], value: Mapping[str, Any]) -> Dict[str, Any]:
    """The fields of a JSON object that a dataclass has; another version may have written more."""
    return {field.name: value[field.name] for field in dataclasses.fields(kind) if field.name in value}


def read_json(path: str, what: str) -> Any:
    """Read a JSON file of the collection.

    :param what: what the file is, for the error ("manifest", "journal")
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError as error:
        raise Refused("The %s is missing" % what, found="no file " + path) from error
    except (OSError, ValueError) as error:
        raise BackstopError("The %s cannot be read" % what, found="%s: %s" % (path, error)) from error


def publish_directory(partial: str, final: str) -> None:
    """Give a finished directory its final name, durably; never replaces an existing one.

    rename(2) silently replaces an empty directory, so an existing one is refused first.
    """
    if os.path.lexists(final):
        raise Refused("Nothing is overwritten", found=final + " exists already")
    fsync_tree(partial)
    os.rename(partial, final)
    fsync_directory(os.path.dirname(final))


def read_tree(path: str) -> Dict[str, bytes]:
    """Every file below a directory, by its path relative to it."""
    files: Dict[str, bytes] = {}
    try:
        for folder, _folders, names in os.walk(path, onerror=_raise):
            for name in names:
                full = os.path.join(folder, name)
                with open(full, "rb") as stream:
                    files[os.path.relpath(full, path)] = stream.read()
    except OSError as error:
        raise file_error("A directory cannot be read", path, error) from error
    return files


def bytes_below(path: str) -> int:
    """The sizes of all files below a directory."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size for folder, _folders, names in os.walk(path) for name in names
    )


def _raise(error: OSError) -> None:
    raise error


def sha256_of(path: str, progress: Optional[Callable[[int], None]] = None) -> str:
    """:param progress: gets the number of bytes so far, every megabyte"""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
            if progress is not None:
                progress(stream.tell())
    return digest.hexdigest()


def file_error(message: str, path: str, error: OSError) -> BackstopError:
    """One clear error for a file system error."""
    hints = {
        errno.ENOSPC: "free some space or choose another place",
        errno.EDQUOT: "raise the quota or choose another place",
        errno.EACCES: "run as the user that owns it, or give that user the right to write there",
        errno.EPERM: "run as the user that owns it, or give that user the right to write there",
        errno.EROFS: "choose a place on a file system that can be written",
        errno.ENOTDIR: "one part of the path is a file: choose another place",
    }
    return BackstopError(message, found="%s: %s" % (path, error.strerror or error), hint=hints.get(error.errno or 0))


class FileLock:
    """An exclusive flock(2) on a file.

    Child processes can inherit the descriptor: the lock is then free only when the last of them has ended.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor: Optional[int] = None

    def acquire(self, wait_seconds: float = 0) -> int:
        """Acquire the lock; returns its descriptor.

        :raises Locked: another process holds it for longer than wait_seconds
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        except OSError as error:
            raise file_error("A lock file could not be opened", self.path, error) from error
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise Locked(
                        "Another process holds this lock",
                        found="%s is locked" % self.path,
                        hint="wait for it to end, then run this again",
                    ) from None
                time.sleep(0.1)
                continue
            self.descriptor = descriptor
            return descriptor

    def write(self, text: str) -> None:
        """Write a note for processes that find the file locked; the lock must be held."""
        os.ftruncate(self.fileno(), 0)
        os.pwrite(self.fileno(), text.encode(), 0)

    def read(self) -> str:
        """The note of the last holder; empty without one."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def fileno(self) -> int:
        """Descriptor of the held lock, for child processes to keep open."""
        if self.descriptor is None:
            raise ValueError("the lock %s is not held" % self.path)
        return self.descriptor

    def release(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    @contextlib.contextmanager
    def held(self, wait_seconds: float = 0) -> Iterator["FileLock"]:
        self.acquire(wait_seconds)
        try:
            yield self
        finally:
            self.release()

    @staticmethod
    def is_free(path: str) -> bool:
        """True when no process holds the lock (or there is no such file)."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True
