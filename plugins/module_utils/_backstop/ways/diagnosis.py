# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The diagnosis: what is wrong, by the facts, and what the rollback for it would do and lose. Reads only.

A fact that cannot be read is told and counts as unknown; it never ends the diagnosis. When the facts fit more than one
scenario the answer is ``ambiguous``, with the candidates: a person decides.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, TypeVar

from ..backups.catalog_comparison import catalog_differences
from ..base.errors import BackstopError
from ..base.progress import parse_timestamp
from ..base.sql_names import typed_name
from ..loss.count import TableLoss, count_losses, losses_of_dropping
from ..loss.migration_changes import as_migrated
from ..loss.pairing import Pair, is_history, known_by_oid, pair_up
from ..migrations.deploy import applied_since, backup_history
from ..migrations.replay import missing_objects
from ..postgres import catalog, collations, definitions, digests, replication, server
from ..postgres.catalog import Table
from ..postgres.connection import DRIVER_ERRORS, Session
from ..prisma import history
from ..prisma.sessions import running_backends
from ..site import Context
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.lifecycle import next_command
from ..store.operation import Operation, operations
from ..store.steps import MIGRATE
from .lost_objects import LostObjects, lost_objects
from .plan import (
    ReadFolder,
    backup_to_revert_to,
    last_deploy,
    old_release_answer,
    old_release_proved,
    release_before,
    shown_objects,
)
from .swap import BUILD, successor_name

FAILED_MIGRATION, APPLICATION_ERRORS = "failed_migration", "application_errors"
CORRUPTED_TABLE, COMPLETE = "corrupted_table", "complete"
NOTHING, AMBIGUOUS = "nothing", "ambiguous"
SCENARIOS = {
    FAILED_MIGRATION: "1, a migration failed",
    APPLICATION_ERRORS: "2, the migration succeeded but the application has errors",
    CORRUPTED_TABLE: "3, the data of a table is corrupted",
    COMPLETE: "4, all has to go back to before the migration",
    NOTHING: "there is nothing to roll back",
    AMBIGUOUS: "not clear: the facts fit more than one",
}
_INVALID_INDEXES = (
    "SELECT n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT (i.indisvalid AND i.indisready) AND "
    + catalog.USER_SCHEMA
    + " ORDER BY 1"
)
_RELEASE_ALONE = "The last deploy changed the release only; the application is unhealthy since."
Read = TypeVar("Read")


@dataclasses.dataclass
class TableFacts:
    """A table that the backup has, as it is now."""

    name: str
    rows_then: int
    #: the name as options take it
    typed_name: str = ""
    #: what the table is called now; None where it is gone
    name_now: Optional[str] = None
    rows_now: Optional[int] = None
    #: None: could not be compared
    same: Optional[bool] = None
    #: rows written since by their transaction numbers, where these tell anything
    written: Optional[int] = None

    @property
    def shown(self) -> str:
        return self.name_now or self.name

    @property
    def gone(self) -> bool:
        return self.rows_now is None and self.same is False


@dataclasses.dataclass
class Facts:
    """All that a diagnosis judges by."""

    failed: List[str] = dataclasses.field(default_factory=list)
    applied_since: List[str] = dataclasses.field(default_factory=list)
    pending: List[str] = dataclasses.field(default_factory=list)
    unknown: List[str] = dataclasses.field(default_factory=list)
    history_differences: List[str] = dataclasses.field(default_factory=list)
    running: List[str] = dataclasses.field(default_factory=list)
    invalid_indexes: List[str] = dataclasses.field(default_factory=list)
    added: List[str] = dataclasses.field(default_factory=list)
    missing: List[str] = dataclasses.field(default_factory=list)
    changed: List[str] = dataclasses.field(default_factory=list)
    #: tables, columns and types that the migrations in force make and that are not there
    gone: List[str] = dataclasses.field(default_factory=list)
    tables: List[TableFacts] = dataclasses.field(default_factory=list)
    unreadable: List[str] = dataclasses.field(default_factory=list)
    place: Optional[BackupPlace] = None
    manifest: Dict[str, Any] = dataclasses.field(default_factory=dict)
    open_operation: Optional[Operation] = None
    last_operation: Optional[Operation] = None
    deploy: Optional[Operation] = None
    healthy: Optional[bool] = None
    #: the last deploy changed the release only: the one before it
    release_before: Optional[str] = None
    #: facts that could not be read, with the reason
    unavailable: List[str] = dataclasses.field(default_factory=list)
    #: what of the database could not be read, so that nothing follows from its absence
    blind: bool = False

    @property
    def shrunk(self) -> List[TableFacts]:
        return [table for table in self.tables if table.rows_now is not None and table.rows_now < table.rows_then]

    @property
    def without_trace(self) -> bool:
        """The history alone is ahead of the backup: of what was applied since, nothing is in the database."""
        differs = self.added or self.missing or self.changed or not all(table.same for table in self.tables)
        unknown = not set(self.applied_since) - set(self.unknown)
        return bool(self.applied_since) and not differs and (bool(self.gone) or unknown)

    @property
    def release_alone(self) -> bool:
        """All that a complete revert has to take back is the release."""
        others = not self.applied_since and (self.missing or self.changed or self.history_differences)
        rows = self.shrunk or any(table.gone for table in self.tables)
        return self.release_before is not None and not (self.gone or rows or others)

    @property
    def only_added(self) -> bool:
        """The migrations since the backup only added objects, so that taking these out leaves the rest as it was."""
        return not (self.missing or self.changed or any(table.gone for table in self.tables))


