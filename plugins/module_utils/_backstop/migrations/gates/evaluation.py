# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates of a deploy. All are evaluated even if some fail; each check is in the file of its subject."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence

from ...base.errors import BackstopError, Refused
from ...base.sql_names import near_names
from ...postgres import server
from ...postgres.connection import Session
from ...site import Site
from . import (
    connections,
    disk,
    drift,
    effects,
    encryption,
    isolation,
    migrations,
    probe,
    programs,
    safety_copy,
    surroundings,
)
from .inputs import Check, GateInputs

#: How a complete rollback would be done.
SWAP, IN_PLACE, REFUSED = "swap", "in_place", "refused"


@dataclasses.dataclass
class Gate:
    """One precondition and its result."""

    name: str
    passed: bool
    found: str
    expected: str = ""
    hint: str = ""
    #: reason of its waiver
    waived: Optional[str] = None

    @property
    def holds(self) -> bool:
        """Whether it holds, and was not only waived."""
        return self.passed and self.waived is None

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


def evaluate(site: Site, question: GateInputs) -> List[Gate]:
    """Evaluate every gate; one that could not be evaluated is failed."""
    _require_waivers(question)
    try:
        session = site.connect()
    except BackstopError as error:
        return [Gate("connection", False, str(error), "the database can be reached")]
    with session:
        found = "%s, PostgreSQL %s" % (site.connection.masked, server.version_text(session))
        gates = [Gate("connection", True, found, "the database can be reached")]
        for name, expected, check in GATES:
            gates.append(_evaluate_one(site, session, question, name, expected, check))
        return gates


def _require_waivers(question: GateInputs) -> None:
    """A waiver names a gate and gives a reason, which the journal and the summary keep."""
    names = [name for name, _expected, _check in GATES]
    unknown = sorted(set(question.waivers) - set(names))
    if unknown:
        near = near_names(unknown[0], names)
        raise Refused(
            "A waiver names a gate that does not exist",
            found=", ".join(unknown),
            expected="one of: " + ", ".join(names),
            hint="did you mean %s?" % " or ".join(near) if near else None,
        )
    silent = sorted(name for name, reason in question.waivers.items() if not _is_reason(reason))
    if silent:
        raise Refused(
            "A waiver gives no reason",
            found=", ".join(silent),
            expected="a sentence for each, for those who read the journal later",
        )


def _is_reason(reason: Any) -> bool:
    return isinstance(reason, str) and bool(reason.strip())


def _evaluate_one(site: Site, session: Session, question: GateInputs, name: str, expected: str, check: Check) -> Gate:
    reason = question.waivers.get(name)
    try:
        gate = Gate(name, True, check(site, session, question), expected)
    except BackstopError as error:
        found = error.message + (": " + error.found if error.found else "")
        gate = Gate(name, False, found, error.expected or expected, error.hint or "")
    if not gate.passed and reason:
        gate.passed, gate.waived = True, reason.strip()
    return gate


def rollback_way(site: Site, gates: Sequence[Gate]) -> str:
    """How a complete rollback would be done, by gates that hold, not by waived ones.

    ``swap``: a new database takes the live name. ``in_place``: a backup can be restored but the live database cannot be
    renamed; this role may alter all its objects in one transaction. ``refused``: neither.
    """
    holding = {gate.name for gate in gates if gate.holds}
    if not {"connection", "restorable"} <= holding:
        return REFUSED
    if {"rights", "swappable", "swap_rights", "administration_connection"} <= holding:
        return SWAP
    with site.connect() as session:
        possible = probe.fits_in_place(session) and not server.relations_of_others(session)
        return IN_PLACE if possible else REFUSED


#: Name, expectation, check. ``connection`` comes before all of them.
GATES: Sequence["tuple[str, str, Check]"] = (
    ("direct_connection", "no pooler in between", connections.direct_connection),
    (
        "administration_connection",
        "no pooler in between, and the same server",
        connections.administration_connection,
    ),
    ("release_connection", "the release's own URL reaches this database", connections.release_connection),
    ("poolers", "each PgBouncer's console answers, its pools point to this database", connections.poolers),
    (
        "client_tools",
        "pg_dump, pg_restore and pg_dumpall of the server's major version",
        programs.client_tools,
    ),
    ("server_programs", "the server's programs on disk are those that run", programs.server_programs),
    ("store", "a private, writable directory with room for the backup", disk.store),
    ("backup_encryption", "what is encrypted can be decrypted here, for the drill", encryption.backup_encryption),
    ("database_disk", "room for the copies of the database on the server", disk.database_disk),
    ("standbys", "for information; synchronous ones answer", surroundings.standbys),
    ("collations", "for information", surroundings.collations),
    ("rights", "the role may create, rename and drop databases", probe.rights),
    ("swap_rights", "a scratch database can be made, cleared of sessions, renamed and dropped", probe.swap_rights),
    ("restorable", "every entry of an archive can be restored by this role", probe.restorable),
    ("lock_table", "room for a lock on every table and index in one transaction", probe.lock_table),
    ("row_security", "the role sees every row", probe.row_security),
    ("invalid_indexes", "no index is left invalid", probe.invalid_indexes),
    ("swappable", "no subscription, replication slot or prepared transaction", probe.swappable),
    ("safety_copy", "the database can be copied right before the migration", safety_copy.safety_copy),
    ("other_operations", "no other operation of this database is open", surroundings.other_operations),
    ("application", "healthy on every host, where one runs", surroundings.application),
    ("other_programs", "for information", surroundings.other_programs),
    (
        "migrations",
        "exactly the expected migrations are pending, none failed, edited or unknown",
        migrations.migrations,
    ),
    ("cluster_statements", "no migration acts beyond its database", migrations.within_database),
    ("destruction", "for information", effects.destruction),
    ("application_rights", "the release's user may use every table, old and new", effects.application_rights),
    ("isolation", "what is tried on the copy acts on nothing else", isolation.isolation),
    ("drift", "the live schema is that of the migrations in force", drift.drift),
    ("prisma_lock", "no other migration is running", connections.prisma_lock),
)
