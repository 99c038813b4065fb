# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on free space: for every copy that a deploy and a revert may make, on its file system."""

from __future__ import annotations

import dataclasses
import os
from typing import Dict, List, Optional

from ...base.errors import BackstopError, CouldNotVerify, Refused
from ...base.remedies import Setting, remedy
from ...postgres import server
from ...postgres.connection import Session
from ...postgres.template_copy import FILES
from ...site import Site
from .inputs import GateInputs, is_local

#: Free space that must remain on a file system after all copies, as a share of the database's size.
_SPARE = 0.1


def store(site: Site, session: Session, _question: GateInputs) -> str:
    """The archive is not larger than the database; a tenth more for the other files."""
    site.store.check()
    needed = _archive_bytes(site, session)
    free = site.store.free_bytes()
    if free < needed:
        raise Refused(
            "The store has too little free space",
            found="%s in %s" % (size_text(free), site.store.root),
            expected=size_text(needed),
            hint=remedy("free space there or choose another %s", Setting.STORE),
        )
    return "%s, %s free" % (site.store.root, size_text(free))


def _archive_bytes(site: Site, session: Session) -> int:
    return int(server.database_size(session, site.database) * (1 + _SPARE))


@dataclasses.dataclass
class _Demand:
    """The space needed on one file system."""

    what: str
    needed: int
    #: a directory of it; None when it is on another host
    path: Optional[str]


def database_disk(site: Site, session: Session, question: GateInputs) -> str:
    """The drill's copy, a revert's new database in addition to the live one, the safety copy, and their WAL."""
    size = server.database_size(session, site.database)
    wal = min(2 * size, _largest_wal(session))
    number, text = (3, "three") if question.safety_copy == FILES else (2, "two")
    copies = _Demand("%s copies of the database" % text, int(size * (number + _SPARE)), None)
    if question.database_free_bytes is not None:
        copies.needed += wal
        return _judge(copies, question.database_free_bytes)
    directory = question.database_directory or data_directory(site, session)
    copies.path = _tablespace(session, site.database) or directory
    demands = _merged(
        [
            copies,
            _Demand("their WAL", wal, _wal_directory(directory)),
            _Demand("the backup", _archive_bytes(site, session), site.store.nearest_directory()),
        ]
    )
    return "; ".join(_judge(demand, free_bytes(str(demand.path))) for demand in demands)


def _largest_wal(session: Session) -> int:
    """The size that WAL reaches before a checkpoint recycles it (max_wal_size), in bytes."""
    return int(session.value("SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_wal_size'"))


def _tablespace(session: Session, database: str) -> Optional[str]:
    """Directory of the database's own tablespace; None when it is in the data directory."""
    found = session.value(
        "SELECT pg_tablespace_location(dattablespace) FROM pg_database WHERE datname = %s", (database,)
    )
    return str(found) if found and os.path.isdir(str(found)) else None


def _wal_directory(directory: str) -> str:
    wal = os.path.realpath(os.path.join(directory, "pg_wal"))
    return wal if os.path.isdir(wal) else directory


def _merged(demands: List[_Demand]) -> List[_Demand]:
    """One demand for each file system; the gate ``store`` checks that of the backup alone."""
    by_device: Dict[int, List[_Demand]] = {}
    for demand in demands:
        by_device.setdefault(_device(str(demand.path)), []).append(demand)
    return [
        _Demand(", ".join(one.what for one in group), sum(one.needed for one in group), group[0].path)
        for group in by_device.values()
        if group[0].what != "the backup"
    ]


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError as error:
        raise _unreadable(path, error) from error


def _judge(demand: _Demand, free: int) -> str:
    if free < demand.needed:
        raise Refused(
            "The database server has too little free space",
            found=size_text(free) + (" in " + demand.path if demand.path else ""),
            expected="%s for %s" % (size_text(demand.needed), demand.what),
            hint="free space on the database host",
        )
    return "%s free, %s needed" % (size_text(free), size_text(demand.needed))


def data_directory(site: Site, session: Session) -> str:
    try:
        local = is_local(site.connection)
        found = session.value("SELECT current_setting('data_directory')") if local else None
    except BackstopError:
        found = None
    if not found:
        raise CouldNotVerify(
            "The free space of the database server cannot be read from here",
            hint=remedy(
                "set %s (its data directory, when it is on this host) or %s, or waive the gate database_disk with a"
                " reason",
                Setting.DATABASE_DIRECTORY,
                Setting.DATABASE_FREE_BYTES,
            ),
        )
    return str(found)


def free_bytes(path: str) -> int:
    try:
        usage = os.statvfs(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return usage.f_bavail * usage.f_frsize


def _unreadable(path: str, error: OSError) -> CouldNotVerify:
    return CouldNotVerify(
        "The free space of the database server cannot be read",
        found="%s: %s" % (path, error.strerror),
        hint=remedy("check %s, or declare %s", Setting.DATABASE_DIRECTORY, Setting.DATABASE_FREE_BYTES),
    )


def size_text(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return "%.0f %s" % (count, unit)
        count /= 1024
    return "%.1f TiB" % count
