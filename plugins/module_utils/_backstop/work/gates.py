# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates of a deploy that the database, the store and the history answer. All are evaluated, whatever fails."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..base.errors import BackstopError, CouldNotVerify, Refused
from ..base.sql_names import near_names
from ..postgres import server
from ..postgres.connection import Session, Settings, connect
from ..postgres.database_properties import read_properties
from ..prisma import history
from ..prisma.sessions import lock_holders
from ..prisma.sql_text import cluster_statements
from .context import Context

#: Free space that must stay on a file system after all copies, as a share of the database's size.
_SPARE = 0.1


@dataclasses.dataclass
class Gate:
    """One precondition and how it stands."""

    name: str
    passed: bool
    found: str
    expected: str = ""
    hint: str = ""
    #: reason for which it was waived
    waived: Optional[str] = None

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Question:
    """What the gates are asked about."""

    files: Sequence[history.MigrationFile]
    expected: Sequence[str]
    #: the release's own connection, read from its environment file
    release_connection: Optional[Settings] = None
    #: directory of the server's data on this host, for its free space
    database_directory: Optional[str] = None
    #: free space of the server's data, declared by the user, in bytes
    database_free_bytes: Optional[int] = None
    #: gate name to reason
    waivers: Mapping[str, str] = dataclasses.field(default_factory=dict)


Check = Callable[[Context, Session, Question], str]


def evaluate(context: Context, question: Question) -> List[Gate]:
    """Evaluate every gate; one that could not be evaluated is failed."""
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
    try:
        session = context.connect()
    except BackstopError as error:
        return [Gate("connection", False, str(error), "the database can be reached")]
    with session:
        found = "%s, PostgreSQL %s" % (context.connection.masked, server.version_text(session))
        gates = [Gate("connection", True, found, "the database can be reached")]
        for name, expected, check in GATES:
            gates.append(_evaluate_one(context, session, question, name, expected, check))
        return gates


def _evaluate_one(
    context: Context, session: Session, question: Question, name: str, expected: str, check: Check
) -> Gate:
    reason = question.waivers.get(name)
    try:
        gate = Gate(name, True, check(context, session, question), expected)
    except BackstopError as error:
        found = error.message + (": " + error.found if error.found else "")
        gate = Gate(name, False, found, error.expected or expected, error.hint or "")
    if not gate.passed and reason:
        gate.passed, gate.waived = True, reason
    return gate


def _direct_connection(context: Context, session: Session, _question: Question) -> str:
    # A pooler makes up the process id that it tells the client; the server's own differs.
    if session.backend != session.value("SELECT pg_backend_pid()"):
        raise Refused(
            "The connection goes through a pooler",
            found="%s answers for another process than its own" % context.connection.masked,
            hint="give the direct address of the server as backstop_connection",
        )
    return "the server itself answers"


def _client_tools(context: Context, session: Session, _question: Question) -> str:
    tools = context.tools(session)
    return "%s of version %s" % (os.path.dirname(tools.pg_dump), tools.version)


def _store(context: Context, session: Session, _question: Question) -> str:
    context.store.check()
    needed = int(server.database_size(session, context.database) * (1 + _SPARE))
    free = context.store.free_bytes()
    if free < needed:
        raise Refused(
            "The store has too little free space",
            found="%s in %s" % (_size(free), context.store.root),
            expected="%s, the size of the database and a tenth" % _size(needed),
            hint="free space there or choose another backstop_store",
        )
    return "%s, %s free" % (context.store.root, _size(free))


def _database_disk(context: Context, session: Session, question: Question) -> str:
    """A drill's copy and a successor for a revert must fit beside the live database."""
    needed = int(server.database_size(session, context.database) * (2 + _SPARE))
    free = question.database_free_bytes
    if free is None:
        free = _free_bytes(question.database_directory or _data_directory(context, session))
    if free < needed:
        raise Refused(
            "The database server has too little free space",
            found=_size(free),
            expected="%s, room for two copies of the database" % _size(needed),
            hint="free space on the database host",
        )
    return "%s free, %s needed" % (_size(free), _size(needed))


def _data_directory(context: Context, session: Session) -> str:
    local = context.connection.host in ("localhost", "::1") or context.connection.host.startswith(("/", "127."))
    try:
        found = session.value("SELECT current_setting('data_directory')") if local else None
    except BackstopError:
        found = None
    if not found:
        raise CouldNotVerify(
            "The free space of the database server cannot be read from here",
            hint="set backstop_database_directory (its data directory, when it is on this host) or "
            "backstop_database_free_bytes, or waive the gate database_disk with a reason",
        )
    return str(found)


