# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of one operation, made from its journal and the manifests of its backups alone.

Its JSON is documented in docs/operation-report.schema.json.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

from ..base.durable_files import known_fields
from ..base.errors import Refused
from ..base.progress import timestamp
from ..base.remedies import Action, Given, Setting, Start
from ..store import steps
from ..store.layout import Store
from ..store.lifecycle import to_continue
from ..store.manifest import Manifest
from ..store.operation import LEFT_OPEN, Operation, operations, operations_of
from ..store.steps import GatesPassed
from .backup_facts import AFTER, BEFORE, KEPT, RESTORED, BackupFacts, backup_facts, find, read_manifest
from .phases import Phase, Window, phases_of, seconds_between, windows_of

FORMAT = 1
PASSED, WAIVED, FAILED = "passed", "waived", "failed"


@dataclasses.dataclass(frozen=True)
class Runner:
    """A process that ran the operation; a second one took it up after an interruption."""

    at: str
    event: str
    user: Optional[str]
    host: Optional[str]
    pid: Optional[int]


@dataclasses.dataclass(frozen=True)
class GateResult:
    name: str
    #: PASSED, WAIVED or FAILED
    result: str
    found: str = ""
    expected: str = ""
    hint: str = ""
    #: why it was waived
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Migration:
    name: str
    #: on the copy, and on the live database; None where it did not run there or was not timed
    rehearsed_seconds: Optional[float] = None
    seconds: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Change:
    """What the operation did to the database and the release."""

    #: the way of a rollback, empty for a deploy without one
    way: str = ""
    migrations: List[Migration] = dataclasses.field(default_factory=list)
    #: seconds of all of them, with the start of Prisma
    rehearsed_seconds: Optional[float] = None
    seconds: Optional[float] = None
    #: the strongest lock on each existing table, and whether these are all
    locks: Dict[str, str] = dataclasses.field(default_factory=dict)
    every_lock: bool = False
    added_tables: List[str] = dataclasses.field(default_factory=list)
    destroys: List[str] = dataclasses.field(default_factory=list)
    rewritten: List[str] = dataclasses.field(default_factory=list)
    release_before: str = ""
    release_after: str = ""
    #: a restored table
    table: str = ""
    #: the database that a swap retired
    retired: str = ""
    #: sessions that were ended
    ended_sessions: List[str] = dataclasses.field(default_factory=list)
    #: the former release on the new schema: "works", "fails", "not tried" or empty, and why
    old_release: str = ""
    old_release_reason: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared with the backup."""

    tables: Optional[int] = None
    rows: Optional[int] = None
    method: str = ""
    #: whether the live database was still equal to the backup right before the change; None if that was not compared
    exact: Optional[bool] = None
    differences: List[str] = dataclasses.field(default_factory=list)
    not_covered: List[Dict[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class TableLoss:
    table: str
    inserted: Optional[int] = None
    updated: Optional[int] = None
    deleted: Optional[int] = None
    total: Optional[int] = None
    #: why it could not be counted
    unreadable: str = ""
    #: the change was made by the migration itself, so it is no loss
    by_migration: bool = False
    #: where the rows were kept
    kept: str = ""


@dataclasses.dataclass(frozen=True)
class Loss:
    #: whether it was counted in this operation
    counted: bool = False
    rows: int = 0
    tables: List[TableLoss] = dataclasses.field(default_factory=list)
    objects: List[str] = dataclasses.field(default_factory=list)
    #: rows that were carried over to the database that took over, and what was not, in words
    carried_rows: int = 0
    carried: str = ""
    not_counted: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan that was shown before a rollback."""

    lines: List[str] = dataclasses.field(default_factory=list)
    losses: List[TableLoss] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class TableContents:
    """A table in the backup from before and in the one from after; None where there is no such backup."""

    table: str
    rows_before: Optional[int] = None
    digest_before: Optional[str] = None
    rows_after: Optional[int] = None
    digest_after: Optional[str] = None

    @property
    def state(self) -> str:
        if self.digest_after is None:
            return ""
        if self.digest_before is None:
            return "new"
        return "equal" if (self.rows_before, self.digest_before) == (self.rows_after, self.digest_after) else "changed"


