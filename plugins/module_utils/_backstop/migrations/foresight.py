# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Predicts what the pending migrations will do before any row is copied, by running them on the definitions alone.

They run in a scratch database without rows, script by script as Prisma sends them, each in a transaction that is
inspected before its COMMIT. That shows all locks, drops, and the privileges on new objects. Effects on rows are only
known from the rehearsal. A script that needs rows fails here: then nothing is predicted, and the rehearsal counts all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..base import sqlstates
from ..base.durable_files import read_json, write_json
from ..base.errors import BackstopError, CouldNotVerify
from ..base.sql_names import quote_identifier
from ..postgres import inventory, role_rights
from ..postgres.connection import Session
from ..postgres.inventory import Gone
from ..postgres.locks import BLOCKING, held_locks, note_lock
from ..prisma import history
from ..prisma.sql_text import cluster_statements, statements
from ..site import Site
from ..store.operation import Operation
from .destruction import Foreseen, count, dropped, retyped

#: File of an operation, written by the gates for the rehearsal.
FORESIGHT = "foresight.json"


@dataclasses.dataclass
class Foresight:
    """What the pending migrations do to definitions."""

    #: name to checksum of these migrations
    migrations: Dict[str, str]
    gone: Foreseen
    #: relation to its strongest lock
    locks: Dict[str, str]
    #: migrations that ended their transaction, so that not all of their locks were seen
    own_transactions: List[str]
    #: the privileges that each given role lacks afterwards
    lacking: Dict[str, str]
    #: how to grant them
    remedy: str = ""
    #: clauses for users, with values counted in the live database
    destroys: List[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Foresight":
        return cls(**{**value, "gone": Foreseen.from_json(value["gone"])})


def _checksums(files: Sequence[history.MigrationFile]) -> Dict[str, str]:
    return {file.name: file.checksum for file in files}


def foresee(
    site: Site,
    database: str,
    files: Sequence[history.MigrationFile],
    roles: Sequence[str] = (),
    live: Optional[Session] = None,
) -> Foresight:
    """Run pending migrations in a scratch database with the live one's definitions and no rows.

    :param files: the pending ones, in order
    :param roles: roles that will use what they create
    :param live: where to count what will be lost; default is not to count
    :raises BackstopError: they cannot be run there
    """
    with site.connect(database) as session:
        _require_no_way_out(session, files)
        there = inventory.take(session)
        before = {role: role_rights.rights_of(session, role) for role in roles}
        relations = inventory.relations(there)
        locks: Dict[str, str] = {}
        own = [file.name for file in files if not _run(site, database, file, relations, locks)]
        gone = inventory.compare(there, inventory.take(session))
        found = {
            role: role_rights.lacking(before[role], role_rights.rights_of(session, role), history.TABLE)
            for role in roles
        }
        lacking = {role: "; ".join(map(str, missing)) for role, missing in found.items() if missing}
        owners = sorted({one.owner for rights in before.values() for one in rights.values()})
        remedy = "; ".join(role_rights.remedy(role, found[role], owners) for role in lacking)
        destroys = _destroys(gone, live, site.connection.schema) if live else []
        return Foresight(_checksums(files), Foreseen.of(gone), locks, own, lacking, remedy, destroys)


def _destroys(gone: Gone, live: Session, schema: str) -> List[str]:
    counts = count(live, inventory.take(live), Foreseen.of(gone))
    return [
        *dropped(gone, counts, schema),
        *(retyped(was, now, counts, schema) for was, now in gone.retyped),
    ]


def _require_no_way_out(session: Session, files: Sequence[history.MigrationFile]) -> None:
    """Refuse what could reach other servers from here too; trusted extensions cannot."""
    if any(cluster_statements(file.sql) for file in files):
        raise CouldNotVerify("a migration acts beyond its database")
    made = {
        tokens[index + 1].text
        for file in files
        for tokens in statements(file.sql)
        for index, token in enumerate(tokens[:-1])
        if token.word in ("EXTENSION", "EXISTS", "SERVER", "LANGUAGE")
    }
    found = session.rows(
        "WITH trusted AS (SELECT name FROM pg_available_extension_versions WHERE trusted OR name = ANY(%s))"
        " SELECT extname FROM pg_extension WHERE extname NOT IN (SELECT name FROM trusted)"
        " UNION SELECT name FROM pg_available_extensions WHERE name = ANY(%s)"
        " AND name NOT IN (SELECT name FROM trusted)"
        " UNION SELECT srvname FROM pg_foreign_server"
        " UNION SELECT lanname FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')",
        (list(_HARMLESS), list(made)),
    )
    if found:
        raise CouldNotVerify(
            "the database has what can reach other servers or the host: %s" % ", ".join(str(name) for (name,) in found)
        )


#: Extensions that only a superuser may create and that reach nothing outside of their database.
_HARMLESS = ("pg_stat_statements", "postgis", "postgis_topology", "vector", "pageinspect", "amcheck", "bloom")


def _run(
    site: Site, database: str, file: history.MigrationFile, relations: Mapping[int, str], locks: Dict[str, str]
) -> bool:
    """Run one script, in a separate session as Prisma does; False when not all of its locks could be seen."""
    if not any(statements(file.sql)):
        return True
    with site.connect(database, pinned=False) as session:
        session.execute("SET statement_timeout = '60s'; SET lock_timeout = '10s'")
        session.execute("SET search_path TO %s" % quote_identifier(site.connection.schema))
        try:
            with contextlib.suppress(_OutsideOfTransactions):
                return _run_and_look(session, file, relations, locks)
            session.execute(file.sql)
        except BackstopError as error:
            raise CouldNotVerify("migration %s fails without rows" % file.name, found=error.found) from None
        return False


class _OutsideOfTransactions(Exception):
    """The script cannot run in a transaction block."""


def _run_and_look(
    session: Session, file: history.MigrationFile, relations: Mapping[int, str], locks: Dict[str, str]
) -> bool:
    session.execute("BEGIN")
    first = session.value("SELECT txid_current()")
    try:
        session.execute(file.sql)
    except BackstopError as error:
        if error.sqlstate != sqlstates.ACTIVE_SQL_TRANSACTION:
            raise
        session.execute("ROLLBACK")
        raise _OutsideOfTransactions() from None
    for name, mode in held_locks(session, relations).items():
        note_lock(locks, name, mode)
    whole = session.in_transaction and session.value("SELECT txid_current()") == first
    if session.in_transaction:
        session.execute("COMMIT")
    return bool(whole)


def note_foresight(operation: Operation, roles: Sequence[str], foresight: Optional[Foresight]) -> None:
    """Record the prediction, or that there is none, and the roles that will use what the migrations create."""
    value = {"roles": list(roles), "foresight": foresight.to_json() if foresight else None}
    write_json(operation.file(FORESIGHT), value)


def noted_foresight(
    operation: Optional[Operation], files: Sequence[history.MigrationFile]
) -> Tuple[List[str], Optional[Foresight]]:
    """The roles, and the gates' prediction for exactly these migrations."""
    if operation is None or not os.path.exists(operation.file(FORESIGHT)):
        return [], None
    value = read_json(operation.file(FORESIGHT), "forecast of the gates")
    found = Foresight.from_json(value["foresight"]) if value["foresight"] else None
    return list(value["roles"]), found if found and found.migrations == _checksums(files) else None


def describe_locks(locks: Mapping[str, str], own_transactions: Sequence[str], foreseen: bool) -> str:
    """A clause for users: all locks, those that block writes first."""
    order = sorted(locks, key=lambda name: (locks[name] not in BLOCKING, name))
    text = "locks " + ", ".join("%s: %s" % (name, locks[name]) for name in order) if order else ""
    if foreseen and not own_transactions:
        return text or "locks no existing table"
    seen = "no %slock was seen longer than 10 ms" % ("other " if order else "")
    return "; ".join(part for part in (text, seen) if part)