def _free_bytes(path: str) -> int:
    try:
        usage = os.statvfs(path)
    except OSError as error:
        raise CouldNotVerify(
            "The free space of the database server cannot be read",
            found="%s: %s" % (path, error.strerror),
            hint="check backstop_database_directory, or declare backstop_database_free_bytes",
        ) from error
    return usage.f_bavail * usage.f_frsize


def _rights(context: Context, session: Session, _question: Question) -> str:
    with context.administer() as admin:
        found = server.rights(admin, context.database)
    lacking = []
    if not found.create_database:
        lacking.append("CREATEDB")
    if not (found.superuser or found.owns_database):
        lacking.append("ownership of " + context.database)
    if lacking:
        raise Refused(
            "The role cannot build and swap databases",
            found="%s lacks %s" % (found.role, " and ".join(lacking)),
            hint="ALTER ROLE ... CREATEDB, make it the owner, or give another role as backstop_administration",
        )
    owner = read_properties(session, context.database)["owner"]
    return "%s may create and rename databases (owner: %s)" % (found.role, owner)


def _row_security(_context: Context, session: Session, _question: Question) -> str:
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


def _swappable(context: Context, session: Session, _question: Question) -> str:
    found = server.obstacles_to_rename(session, context.database)
    if found:
        raise Refused(
            "The database could not be swapped in a rollback",
            found=", ".join(found),
            hint="they would stay with the former database: move them, or waive the gate with a reason",
        )
    return "nothing binds the database to its name"


def _migrations(context: Context, session: Session, question: Question) -> str:
    state = history.compare(question.files, history.read_rows(session.cursor(), context.connection.schema))
    problems = state.problems(question.expected)
    if problems:
        told = ["%s: %s" % (problem.message, ", ".join(problem.names)) for problem in problems]
        hints = [problem.hint for problem in problems]
        # Each once: where a migration is edited, the next is often unknown for the same reason.
        raise Refused("; ".join(told), hint="; ".join(sorted(set(hints), key=hints.index)))
    return "pending: %s" % (", ".join(state.pending) or "none")


def _cluster_statements(_context: Context, session: Session, question: Question) -> str:
    found = [
        "%s line %d: %s" % (file.name, statement.line, statement.text)
        for file in question.files
        if file.name in question.expected
        for statement in cluster_statements(file.sql)
    ]
    if found:
        raise Refused(
            "A migration changes the whole server",
            found="; ".join(found[:5]),
            hint="that cannot be rehearsed in a scratch database nor rolled back: do it by hand, outside of the"
            " migration",
        )
    return "the migrations stay within the database"


def _prisma_lock(context: Context, session: Session, _question: Question) -> str:
    holders = lock_holders(session.cursor())
    if holders:
        raise Refused(
            "Prisma's migration lock is held",
            found="backend %d (%s)" % (holders[0].pid, holders[0].application_name),
            hint="wait for that migration; if its program is gone, SELECT pg_terminate_backend(%d)" % holders[0].pid,
        )
    return "free"


def _release_connection(context: Context, session: Session, question: Question) -> str:
    if question.release_connection is None:
        raise CouldNotVerify(
            "The release's own DATABASE_URL is not known here",
            hint="set application_environment_file to the file that holds it, or waive the gate with a reason",
        )
    here = server.identity(session)
    with connect(question.release_connection, name=context.session_name) as other:
        there = server.identity(other)
    if here != there:
        raise Refused(
            "The release uses another database than the one that would be migrated",
            found="the release: %s (system %s)" % (there.database, there.system_identifier),
            expected="%s (system %s)" % (here.database, here.system_identifier),
            hint="make backstop_connection and the release's DATABASE_URL name the same database",
        )
    return "the release's URL reaches the same database"


#: Name, what is expected, how it is checked. ``connection`` comes before all of them.
GATES: Sequence["tuple[str, str, Check]"] = (
    ("direct_connection", "no pooler in between", _direct_connection),
    ("release_connection", "the release's DATABASE_URL reaches this database", _release_connection),
    ("client_tools", "pg_dump, pg_restore and pg_dumpall of the server's major version", _client_tools),
    ("store", "a private, writable directory with room for the backup", _store),
    ("database_disk", "room for two copies of the database on the server", _database_disk),
    ("rights", "the role may create, rename and drop databases", _rights),
    ("row_security", "the role sees every row", _row_security),
    ("swappable", "no subscription, replication slot or prepared transaction", _swappable),
    ("migrations", "exactly the expected migrations are pending, none failed, edited or unknown", _migrations),
    ("cluster_statements", "no migration acts beyond its database", _cluster_statements),
    ("prisma_lock", "nobody is migrating", _prisma_lock),
)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return "%.0f %s" % (count, unit)
        count /= 1024
    return "%.1f TiB" % count
