# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of databases and a store, from which tests can continue more than once.

Journals and manifests name their database, also by its oid; therefore a restored database gets its former oid (CREATE
DATABASE has an option for it since PostgreSQL 15).
"""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
from typing import List

from demo.postgres_server import Cluster

_FACTS = "SELECT oid, pg_get_userbyid(datdba), datallowconn::text, datconnlimit FROM pg_database WHERE datname = '%s'"
_LEFT = r"SELECT datname FROM pg_database WHERE datname LIKE 'backstop\_%'"


@dataclasses.dataclass
class _Kept:
    name: str
    copy: str
    oid: str
    owner: str
    allows: str
    limit: str


class Snapshot:
    """A snapshot of a live database, of what the library made for it, and of a store. No session may be connected.

    :param folder: of the snapshot; its name distinguishes snapshots of one server
    """

    def __init__(self, cluster: Cluster, folder: pathlib.Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._kept: List[_Kept] = []

    @property
    def taken(self) -> bool:
        return bool(self._kept)

    def take(self, database: str, store: pathlib.Path) -> None:
        self._folder.mkdir()
        copy(store, self._folder / "store")
        for number, name in enumerate([database, *self._cluster.sql(_LEFT).split()]):
            made = "snapshot_%s_%d" % (self._folder.name, number)
            self._kept.append(_Kept(name, made, *self._cluster.sql(_FACTS % name).strip().split("|")))
            self._cluster.sql('CREATE DATABASE "%s" TEMPLATE "%s"' % (made, name))

    def put_back(self, store: pathlib.Path) -> None:
        """:param store: a path that does not exist"""
        for name in [*self._cluster.sql(_LEFT).split(), self._kept[0].name]:
            self._cluster.sql('DROP DATABASE IF EXISTS "%s" WITH (FORCE)' % name)
        for kept in self._kept:
            given = (kept.name, kept.copy, kept.owner, kept.oid, kept.allows, kept.limit)
            self._cluster.sql(
                'CREATE DATABASE "%s" TEMPLATE "%s" OWNER "%s" OID %s ALLOW_CONNECTIONS %s CONNECTION LIMIT %s' % given
            )
        copy(self._folder / "store", store)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a folder with its owners, permissions and times."""
    assert not target.exists(), target
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
