# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics for node_exporter's textfile collector: one file for each database, written and then renamed."""

from __future__ import annotations

import contextlib
import os
from typing import Any, List, Mapping, Optional, Tuple

from ..base.durable_files import file_error
from ..base.errors import BackstopError
from ..base.progress import parse_timestamp
from ..base.sql_names import RETIRED_PREFIX
from ..postgres import server
from ..store.layout import KINDS
from ..store.manifest import LEVELS
from .configuration import Configuration
from .standing import Standing


def retired_databases(configuration: Configuration) -> Optional[int]:
    """The number of retired databases on the server; None when the server cannot be asked."""
    try:
        with configuration.site().administer() as admin:
            return sum(name.startswith(RETIRED_PREFIX) for name, _oid, _allowed in server.databases(admin))
    except BackstopError:
        return None


class _Text:
    """The Prometheus exposition format."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._lines: List[str] = []

    def add(self, name: str, what: str, *samples: Tuple[Mapping[str, str], Any]) -> None:
        """A gauge with its samples; omitted without samples."""
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            self._lines += ["# HELP backstop_%s %s" % (name, what), "# TYPE backstop_%s gauge" % name]
        for labels, value in known:
            pairs = ",".join('%s="%s"' % (key, _escape(text)) for key, text in {**self._labels, **labels}.items())
            self._lines.append("backstop_%s{%s} %s" % (name, pairs, repr(float(value))))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def render(standing: Standing, retired: Optional[int]) -> str:
    """The metrics of one database.

    :param retired: see retired_databases()
    """
    configuration, newest = standing.configuration, standing.newest
    text = _Text({"configuration": configuration.name, "database": configuration.database})
    none: Mapping[str, str] = {}
    level = LEVELS.index(str(newest.level)) + 1 if newest else 0
    text.add(
        "last_success_timestamp_seconds",
        "Time of the snapshot of the newest verified backup; its age is time() less this.",
        (none, newest.created.timestamp() if newest else None),
    )
    text.add(
        "last_success_duration_seconds",
        "How long the newest verified backup took.",
        (none, newest.seconds if newest else None),
    )
    text.add(
        "last_success_size_bytes",
        "Size of the newest verified backup's archive.",
        (none, newest.manifest.archive.size if newest else None),
    )
    text.add(
        "last_success_level",
        "Level to which the newest verified backup is verified: 0 no such backup, 1 checksum, 2 readable, 3 restored.",
        (none, level),
    )
    text.add("max_age_seconds", "Maximum age of the newest verified backup.", (none, configuration.max_age))
    text.add("backups", "Number of backups.", *[({"kind": kind}, standing.count(kind)) for kind in KINDS])
    text.add("backups_bytes", "Size of the archives.", *[({"kind": kind}, standing.size(kind)) for kind in KINDS])
    text.add("unreadable_backups", "Backups whose manifest cannot be read.", (none, len(standing.unreadable)))
    text.add("backups_ahead_of_clock", "Backups dated in the future.", (none, len(standing.ahead)))
    runs = {job: run for job, run in standing.runs.items() if run}
    text.add(
        "last_run_success",
        "Whether the last run of this job passed.",
        *[({"job": job}, int(bool(run.get("passed")))) for job, run in runs.items()],
    )
    text.add(
        "last_run_timestamp_seconds",
        "When the last run of this job ended.",
        *[({"job": job}, _moment(run.get("at"))) for job, run in runs.items()],
    )
    text.add(
        "last_run_duration_seconds",
        "How long the last run of this job took.",
        *[({"job": job}, run.get("seconds")) for job, run in runs.items()],
    )
    if configuration.offsite is not None:
        copied = standing.newest_copied
        text.add("copies", "Number of second copies.", (none, len(standing.copied)))
        text.add(
            "last_copied_backup_timestamp_seconds",
            "Time of the snapshot of the newest backup that has a second copy.",
            (none, copied.timestamp() if copied else None),
        )
        text.add("copy_max_age_seconds", "Maximum age of that backup.", (none, configuration.offsite.max_age))
    drill = standing.runs.get("drill") or {}
    text.add("recovery_seconds", "Measured recovery time of the last drill.", (none, drill.get("recovery_seconds")))
    text.add("server_up", "Whether the database server answered.", (none, int(retired is not None)))
    text.add("retired_databases", "Retired databases on the server.", (none, retired))
    return str(text)


def _moment(text: Any) -> Optional[float]:
    try:
        return parse_timestamp(str(text)).timestamp()
    except ValueError:
        return None


def write(configuration: Configuration, standing: Standing) -> None:
    """Replace the file of this database, atomically; node_exporter must be able to read it."""
    if configuration.textfile is None:
        return
    path = configuration.textfile
    content = render(standing, retired_databases(configuration)).encode()
    # Its name must not end in .prom, or node_exporter would read an incomplete file.
    partial = "%s.%d.partial" % (path, os.getpid())
    try:
        with open(partial, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise file_error("The metrics could not be written", path, error) from error