@dataclasses.dataclass
class Verdict:
    """Which scenario, and between which it wavers."""

    scenario: str
    candidates: List[str] = dataclasses.field(default_factory=list)
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user gave for the way back."""

    accept_lost_rows: int = 0
    accept_lost_objects: int = 0
    #: one of reapply.MODES
    reapply: str = "off"
    reapply_deletes: bool = False
    #: the backup, the release and the method that were named
    backup: Optional[str] = None
    revision: Optional[str] = None
    method: Optional[str] = None
    #: a complete revert without a second database
    in_place: bool = False

    def arguments(self, scenario: str) -> str:
        """Those that differ from the defaults, as a playbook takes them."""
        given: Dict[str, Any] = {
            "rollback_backup": self.backup,
            "rollback_revision": self.revision,
            "rollback_accept_lost_rows": self.accept_lost_rows,
            "rollback_accept_lost_objects": self.accept_lost_objects,
        }
        if scenario == COMPLETE and self.reapply != "off":
            given.update(rollback_reapply=self.reapply, rollback_reapply_deletes=self.reapply_deletes)
        if scenario == COMPLETE and self.in_place:
            given["rollback_restore_method"] = "in_place"
        if scenario == APPLICATION_ERRORS:
            given["rollback_method"] = self.method
        return "".join(" -e %s=%s" % (name, str(value).lower() if value is True else value)
                       for name, value in given.items() if value)  # fmt: skip

    def carried(self, loss: Dict[str, Any]) -> int:
        """How many rows of a loss go over to the database that takes over, as far as that is proved then."""
        if self.reapply == "off" or not loss["in_backup"]:
            return 0
        return int(loss["inserted"] + loss["updated"] + (loss["deleted"] if self.reapply_deletes else 0))


DEFAULTS = Options()


# Gathering ------------------------------------------------------------------------------------------------------------


def gather(
    context: Context,
    *,
    folder: Optional[ReadFolder] = None,
    healthy: Optional[bool] = None,
    backup_id: Optional[str] = None,
) -> Facts:
    """Read all facts.

    :param folder: reads the migrations folder of the release that runs
    :param healthy: whether the application is; None when nobody looked
    """
    facts = Facts(healthy=healthy)
    of_this = [one for one in operations(context.store) if one.header.get("database") == context.database]
    facts.last_operation = of_this[-1] if of_this else None
    facts.open_operation = next((one for one in reversed(of_this) if one.is_open), None)
    facts.deploy = last_deploy(context)
    facts.release_before = None if backup_id else release_before(context)
    try:
        facts.place = backup_to_revert_to(context, backup_id)
        facts.manifest = manifests.load(facts.place)
    except BackstopError as error:
        facts.place = None
        facts.unavailable.append(str(error))
    with context.connect() as session:
        files = _told(facts, "the migrations folder", folder) if folder is not None else None
        _read_history(context, session, facts, files)
        facts.running = _told(facts, "who migrates now", lambda: _running(session)) or []
        found = _told(facts, "invalid indexes", lambda: session.rows(_INVALID_INDEXES)) or []
        facts.invalid_indexes = [str(name) for (name,) in found]
        if facts.manifest:
            _compare(context, session, facts)
        if files is not None and (facts.applied_since or facts.missing) and not (facts.failed or facts.unknown):
            look = functools.partial(missing_objects, context, session, files)
            facts.gone = _told(facts, "whether what the applied migrations made is there", look) or []
    return facts


def _told(facts: Facts, what: str, read: Callable[[], Read]) -> Optional[Read]:
    try:
        return read()
    except BackstopError as error:
        facts.unavailable.append("%s could not be read: %s" % (what, error))
        return None


def _running(session: Session) -> List[str]:
    return [
        "backend %d (%s, %s) %s"
        % (
            backend.pid,
            backend.application_name or "no name",
            backend.user,
            "holds Prisma's lock" if backend.holds_lock else "waits for Prisma's lock",
        )
        for backend in running_backends(session.cursor())
    ] + [
        "%s works on a migration that an interrupted run left" % other
        for other in server.other_sessions(session, session.settings.database)
        if other.application.startswith("prisma of backstop ") and not other.idle
    ]


def _read_history(
    context: Context,
    session: Session,
    facts: Facts,
    files: Optional[List[history.MigrationFile]],
) -> None:
    try:
        rows = history.read_rows(session.cursor(), context.connection.schema)
    except DRIVER_ERRORS as error:
        facts.blind = True
        facts.unavailable.append("the history of migrations could not be read: %s" % " ".join(str(error).split()))
        return
    facts.failed = history.compare([], rows).failed
    if facts.place is not None:
        facts.applied_since = [row.migration_name for row in applied_since(facts.place, rows)]
        facts.history_differences = history.history_differences(backup_history(facts.place), rows)
    if files is not None:
        state = history.compare(files, rows)
        facts.pending, facts.unknown = state.pending, [name for name in state.unknown if name not in state.failed]


def _compare(context: Context, session: Session, facts: Facts) -> None:
    now = _told(facts, "the catalog", lambda: definitions.definitions(session))
    if now is not None:
        found = definitions.compare(facts.manifest["definitions"], now)
        ours = context.connection.schema + "." + history.TABLE
        facts.added, facts.missing, facts.changed = (
            [key for key in found[how] if ours not in key] for how in ("added", "missing", "changed")
        )
        before = facts.manifest["definitions"]
        facts.changed = [key for key in facts.changed if not definitions.only_moved_up(key, before[key], now[key])]
        _correct_by_dump(context, facts)
    contents = {(entry["schema"], entry["name"]): entry["digest"] for entry in facts.manifest["tables"]}
    first = _first_transaction_after(session, facts.manifest)
    known = known_by_oid(session, facts.manifest)
    for pair in pair_up(catalog.tables(session), map(Table.from_json, facts.manifest["tables"]), known):
        then = pair.base
        if then is not None and not is_history(session, then):
            facts.tables.append(_table(session, facts, then, pair, contents[then.schema, then.name], first))
    facts.tables.sort(key=lambda table: table.name)


def _correct_by_dump(context: Context, facts: Facts) -> None:
    """Our queries say what differs; whether anything does, pg_dump decides."""
    ours = "%s.%s" % (context.connection.schema, history.TABLE)
    look = functools.partial(catalog_differences, context, facts.manifest, settle=False, ignore=[ours])
    found = _told(facts, "what pg_dump writes of the catalog", look)
    if found is not None and found.equal:
        facts.added, facts.missing, facts.changed = [], [], []
    elif found is not None and not (facts.added or facts.missing or facts.changed):
        facts.changed = found.objects


def _table(
    session: Session, facts: Facts, then: Table, pair: Pair, digest: Any, first: Optional[int]
) -> TableFacts:
    wanted = digests.Digest.from_json(digest)
    now = pair.live
    table = TableFacts(then.full_name, wanted.rows, typed_name(then.schema, then.name))
    table.name_now = now.full_name if now is not None else None
    here = {there: column for column, there in pair.columns.items()}
    if now is None or not set(then.columns) <= set(here):
        table.same = False
        table.rows_now = None if now is None else _told(facts, then.full_name, lambda: _count(session, now))
        return table
    try:
        found = digests.table_digest(session, now.source, [here[column] for column in then.columns])
    except BackstopError as error:
        facts.unreadable.append(table.typed_name)
        facts.unavailable.append("table %s: %s" % (then.full_name, error.found))
        return table
    table.rows_now, table.same = found.rows, found == wanted
    rewritten = (now.oid, now.filenode) != (then.oid, then.filenode)
    if not table.same and first is not None and not rewritten:
        table.written = _told(facts, then.full_name, lambda: _written_since(session, now, first))
    return table


def _count(session: Session, table: Table) -> int:
    return int(session.value("SELECT count(*) FROM %s r__" % table.source))


def _first_transaction_after(session: Session, manifest: Dict[str, Any]) -> Optional[int]:
    """The first transaction number after the backup, where row versions can be told by theirs.

    They hold 32 bits of it: after the first 2^32 transactions of a server an old row may look like a new one.
    """
    known = str(manifest["snapshot"].get("transactions", ""))
    last = int(session.value("SELECT txid_snapshot_xmax(txid_current_snapshot())"))
    same = server.database_oid(session, session.settings.database) == manifest["database"].get("oid")
    identity = server.identity(session).system_identifier == manifest["server"].get("system_identifier")
    parts = known.split(":")
    return int(parts[1]) if same and identity and len(parts) == 3 and last < 1 << 32 else None


def _written_since(session: Session, table: Table, first: int) -> int:
    sql = "SELECT count(*) FROM %s r__ WHERE r__.xmin::text::bigint >= %d"
    return int(session.value(sql % (table.source, first)))


# Judging --------------------------------------------------------------------------------------------------------------


def judge(facts: Facts) -> Verdict:
    """Which scenario the facts point to."""
    if facts.running:
        return Verdict(AMBIGUOUS, [NOTHING, FAILED_MIGRATION], "A migration is running; what looks failed may succeed.")
    if facts.failed:
        return Verdict(FAILED_MIGRATION, why="A migration is marked as failed.")
    if facts.without_trace:
        why = "The history says that migrations are applied of which nothing is in the database."
        return Verdict(FAILED_MIGRATION, why=why)
    if facts.unreadable:
        return Verdict(CORRUPTED_TABLE, why="A table cannot be read.")
    if facts.blind or facts.place is None:
        return _judge_without_backup(facts)
    if facts.healthy is None and (facts.applied_since or facts.shrunk):
        candidates = [NOTHING, APPLICATION_ERRORS] + ([CORRUPTED_TABLE] if facts.shrunk else [])
        return Verdict(AMBIGUOUS, candidates, "Nobody looked whether the application is healthy.")
    return _judge_healthy(facts) if facts.healthy is not False else _judge_unhealthy(facts)


def _judge_without_backup(facts: Facts) -> Verdict:
    if facts.healthy is False and facts.release_alone:
        return Verdict(COMPLETE, why=_RELEASE_ALONE)
    if facts.healthy is False:
        return Verdict(
            AMBIGUOUS,
            [NOTHING, APPLICATION_ERRORS, COMPLETE],
            "The application is not healthy, and there is nothing to compare the database with.",
        )
    return Verdict(NOTHING, why="No migration is marked as failed.")


def _judge_healthy(facts: Facts) -> Verdict:
    drift = facts.gone or not facts.applied_since and (facts.missing or facts.changed)
    candidates = [NOTHING]
    if facts.shrunk:
        candidates.append(CORRUPTED_TABLE)
    if drift or any(table.gone for table in facts.tables):
        candidates.append(COMPLETE)
    if len(candidates) > 1:
        return Verdict(AMBIGUOUS, candidates, "The application is healthy, but something that should be there is gone.")
    return Verdict(NOTHING, why="The application is healthy and no migration is marked as failed.")


def _judge_unhealthy(facts: Facts) -> Verdict:
    if facts.gone:
        return Verdict(COMPLETE, why="The history says that migrations are applied, but what they made is not there.")
    if facts.release_alone:
        return Verdict(COMPLETE, why=_RELEASE_ALONE)
    if not facts.applied_since:
        if facts.missing or facts.changed or facts.history_differences:
            return Verdict(COMPLETE, why="The schema was changed by something else than a migration.")
        if facts.shrunk:
            return Verdict(CORRUPTED_TABLE, why="A table has fewer rows than the backup; no migration ran since.")
        return Verdict(NOTHING, why="The database lost nothing that the backup has: look at the application.")
    if facts.shrunk:
        candidates = [APPLICATION_ERRORS, CORRUPTED_TABLE, COMPLETE]
        return Verdict(AMBIGUOUS, candidates, "After the migration the application is ill, and rows are gone.")
    if old_release_proved(facts.deploy) or facts.only_added:
        return Verdict(APPLICATION_ERRORS, why="A migration was applied since the backup; the application is ill.")
    return Verdict(COMPLETE, why="The migration removed or changed what was there: only the backup has it.")


# What would be lost ---------------------------------------------------------------------------------------------------


def losses_of_revert(context: Context, facts: Facts) -> List[Dict[str, Any]]:
    """What going back to the backup would lose, for each table; ``exact`` tells a count from a bound ("at least")."""
    copy = _restored_copy(context, facts)
    if copy is not None:
        with context.connect() as live, context.connect(copy) as base:
            losses = count_losses(live, base, known_by_oid(live, facts.manifest))
            return _exact(facts, _counting(context, facts, live, losses))
    found = _bounds(context, facts)
    with context.connect() as live:
        going = _told(facts, "what new tables and columns hold", lambda: _losses_of_dropping(live, facts)) or []
        going = _counting(context, facts, live, going)
    by_name = {loss["table"]: loss for loss in found}
    for loss in going:
        if loss.whole_table:
            found.append(_loss(loss.full_name, loss.inserted, 0, 0, exact=True, in_backup=False))
        else:
            known_loss = by_name[loss.full_name]
            known_loss["updated"] = max(known_loss["updated"], loss.updated)
            # Rows that hold something new may be among those counted already.
            known_loss["exact"] = known_loss["exact"] and not (known_loss["inserted"] or known_loss["deleted"])
    return found


def _losses_of_dropping(live: Session, facts: Facts) -> List[TableLoss]:
    remaining = {table.name: Table.from_json(entry) for table, entry in _entries(facts)}
    return losses_of_dropping(live, remaining, known_by_oid(live, facts.manifest))


def objects_of_revert(context: Context, place: Optional[BackupPlace], facts: Facts) -> Optional[LostObjects]:
    """What goes besides rows; None when it cannot be told."""
    if place is None:
        return None
    with context.connect() as live:
        return _told(facts, "what was made since", lambda: lost_objects(context, live, place))


def losses_since(
    context: Context, manifest: Dict[str, Any], place: BackupPlace, options: Options
) -> Dict[str, Any]:
    """What was written since the live database held what a manifest says: ``losses`` and ``report`` as of a plan.

    :param place: the backup of that manifest
    """
    facts = Facts(manifest=manifest)
    with context.connect() as session:
        _compare(context, session, facts)
    losses = losses_of_revert(context, facts)
    objects = objects_of_revert(context, place, facts)
    lines = ["Loss: " + text for text in _told_losses(losses, objects, options)]
    lines += ["Note: not known: " + text for text in facts.unavailable]
    return {"losses": losses, **(objects or LostObjects()).to_json(), "report": lines}


def _counting(context: Context, facts: Facts, live: Session, losses: Sequence[TableLoss]) -> List[TableLoss]:
    """Those that are more than the migration's own work."""
    names = _as_migrated(context, facts, live, [loss.full_name for loss in losses])
    return [loss for loss in losses if loss.full_name not in names]


