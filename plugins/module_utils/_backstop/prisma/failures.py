# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The meaning of Prisma's errors, and what to do about them."""

from __future__ import annotations

import dataclasses
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.remedies import Action, Hint, Setting, remedy


@dataclasses.dataclass(frozen=True)
class Failure:
    #: Prisma's error code, such as P3018
    prisma_code: Optional[str] = None
    #: the migration that failed
    migration: Optional[str] = None
    sqlstate: Optional[str] = None
    #: the server's own message
    database_message: Optional[str] = None
    #: whether the database is certainly unchanged
    nothing_changed: bool = False
    #: migrations that Prisma began in this run, in order; all but the failed one were applied
    started: List[str] = dataclasses.field(default_factory=list)


class PrismaError(BackstopError):
    """Prisma refused or failed."""

    def __init__(
        self,
        message: str,
        failure: Optional[Failure] = None,
        *,
        found: Optional[str] = None,
        hint: Optional[Hint] = None,
        cause: str = "",
    ) -> None:
        """:param cause: what to do about the cause alone, for callers that handle the rest themselves"""
        self.failure = failure or Failure()
        super().__init__(message, found=found, hint=hint, details=dataclasses.asdict(self.failure))
        self.cause = cause


class _Known(NamedTuple):
    message: str
    hint: Hint
    #: Prisma detects it before it changes anything.
    before_anything: bool = True


_FAILED = remedy(
    "run %s, which repairs the database and marks the migration as rolled back (without a backup: %s), then deploy a"
    " corrected one",
    Action.FAILED_MIGRATION,
    Action.MARK_MIGRATION,
)
_READ = remedy("read Prisma's message; see what state the migrations are in (%s)", Action.MIGRATION_STATE)
_KNOWN: Dict[str, _Known] = {
    "P1000": _Known(
        "The database rejects Prisma's login",
        "check user and password of the connection; a password in a URL must be percent-encoded",
    ),
    "P1001": _Known("Prisma cannot reach the database server", "check host and port, and that the server runs"),
    "P1002": _Known("The database server did not answer Prisma in time", "see whether the server is overloaded"),
    "P1003": _Known("The database does not exist", "check the database's name in the connection"),
    "P1010": _Known("The database user lacks rights on the database", "give it the rights, or use its owner"),
    "P1011": _Known("Prisma could not open a TLS connection", "check sslmode and the certificates of the connection"),
    "P1012": _Known(
        "The Prisma schema is not valid, or a variable it names is not set", "run `npx prisma validate` in the release"
    ),
    "P1013": _Known(
        "Prisma cannot read the connection URL", "percent-encode the characters : / ? # [ ] @ in user and password"
    ),
    "P1017": _Known(
        "The server closed Prisma's connection",
        remedy("see the server's log, then what state the migrations are in (%s)", Action.MIGRATION_STATE),
        before_anything=False,
    ),
    "P3005": _Known(
        "The database has tables but no migration history",
        remedy(
            "mark the migrations that it already has as applied (baselining) with %s, then deploy",
            Action.MARK_MIGRATION,
        ),
    ),
    "P3008": _Known("The migration is applied already", "nothing is to be done"),
    "P3009": _Known("A migration in the history failed, so Prisma applies no other", _FAILED),
    "P3011": _Known(
        "The migration was never applied to this database, so it cannot be marked as rolled back",
        "check the name and the database",
    ),
    "P3012": _Known(
        "The migration succeeded, so Prisma does not mark it as rolled back",
        remedy("to revert a migration use %s: it restores tables and history together", Action.APPLICATION_ERRORS),
    ),
    "P3015": _Known(
        "A migration has no SQL",
        "restore migration.sql from version control, or remove the empty folder",
        before_anything=False,
    ),
    "P3017": _Known("The migration is not in the release's migrations folder", "check the name and the release"),
    "P3018": _Known("A migration failed", _FAILED, before_anything=False),
    "P3019": _Known("The release's migrations are not for PostgreSQL", "see prisma/migrations/migration_lock.toml"),
}
_LOCKED = remedy(
    "wait for the other migration to end (%s shows who holds the lock), then run this again", Action.MIGRATION_STATE
)
_STATES = {
    sqlstates.LOCK_NOT_AVAILABLE: "another session holds a lock on the table: end it (pg_stat_activity) or raise the"
    " lock timeout.",
    sqlstates.QUERY_CANCELED: "the statement was cancelled, by a statement_timeout or by a user.",
    sqlstates.ADMIN_SHUTDOWN: "the session was ended on the server.",
    sqlstates.INSUFFICIENT_PRIVILEGE: "the migration's role lacks a right.",
    sqlstates.DUPLICATE_TABLE: "what it creates exists already: was it created by hand, or by an interrupted run?",
    sqlstates.ACTIVE_SQL_TRANSACTION: "such a statement needs a migration file of its own.",
    sqlstates.IN_FAILED_SQL_TRANSACTION: "the migration has a BEGIN of its own, which hides the first error: see the"
    " server's log.",
}

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CODE = re.compile(r"Error:\s*(P\d{4})\b")
_APPLYING = re.compile(r"^Applying migration `(.+)`", re.MULTILINE)
_NAMED = re.compile(
    r"Migration name:\s*(\S+)|[Mm]igration `([^`\n]+)`|The `([^`\n]+)` migration started|The migration (\S+) could not"
)
_STATE = re.compile(r"Database error code:\s*(\w{5})")
_DATABASE = re.compile(r"Database error:\s*(.*?)\s*(?:\n\s*Position:|\n\s*DbError \{|\Z)", re.DOTALL)
_ENGINE = re.compile(
    r"PRISMA_SCHEMA_ENGINE_BINARY|[Ss]chema engine exited|getaddrinfo|schema-engine binary|\[schema-engine\] error"
)
_PLAIN = re.compile(r"Error:\s*(?:db error:\s*)?(ERROR: [^\n]*)")
#: Errors that Prisma passes on without a code, by the server's message.
_PLAIN_STATES = (
    ("current transaction is aborted", sqlstates.IN_FAILED_SQL_TRANSACTION),
    ("canceling statement due to lock timeout", sqlstates.LOCK_NOT_AVAILABLE),
    ("canceling statement due to statement timeout", sqlstates.QUERY_CANCELED),
    ("canceling statement due to user request", sqlstates.QUERY_CANCELED),
    ("terminating connection due to administrator command", sqlstates.ADMIN_SHUTDOWN),
    ("permission denied", sqlstates.INSUFFICIENT_PRIVILEGE),
)


