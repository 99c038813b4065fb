# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of operations, by their names in journals.

``operation`` is not a step: under that name a journal records that an operation was adopted, and how it ended.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Generic, List, Optional, Tuple, Type, TypeVar

F = TypeVar("F")


def as_json(facts: Any) -> Dict[str, Any]:
    """Facts of a step for its journal, or for the result of a module: without those that are not known (None)."""
    known: Dict[str, Any] = dataclasses.asdict(facts, dict_factory=_known)
    return known


def _known(fields: List[Tuple[str, Any]]) -> Dict[str, Any]:
    return {name: fact for name, fact in fields if fact is not None}


class Step(str, Generic[F]):
    """The name of a step whose facts are read later: Operation.result() returns them as this type."""

    facts: Type[F]

    def __new__(cls, name: str, facts: Type[F]) -> "Step[F]":
        step = super().__new__(cls, name)
        step.facts = facts
        return step


# Facts of steps: only those that are read later, not all in a journal. The defaults apply to a step that was never
# done, and to journals of earlier versions.


@dataclasses.dataclass(frozen=True)
class Done:
    #: whether it was done now, and not before; only in the result of a module
    changed: Optional[bool] = None


D = TypeVar("D", bound=Done)


@dataclasses.dataclass(frozen=True)
class BackupMade:
    backup: str = ""


@dataclasses.dataclass(frozen=True)
class DrillPassed(BackupMade):
    #: how long the restore took, with the comparison
    recovery_seconds: Optional[float] = None
    tables: Optional[int] = None
    rows: Optional[int] = None
    method: str = ""
    role: str = ""
    server: str = ""


@dataclasses.dataclass(frozen=True)
class GatesPassed:
    #: each gate as migrations.gates.evaluation.Gate, if it was evaluated
    gates: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    #: gates that were waived, with the reasons
    waived: Dict[str, str] = dataclasses.field(default_factory=dict)
    #: how a complete rollback would be done
    rollback: str = ""
    #: how the safety copy is to be made: postgres.template_copy.CLONE or FILES; empty: none
    safety_copy: str = ""


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    #: the copy on which it ran
    database: str = ""
    #: name and seconds of each
    migrations: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: Optional[float] = None
    #: the strongest lock on each existing table
    locked: Dict[str, str] = dataclasses.field(default_factory=dict)
    #: whether these are all locks, and not only those that a second session saw
    every_lock: bool = False
    rewritten: List[str] = dataclasses.field(default_factory=list)
    added_tables: List[str] = dataclasses.field(default_factory=list)
    #: these too, as a user types them
    new_tables: List[str] = dataclasses.field(default_factory=list)
    dropped_tables: List[str] = dataclasses.field(default_factory=list)
    changed_rows: List[str] = dataclasses.field(default_factory=list)
    changed_columns: List[str] = dataclasses.field(default_factory=list)
    #: how much the database grew
    added_bytes: int = 0
    destroys: List[str] = dataclasses.field(default_factory=list)
    #: all of that in a sentence
    summary: str = ""
    #: why it ran in an isolated server; None if it did not
    closed_server: Optional[str] = None

    @property
    def names(self) -> List[str]:
        return [str(migration["name"]) for migration in self.migrations]


@dataclasses.dataclass(frozen=True)
class OldReleaseTried:
    tried: bool = False
    works: bool = False
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class FencedOff:
    ended_sessions: List[str] = dataclasses.field(default_factory=list)
    #: whether the backup was still exact; None before a comparison
    same: Optional[bool] = None
    #: from the backup, if it was not
    differences: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class SafetyCopyMade(BackupMade):
    """The copy equals this backup."""

    #: name and oid of the database
    copy: str = ""
    oid: int = 0
    method: str = ""
    seconds: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Migrated:
    applied: List[str] = dataclasses.field(default_factory=list)
    seconds: Optional[float] = None
    #: name and seconds of each
    migrations: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    rewritten: List[str] = dataclasses.field(default_factory=list)
    #: how often it was tried again after it had waited too long for a lock
    lock_retries: int = 0


@dataclasses.dataclass(frozen=True)
class Checked:
    #: how many checks passed
    checks: int = 0


@dataclasses.dataclass(frozen=True)
class CarriedTable:
    table: str
    inserted: int
    updated: int
    deleted: int


@dataclasses.dataclass(frozen=True)
class NotCarried:
    table: str
    rows: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Reapplied:
    """Rows that were, or would be, carried over to the database that takes over."""

    mode: str = "off"
    deletes: bool = False
    carried: List[CarriedTable] = dataclasses.field(default_factory=list)
    carried_rows: int = 0
    conflicts: List[NotCarried] = dataclasses.field(default_factory=list)
    conflict_rows: int = 0
    #: without a conflict: what the other database has no column for, and rows that are only deleted on request
    partly: List[NotCarried] = dataclasses.field(default_factory=list)
    #: all of that in a sentence
    summary: str = ""