def _as_migrated(context: Context, facts: Facts, live: Session, names: Sequence[str]) -> Set[str]:
    place = facts.place
    if place is None:
        return set()
    return _told(facts, "what the migration did", lambda: as_migrated(live, names, context.store, place)) or set()


def _bounds(context: Context, facts: Facts) -> List[Dict[str, Any]]:
    with context.connect() as live:
        untouched = _as_migrated(context, facts, live, [table.shown for table in facts.tables if table.same is False])
    return [
        _loss(table.shown, 0, 0, 0, exact=True) if table.shown in untouched else _bound(table)
        for table in facts.tables
    ]


def _entries(facts: Facts) -> List[Any]:
    entries = {"%s.%s" % (entry["schema"], entry["name"]): entry for entry in facts.manifest.get("tables", [])}
    return [(table, entries[table.name]) for table in facts.tables]


def _restored_copy(context: Context, facts: Facts) -> Optional[str]:
    """A database that an open rollback built from this backup and that did not take over yet."""
    operation = facts.open_operation
    built = operation.facts(BUILD) if operation is not None else None
    if operation is None or not built or facts.place is None or built.get("backup") != facts.place.backup_id:
        return None
    with context.administer() as admin:
        there = server.database_oid(admin, successor_name(operation)) == built.get("oid")
    return successor_name(operation) if there else None


