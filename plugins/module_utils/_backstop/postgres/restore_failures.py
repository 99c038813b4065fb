# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The meaning of a failed pg_restore: the object, the cause, and a fix so that the next backup can be restored.

Its errors are rarely the archive's fault. They come from the source database (functions that depend on a search_path,
rows that violate a constraint, other owners), so any backup would fail alike. pg_restore gives no SQLSTATE, so the
server's English messages are parsed (PostgreSQL 13 to 18); other messages are only shown.
"""

from __future__ import annotations

import re
from typing import Callable, Match, Optional, Sequence, Tuple, Type

from ..base.errors import BackstopError, CouldNotVerify
from ..base.remedies import Hint, Setting, remedy
from .connection import Session, Settings, connect

_BLOCK = re.compile(
    r'^pg_restore: error: (?:could not execute query|COPY failed for table "(?P<table>.+?)"): \S+:\s+(?P<said>.*)', re.M
)
_FIELD = re.compile(r"^(DETAIL|HINT|CONTEXT): (.*)", re.M)
_COMMAND = re.compile(r"^Command was: (.*)", re.M | re.S)
#: Messages must not contain rows of a table, but they may contain a key, which is needed to find the row.
_NO_ROWS = re.compile(r"Failing row contains.*")
_AGAIN = "a new backup would fail in the same way. In the source: "


class Failure:
    """The first error of pg_restore."""

    def __init__(self, stderr: str, settings: Settings) -> None:
        self.settings = settings
        self.table: Optional[str] = None
        self.command = ""
        self.said = ""
        block = _BLOCK.search(stderr)
        if block is None:
            return
        rest = re.split(r"^pg_restore: ", stderr[block.start() + 1 :], maxsplit=1, flags=re.M)[0]
        command = _COMMAND.search(rest)
        self.table = block.group("table")
        self.command = " ".join(command.group(1).split()).rstrip(";") if command else ""
        self.said = block.group("said").strip()
        fields = dict(_FIELD.findall(rest[: command.start()] if command else rest))
        self.detail = _NO_ROWS.sub("", fields.get("DETAIL", "")).strip()
        self.hint = fields.get("HINT", "").strip()
        self.context = fields.get("CONTEXT", "")

    @property
    def role(self) -> str:
        return self.settings.user or "this role"

    @property
    def object(self) -> str:
        if self.table:
            return "the rows of table " + self.table
        return self.command if len(self.command) <= 160 else self.command[:160] + "..."

    def text(self) -> str:
        return ": ".join(part for part in (self.object, self.said, self.detail) if part)


#: Cause and fix of a failure.
_Advice = Tuple[str, Hint]


def _by_search_path(failure: Failure, said: Match[str]) -> Optional[_Advice]:
    function = re.search(r'(?:PL/\w+ function (.+?\(.*?\)) line|SQL function "(.+?)")', failure.context)
    if function is None:
        return None
    with connect(failure.settings) as session:
        names = [function.group(1)] if function.group(1) else _functions_named(session, function.group(2))
        path = _schemas_of(session, said.group("name"), names)
    statements = ["ALTER FUNCTION %s SET search_path = %s" % (name, path) for name in names]
    return (
        "function %s finds it only by a search_path, and a restore sets none" % " or ".join(names),
        _AGAIN + "; ".join(statements) + ", or write the schema before the name in its body",
    )


def _functions_named(session: Session, name: str) -> Sequence[str]:
    found = session.rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.proname = %s"
        " AND l.lanname = 'sql' AND p.oid >= 16384 ORDER BY 1",
        (name,),
    )
    return [str(one) for (one,) in found] or [name]


def _schemas_of(session: Session, name: str, functions: Sequence[str]) -> str:
    """The schemas that contain that name, else those of the functions; in the syntax of SET search_path."""
    bare = name.split(".")[-1].strip('"')
    found = session.rows(
        "SELECT DISTINCT quote_ident(n.nspname) FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.oid IN ("
        "SELECT relnamespace FROM pg_class WHERE relname = %s"
        " UNION SELECT pronamespace FROM pg_proc WHERE proname = %s"
        " UNION SELECT typnamespace FROM pg_type WHERE typname = %s"
        " UNION SELECT oprnamespace FROM pg_operator WHERE oprname = %s"
        " UNION SELECT cfgnamespace FROM pg_ts_config WHERE cfgname = %s) ORDER BY 1",
        (bare,) * 5,
    )
    return ", ".join(str(schema) for (schema,) in found) or ", ".join(
        sorted({one.rpartition("(")[0].rpartition(".")[0] or "public" for one in functions})
    )


def _orphans(failure: Failure, said: Match[str]) -> _Advice:
    table, key = said.groups()
    return (
        "rows of table %s refer to others that are not there, which constraint %s did not prevent: its checks were off"
        " (session_replication_role, DISABLE TRIGGER) when they were written" % (table, key),
        _AGAIN + "delete or correct these rows, or drop the constraint and add it NOT VALID, as it is then restored",
    )


def _duplicates(_failure: Failure, said: Match[str]) -> _Advice:
    remedy = (
        "find the rows with enable_indexscan, enable_indexonlyscan and enable_bitmapscan set to off, remove one of each"
        " pair, then REINDEX INDEX %s; other indexes may be corrupt too"
    )
    return "the table holds this key twice, so the index in the source is corrupt", _AGAIN + remedy % said.group(1)


def _check(_failure: Failure, said: Match[str]) -> _Advice:
    table, constraint = said.groups()
    return (
        "constraint %s does not hold for a row, or it reads what is only loaded after it (another table)" % constraint,
        _AGAIN + "correct the rows, or ALTER TABLE %s drop the constraint and add it NOT VALID: a restore then adds it"
        " after the rows, unchecked; a rule that reads other tables belongs in a trigger" % table,
    )


def _domain(failure: Failure, said: Match[str]) -> _Advice:
    domain = said.group(1)
    column = re.search(r"column (.+?): ", failure.context + ": ")
    where = " in column %s" % column.group(1) if column else ""
    cause = "domain %s does not allow a value%s: it is older than the constraint (NOT VALID) or was not checked"
    remedy = (
        "correct these values, or drop that constraint of the domain; ALTER DOMAIN ... VALIDATE CONSTRAINT fails as"
        " long as there are any"
    )
    return cause % (domain, where), _AGAIN + remedy


def _brought_twice(_failure: Failure, said: Match[str]) -> _Advice:
    return (
        "something else creates it too, mostly an extension that it was taken out of",
        _AGAIN + "ALTER EXTENSION ... ADD %s to the extension that it came with, or drop it" % said.group(1).strip('"'),
    )


def _owner(failure: Failure, said: Match[str]) -> _Advice:
    owner = said.group(1)
    return "it belongs to role %s, of which %s is not a member" % (owner, failure.role), remedy(
        "GRANT %s TO %s, give the object another owner in the source, or connect as a superuser (%s)",
        owner,
        failure.role,
        Setting.CONNECTION,
    )


def _untrusted_extension(failure: Failure, said: Match[str]) -> _Advice:
    cause = "only a superuser may create extension %s, which %s is not" % (said.group(1), failure.role)
    return cause, remedy(
        "every restore creates the extension: connect as a superuser (%s), or drop it in the source", Setting.CONNECTION
    )


def _missing_package(_failure: Failure, said: Match[str]) -> _Advice:
    return (
        "the server that it is restored into lacks its files",
        "install the package of %s for this server's version, then restore again" % said.group("name"),
    )


def _rights(failure: Failure, _said: Match[str]) -> _Advice:
    return "%s may not %s" % (failure.role, "write there" if failure.table else "create this object"), remedy(
        "connect as its owner or as a superuser (%s), or drop the object in the source", Setting.CONNECTION
    )


def _no_role(_failure: Failure, said: Match[str]) -> _Advice:
    return (
        "role %s is not on the server that it is restored into" % said.group(1),
        "create the role there (roles.sql of the backup has its definition), or give the object another owner",
    )


def _locks(_failure: Failure, _said: Match[str]) -> _Advice:
    return "the server's lock table is too small", "set max_locks_per_transaction higher and restart the server"


def _passing(_failure: Failure, _said: Match[str]) -> _Advice:
    return "the backup is not the cause", "fix that on the server, then run this again"


#: The server's message, its meaning, and the class of the error. A failure of the server is not one of the backup.
_RULES: Sequence[Tuple[str, Callable[[Failure, Match[str]], Optional[_Advice]], Type[BackstopError]]] = (
    (
        r'(?:relation|type|schema|text search \w+|collation) "(?P<name>.+?)" does not exist',
        _by_search_path,
        BackstopError,
    ),
    (r"(?:function|procedure) (?P<name>.+?)\(.*\) does not exist", _by_search_path, BackstopError),
    (r"operator does not exist: .*? ?(?P<name>[-+*/<>=~!@#%^&|`?]+) ", _by_search_path, BackstopError),
    (r'insert or update on table "(.+?)" violates foreign key constraint "(.+?)"', _orphans, BackstopError),
    (r'could not create unique index "(.+?)"', _duplicates, BackstopError),
    (r'new row for relation "(.+?)" violates check constraint "(.+?)"', _check, BackstopError),
    (r"value for domain (.+?) violates check constraint", _domain, BackstopError),
    (r"domain (.+?) does not allow null values", _domain, BackstopError),
    (r'(?:function|relation|type|operator) (".+?"|\S+) already exists', _brought_twice, BackstopError),
    (r'must be member of role "(.+?)"', _owner, BackstopError),
    (r'must be able to SET ROLE "(.+?)"', _owner, BackstopError),
    (r'permission denied to create extension "(.+?)"', _untrusted_extension, BackstopError),
    (r'extension "(?P<name>.+?)" is not available', _missing_package, BackstopError),
    (r'could not open extension control file ".*/(?P<name>.+?)\.control"', _missing_package, BackstopError),
    (r'could not (?:access|load) (?:file|library) "(?P<name>.+?)"', _missing_package, BackstopError),
    (r'role "(.+?)" does not exist', _no_role, BackstopError),
    (r"permission denied|must be superuser|must be owner|only superuser", _rights, BackstopError),
    (r"out of shared memory", _locks, CouldNotVerify),
    (r"No space left on device|Disk quota exceeded|out of memory", _passing, CouldNotVerify),
    (r"terminating connection|server closed the connection|canceling statement", _passing, CouldNotVerify),
)


def explain(stderr: str, settings: Settings, otherwise: str) -> BackstopError:
    """The error to raise for a failed pg_restore.

    :param settings: of the database into which it restored, as far as it came
    :param otherwise: the error text if pg_restore did not name the object
    """
    message = "The archive could not be restored into %s" % settings.database
    failure = Failure(stderr, settings)
    for pattern, advise, kind in _RULES:
        said = re.search(pattern, failure.said or stderr)
        advice = advise(failure, said) if said else None
        if advice:
            cause, hint = advice
            return kind(message, found="%s; %s" % (failure.text() or otherwise, cause), hint=hint)
    if failure.said:
        found = failure.text() + (" (%s)" % failure.hint if failure.hint else "")
        hint = "a new backup would fail in the same way: fix this object in the source, or restore as another role"
        return BackstopError(message, found=found, hint=hint)
    return BackstopError(message, found=otherwise)
