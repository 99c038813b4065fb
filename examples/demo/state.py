# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports and choices that one run of the demo saves for the next."""

from __future__ import annotations

import json
import threading

from . import private_files
from .places import Places
from .programs import DemoError


class State:
    """A small dictionary in a file; steps that run in parallel may use it."""

    def __init__(self, places: Places) -> None:
        self._path = places.state_file
        self._lock = threading.Lock()
        self._values: dict[str, object] = {}
        if self._path.exists():
            try:
                self._values = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError as error:
                what = "The demo's state cannot be read"
                raise DemoError(what, found=str(error), do=f"remove {self._path}") from error

    def get(self, name: str) -> object:
        with self._lock:
            return self._values.get(name)

    def number(self, name: str) -> int | None:
        value = self.get(name)
        return value if isinstance(value, int) else None

    def set(self, name: str, value: object) -> None:
        with self._lock:
            self._values[name] = value
            private_files.write(self._path, json.dumps(self._values, indent=1, sort_keys=True) + "\n")