@dataclasses.dataclass(frozen=True)
class Next:
    """How to go back, or to continue."""

    text: str
    command: str
    #: shows what it would do, and changes nothing; empty where the command itself only shows
    preview: str = ""


@dataclasses.dataclass(frozen=True)
class OperationReport:
    id: str
    kind: str
    database: str
    #: None while it is open
    outcome: Optional[str]
    #: why it failed
    reason: str
    began: str
    ended: Optional[str]
    seconds: Optional[float]
    made: str
    directory: str
    runners: List[Runner]
    request: Dict[str, Any]
    change: Change
    backups: List[BackupFacts]
    comparison: Comparison
    gates: List[GateResult]
    #: how a complete rollback would be done, according to the gates
    rollback: str
    phases: List[Phase]
    windows: List[Window]
    downtime_seconds: float
    plan: Plan
    loss: Loss
    tables: List[TableContents]
    next: Next
    journal: List[Dict[str, Any]]

    def to_json(self) -> Dict[str, Any]:
        value = dataclasses.asdict(self)
        for table, one in zip(value["tables"], self.tables):
            table["state"] = one.state
        return {"format": FORMAT, "report": "operation", **value}

    def backup(self, *roles: str) -> Optional[BackupFacts]:
        """The first backup with one of these roles."""
        found = [one for role in roles for one in self.backups if one.role == role]
        return found[0] if found else None


def choose(store: Store, wanted: Optional[str], database: Optional[str] = None) -> Operation:
    """The operation of this id, else the newest one.

    :raises Refused: there is none
    """
    if wanted:
        return Operation.load(store, wanted)
    found = operations(store) if database is None else operations_of(store, database)
    if not found:
        raise Refused("There is no operation to report", found="none in " + store.root)
    return found[-1]


def report_of(operation: Operation) -> OperationReport:
    """The report; also of an operation that failed or is still open."""
    last = operation.last("operation")
    closed = last if last and last["event"] == "closed" else None
    backups = [backup_facts(operation.store, backup_id, role) for backup_id, role in _backups(operation)]
    gates = GatesPassed(**known_fields(GatesPassed, operation.last(steps.GATES) or {}))
    windows = windows_of(operation)
    before, after = _manifest(operation, backups, BEFORE, RESTORED), _manifest(operation, backups, AFTER)
    return OperationReport(
        id=operation.id,
        kind=operation.kind,
        database=operation.database or "",
        outcome=operation.outcome,
        reason=" ".join(str((last or {}).get("reason", "")).split()),
        began=operation.began,
        ended=str(closed["at"]) if closed else None,
        seconds=seconds_between(operation.began, str(closed["at"])) if closed else None,
        made=timestamp(),
        directory=operation.path,
        runners=_runners(operation),
        request=operation.request,
        change=_change(operation),
        backups=backups,
        comparison=_comparison(operation, before),
        gates=[_gate(one) for one in gates.gates],
        rollback=gates.rollback,
        phases=phases_of(operation),
        windows=windows,
        downtime_seconds=operation.downtime(),
        plan=_plan(operation),
        loss=_loss(operation),
        tables=_tables(before, after),
        next=_next(operation),
        journal=operation.journal(),
    )


def _runners(operation: Operation) -> List[Runner]:
    held = [(operation.began, "began", operation.header.get("controller"))]
    held += [(e["at"], "took over", e.get("controller")) for e in operation.journal() if e["event"] == "adopted"]
    return [Runner(at, how, *((one or {}).get(key) for key in ("user", "host", "pid"))) for at, how, one in held]


