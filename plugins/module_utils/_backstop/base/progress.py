# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress of a long task, in a file that can be read on the host while it runs."""

from __future__ import annotations

import datetime
import os
from typing import Any, Dict, Optional

from .durable_files import read_json, write_json


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def timestamp(moment: Optional[datetime.datetime] = None, timespec: str = "milliseconds") -> str:
    """A time as RFC 3339 text in UTC.

    :param timespec: precision, as in :meth:`datetime.datetime.isoformat`
    """
    moment = (moment or utc_now()).astimezone(datetime.timezone.utc)
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def parse_timestamp(text: str) -> datetime.datetime:
    """The time that timestamp() wrote."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)


class Progress:
    """Writes ``progress.json`` in a directory; without a directory it writes nothing."""

    def __init__(self, directory: Optional[str] = None) -> None:
        self._path = os.path.join(directory, "progress.json") if directory else None
        self._started = timestamp()

    def read(self) -> Dict[str, Any]:
        """The latest progress, of any process; empty without one."""
        if self._path is None or not os.path.exists(self._path):
            return {}
        return dict(read_json(self._path, "progress"))

    def phase(self, name: str, **facts: Any) -> None:
        """Enter a phase: "dumping", "comparing table 3 of 12"."""
        if self._path:
            write_json(
                self._path,
                {"phase": name, "started": self._started, "since": timestamp(), "pid": os.getpid(), **facts},
            )
