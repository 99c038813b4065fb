# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories that live as long as one piece of work, for files and sockets that nobody else may exchange or reach.

Each is locked by the process that made it. So one that a killed run left is told from one in use, and the next run
removes it.
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
    """A directory with mode 0700 below the one for temporary files; removed at the end, with what killed runs left."""
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
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if _lock(descriptor) and os.path.isdir(path):
            return path, descriptor
        # Another run took it for left behind before we had locked it.
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
    # O_NOFOLLOW: a link to a directory is none of ours.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