def _backups(operation: Operation) -> List[Tuple[str, str]]:
    """Ids of the backups that the operation made or used, with what each is to it."""
    result = operation.result
    if operation.kind == "deploy":
        found = [(result(steps.BACKUP).backup, BEFORE), (result(steps.DRILL).backup, BEFORE)]
    else:
        restored = [result(steps.BUILD).backup, result(steps.IN_PLACE).backup, result(steps.RESTORE_TABLE).backup]
        found = [(one, RESTORED) for one in [*restored, str(operation.first_facts.get("backup") or "")]]
    found += [
        (result(steps.DOWN_PROOF).before, BEFORE),
        (result(steps.EMERGENCY_BACKUP).backup, KEPT),
        (result(steps.EMERGENCY).backup, KEPT),
        (result(steps.RESTORE_TABLE).emergency or "", KEPT),
        (result(steps.KEEP).backup, KEPT),
        (result(steps.POST_BACKUP).backup, AFTER),
    ]
    first: Dict[str, str] = {}
    for backup_id, role in found:
        if backup_id:
            first.setdefault(backup_id, role)
    return list(first.items())


def _manifest(operation: Operation, backups: List[BackupFacts], *roles: str) -> Optional[Manifest]:
    found = [one for role in roles for one in backups if one.role == role and one.problem is None]
    return read_manifest(find(operation.store, found[0].id)) if found else None


def _change(operation: Operation) -> Change:
    result, request = operation.result, operation.request
    rehearsed, migrated, tried = result(steps.REHEARSAL), result(steps.MIGRATE), result(steps.OLD_RELEASE)
    on_copy = {str(one["name"]): one.get("seconds") for one in rehearsed.migrations}
    live = {str(one["name"]): one.get("seconds") for one in migrated.migrations}
    names = list(dict.fromkeys([*on_copy, *live, *migrated.applied]))
    way = result(steps.APPLIED).way
    if not way:
        known: Dict[str, str] = {
            steps.SWAP: "restore",
            steps.IN_PLACE: "in_place",
            steps.DOWN: "drop",
            steps.RESTORE_TABLE: "table",
        }
        way = next((name for step, name in known.items() if operation.facts(step) is not None), "")
    target = request.get("commit") or operation.first_facts.get("commit") or result(steps.CODE).commit
    answered = operation.last(steps.OLD_RELEASE) is not None
    return Change(
        way=way,
        migrations=[Migration(name, on_copy.get(name), live.get(name)) for name in names],
        rehearsed_seconds=rehearsed.seconds,
        seconds=migrated.seconds,
        locks=rehearsed.locked,
        every_lock=rehearsed.every_lock,
        added_tables=rehearsed.added_tables,
        destroys=rehearsed.destroys,
        rewritten=migrated.rewritten or rehearsed.rewritten,
        release_before=str(operation.former_commit or ""),
        release_after=str(target or ""),
        table=result(steps.RESTORE_TABLE).name or str(request.get("table") or ""),
        retired=result(steps.SWAP).retired,
        ended_sessions=result(steps.FENCE).ended_sessions,
        old_release=("works" if tried.works else "fails" if tried.tried else "not tried") if answered else "",
        old_release_reason=tried.reason,
    )


def _comparison(operation: Operation, manifest: Optional[Manifest]) -> Comparison:
    drill, fenced = operation.result(steps.DRILL), operation.result(steps.FENCE)
    built = operation.facts(steps.BUILD) or {}
    return Comparison(
        tables=drill.tables if drill.tables is not None else built.get("tables"),
        rows=drill.rows if drill.rows is not None else built.get("rows"),
        method=drill.method or ("restored beside the live database and compared" if built else ""),
        exact=fenced.same,
        differences=fenced.differences,
        not_covered=[dataclasses.asdict(one) for one in manifest.not_covered] if manifest else [],
    )


