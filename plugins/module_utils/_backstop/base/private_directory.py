# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Temporary directories for files and sockets that no other user may replace or reach.

The process that created a directory holds its lock. So the next run can distinguish a directory of a killed run from
one in use, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from typing import Iterator

PREFIX = "backstop-run-"


@contextlib.contextmanager
def private_directory() -> Iterator[str]:
    """A directory with mode 0700 in the temporary directory; removed at the end, with those of killed runs."""
    _remove_left_behind(tempfile.gettempdir())
    path, descriptor = _make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _make() -> "tuple[str, int]":
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            # Another run took it for debris before we had opened it.
            continue
        if _lock(descriptor) and os.path.isdir(path):
            return path, descriptor
        # Another run took it for debris before we had locked it.
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_left_behind(parent: str) -> None:
    for name in os.listdir(parent):
        if name.startswith(PREFIX):
            with contextlib.suppress(OSError):
                _remove_unless_in_use(os.path.join(parent, name))


def _remove_unless_in_use(path: str) -> None:
    # O_NOFOLLOW: a symbolic link is not one of our directories.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