def _exact(facts: Facts, losses: Sequence[TableLoss]) -> List[Dict[str, Any]]:
    counted = {loss.full_name: loss for loss in losses}
    names = [table.shown for table in facts.tables] + list(counted)
    return [
        _loss(name, loss.inserted, loss.updated, loss.deleted, exact=True) if loss else _loss(name, 0, 0, 0, exact=True)
        for name in dict.fromkeys(names)
        for loss in (counted.get(name),)
    ]


def _bound(table: TableFacts) -> Dict[str, Any]:
    if table.same:
        return _loss(table.shown, 0, 0, 0, exact=True)
    if table.same is None:
        return _loss(table.shown, 0, 0, 0, exact=False)
    now = table.rows_now or 0
    inserted, deleted = max(0, now - table.rows_then), max(0, table.rows_then - now)
    updated = max(0, (table.written or 0) - inserted)
    if not inserted + updated + deleted:
        updated = 1
    return _loss(table.shown, inserted, updated, deleted, exact=table.gone)


def _loss(
    table: str, inserted: int, updated: int, deleted: int, *, exact: bool, in_backup: bool = True
) -> Dict[str, Any]:
    counted = {"inserted": inserted, "updated": updated, "deleted": deleted}
    return {"table": table, **counted, "exact": exact, "in_backup": in_backup}


