# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outcomes of the command's last runs: a small file for each database in its store, written by the run itself."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional
from urllib.parse import quote

from ..base.durable_files import read_json, write_json
from ..base.errors import BackstopError
from ..store.layout import Store, new_id


class RunRecords:
    """The last run of each job (``backup``, ``drill``, ``prune``, ``copy``) on one database."""

    def __init__(self, store: Store, database: str) -> None:
        file_name = quote(database, safe="")
        self._path = os.path.join(store.root, ".runs-" + file_name)
        #: held by every run that works on this database's backups
        self.lock_path = os.path.join(store.root, ".lock-" + file_name)

    def _read(self) -> Dict[str, Any]:
        if not os.path.isfile(self._path):
            return {}
        try:
            value = read_json(self._path, "record of the last runs")
        except BackstopError:
            # It only reports runs; an unreadable file must not prevent the next backup.
            return {}
        return value if isinstance(value, dict) else {}

    def last(self, job: str) -> Optional[Dict[str, Any]]:
        value = self._read().get(job)
        return value if isinstance(value, dict) else None

    def write(self, job: str, facts: Dict[str, Any]) -> None:
        write_json(self._path, {**self._read(), job: facts})

    def write_copies(self, copies: Dict[str, str]) -> None:
        """Record which backups have a second copy, with their times, for use while the remote is unreachable."""
        write_json(self._path, {**self._read(), "copies": copies})

    def copies(self) -> Dict[str, str]:
        known = self._read().get("copies")
        return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}

    def scratch_id(self) -> str:
        """The fixed id in the names of this database's scratch databases: a drill drops what a killed drill
        left."""
        known = self._read()
        if not isinstance(known.get("scratch_id"), str):
            known["scratch_id"] = new_id()
            write_json(self._path, known)
        return str(known["scratch_id"])
