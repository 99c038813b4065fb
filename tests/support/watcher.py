# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks invariant 4 continuously: exactly one database has the live name and accepts the application."""

from __future__ import annotations

import threading
from typing import List

import psycopg2
from demo.postgres_server import Cluster


class Watcher:
    """Checks continuously that exactly one database has the live name and accepts the application."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.looks = 0
        self.wrong: List[str] = []

    def __enter__(self) -> "Watcher":
        self._session = psycopg2.connect(self._cluster.url("postgres"))
        self._session.autocommit = True
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._session.close()

    def _watch(self) -> None:
        cursor = self._session.cursor()
        while not self._stop.wait(0.005):
            cursor.execute(
                "SELECT count(*) FROM pg_database WHERE datname = %s AND datallowconn AND datconnlimit <> 0",
                (self._name,),
            )
            self.looks += 1
            if cursor.fetchone()[0] != 1:
                self.wrong.append("no database %s that accepts connections" % self._name)