def losses_of_drop(context: Context, facts: Facts) -> List[Dict[str, Any]]:
    """What goes with the tables and columns that the migration added; exact."""
    known = {table.name: Table.from_json(entry) for table, entry in _entries(facts)}
    with context.connect() as live:
        losses = _told(facts, "what would be dropped", lambda: losses_of_dropping(live, known)) or []
        losses = _counting(context, facts, live, losses)
    return [_loss(loss.full_name, loss.inserted, loss.updated, loss.deleted, exact=True) for loss in losses]


# The plan -------------------------------------------------------------------------------------------------------------


def diagnose(
    context: Context,
    scenario: str,
    facts: Facts,
    chosen: Optional[Dict[str, Any]] = None,
    options: Options = DEFAULTS,
    *,
    runs: bool = False,
) -> Dict[str, Any]:
    """The plan for a scenario, ``auto`` for the one that the facts point to, with a report for people.

    :param chosen: what the entry point of that scenario decided (method, backup, steps)
    :param runs: this very scenario runs now, so that nothing is to be run next
    """
    verdict = judge(facts)
    wanted = verdict.scenario if scenario == "auto" else scenario
    details = chosen or {}
    method = details.get("method") or _method(facts)
    found = {
        "scenario": wanted,
        "found_scenario": verdict.scenario,
        "candidates": verdict.candidates,
        "evidence": [verdict.why] * bool(verdict.why) + evidence(facts),
        "steps": (details.get("steps") if wanted == FAILED_MIGRATION else None)
        or _steps(wanted, method, facts, options),
        "next": next_step(wanted, verdict, facts, " --check" if scenario == "auto" else "", options),
        "losses": [],
        "objects": None,
        "notes": notes(context, wanted),
        **_costs(context, wanted, method, facts),
    }
    if wanted == APPLICATION_ERRORS:
        found["method"] = method
    if wanted == COMPLETE and not facts.release_alone or wanted == APPLICATION_ERRORS and method == "restore":
        found["losses"] = losses_of_revert(context, facts)
        found["objects"] = objects_of_revert(context, facts.place, facts)
    elif wanted == APPLICATION_ERRORS and method == "drop":
        found["losses"] = losses_of_drop(context, facts)
    found["report"] = report(found, options, runs)
    objects = found.pop("objects") or LostObjects()
    return {**found, **objects.to_json()}


