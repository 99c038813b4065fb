# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server's data and a store as they were, to go on from there more than once.

A copy of the database alone would be another database: journals and manifests name the one that they are about.
"""
from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
from typing import Iterator

from demo.postgres_server import Cluster


class Snapshot:
    """Kept in a folder; nobody may be connected to the server when it is taken or put back."""

    def __init__(self, cluster: Cluster, folder: pathlib.Path) -> None:
        self._cluster = cluster
        self._data, self._store = folder / "data", folder / "store"

    @property
    def taken(self) -> bool:
        return self._store.is_dir()

    def take(self, store: pathlib.Path) -> None:
        with self._stopped():
            self._data.parent.mkdir(exist_ok=True)
            copy(self._cluster.data, self._data)
            copy(store, self._store)

    def put_back(self, store: pathlib.Path) -> None:
        """:param store: a path where nothing is"""
        with self._stopped():
            shutil.rmtree(self._cluster.data)
            copy(self._data, self._cluster.data)
            copy(self._store, store)

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[None]:
        self._cluster.stop()
        yield
        self._cluster.start()


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A folder with its owners, rights and times."""
    assert not target.exists(), target
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
