# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of the migrations: the migrations folder compared with the table ``_prisma_migrations``.

``prisma migrate status`` does not show this: it exits with 0 after ``resolve --rolled-back``, when a file was edited,
and when the database is ahead of the folder. The rules here are those of ``prisma migrate deploy``.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..base.durable_files import file_error, read_json
from ..base.errors import Refused
from ..base.remedies import Action, Hint, remedy
from ..base.sql_names import near_names, qualified

TABLE = "_prisma_migrations"
LOCK_FILE = "migration_lock.toml"
SCRIPT = "migration.sql"
PROVIDER = "postgresql"

APPLIED = "applied"
FAILED = "failed"
ROLLED_BACK = "rolled_back"


# The folder


@dataclasses.dataclass(frozen=True)
class MigrationFile:
    """One migration of the folder."""

    name: str
    #: The SQL as Prisma reads it: invalid UTF-8 bytes are replaced.
    sql: str = dataclasses.field(repr=False)

    @property
    def checksum(self) -> str:
        """The checksum that Prisma writes into the table when it applies this file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def matches(self, checksum: str) -> bool:
        """True when Prisma accepts the file for this checksum: line endings do not count."""
        variants = (self.sql, self.sql.replace("\r\n", "\n"), self.sql.replace("\n", "\r\n"))
        digests = [hashlib.sha256(variant.encode()) for variant in variants]
        if len(checksum) == 64:
            return checksum in [digest.hexdigest() for digest in digests]
        # Old engines wrote each byte without its leading zero (prisma/prisma-engines#1887).
        return checksum in ["".join("%x" % byte for byte in digest.digest()) for digest in digests]


_PUNCTUATION = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"


def migration_order(name: str) -> Tuple[List[Tuple[int, str]], str]:
    """Sort key of Prisma's order of migrations: JavaScript's localeCompare.

    Punctuation comes before digits before letters, so ``1_init`` comes before ``10_next``; capitals come after small
    letters, but only between names that are otherwise equal.
    """
    weights = []
    for character in name:
        if character in _PUNCTUATION or character.isspace():
            weights.append((0, chr(_PUNCTUATION.find(character) + 1)))
        elif character.isdigit():
            weights.append((1, character))
        else:
            weights.append((2, character.lower()))
    return weights, name.swapcase()


def _check_provider(content: Optional[bytes]) -> None:
    if content is None:
        return  # Prisma requires no lock file either.
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.startswith("provider")]
    found = lines[0][len("provider") :].strip(" =").strip('"') if lines else "no provider"
    if found != PROVIDER:
        raise Refused(
            "The migrations folder is not for PostgreSQL (Prisma calls this P3019)",
            found='%s names "%s"' % (LOCK_FILE, found),
            expected=PROVIDER,
            hint="deploy a release whose migrations were made for PostgreSQL",
        )


def read_folder(path: str) -> List[MigrationFile]:
    """Read a migrations folder, in Prisma's order.

    :raises Refused: there is no folder, it is for another database system, or a migration has no SQL
    """
    if not os.path.isdir(path):
        raise Refused(
            "There is no migrations folder",
            found="no directory " + path,
            hint="give the folder that holds %s and one folder per migration, usually prisma/migrations" % LOCK_FILE,
        )
    try:
        _check_provider(_read(os.path.join(path, LOCK_FILE)))
        with os.scandir(path) as entries:
            # Like Prisma: every real directory is a migration, a link to one is not.
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        scripts = {name: _read(os.path.join(path, name, SCRIPT)) for name in names}
    except OSError as error:
        raise file_error("The migrations folder cannot be read", path, error) from error
    empty = sorted(name for name, content in scripts.items() if content is None)
    if empty:
        raise Refused(
            "A migration has no SQL (Prisma calls this P3015)",
            found="no %s in %s" % (SCRIPT, ", ".join(os.path.join(path, name) for name in empty)),
            hint="restore the file from version control, or remove the empty folder",
        )
    return from_mapping({name: content for name, content in scripts.items() if content is not None})


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def from_mapping(scripts: Mapping[str, bytes]) -> List[MigrationFile]:
    """Migrations that were read from elsewhere (a commit): name to the bytes of migration.sql."""
    files = [MigrationFile(name, content.decode("utf-8", "replace")) for name, content in scripts.items()]
    return sorted(files, key=lambda file: migration_order(file.name))


# The table


@dataclasses.dataclass(frozen=True)
class HistoryRow:
    """One row of ``_prisma_migrations``."""

    id: str
    checksum: str
    migration_name: str
    started_at: Optional[datetime.datetime] = None
    finished_at: Optional[datetime.datetime] = None
    rolled_back_at: Optional[datetime.datetime] = None
    applied_steps_count: int = 0
    logs: Optional[str] = dataclasses.field(default=None, repr=False)

    @property
    def state(self) -> str:
        if self.rolled_back_at is not None:
            return ROLLED_BACK
        return APPLIED if self.finished_at is not None else FAILED

    @property
    def seconds(self) -> Optional[float]:
        """How long it ran; None if it did not finish."""
        if self.finished_at is None or self.started_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds(), 3)

    def to_json(self) -> Dict[str, Any]:
        return {
            field.name: _moment_text(value) if isinstance(value, datetime.datetime) else value
            for field in dataclasses.fields(self)
            for value in (getattr(self, field.name),)
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HistoryRow":
        fields: Dict[str, Any] = {field.name: value.get(field.name) for field in dataclasses.fields(cls)}
        for name in ("started_at", "finished_at", "rolled_back_at"):
            fields[name] = datetime.datetime.fromisoformat(fields[name]) if fields[name] else None
        return cls(**fields)


def _moment_text(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).isoformat() if moment.tzinfo else moment.isoformat()


def read_rows(cursor: Any, schema: str = "public") -> Optional[List[HistoryRow]]:
    """Read the history in the order in which it was written.

    :param cursor: of a DB-API driver with ``%s`` placeholders
    :returns: None when there is no table
    """
    table = qualified(schema, TABLE)
    cursor.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,))
    if not cursor.fetchone()[0]:
        return None
    columns = [field.name for field in dataclasses.fields(HistoryRow)]
    cursor.execute("SELECT %s FROM %s ORDER BY started_at, id" % (", ".join(columns), table))
    return [HistoryRow(**dict(zip(columns, row))) for row in cursor.fetchall()]


def read_file(path: str) -> Optional[List[HistoryRow]]:
    """The history when a backup was made, from its file; None when there was no such table."""
    rows = read_json(path, "history of migrations of a backup")
    return None if rows is None else [HistoryRow.from_json(row) for row in rows]


def _by_name(rows: Iterable[HistoryRow]) -> Dict[str, List[HistoryRow]]:
    found: Dict[str, List[HistoryRow]] = {}
    for row in rows:
        found.setdefault(row.migration_name, []).append(row)
    return found


class Effect(NamedTuple):
    """The effect of all rows of one name."""

    name: str
    checksum: str
    state: str


def effective_state(rows: Optional[Iterable[HistoryRow]]) -> List[Effect]:
    """The effect of the rows of each name, in Prisma's order.

    A failed row takes precedence over an applied one (it stops the next deploy), both over rolled-back rows.
    """
    rank = {FAILED: 2, APPLIED: 1, ROLLED_BACK: 0}
    effects = []
    for name, group in _by_name(rows or ()).items():
        row = max(group, key=lambda row: rank[row.state])
        effects.append(Effect(name, row.checksum, row.state))
    return sorted(effects, key=lambda effect: migration_order(effect.name))


def history_differences(before: Optional[Iterable[HistoryRow]], after: Optional[Iterable[HistoryRow]]) -> List[str]:
    """How two histories differ in effect, as sentences; none when the next deploy would treat both alike.

    A migration that was rolled back counts as absent.
    """
    old, new = (
        {effect.name: effect for effect in effective_state(rows) if effect.state != ROLLED_BACK}
        for rows in (before, after)
    )
    sentences = []
    for name in sorted(set(old) | set(new), key=migration_order):
        was, now = old.get(name), new.get(name)
        states = (was.state if was else "absent", now.state if now else "absent")
        if states[0] != states[1]:
            sentences.append("%s was %s and is %s" % (name, *states))
        elif was and now and was.checksum != now.checksum:
            sentences.append("%s has another checksum" % name)
    return sentences


# Both


@dataclasses.dataclass(frozen=True)
class Problem:
    """One reason not to deploy."""

    kind: str
    names: List[str]
    message: str
    hint: Hint


@dataclasses.dataclass(frozen=True)
class MigrationState:
    """Names of migrations by state; a name can be in several lists."""

    table_exists: bool
    #: In the folder and applied to the database.
    applied: List[str]
    #: What the next deploy would run, in its order.
    pending: List[str]
    #: Started and neither finished nor rolled back: failed, interrupted, or running now.
    failed: List[str]
    #: Applied to the database, but with another text than the folder's.
    edited: List[str]
    #: Applied or failed in the database, without a folder, and not squashed.
    unknown: List[str]
    #: Applied to the database, without a folder: the first migration of the folder replaces them.
    squashed: List[str]
    #: Rolled back and not applied now.
    rolled_back: List[str]
    #: More than one applied row of the same name.
    duplicates: List[str]

    @property
    def up_to_date(self) -> bool:
        return not (self.pending or self.failed or self.edited or self.unknown or self.duplicates)

    def problems(self, expected: Optional[Sequence[str]] = None) -> List[Problem]:
        """Every reason not to deploy.

        :param expected: the only migrations that may be pending; each must be in the folder. None allows any.
        """
        found = [
            Problem(kind, names, message, hint)
            for kind, names, message, hint in (
                ("failed", self.failed, "Migrations failed or were interrupted", _FAILED_HINT),
                ("edited", self.edited, "Migrations that ran were edited afterwards", _EDITED_HINT),
                ("unknown", self.unknown, "The database has migrations that this release does not know", _UNKNOWN_HINT),
                ("duplicate", self.duplicates, "Migrations are in force twice in the history", _DUPLICATE_HINT),
            )
            if names
        ]
        return found if expected is None else found + self._unexpected(expected)

    def _unexpected(self, expected: Sequence[str]) -> List[Problem]:
        found = []
        surprising = [name for name in self.pending if name not in expected]
        if surprising:
            hint = "deploy these first, or add them to the expected migrations"
            found.append(Problem("unexpected", surprising, "Migrations are pending that were not expected", hint))
        known = {*self.pending, *self.applied, *self.failed, *self.unknown}
        missing = [name for name in expected if name not in known]
        if missing:
            near = [other for name in missing for other in near_names(name, known)]
            hint = "check the name and the release" + (" (there is: %s)" % ", ".join(near) if near else "")
            found.append(Problem("missing", missing, "Expected migrations are not in this release", hint))
        return found


_FAILED_HINT = remedy(
    "see that no deploy is running, then run %s, which repairs the database and marks the migration as rolled back"
    " (without a backup: %s)",
    Action.FAILED_MIGRATION,
    Action.MARK_MIGRATION,
)
_EDITED_HINT = "put the file back as it was when it ran, and put the change into a new migration"
_UNKNOWN_HINT = "deploy a release that holds them; this one is older than the database or of another branch"
_DUPLICATE_HINT = "look at the rows of %s; keep one per name" % TABLE


def compare(folder: Sequence[MigrationFile], rows: Optional[Sequence[HistoryRow]]) -> MigrationState:
    """Compare folder and table as ``prisma migrate deploy`` would.

    :param rows: None when there is no table
    """
    by_name = _by_name(rows or ())
    live = {name: [row for row in group if row.state != ROLLED_BACK] for name, group in by_name.items()}
    files = {file.name: file for file in folder}
    names = sorted(by_name, key=migration_order)

    def having(state: str) -> List[str]:
        return [name for name in names if any(row.state == state for row in live[name])]

    applied = having(APPLIED)
    squashed = _squashed(folder, live)
    return MigrationState(
        table_exists=rows is not None,
        applied=[name for name in applied if name in files],
        # Prisma's rule: any row that was not rolled back prevents a run of that name.
        pending=[file.name for file in folder if not live.get(file.name)],
        failed=having(FAILED),
        edited=[
            name
            for name in applied
            if name in files
            and not all(files[name].matches(row.checksum) for row in live[name] if row.state == APPLIED)
        ],
        unknown=[name for name in names if live[name] and name not in files and name not in squashed],
        squashed=[name for name in names if name in squashed],
        rolled_back=[name for name in names if not live[name]],
        duplicates=[name for name in names if len(live[name]) > 1],
    )


def _squashed(folder: Sequence[MigrationFile], live: Mapping[str, Sequence[HistoryRow]]) -> List[str]:
    """Names of migrations that were squashed into the first one of the folder.

    That one was marked as applied (``resolve --applied`` runs no step) when they were applied already. A release that
    is only older than the database has no such mark: the migrations that it lacks ran after those that it has.
    """
    marks = [row for row in live.get(folder[0].name, ()) if _was_marked(row)] if folder else []
    marked = [row.started_at for row in marks if row.started_at is not None]
    names = {file.name for file in folder}
    return [
        name
        for name, rows in live.items()
        if marked
        and rows
        and name not in names
        and all(row.state == APPLIED and row.started_at is not None and row.started_at < min(marked) for row in rows)
    ]


def _was_marked(row: HistoryRow) -> bool:
    return row.state == APPLIED and row.applied_steps_count == 0