def notes(context: Context, scenario: str) -> List[str]:
    """What else a person should know of the server."""
    with context.connect() as session:
        found = [text + "; indexes may be corrupt: " + collations.ADVICE for text in collations.mismatches(session)]
        there = replication.standbys(session)
    if there:
        found.append("standbys: " + ", ".join(map(str, there)))
        if scenario == COMPLETE:
            found.append("after the swap " + replication.SESSIONS_THERE)
    return found


def _method(facts: Facts) -> str:
    if old_release_proved(facts.deploy):
        return "code_only"
    return "drop" if facts.only_added else "restore"


def evidence(facts: Facts) -> List[str]:
    """The facts, in plain words."""
    lines: List[str] = []

    def say(text: str, names: Sequence[str]) -> None:
        if names:
            lines.append("%s: %s" % (text, ", ".join(names)))

    health = {True: "is healthy", False: "is NOT healthy", None: "was not asked for its health"}
    lines.append("the application %s" % health[facts.healthy])
    say("migrating right now", facts.running)
    say("marked as failed", facts.failed)
    say("applied since the backup", facts.applied_since)
    say("made by applied migrations but missing", shown_objects(facts.gone))
    say("in the release but not applied", facts.pending)
    say("applied but not in the release that runs", facts.unknown)
    say("otherwise than the history of the backup", [] if facts.applied_since else facts.history_differences)
    say("objects added since the backup", shown_objects(facts.added))
    say("objects of the backup that are missing", shown_objects(facts.missing))
    say("objects changed since the backup", facts.changed)
    say("invalid indexes", facts.invalid_indexes)
    say("cannot be read", facts.unreadable)
    say("fewer rows than in the backup", ["%s %d of %d" % (t.name, t.rows_now or 0, t.rows_then) for t in facts.shrunk])
    same = sum(1 for table in facts.tables if table.same)
    if facts.tables:
        lines.append("%d of %d tables hold exactly the rows of the backup" % (same, len(facts.tables)))
    if facts.deploy is not None and facts.applied_since:
        lines.append("the release before deploy %s %s" % (facts.deploy.id, old_release_answer(facts.deploy)))
    for operation, word in ((facts.open_operation, "was interrupted"), (facts.last_operation, "")):
        if operation is not None and (word or operation.id != getattr(facts.open_operation, "id", None)):
            lines.append(
                "%s %s %s" % (operation.kind, operation.id, word or "ended: %s" % (operation.outcome or "still open"))
            )
    return lines + ["not known: " + text for text in facts.unavailable]