@dataclasses.dataclass(frozen=True)
class Lost(Done):
    #: each as loss.count.TableLoss
    losses: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    lost_rows: Optional[int] = None
    lost_objects: List[str] = dataclasses.field(default_factory=list)
    objects_of_unknown_origin: Optional[bool] = None
    reapply: Optional[Reapplied] = None


@dataclasses.dataclass(frozen=True)
class LossCounted(Lost):
    #: damaged tables whose loss was accepted uncounted
    accepted_unreadable: Optional[List[str]] = None


@dataclasses.dataclass(frozen=True)
class LeftoversDropped:
    #: objects
    dropped: List[str] = dataclasses.field(default_factory=list)
    #: applied migrations that were deleted from the history
    taken_out: List[str] = dataclasses.field(default_factory=list)
    kept_rows: int = 0
    #: dropped objects that the migrations did not create
    lost_objects: List[str] = dataclasses.field(default_factory=list)
    objects_of_unknown_origin: bool = False


@dataclasses.dataclass(frozen=True)
class Resolved:
    #: failed migrations that were marked as rolled back
    resolved: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class RolledBack:
    #: the name of the way
    way: str = ""


@dataclasses.dataclass(frozen=True)
class ReleaseChanged:
    commit: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class LedBack(Done):
    """What down-SQL removed."""

    migrations: List[str] = dataclasses.field(default_factory=list)
    dropped_tables: List[str] = dataclasses.field(default_factory=list)
    dropped_columns: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DownSqlProved(LedBack):
    proved: Optional[bool] = None
    #: why it is not proved
    reasons: List[str] = dataclasses.field(default_factory=list)
    #: backup of the database before the migration
    before: str = ""
    #: the source of the SQL
    source: str = ""
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class TakenOut(Lost, LedBack):
    #: of the database right before
    backup: Optional[str] = None
    #: from before the migration, in pg_dump's output
    differences: List[str] = dataclasses.field(default_factory=list)
    ended_sessions: Optional[List[str]] = None
    #: it was killed between its COMMIT and its journal: what is not known is missing
    finished_after_interruption: Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class Built(Done):
    backup: str = ""
    oid: int = 0
    database: str = ""
    #: of each phase
    seconds: Dict[str, float] = dataclasses.field(default_factory=dict)
    tables: int = 0
    rows: int = 0
    #: definitions that a restore does not bring back
    tolerated: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Renamed(Done):
    """How a database got the live name."""

    ended_sessions: Optional[List[str]] = None
    #: while new connections were blocked
    seconds_closed: Optional[float] = None
    attempts: Optional[int] = None
    #: False when no synchronous standby confirmed it in time: it is committed nevertheless
    confirmed: Optional[bool] = None


@dataclasses.dataclass
class PooledClients:
    """Not frozen: how long they waited is known when they no longer do."""

    pools: List[str] = dataclasses.field(default_factory=list)
    #: clients that kept a session nevertheless
    held: List[str] = dataclasses.field(default_factory=list)
    seconds: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Swapped(Lost, Renamed):
    #: of the database that took over, before rows were carried there; None without one
    backup: Optional[str] = None
    former_oid: Optional[int] = None
    #: of the database that took over
    live_oid: int = 0
    #: the database that had the live name before
    retired: str = ""
    pooled: Optional[PooledClients] = None
    advanced_sequences: Optional[List[str]] = None
    standbys: Optional[List[Dict[str, Any]]] = None
    standbys_summary: Optional[str] = None
    finished_after_interruption: Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class SavedTable:
    """What could be read of a damaged table, as a file in COPY format."""

    table: str
    file: str
    columns: List[str]
    #: rows that could not be read, and the server's message
    unreadable: int
    said: str