def _gate(gate: Dict[str, Any]) -> GateResult:
    waived = gate.get("waived")
    result = WAIVED if waived else PASSED if gate.get("passed") else FAILED
    found, expected, hint = (str(gate.get(key) or "") for key in ("found", "expected", "hint"))
    return GateResult(str(gate.get("name")), result, found, expected, hint, str(waived or ""))


def _loss_of(found: Dict[str, Any]) -> TableLoss:
    known = known_fields(TableLoss, {key: value for key, value in found.items() if value is not None})
    return TableLoss(**{**known, "table": str(found.get("table", "")), "kept": str(found.get("file") or "")})


def _plan(operation: Operation) -> Plan:
    plan = operation.first_facts.get("plan") or {}
    return Plan([str(line) for line in plan.get("lines", [])], [_loss_of(one) for one in plan.get("losses", [])])


def _loss(operation: Operation) -> Loss:
    count = operation.result(steps.COUNT)
    losses = count.losses or operation.result(steps.DOWN).losses
    tables = [_loss_of(one) for one in losses]
    rows = count.lost_rows
    if rows is None:
        rows = sum(one.total or 0 for one in tables if not one.by_migration)
    return Loss(
        counted=operation.facts(steps.COUNT) is not None or bool(losses),
        rows=rows,
        tables=tables,
        objects=[str(one) for one in count.lost_objects],
        carried_rows=count.reapply.carried_rows if count.reapply else 0,
        carried=count.reapply.summary if count.reapply else "",
        not_counted=count.accepted_unreadable or [],
    )


def _tables(before: Optional[Manifest], after: Optional[Manifest]) -> List[TableContents]:
    then, now = ({one.full_name: one.digest for one in (each.tables if each else ())} for each in (before, after))
    found = []
    for name in sorted({*then, *now}):
        old, new = then.get(name), now.get(name)
        found.append(
            TableContents(
                name,
                old.rows if old else None,
                old.hash if old else None,
                new.rows if new else None,
                new.hash if new else None,
            )
        )
    return found


def _next(operation: Operation) -> Next:
    if operation.is_open:
        return _continue(operation)
    since = [one for one in operations_of(operation.store, operation.database or "") if _order(one) > _order(operation)]
    changed = [one for one in since if one.outcome == "done"]
    if changed:
        text = "Operation %s changed the database later. To see which way back applies now" % changed[-1].id
        return Next(text, str(Start(Action.PLAN)))
    if operation.outcome != "done":
        if operation.kind == "deploy":
            return Next(
                "There is nothing to revert. To deploy again when the cause is fixed", str(Start(Action.DEPLOY))
            )
        return Next("To see what applies now", str(Start(Action.PLAN)))
    if operation.kind == "deploy":
        return _to_start("To revert to the state before this deploy", Start(Action.COMPLETE))
    undo = Start(Action.UNDO, (Given(Setting.OPERATION, operation.id),))
    return _to_start("To undo it; what was written since is counted first", undo)


def _continue(operation: Operation) -> Next:
    last, backup = operation.last("operation"), operation.result(steps.BACKUP).backup
    failed = bool(last and last["event"] == LEFT_OPEN)
    if failed and operation.kind == "deploy" and operation.last(steps.MIGRATE) and backup and _is_stopped(operation):
        revert = Start(Action.COMPLETE, (Given(Setting.BACKUP, backup),))
        return _to_start(
            "It is open, and its own rollback failed. To revert to the backup made before the migration", revert
        )
    fixed = " when the cause of its failure is fixed" if failed else ""
    return Next("It is open. To continue it%s" % fixed, str(to_continue(operation)))


def _is_stopped(operation: Operation) -> bool:
    windows = operation.windows()
    return bool(windows and windows[-1][1] is None)


def _to_start(text: str, start: Start) -> Next:
    return Next(text, str(start), str(dataclasses.replace(start, check=True)))


def _order(operation: Operation) -> Tuple[str, str]:
    return operation.began, operation.id