def _steps(scenario: str, method: str, facts: Facts, options: Options) -> List[str]:
    commit = options.revision or facts.manifest.get("release", {}).get("commit") or "(not recorded)"
    before = (facts.deploy.header.get("facts", {}) if facts.deploy else {}).get("former_commit")
    former = options.revision or before or commit
    backup = facts.place.backup_id if facts.place else "(none)"
    restore = [
        "build a database from backup %s beside the live one and compare it with its manifest" % backup,
        "stop the application",
        "fence writers out, count what would be lost, refuse above the accepted number",
        "give the live name to the new database; the former one is kept",
        "start release %s and check its health" % commit,
    ]
    if scenario == COMPLETE and facts.release_alone:
        release = options.revision or facts.release_before
        return ["stop the application", "start release %s and check its health" % release]
    if scenario == COMPLETE and options.in_place:
        return [
            "stop the application",
            "make an emergency backup of the database as it is",
            "fence everybody out, count what would be lost, refuse above the accepted number",
            "empty the live database and restore backup %s in it, in one transaction that is proved before its COMMIT"
            % backup,
            restore[-1],
        ]
    if scenario == COMPLETE:
        return restore
    if scenario == FAILED_MIGRATION:
        return [
            "stop the application",
            "prove that no session works on the migration any more",
            "drop what it only added, in one transaction, or restore backup %s when it did more" % backup,
            "take out of the history what was applied since: " + (", ".join(facts.applied_since) or "nothing"),
            "mark as rolled back: " + (", ".join(facts.failed) or "nothing"),
            "start the application and check its health",
        ]
    if scenario == APPLICATION_ERRORS:
        code = ["stop the application", "start release %s on the new schema and check its health" % former]
        drop = [
            "make an emergency backup and prove the down-SQL on a copy restored from it",
            "stop the application",
            "run the down-SQL and take %s out of the history, in one transaction" % (", ".join(facts.applied_since)),
            "start release %s and check its health" % commit,
        ]
        return {"code_only": code, "drop": drop, "restore": restore}[method]
    if scenario == CORRUPTED_TABLE:
        return [
            "back the table up as it is",
            "put its rows back from a backup, in one transaction that is proved before its COMMIT",
        ]
    return []


def next_step(scenario: str, verdict: Verdict, facts: Facts, check: str, options: Options) -> str:
    """The one command to run next; a plan that found its scenario by itself wants it looked at first (check mode)."""
    operation = facts.open_operation
    if facts.running:
        return "wait until the migration has ended, then run ansible-playbook backstop.postgres.rollback_plan again"
    if operation is not None and operation.kind != "deploy":
        return next_command(operation)
    if scenario == COMPLETE and facts.release_before and not facts.release_alone and facts.place:
        check += " -e rollback_backup=%s" % facts.place.backup_id
    if scenario in (FAILED_MIGRATION, APPLICATION_ERRORS, COMPLETE):
        return "ansible-playbook backstop.postgres.rollback_%s%s%s" % (scenario, check, options.arguments(scenario))
    if scenario == CORRUPTED_TABLE:
        table = [*facts.unreadable, *(table.typed_name for table in facts.shrunk), "NAME"][0]
        return "ansible-playbook backstop.postgres.rollback_corrupted_table%s -e rollback_table=%s" % (
            check, shlex.quote(table),
        )  # fmt: skip
    if scenario == AMBIGUOUS:
        shown = [name for name in verdict.candidates if name != NOTHING] or [COMPLETE]
        return "decide, then ansible-playbook backstop.postgres.rollback_%s%s" % (shown[0], check)
    if operation is not None:
        return next_command(operation)
    return "nothing is to be run"


def _costs(context: Context, scenario: str, method: str, facts: Facts) -> Dict[str, Any]:
    place = facts.place
    if place is None:
        return {"backup": None, "level": None, "recovery_seconds": None, "disk_needed": 0, "downtime_seconds": None}
    restored = (manifests.verification(place) or {"levels": {}})["levels"].get("restored", {})
    if scenario == COMPLETE and facts.release_alone:
        scenario, method = APPLICATION_ERRORS, "code_only"  # it costs the same
    needs_copy = scenario in (COMPLETE, FAILED_MIGRATION) or scenario == APPLICATION_ERRORS and method != "code_only"
    with context.connect() as session:
        size = server.database_size(session, context.database)
    archive = int(facts.manifest["archive"].get("size", 0))
    keeps = archive if scenario == APPLICATION_ERRORS and method == "drop" else 0
    restart = _restart_seconds(facts.deploy)
    # Everything is read twice behind the fence; the drill tells how long once takes.
    reading = float(restored.get("seconds", {}).get("compare", 0)) if needs_copy else 0.0
    return {
        "backup": place.backup_id,
        "level": manifests.level_of(place),
        "recovery_seconds": restored.get("recovery_seconds"),
        "disk_needed": (size if needs_copy else 0) + keeps,
        "downtime_seconds": None if restart is None else round(restart + 2 * reading, 1),
    }