@dataclasses.dataclass(frozen=True)
class SavedInPlace:
    backup: str = ""
    #: damaged tables of which only the readable rows were saved
    saved: List[SavedTable] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class RestoredInPlace(Lost):
    backup: str = ""
    #: backup of what was removed
    emergency: str = ""
    live_oid: int = 0
    #: how many were compared
    tables: Optional[int] = None
    rows: Optional[int] = None
    #: definitions that a restore does not bring back
    tolerated: Optional[List[str]] = None
    advanced_sequences: Optional[List[str]] = None
    ended_sessions: Optional[List[str]] = None
    pooled: Optional[PooledClients] = None
    confirmed: Optional[bool] = None
    seconds: Optional[float] = None
    finished_after_interruption: Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class TableRestored(Done):
    #: full name, and in the syntax of a user
    table: str = ""
    name: str = ""
    backup: str = ""
    mode: str = ""
    where: Optional[str] = None
    keys: List[Any] = dataclasses.field(default_factory=list)
    database_oid: Optional[int] = None
    #: the operation that did the same before
    done_before: Optional[str] = None
    backup_created: Optional[str] = None
    level: Optional[str] = None
    #: rows that differed
    total: Optional[int] = None
    lost_rows: Optional[int] = None
    #: each as ways.table_comparison.Difference, and the effects of foreign keys on other tables
    differences: Optional[List[Dict[str, Any]]] = None
    effects: Optional[List[Dict[str, Any]]] = None
    #: the table before, as the backup has it, and afterwards: rows, earliest, latest and sums
    in_backup: Optional[List[Dict[str, Any]]] = None
    now: Optional[List[Dict[str, Any]]] = None
    #: rows of other tables that the backup has and that refer to restored ones, as ways.lacking_children.Lacking
    lacking: Optional[List[Dict[str, Any]]] = None
    #: the server's message about a damaged table, and what was saved of it
    damaged: Optional[str] = None
    saved: Optional[List[SavedTable]] = None
    accepted: Optional[Dict[str, Any]] = None
    #: backup of the table before; None if it was damaged
    emergency: Optional[str] = None
    sequences: Optional[List[str]] = None
    #: rows of other tables that foreign keys changed
    cascaded: Optional[Dict[str, int]] = None
    #: digest of each table afterwards
    digests: Dict[str, Any] = dataclasses.field(default_factory=dict)
    #: lines for users
    report: List[str] = dataclasses.field(default_factory=list)
    finished_after_interruption: Optional[bool] = None


@dataclasses.dataclass(frozen=True)
class RetiredKept(Done):
    backup: str = ""
    #: the database
    retired: str = ""


@dataclasses.dataclass(frozen=True)
class BaseBuilt:
    oid: int = 0


@dataclasses.dataclass(frozen=True)
class Pruned:
    #: the database, and its backup
    dropped: str = ""
    dump: str = ""


# Steps of a deploy, in order.

GATES = Step("gates", GatesPassed)
BACKUP = Step("backup", BackupMade)
DRILL = Step("drill", DrillPassed)
REHEARSAL = Step("rehearsal", Rehearsed)
#: The former release was tried on the new schema.
OLD_RELEASE = Step("old_release", OldReleaseTried)
#: The user confirmed.
CONFIRM = "confirm"
#: Until STARTED the application is stopped; a rollback has both steps too.
STOP = "stop"
FENCE = Step("fence", FencedOff)
#: The live database was copied on its server while nobody could connect to it.
SAFETY_COPY = Step("safety_copy", SafetyCopyMade)
#: The migrations were applied to the live database.
MIGRATE = Step("migrate", Migrated)
#: Definitions equal those after the rehearsal, and tables meet their expectations.
CHECK = Step("check", Checked)
STARTED = "started"
POST_BACKUP = Step("post_backup", BackupMade)

# Steps of rollbacks, also those of a failed deploy.

#: Objects that a failed migration left were dropped; the failed migration was marked as rolled back.
CLEAN = Step("clean", LeftoversDropped)
RESOLVE = Step("resolve", Resolved)
#: Only the release was changed, not the database.
CODE = Step("code", ReleaseChanged)
#: Down-SQL: proved on a copy; a backup of the database right before it runs; run.
DOWN_PROOF = Step("down_proof", DownSqlProved)
EMERGENCY_BACKUP = Step("emergency_backup", BackupMade)
DOWN = Step("down", TakenOut)
#: The database that is to take over was built; it took the live name.
BUILD = Step("build", Built)
SWAP = Step("swap", Swapped)
#: The loss was counted and accepted, behind the fence.
COUNT = Step("count", LossCounted)
#: The live database was backed up, then restored in place. The restore is identified by its transaction id, which is
#: recorded before the COMMIT.
EMERGENCY = Step("emergency", SavedInPlace)
IN_PLACE = Step("in_place", RestoredInPlace)
IN_PLACE_COMMIT = "in_place_commit"
RESTORE_TABLE = Step("restore_table", TableRestored)
#: A rollback of the database is complete, whatever happens to the application afterwards.
APPLIED = Step("rollback", RolledBack)
#: PgBouncer's pools were paused ("began") and resumed ("done").
PAUSE_POOLS = "pause_pools"

# Steps of the undo of a swap.

#: The retired database was backed up before it goes live again.
KEEP = Step("keep", RetiredKept)
#: The contents of the live database when it took over were restored, to count what was written since.
BASE = Step("base", BaseBuilt)

# Steps after an operation's end.

#: The retired database of a swap was dropped, so backups for its undo are no longer needed.
RETIRED_PRUNED = Step("prune", Pruned)
#: The rows that it kept were removed.
ROW_FILES = "row_files"

#: Steps required before sessions are terminated, because without them nothing would be migrated or reverted afterwards;
#: by the kind of operation.
PROOFS = {"deploy": (GATES, BACKUP, DRILL, REHEARSAL), "rollback": (EMERGENCY_BACKUP, DOWN_PROOF)}
#: Steps required before a migration.
BEFORE_MIGRATING = (*PROOFS["deploy"], FENCE)
