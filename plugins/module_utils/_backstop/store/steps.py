# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of operations, by the names that journals have for them.

``operation`` is none of them: under that name a journal keeps that an operation was adopted, and how it ended.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Generic, List, Optional, Type, TypeVar

F = TypeVar("F")


class Step(str, Generic[F]):
    """The name of a step whose facts are read later: Operation.result() gives them as this type."""

    facts: Type[F]

    def __new__(cls, name: str, facts: Type[F]) -> "Step[F]":
        step = super().__new__(cls, name)
        step.facts = facts
        return step


# Facts of steps: what somebody reads later, not all that a journal has. The defaults are for a step that was never
# done, and for journals of earlier versions.


@dataclasses.dataclass(frozen=True)
class BackupMade:
    backup: str = ""


@dataclasses.dataclass(frozen=True)
class GatesPassed:
    #: gates that were passed over, and why
    waived: Dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    migrations: List[Dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def names(self) -> List[str]:
        return [str(migration["name"]) for migration in self.migrations]


@dataclasses.dataclass(frozen=True)
class ReleaseChanged:
    commit: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class DownSqlProved:
    proved: bool = False
    #: backup of the database before the migration
    before: str = ""
    #: where the SQL came from
    source: str = ""
    sha256: str = ""
    migrations: List[str] = dataclasses.field(default_factory=list)
    dropped_tables: List[str] = dataclasses.field(default_factory=list)
    dropped_columns: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class TakenOut:
    #: of the database right before
    backup: Optional[str] = None
    losses: List[Dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Built:
    backup: str = ""
    oid: int = 0


@dataclasses.dataclass(frozen=True)
class Swapped:
    #: of what the database held that took over, before rows were carried there; None where there was none
    backup: Optional[str] = None
    #: of the database that took over
    live_oid: int = 0


@dataclasses.dataclass(frozen=True)
class SavedInPlace:
    backup: str = ""
    #: damaged tables of which only what could be read was saved
    saved: List[Dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class RestoredInPlace:
    backup: str = ""
    #: backup of what was removed
    emergency: str = ""
    live_oid: int = 0


@dataclasses.dataclass(frozen=True)
class TableRestored:
    changed: bool = False
    #: full name, and as a person types it
    table: str = ""
    name: str = ""
    backup: str = ""
    mode: str = ""
    where: Optional[str] = None
    keys: List[Any] = dataclasses.field(default_factory=list)
    database_oid: int = 0
    #: backup of the table as it was; None where it was damaged
    emergency: Optional[str] = None
    #: digest of each table afterwards
    digests: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BaseBuilt:
    oid: int = 0


@dataclasses.dataclass(frozen=True)
class Pruned:
    #: the database, and its backup
    dropped: str = ""
    dump: str = ""


# Of a deploy, in their order.

GATES = Step("gates", GatesPassed)
BACKUP = Step("backup", BackupMade)
DRILL = Step("drill", BackupMade)
REHEARSAL = Step("rehearsal", Rehearsed)
#: The release before it was tried on the new schema.
OLD_RELEASE = "old_release"
#: A person said yes.
CONFIRM = "confirm"
#: From here to STARTED the application is stopped; a rollback has both, too.
STOP = "stop"
FENCE = "fence"
#: The migrations were applied on the live database.
MIGRATE = "migrate"
#: Definitions are those that the rehearsal left, and tables as described.
CHECK = "check"
STARTED = "started"
POST_BACKUP = "post_backup"

# Ways back, which a deploy may take too.

#: What a failed migration left was dropped, and the failed migration marked as rolled back.
CLEAN = "clean"
RESOLVE = "resolve"
#: The release was changed and the database left alone.
CODE = Step("code", ReleaseChanged)
#: Down-SQL: proved on a copy; the backup that must hold all that is there right before it runs; run.
DOWN_PROOF = Step("down_proof", DownSqlProved)
EMERGENCY_BACKUP = Step("emergency_backup", BackupMade)
DOWN = Step("down", TakenOut)
#: The database that is to take over was built; it took over the live name.
BUILD = Step("build", Built)
SWAP = Step("swap", Swapped)
#: What would be lost was counted and accepted, behind the fence.
COUNT = "count"
#: The live database was backed up, then restored in place; the latter is known by the number of its transaction, which
#: is kept before its COMMIT.
EMERGENCY = Step("emergency", SavedInPlace)
IN_PLACE = Step("in_place", RestoredInPlace)
IN_PLACE_COMMIT = "in_place_commit"
RESTORE_TABLE = Step("restore_table", TableRestored)
#: A way back was taken to its end, whatever becomes of the application then.
APPLIED = "rollback"
#: PgBouncer's pools were paused ("began") and resumed ("done").
PAUSE_POOLS = "pause_pools"

# Undo of a swap.

#: The database that comes back was backed up before it does.
KEEP = Step("keep", BackupMade)
#: What the live database held when it took over was restored, to count what was written since.
BASE = Step("base", BaseBuilt)

# After an operation's end.

#: The retired database of a swap was dropped: what its undo needed may go.
RETIRED_PRUNED = Step("prune", Pruned)
#: The rows that it kept were removed.
ROW_FILES = "row_files"

#: Steps without which nobody's session is ended: nothing would be migrated, or taken out, afterwards; by the kind of
#: operation.
PROOFS = {"deploy": (GATES, BACKUP, DRILL, REHEARSAL), "rollback": (EMERGENCY_BACKUP, DOWN_PROOF)}
#: Steps without which nothing is migrated.
BEFORE_MIGRATING = (*PROOFS["deploy"], FENCE)
