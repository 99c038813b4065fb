# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma's sessions on the server: which migrate now, and terminating those of a killed Prisma.

The statement of a killed Prisma does not stop: the server continues and may commit it.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Dict, List, Optional

from ..base.sql_names import MAX_NAME_BYTES

#: The advisory lock that Prisma Migrate holds while it works on a database.
MIGRATION_LOCK = 72707369

_BACKENDS = """
SELECT a.pid, a.application_name, a.usename, a.state, a.query, a.query_start::text,
       coalesce(l.held, false), coalesce(l.waits, false)
  FROM pg_catalog.pg_stat_activity a
  LEFT JOIN (SELECT pid, bool_or(granted) AS held, bool_or(NOT granted) AS waits
               FROM pg_catalog.pg_locks
              WHERE locktype = 'advisory' AND classid = 0 AND objid = %s AND objsubid = 1
                AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
              GROUP BY pid) l ON l.pid = a.pid
 WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
   AND (l.pid IS NOT NULL OR a.application_name = %s)
 ORDER BY a.backend_start, a.pid
"""

_END = """
SELECT pg_catalog.pg_terminate_backend(pid)
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() AND application_name = %s
"""


@dataclasses.dataclass(frozen=True)
class Backend:
    """A session that migrates, or waits to."""

    pid: int
    application_name: str
    user: str
    #: As in pg_stat_activity; None when this role may not see it.
    state: Optional[str]
    query: str
    query_start: Optional[str]
    holds_lock: bool
    waits_for_lock: bool

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


def _as_the_server_keeps_it(application_name: str) -> str:
    return application_name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def running_backends(cursor: Any, application_name: Optional[str] = None) -> List[Backend]:
    """Sessions of this database that hold or wait for Prisma's lock, or that have a name; not the asking one.

    :param cursor: of a DB-API driver with ``%s`` placeholders, connected to the migrated database
    """
    # Within a transaction the statistics views would show their first snapshot again.
    cursor.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
    name = None if application_name is None else _as_the_server_keeps_it(application_name)
    cursor.execute(_BACKENDS, (MIGRATION_LOCK, name))
    return [Backend(*row) for row in cursor.fetchall()]


def lock_holders(cursor: Any) -> List[Backend]:
    """Sessions that hold Prisma's lock: a migration is running while there is one."""
    return [backend for backend in running_backends(cursor) if backend.holds_lock]


def end_backends(cursor: Any, application_name: str, wait_seconds: float = 10) -> List[Backend]:
    """Terminate the sessions of this name and wait until they have ended; returns the remaining ones."""
    name = _as_the_server_keeps_it(application_name)
    deadline = time.monotonic() + wait_seconds
    while True:
        cursor.execute(_END, (name,))
        left = [one for one in running_backends(cursor, name) if one.application_name == name]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.1)
