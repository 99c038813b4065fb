# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to do about an error, as data. Ansible and the command put it into the names that their users know.

A process belongs to one interface and selects its names once; texts made from these parts then use these names, like a
translation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from typing import Any, Iterator, Mapping, Tuple, Union


class _Part(enum.Enum):
    def __str__(self) -> str:
        return _words.name_of(self)


class Setting(_Part):
    """A setting of the user; the value is its name where no interface was selected."""

    # Site
    ADMINISTRATION = "administration"
    CLIENT_BIN_DIR = "client_bin_dir"
    CONNECTION = "connection"
    DATABASE_DIRECTORY = "database_directory"
    DATABASE_FREE_BYTES = "database_free_bytes"
    ENVIRONMENT_FILE = "environment_file"
    IDENTITY = "age_identity"
    MANAGER = "manager"
    PASSWORD = "password"
    POOLERS = "poolers"
    PYTHON = "Python"
    RECIPIENTS = "age_recipients"
    REVISION_TO_DEPLOY = "revision"
    SAFETY_COPY = "safety_copy"
    SAFETY_COPY_SECONDS = "safety_copy_seconds"
    SERVER_PROGRAMS_VERSION = "server_programs_version"
    SHARE_TO_DELETE = "max_delete_share"
    STORE = "store"
    SYSTEMD_UNIT = "systemd unit"
    SYSTEMD_USER = "systemd user"
    TAKE_OVER = "take_over"
    URL = "database URL"
    USER = "user"
    # Rollback
    ACCEPT_CASCADE = "accept_cascade"
    ACCEPT_LOST_OBJECTS = "accept_lost_objects"
    ACCEPT_LOST_ROWS = "accept_lost_rows"
    ACCEPT_UNREADABLE = "accept_unreadable"
    AGAIN = "again"
    BACKUP = "backup"
    DOWN_SQL = "down_sql"
    KEYS = "keys"
    METHOD = "method"
    MODE = "mode"
    OPERATION = "operation"
    REAPPLY = "reapply"
    REAPPLY_DELETES = "reapply_deletes"
    RELEASE = "release"
    RESTORE_METHOD = "restore_method"
    TABLE = "table"
    WHERE = "where"


class Action(_Part):
    """An action that a user starts; the value is its name where no interface was selected."""

    ALL_STEPS = "run this from the beginning, with all of its steps"
    APPLICATION_ERRORS = "the rollback after application errors"
    COMPLETE = "the complete rollback"
    CORRUPTED_TABLE = "the restore of a table"
    DEPLOY = "the deploy"
    DROP_RETIRED = "drop retired databases"
    FAILED_MIGRATION = "the rollback of a failed migration"
    LIST_BACKUPS = "the list of backups"
    MARK_MIGRATION = "mark a migration"
    MIGRATION_STATE = "the state of the migrations"
    PLAN = "the rollback plan"
    SAME_AGAIN = "run the same again"
    THE_REST = "run the remaining steps"
    UNDO = "the undo"


#: The action of each rollback scenario, by the scenario's name in requests of operations and in plans.
BY_SCENARIO: Mapping[str, Action] = {
    "application_errors": Action.APPLICATION_ERRORS,
    "complete": Action.COMPLETE,
    "corrupted_table": Action.CORRUPTED_TABLE,
    "failed_migration": Action.FAILED_MIGRATION,
}


@dataclasses.dataclass(frozen=True)
class Given:
    """A setting with its value."""

    setting: Setting
    value: Any

    def __str__(self) -> str:
        return _words.given(self)


@dataclasses.dataclass(frozen=True)
class Start:
    """An action with its settings.

    :ivar check: only show what it would do
    :ivar as_before: with all other settings of the previous run
    """

    action: Action
    given: Tuple[Given, ...] = ()
    check: bool = False
    as_before: bool = False

    def __str__(self) -> str:
        return _words.start(self)


Part = Union[Setting, Action, Given, Start, "Remedy", str, int, None]


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A sentence, and the parts for its ``%s``."""

    text: str
    parts: Tuple[Part, ...] = ()

    def __str__(self) -> str:
        return self.text % self.parts if self.parts else self.text


#: The type of an error's hint.
Hint = Union[str, Remedy]


def remedy(text: str, *parts: Part) -> Remedy:
    return Remedy(text, parts)


class Words:
    """The names that one interface uses; this base class has neutral ones."""

    def name_of(self, part: enum.Enum) -> str:
        return str(part.value)

    def given(self, given: Given) -> str:
        return "%s=%s" % (given.setting, shown(given.value))

    def start(self, start: Start) -> str:
        text = ", ".join([*["check"] * start.check, *map(str, start.given)])
        return str(start.action) + (" (%s)" % text if text else "")


def shown(value: Any) -> str:
    """A value as users type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_words = Words()


@contextlib.contextmanager
def in_words_of(words: Words) -> Iterator[None]:
    """Every text that is made within the block uses these names."""
    global _words
    before, _words = _words, words
    try:
        yield
    finally:
        _words = before
