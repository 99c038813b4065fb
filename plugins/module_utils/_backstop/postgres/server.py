# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts about a server and its databases: identity, version, rights, sessions, obstacles to a rename."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.sql_names import quote_identifier
from .connection import Session


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identity of a database, however it is connected to."""

    system_identifier: str
    database_oid: int
    database: str


def identity(session: Session) -> Identity:
    """System identifier and database.

    Every role may call pg_control_system() unless that was revoked; then the identifier is empty.
    """
    try:
        system = str(session.value("SELECT system_identifier FROM pg_control_system()"))
    except BackstopError:
        system = ""
    row = session.one("SELECT oid::bigint, datname FROM pg_database WHERE datname = current_database()")
    return Identity(system, int(row[0]), str(row[1]))


def version_number(session: Session) -> int:
    """``server_version_num``: 150018 for 15.18."""
    return int(session.value("SELECT current_setting('server_version_num')"))


def major_version(session: Session) -> int:
    return version_number(session) // 10000


def version_text(session: Session) -> str:
    return str(session.value("SELECT current_setting('server_version')"))


@dataclasses.dataclass(frozen=True)
class Rights:
    """The rights of the connected role."""

    role: str
    superuser: bool
    create_database: bool
    owns_database: bool


def rights(session: Session, database: str) -> Rights:
    row = session.one(
        "SELECT r.rolname, r.rolsuper, r.rolcreatedb OR r.rolsuper,"
        " coalesce((SELECT pg_has_role(r.oid, d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = %s), false)"
        " FROM pg_roles r WHERE r.rolname = current_user",
        (database,),
    )
    return Rights(*row)


def database_oid(session: Session, name: str) -> Optional[int]:
    value = session.value("SELECT oid::bigint FROM pg_database WHERE datname = %s", (name,))
    return None if value is None else int(value)


def database_size(session: Session, name: str) -> int:
    """Size on disk in bytes."""
    return int(session.value("SELECT pg_database_size(%s)", (name,)))


def databases(session: Session) -> List[Tuple[str, int, bool]]:
    """Name, oid and whether connections are allowed, of every database that is not a template."""
    found = session.rows(
        "SELECT datname, oid::bigint, datallowconn FROM pg_database WHERE NOT datistemplate ORDER BY 1"
    )
    return [(str(name), int(oid), bool(allowed)) for name, oid, allowed in found]


def allow_connections(session: Session, name: str, allowed: bool) -> None:
    session.execute("ALTER DATABASE %s ALLOW_CONNECTIONS %s" % (quote_identifier(name), "true" if allowed else "false"))


@dataclasses.dataclass(frozen=True)
class OtherSession:
    """A client's session in a database."""

    pid: int
    user: str
    application: str
    address: str
    state: str
    #: seconds since its transaction began; None outside of one
    transaction_seconds: Optional[float]

    @property
    def idle(self) -> bool:
        return self.state == "idle" and self.transaction_seconds is None

    def __str__(self) -> str:
        name = " (%s)" % self.application if self.application else ""
        return "%s%s from %s, %s, pid %d" % (self.user, name, self.address, self.state or "state hidden", self.pid)


def other_sessions(session: Session, database: str, besides: Tuple[int, ...] = ()) -> List[OtherSession]:
    """Client sessions in a database, without this session and the given ones."""
    found = session.rows(
        "SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(host(client_addr), 'the socket'),"
        " coalesce(state, ''), extract(epoch FROM now() - xact_start)::float8"
        # A role without pg_read_all_stats cannot see this, nor the state, of other roles' sessions.
        " FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        # Nor the type; but a server process, such as an autovacuum worker, has no role.
        " AND (backend_type = 'client backend' OR backend_type IS NULL AND usesysid IS NOT NULL)"
        " AND NOT pid = ANY(%s) ORDER BY pid",
        (database, list(besides)),
    )
    return [OtherSession(*row) for row in found]


def terminate(session: Session, others: List[OtherSession]) -> None:
    """Terminate sessions; some may take a moment to end.

    :raises Refused: the role may not terminate one of them
    """
    for other in others:
        try:
            session.execute("SELECT pg_terminate_backend(%s)", (other.pid,))
        except BackstopError as error:
            if error.sqlstate != sqlstates.INSUFFICIENT_PRIVILEGE:
                raise
            raise Refused(
                "This role may not end a session of another one",
                found="%s; PostgreSQL reported: %s" % (other, error.found),
                hint="end that session yourself, or GRANT pg_signal_backend (sessions of a superuser only end by one)",
            ) from None


def obstacles_to_rename(session: Session, database: str) -> List[str]:
    """What would prevent a swap of a database, or would be left behind by it."""
    found: List[str] = []
    oid = database_oid(session, database)
    # pg_subscription is shared, but only some columns are readable without superuser: subname and subdbid are.
    for (name,) in session.rows("SELECT subname FROM pg_subscription WHERE subdbid = %s", (oid,)):
        found.append("subscription %s" % name)
    for (name,) in session.rows("SELECT slot_name FROM pg_replication_slots WHERE database = %s", (database,)):
        found.append("replication slot %s" % name)
    for (name,) in session.rows("SELECT gid FROM pg_prepared_xacts WHERE database = %s", (database,)):
        found.append("prepared transaction %s" % name)
    return found


def relations_of_others(session: Session) -> List[str]:
    """Tables that this role may not alter, because it is neither their owner nor a member of the owner."""
    rows = session.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
        " AND NOT pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1"
    )
    return [str(name) for (name,) in rows]


def settings(session: Session, names: List[str]) -> Dict[str, Any]:
    return dict(session.rows("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (names,)))
