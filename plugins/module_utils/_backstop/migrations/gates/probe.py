# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on the needs of a rollback, tried with this role under scratch names, on the database's own definitions."""

from __future__ import annotations

import os
import tempfile

from ...backups.make import locked_table, waits_for_lock
from ...backups.scratch import name_for, scratch_database
from ...base.errors import BackstopError, CouldNotVerify, Refused
from ...base.remedies import Setting, remedy
from ...base.sql_names import quote_identifier
from ...postgres import archive, locks, server
from ...postgres.catalog import USER_SCHEMA
from ...postgres.client_tools import ClientTools
from ...postgres.connection import Session
from ...postgres.database_properties import drop_scratch_database, read_properties
from ...site import Site
from .effects import look_ahead
from .inputs import GateInputs


def rights(site: Site, session: Session, _question: GateInputs) -> str:
    with site.administer() as admin:
        found = server.rights(admin, site.database)
    lacking = []
    if not found.create_database:
        lacking.append("CREATEDB")
    if not (found.superuser or found.owns_database):
        lacking.append("ownership of " + site.database)
    if lacking:
        raise Refused(
            "The role cannot build and swap databases",
            found="%s lacks %s" % (found.role, " and ".join(lacking)),
            hint=remedy(
                "ALTER ROLE ... CREATEDB, make it the owner, or give another role in %s", Setting.ADMINISTRATION
            ),
        )
    owner = read_properties(session, site.database).owner
    return "%s may create and rename databases (owner: %s)" % (found.role, owner)


def row_security(_site: Site, session: Session, _question: GateInputs) -> str:
    hidden = session.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r"
        " WHERE c.relrowsecurity AND r.rolname = current_user AND NOT r.rolsuper AND NOT r.rolbypassrls"
        " AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')) ORDER BY 1"
    )
    if hidden:
        raise Refused(
            "Row security would hide rows from the backup",
            found=", ".join(name for (name,) in hidden),
            hint="use a role with BYPASSRLS, or the owner of these tables",
        )
    return "no table hides rows from this role"


_INVALID_INDEXES = """
SELECT format('%I.%I', n.nspname, c.relname), format('%I', t.relname), p.pid, c.relispartition, EXISTS (
  SELECT 1 FROM pg_index o JOIN pg_class oc ON oc.oid = o.indexrelid
  WHERE o.indrelid = i.indrelid AND o.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
    AND starts_with(oc.relname, regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '')))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_progress_create_index p ON p.index_relid = c.oid AND p.datname = current_database()
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' AND {user_schema} ORDER BY 1
""".format(user_schema=USER_SCHEMA)


def invalid_indexes(_site: Site, session: Session, _question: GateInputs) -> str:
    """Indexes that a failed CREATE INDEX or REINDEX CONCURRENTLY left. Queries do not use them, but writes maintain
    them; pg_dump omits them, so they would be missing after a rollback."""
    found, remedies = [], []
    for index, table, builder, attached, copy in session.rows(_INVALID_INDEXES):
        if builder is not None:
            found.append("%s on %s, which backend %d is building" % (index, table, builder))
            remedies.append("wait until %s is built" % index)
            continue
        found.append("%s on %s" % (index, table))
        if copy:
            remedies.append("DROP INDEX %s (REINDEX CONCURRENTLY left it, the index itself is in use)" % index)
        elif attached:
            remedies.append("REINDEX INDEX %s" % index)
        else:
            remedies.append("REINDEX INDEX %s or DROP INDEX %s" % (index, index))
    if found:
        raise Refused(
            "An index is invalid, so a backup leaves it out",
            found="; ".join(found),
            hint="; ".join(remedies) + ". Or waive the gate invalid_indexes with a reason",
        )
    return "none"


def swappable(site: Site, session: Session, _question: GateInputs) -> str:
    found = server.obstacles_to_rename(session, site.database)
    if found:
        raise Refused(
            "The database could not be swapped in a rollback",
            found=", ".join(found),
            hint="they would stay with the former database: move them, or waive the gate with a reason",
        )
    return "nothing binds the database to its name"


def swap_rights(site: Site, session: Session, _question: GateInputs) -> str:
    """The actions of a swap, on a scratch database: create it, terminate a session in it, rename it, drop it."""
    with scratch_database(site, session, "probe") as (admin, name):
        other = name_for(site, "probed")
        drop_scratch_database(admin, other)
        with site.connect(name):
            server.terminate(admin, server.other_sessions(admin, name))
            _rename(admin, name, other)
        drop_scratch_database(admin, other)
    return "made, ended a session in, renamed and dropped a scratch database"


def _rename(admin: Session, name: str, other: str) -> None:
    """Rename a database. The server itself waits some seconds for an ending session."""
    try:
        admin.execute("ALTER DATABASE %s RENAME TO %s" % (quote_identifier(name), quote_identifier(other)))
    except BackstopError as error:
        raise Refused(
            "A scratch database could not be renamed",
            found=str(error.found),
            hint="the role for administration must own the databases that it makes and have CREATEDB",
        ) from None


def restorable(site: Site, session: Session, question: GateInputs) -> str:
    """This role can restore every entry of an archive: tried with the definitions alone, without rows.

    The effects of the pending migrations are predicted in the same database.
    """
    tools = _tools(site, session)
    with scratch_database(site, session, "restorable") as (_admin, name), tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "schema.dump")
        definitions = archive.DumpOptions(schema_only=True)
        with archive.start_dump(tools, site.connection, path, definitions, site.keep_open) as dump:
            if dump.wait() != 0 and waits_for_lock(dump.stderr_text):
                raise locked_table(session, dump.stderr_text)
            dump.check("pg_dump could not write the definitions")
        entries = archive.contents(tools, path)
        try:
            archive.restore(
                tools, site.connection.with_database(name), path, schema_only=True, keep_open=site.keep_open
            )
        except BackstopError as error:
            raise Refused(
                "This role could not restore a backup",
                found=str(error.found),
                hint=error.remedy,
            ) from None
        question.foresight = look_ahead(site, session, question, name)
    return "all %d entries can be restored by %s" % (len(entries), site.connection.user or "this role")


def lock_table(_site: Site, session: Session, _question: GateInputs) -> str:
    """A backup and a swap lock every table and its indexes in one transaction; a restore in place locks much more."""
    needed = locks.to_read_everything(session)
    locks.require_room(session, needed, "to lock every table in one transaction, as a backup and a rollback do")
    table = locks.lock_table(session)
    here = "" if fits_in_place(session) else "; too small for a restore in place (%s)" % Setting.RESTORE_METHOD
    return "room for %d locks, %d needed%s" % (table.size, needed, here)


def fits_in_place(session: Session) -> bool:
    """Whether all objects can be dropped and created again in one transaction."""
    return locks.lock_table(session).holds(2 * locks.to_drop_everything(session))


def _tools(site: Site, session: Session) -> ClientTools:
    try:
        return site.tools(session)
    except Refused:
        raise CouldNotVerify("not tried", expected="client_tools open") from None