def plain_text(text: str) -> str:
    """A text without terminal colours."""
    return _COLOUR.sub("", text)


def started_migrations(stdout: str) -> List[str]:
    """The migrations that a deploy began, by its output."""
    return _APPLYING.findall(plain_text(stdout))


def analyse(what: str, stdout: str, stderr: str) -> PrismaError:
    """Turn the output of a failed Prisma into an error.

    :param what: the command, for errors without a Prisma code: "prisma migrate deploy"
    """
    said = plain_text(stderr) if stderr.strip() else plain_text(stdout)
    code = _first(_CODE, said)
    state, database_message = _database_error(said)
    started = started_migrations(stdout)
    known = _KNOWN.get(code or "")
    migration = _migration(said) or (started[-1] if started else None)
    message = known.message if known else "%s failed" % what
    hint = known.hint if known else _READ
    nothing_changed = not started and known is not None and known.before_anything
    if _is_lock_wait(code, said, state, started):
        message, hint, nothing_changed = "Another Prisma migration holds the migration lock", _LOCKED, True
    elif state in _STATES:
        message = _KNOWN["P3018"].message if started else message
        hint = remedy("%s %s", _STATES[state], _FAILED) if started else _STATES[state]
    elif code is None and _ENGINE.search(said):
        message, nothing_changed = "Prisma's engine could not be started", not started
        hint = "let this host download the engine at install time, or set PRISMA_SCHEMA_ENGINE_BINARY"
    elif "unsupported startup parameter" in said:
        message, nothing_changed = "The connection goes through a pooler", not started
        hint = remedy("migrations need the direct connection to the server: give its URL in %s", Setting.CONNECTION)
    if migration and message == _KNOWN["P3018"].message:
        message = "Migration %s failed" % migration
    return PrismaError(
        message,
        Failure(code, migration, state, database_message, nothing_changed, started),
        found=_found(said, code, state, database_message),
        hint=hint,
        cause=_STATES.get(state or "", ""),
    )


def _is_lock_wait(code: Optional[str], said: str, state: Optional[str], started: List[str]) -> bool:
    """True when Prisma only waited for its own advisory lock: its 10 seconds ended, or our lock_timeout did."""
    if started:
        return False
    return (code == "P1002" and "advisory lock" in said) or (code is None and state == sqlstates.LOCK_NOT_AVAILABLE)


def _first(pattern: "re.Pattern[str]", text: str) -> Optional[str]:
    match = pattern.search(text)
    return next((group for group in match.groups() if group), None) if match else None


def _migration(said: str) -> Optional[str]:
    return _first(_NAMED, said)


def _database_error(said: str) -> Tuple[Optional[str], Optional[str]]:
    message = _first(_DATABASE, said) if "Database error:" in said else _first(_PLAIN, said)
    state = _first(_STATE, said)
    if state is None and message:
        state = next((number for words, number in _PLAIN_STATES if words in message), None)
    return state, message


def _found(said: str, code: Optional[str], state: Optional[str], database_message: Optional[str]) -> str:
    text = database_message or _CODE.sub("", said).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    short = " ".join(lines)[:1000] or "Prisma printed no error"
    numbers = ", ".join(filter(None, (code, "SQLSTATE " + state if state else None)))
    return short + (" [%s]" % numbers if numbers else "")