def _restart_seconds(deploy: Optional[Operation]) -> Optional[float]:
    """How long the last deploy took to stop and start the application, without its migration."""
    if deploy is None:
        return None
    stop, started, migrated = (deploy.done(step) for step in ("stop", "started", MIGRATE))
    if not stop or not started:
        return None
    passed = (parse_timestamp(str(started["at"])) - parse_timestamp(str(stop["at"]))).total_seconds()
    return max(0.0, passed - float((migrated or {}).get("seconds", 0)))


def report(plan: Dict[str, Any], options: Options, runs: bool) -> List[str]:
    """The plan as lines for a person who was woken up."""
    lines = ["SCENARIO: %s (%s)" % (plan["scenario"], SCENARIOS[plan["scenario"]])]
    if plan["found_scenario"] != plan["scenario"]:
        lines.append("BUT the facts point to: %s" % SCENARIOS[plan["found_scenario"]])
    if plan["candidates"]:
        lines.append("It may be: " + "; or ".join("%s (%s)" % (name, SCENARIOS[name]) for name in plan["candidates"]))
    lines += ["Fact: " + fact for fact in plan["evidence"]]
    lines += ["Step %d: %s" % pair for pair in enumerate(plan["steps"], 1)]
    if plan["steps"]:
        lines += _cost_lines(plan)
    if plan["scenario"] in (COMPLETE, APPLICATION_ERRORS):
        lines += ["Loss: " + text for text in _told_losses(plan["losses"], plan["objects"], options)]
    lines += ["Note: " + text for text in plan["notes"]]
    return lines if runs else [*lines, "RUN NEXT: " + plan["next"]]


def _cost_lines(plan: Dict[str, Any]) -> List[str]:
    def seconds(value: Optional[float]) -> str:
        return "not measured" if value is None else "%g s" % value

    return [
        "Backup: %s, verified to level %s" % (plan["backup"] or "none", plan["level"] or "none"),
        "Measured recovery time: %s; expected downtime: %s; disk needed: %.1f MB"
        % (seconds(plan["recovery_seconds"]), seconds(plan["downtime_seconds"]), plan["disk_needed"] / 1e6),
    ]


def _counts(loss: Dict[str, Any]) -> str:
    told = ", ".join("%d %s" % (loss[how], how) for how in ("inserted", "updated", "deleted") if loss[how])
    return ("" if loss["exact"] else "at least ") + told if told else "not known"


def _told_losses(losses: Sequence[Dict[str, Any]], objects: Optional[LostObjects], options: Options) -> List[str]:
    rows, told = _loss_lines(losses, options), _object_lines(objects, options)
    return told if told and rows == ["none"] else [*rows[:-1], *told, rows[-1]]


def _object_lines(objects: Optional[LostObjects], options: Options) -> List[str]:
    """Every one: a list that ends in "and more" hides what goes."""
    if objects is None or not objects.names:
        return []
    if objects.unknown:
        return ["objects, made by hand or by migrations that no deploy rehearsed: " + ", ".join(objects.names)]
    accepted = objects.total <= options.accept_lost_objects
    consent = "accepted" if accepted else "refused unless -e rollback_accept_lost_objects=%d allows it" % objects.total
    return ["objects that the migrations did not make: %s; %s" % (", ".join(objects.names), consent)]


def _loss_lines(losses: Sequence[Dict[str, Any]], options: Options) -> List[str]:
    lossy = [loss for loss in losses if _rows(loss) or not loss["exact"]]
    if not lossy:
        return ["none"]
    lines = ["%s: %s%s" % (loss["table"], _counts(loss), _carrying(loss, options)) for loss in lossy]
    exact = all(loss["exact"] for loss in lossy)
    total = sum(map(_rows, lossy))
    lost = total - (sum(map(options.carried, lossy)) if options.reapply == "apply" else 0)
    told = "%s%d rows in all" % ("" if exact else "at least ", total)
    if lost < total:
        told += ", of which %d do not go over" % lost
    accepted = options.accept_lost_rows
    if lost > accepted:
        told += ": refused unless -e rollback_accept_lost_rows=%s allows it" % (lost if exact else "N")
    elif accepted:
        told += ": accepted%s, %d may be lost" % ("" if exact else " if there are no more than that", accepted)
    return [*lines, told + ". They are counted again when writers are out, and kept in files."]


def _rows(loss: Dict[str, Any]) -> int:
    return int(loss["inserted"] + loss["updated"] + loss["deleted"])


def _carrying(loss: Dict[str, Any], options: Options) -> str:
    """What rollback_reapply does about a loss; whether a row can really go over is proved when it does."""
    if options.reapply == "off":
        return ""
    going = options.carried(loss)
    would = "would go over" if options.reapply == "apply" else "could go over with rollback_reapply=apply"
    if going == _rows(loss):
        return "; all %s" % would
    if not loss["in_backup"]:
        return "; none %s: the backup does not have the table" % would
    return "; the inserted and updated ones %s" % would
