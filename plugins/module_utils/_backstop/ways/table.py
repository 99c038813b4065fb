# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 3: restoring a table from a backup, in one transaction that is proved before its COMMIT.

The application may continue: reading is not blocked; writes to the table, or to one that refers to it, wait. Under that
lock the current table is backed up, its rows are compared with those of the backup, and only differing rows are
changed. An undo is the same restore, from the backup of the table before.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..backups.comparison import require_same_major
from ..backups.make import make_backup
from ..backups.options import BackupOptions
from ..backups.salvage import SAVED_ROWS, save_table
from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Action, Given, Setting, Start, remedy
from ..base.sql_names import qualified
from ..base.tables import Digest
from ..base.typed_json import from_json
from ..loss.acceptance import LossPolicy, Refusal, snapshot
from ..loss.kept_rows import referenced_first
from ..postgres import catalog, digests, impact, references, server
from ..postgres.catalog import TableFamily
from ..postgres.connection import Session
from ..postgres.damage import is_damage
from ..postgres.restarts import transaction_to_ask_for, tried_again, was_committed
from ..postgres.table_summary import sentence, summary
from ..prisma.sessions import end_backends
from ..site import Site, journaled_step
from ..store import manifest as manifests
from ..store.operation import Operation
from ..store.steps import RESTORE_TABLE, SavedTable, TableRestored, as_json
from .archived_rows import ArchivedRows
from .baseline import newest_backup_with
from .lacking_children import lacking_children
from .restored_tables import restored_before
from .row_selection import selection
from .table_changes import advance_sequences, apply
from .table_comparison import (
    REFUSES,
    Difference,
    Pair,
    compare,
    pair_up,
    stage,
    staged_alone,
)

REPLACE, REPAIR = "replace", "repair"
_REVERT = remedy("revert completely: %s", Action.COMPLETE)


@dataclasses.dataclass(frozen=True)
class TableRestoreRequest:
    """The user's request."""

    #: the table's name, as a user types it
    table: str
    #: ``replace``: the live table gets the backup's contents; ``repair``: only the rows of ``where`` and ``keys`` do
    mode: str = REPLACE
    where: Optional[str] = None
    keys: Sequence[Any] = ()
    #: how many rows may be deleted because the backup lacks them, and whether a damaged table may be replaced
    policy: LossPolicy = LossPolicy()
    accept_cascade: bool = False

    def __post_init__(self) -> None:
        if self.mode == REPLACE and (self.where or self.keys):
            raise Refused(
                "Rows are chosen, but the whole table is to be replaced",
                expected="mode repair with where or keys, or mode replace without them",
            )

    @property
    def only_reports(self) -> bool:
        return self.mode == REPAIR and not self.where and not self.keys


@dataclasses.dataclass
class _Work:
    """A restore within its transaction."""

    site: Site
    backup: ArchivedRows
    family: TableFamily
    request: TableRestoreRequest
    pairs: List[Pair]
    #: the operation that an undo reverts
    undone: Optional[Operation] = None
    before: Dict[str, Digest] = dataclasses.field(default_factory=dict)
    found: List[Difference] = dataclasses.field(default_factory=list)
    #: schema and name of tables that refer to it, directly or indirectly
    referring: Dict[int, Tuple[str, str]] = dataclasses.field(default_factory=dict)
    #: tables in which a cascade deleted rows; an undo brings these back
    children: List[Pair] = dataclasses.field(default_factory=list)

    @property
    def session(self) -> Session:
        return self.backup.session

    @property
    def total(self) -> int:
        return sum(difference.total for difference in self.found)

    @property
    def effects(self) -> List[Dict[str, Any]]:
        return [effect for difference in self.found for effect in difference.effects]

    @property
    def damaged(self) -> bool:
        return any(pair.unreadable for pair in self.pairs)


# Planning


def plan(
    site: Site,
    request: TableRestoreRequest,
    backup_id: Optional[str] = None,
    *,
    again: bool = False,
    undone: Optional[Operation] = None,
) -> TableRestored:
    """What a restore would do now; changes nothing.

    :param backup_id: the backup; default is the newest verified one that holds the table
    :param again: act even if an earlier operation did the same
    :param undone: the operation that it undoes
    """
    with snapshot(site, read_only=False) as session:
        work = _prepare(site, session, request, backup_id, undone)
        done = None if again or undone else restored_before(site, session, _requested(work))
        found = _report(work)
        if undone is not None:
            for pair in work.pairs:
                work.before[pair.table.full_name] = digests.table_digest(session, pair.live, pair.columns)
            found = dataclasses.replace(found, lost_rows=_lost(work))
        elif found.damaged is None:
            lacking = lacking_children(work.backup, work.pairs)
            lines = [entry["message"] for entry in lacking]
            found = dataclasses.replace(found, lacking=lacking, report=[*found.report, *lines])
    acts = bool(found.total or found.damaged) and not request.only_reports and done is None
    if acts:
        _consent(work, found.lost_rows or 0)
    return dataclasses.replace(found, changed=acts, done_before=done.id if done else None)


def _prepare(
    site: Site,
    session: Session,
    request: TableRestoreRequest,
    backup_id: Optional[str],
    undone: Optional[Operation],
) -> _Work:
    family = catalog.find_family(session, request.table, site.connection.schema)
    place = site.store.find_backup(backup_id) if backup_id else newest_backup_with(site, family)
    manifest = manifests.load(place)
    if manifest.database.name != site.database:
        raise Refused(
            "Backup %s is of another database" % place.backup_id,
            found=manifest.database.name,
            expected=site.database,
        )
    require_same_major(manifest, server.major_version(session))
    archived = ArchivedRows(site, session, place, manifest)
    return _Work(site, archived, family, request, pair_up(family, manifest), undone)


def _requested(work: _Work) -> TableRestored:
    request = work.request
    return TableRestored(
        table=work.family.full_name,
        name=qualified(work.family.schema, work.family.name),
        backup=work.backup.place.backup_id,
        mode=request.mode,
        where=request.where,
        keys=list(request.keys),
    )


def _report(work: _Work) -> TableRestored:
    _stage(work)
    try:
        _compare(work)
    except BackstopError as error:
        if not is_damage(error):
            raise
        if not work.request.policy.unreadable or work.request.mode != REPLACE:
            raise _damage(work, error) from error
        lines = [_about_backup(work), "The table is damaged: %s" % error.found]
        return dataclasses.replace(_compared(work), damaged=str(error.found), total=None, report=lines)
    return dataclasses.replace(_compared(work), in_backup=_in_backup(work))


def _in_backup(work: _Work) -> List[Dict[str, Any]]:
    columns = [references.columns(work.session, pair.table.oid) for pair in work.pairs]
    return [summary(work.session, pair.stage, of) for pair, of in zip(work.pairs, columns)]


def _stage(work: _Work) -> None:
    manifests.check_files(work.backup.place, work.backup.manifest)
    stage(work.backup, work.pairs)


def _compared(work: _Work) -> TableRestored:
    others = ["Other tables: " + _shown(work.effects)] if work.effects else []
    return dataclasses.replace(
        _requested(work),
        backup_created=work.backup.manifest.created,
        level=manifests.level_of(work.backup.place),
        total=work.total,
        lost_rows=sum(difference.newer for difference in work.found),
        differences=[difference.to_json() for difference in work.found],
        effects=work.effects,
        report=[_about_backup(work), *map(str, work.found), *others],
    )


def _about_backup(work: _Work) -> str:
    place, created = work.backup.place, work.backup.manifest.created
    level = manifests.level_of(place) or "none"
    return "Backup %s of %s, verified to level %s." % (place.backup_id, created, level)


def _lacking_ahead(work: _Work) -> List[Dict[str, Any]]:
    """Rows of other tables that were deleted with the restored rows and are not restored. Before the lock, because it
    reads tables of the backup; its staging tables are removed again."""
    if not any(references.foreign_keys_to(work.session, pair.table.oid) for pair in work.pairs):
        return []
    work.session.execute("SAVEPOINT backstop_children")
    try:
        _compare(work)
        return lacking_children(work.backup, work.pairs)
    except BackstopError as error:
        if not is_damage(error):
            raise
        return []
    finally:
        work.session.execute("ROLLBACK TO SAVEPOINT backstop_children")


def _compare(work: _Work) -> None:
    request = work.request
    work.found = [
        compare(work.session, pair, selection(pair.table, request.where, request.keys)) for pair in work.pairs
    ]


def _consent(work: _Work, lost: int) -> None:
    """:raises Refused: the restore would affect more than was accepted"""
    effects = work.effects
    refusing = [effect for effect in effects if effect["effect"] == REFUSES]
    if refusing:
        raise Refused(
            "Other rows need rows that the backup does not have",
            found=_shown(refusing),
            hint="delete or change these rows first, or repair only some rows of %s" % work.family.full_name,
            details={"effects": effects},
        )
    if effects and not work.request.accept_cascade:
        raise Refused(
            "Rows of other tables would be touched",
            found=_shown(effects),
            hint=remedy(
                "accept that with %s (these tables are backed up before), or repair only some rows of %s",
                Given(Setting.ACCEPT_CASCADE, True),
                work.family.full_name,
            ),
            details={"effects": effects},
        )
    refusal = Refusal(
        found=list(map(str, work.found)),
        instead="Repair only the bad rows",
        kept="an emergency backup keeps them",
        details={"differences": [difference.to_json() for difference in work.found], "lost_rows": lost},
    )
    work.request.policy.require(lost, refusal)


def _shown(effects: Sequence[Dict[str, Any]]) -> str:
    return "; ".join(
        "%(rows)d rows of %(table)s (%(constraint)s, on %(on)s: %(effect)s)" % effect for effect in effects
    )


# Acting


@tried_again
def restore_table(
    site: Site, request: TableRestoreRequest, backup_id: Optional[str] = None, *, again: bool = False
) -> TableRestored:
    """Restore the table. A second run finds nothing to do.

    :raises Refused: more would be affected than was accepted; nothing was changed
    """
    if request.only_reports:
        return plan(site, request, backup_id)
    return _carry_out(site, request, backup_id, None, again)


@tried_again
def undo_table(site: Site, undone: Operation, policy: LossPolicy, accept_cascade: bool = False) -> TableRestored:
    """Give a table its contents before another operation restored it again: from the backup made then."""
    request, backup_id = _undoing(undone, policy, accept_cascade)
    return _carry_out(site, request, backup_id, undone, True)


def plan_undo_of(site: Site, undone: Operation, policy: LossPolicy, accept_cascade: bool = False) -> TableRestored:
    """What undo_table() would change; changes nothing."""
    request, backup_id = _undoing(undone, policy, accept_cascade)
    return plan(site, request, backup_id, undone=undone)


def _undoing(undone: Operation, policy: LossPolicy, accept_cascade: bool) -> Tuple[TableRestoreRequest, str]:
    """The request and the backup by which an operation is undone."""
    facts = undone.result(RESTORE_TABLE)
    if not facts.emergency:
        raise Refused(
            "Operation %s cannot be undone" % undone.id,
            found="no backup of table %s as it was before" % (facts.table or "(none)"),
            hint="what could be read of a damaged table is in %s" % undone.file(SAVED_ROWS),
        )
    request = TableRestoreRequest(facts.name, policy=policy, accept_cascade=accept_cascade)
    return request, facts.emergency


def _carry_out(
    site: Site, request: TableRestoreRequest, backup_id: Optional[str], undone: Optional[Operation], again: bool
) -> TableRestored:
    with journaled_step(site, RESTORE_TABLE) as facts:
        with site.connect() as session:
            if site.operation is not None:
                # We hold the operation's lock, so sessions with its name belong to a killed run.
                end_backends(session.cursor(), site.session_name)
                finished = _committed(session, site.operation)
                if finished is not None:
                    facts.update(as_json(finished))
                    return dataclasses.replace(finished, changed=False)
            session.execute("BEGIN")
            try:
                work = _prepare(site, session, request, backup_id, undone)
                done = None if again else restored_before(site, session, _requested(work))
                found = _requested(work) if done else _act(work)
            except BaseException:
                with contextlib.suppress(BackstopError):  # the connection may have broken
                    session.execute("ROLLBACK")
                raise
            session.execute("COMMIT" if found.changed else "ROLLBACK")
            reach("table.committed")
        found = dataclasses.replace(found, changed=bool(found.changed), done_before=done.id if done else None)
        facts.update(as_json(found))
    return found


def _act(work: _Work) -> TableRestored:
    """Stage, lock, compare, back up, change, prove; nothing is changed if nothing differs. The caller commits."""
    # Before the lock: the larger the table, the longer this takes.
    _stage(work)
    # An undo restores these itself.
    lacking = _lacking_ahead(work) if work.undone is None else []
    _lock(work)
    reach("table.locked")
    saved = _look_for_damage(work)
    _compare(work)
    if work.undone is not None:
        _pair_children(work)
    if not work.total:
        return dataclasses.replace(_requested(work), saved=saved)
    lost, policy = _lost(work), work.request.policy
    found = dataclasses.replace(
        _compared(work),
        saved=saved,
        in_backup=_in_backup(work),
        lost_rows=lost,
        lacking=lacking,
        accepted={"lost_rows": policy.rows, "cascade": work.request.accept_cascade, "unreadable": policy.unreadable},
    )
    _consent(work, lost)
    emergency = None if work.damaged else _back_up(work, _reached(work))
    reach("table.backed-up")
    work.site.progress.phase("changing the table", table=work.family.full_name)
    expected = _expected(work)
    for pair in work.pairs + work.children:
        apply(work.session, pair)
    owned = catalog.owned_sequences(work.session, [oid for _schema, _name, oid in work.family.relations])
    sequences = advance_sequences(work.session, work.pairs, owned)
    cascaded = _touched(work)
    now = _prove(work, expected, found.in_backup or [])
    found = dataclasses.replace(
        found,
        changed=True,
        emergency=emergency,
        sequences=sequences,
        cascaded=cascaded,
        digests={name: digest.to_json() for name, digest in expected.items()},
        now=now,
        report=["Now " + sentence(one) for one in now],
        database_oid=server.database_oid(work.session, work.site.database) or 0,
    )
    _note_commit(work, found)
    reach("table.before-commit")
    return found


def _lock(work: _Work) -> None:
    """Block writes to the table, and to tables whose rows a foreign key action could change; reading stays possible."""
    relations = {one[2]: one[:2] for one in work.family.relations}
    own = set(relations)
    waiting = [pair.table.oid for pair in work.pairs]
    while waiting:
        for key in references.foreign_keys_to(work.session, waiting.pop()):
            if key.oid not in relations:
                relations[key.oid] = (key.schema, key.table)
                waiting.append(key.oid)
    work.referring = {oid: names for oid, names in relations.items() if oid not in own}
    # In the order of oids, to avoid deadlocks between two restores.
    listed = ", ".join("ONLY " + qualified(*relations[oid]) for oid in sorted(relations))
    work.site.progress.phase("waiting for the lock", table=work.family.full_name)
    try:
        work.session.execute("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE" % listed)
    except BackstopError as error:
        if error.sqlstate != sqlstates.LOCK_NOT_AVAILABLE:
            raise
        raise Refused(
            "The table is being written to by a transaction that does not end",
            found="%s within 10 seconds" % error.found,
            hint="nothing was changed. See pg_stat_activity, end that session or wait, then run this again",
        ) from error


def _look_for_damage(work: _Work) -> Optional[List[SavedTable]]:
    """Digest the live table; if it is damaged, save the readable rows, and continue only with consent."""
    saved = []
    for pair in work.pairs:
        try:
            with work.session.savepoint():
                work.before[pair.table.full_name] = digests.table_digest(work.session, pair.live, pair.columns)
        except BackstopError as error:
            if not is_damage(error):
                raise
            saved.append(_save(work, pair, error))
    return saved or None


def _save(work: _Work, pair: Pair, error: BackstopError) -> SavedTable:
    operation = work.site.operation
    if operation is None or work.request.mode != REPLACE:
        raise _damage(work, error)
    with work.site.connect() as reader:
        saved, pair.unreadable = save_table(reader, pair.table, operation.file(SAVED_ROWS), str(error.found))
    if not work.request.policy.unreadable:
        raise Refused(
            "Table %s is damaged: %d of its rows cannot be read" % (pair.table.full_name, len(pair.unreadable)),
            found="%s; all other rows were saved to %s" % (error.found, saved.file),
            hint=remedy(
                "copy the server's files first if you can. Then discard the unreadable rows with %s; those of the"
                " backup replace them",
                Given(Setting.ACCEPT_UNREADABLE, True),
            ),
            details=as_json(saved),
        )
    return saved


def _damage(work: _Work, error: BackstopError) -> Refused:
    return Refused(
        "Table %s cannot be read: it is damaged" % work.family.full_name,
        found=error.found,
        expected="a table of which a backup can be made before it is changed",
        hint=remedy(
            "copy the server's files first if you can; then run %s: it saves what can be read",
            Start(Action.CORRUPTED_TABLE, (Given(Setting.ACCEPT_UNREADABLE, True),)),
        ),
    )


def _reached(work: _Work) -> List[str]:
    """Quoted names of the tables in which accepted actions change rows."""
    if not work.effects:
        return []
    names = {effect["table"] for effect in work.effects}
    graph = impact.ForeignKeyGraph(work.session)
    for pair in work.pairs:
        names |= {one["table"] for one in graph.reached_by_delete(pair.table) if one["effect"] != REFUSES}
    own = {pair.table.full_name for pair in work.pairs}
    return sorted(
        qualified(table.schema, table.name) for table in catalog.tables(work.session) if table.full_name in names - own
    )


def _touched(work: _Work) -> Dict[str, int]:
    """How many rows of other tables this transaction changed, by the server's counters.

    :raises BackstopError: there were some without consent
    """
    counts = "pg_stat_get_xact_tuples_%s(%d)"
    children = {pair.table.oid for pair in work.children}
    found = {}
    for oid, (schema, name) in work.referring.items():
        sql = "SELECT " + " + ".join(counts % (what, oid) for what in ("updated", "deleted"))
        rows = int(work.session.value(sql))
        if rows and oid not in children:
            found["%s.%s" % (schema, name)] = rows
    if found and not work.effects:
        raise BackstopError(
            "Rows of other tables would have been touched; nothing was changed",
            found=", ".join("%d of %s" % (rows, name) for name, rows in found.items()),
            hint=_REVERT,
        )
    return found


def _back_up(work: _Work, reached: Sequence[str]) -> str:
    """Back up the current table, with all tables that will be changed, under the lock."""
    work.site.progress.phase("backing up the table as it is", table=work.family.full_name)
    names = [qualified(work.family.schema, work.family.name), *reached]
    place = make_backup(work.site, "emergency", form=BackupOptions(tables=names))
    saved = {entry.full_name: entry.digest for entry in manifests.load(place).tables}
    wrong = [name for name, digest in work.before.items() if saved[name] != digest]
    if wrong:
        raise BackstopError(
            "The backup of the table as it is differs from the table",
            found=", ".join(wrong),
            hint="nothing was changed; run this again",
        )
    return place.backup_id


# Proving


def _expected(work: _Work) -> Dict[str, Digest]:
    """The expected contents of each table: the backup's rows, or the live ones with the chosen ones replaced."""
    if work.request.mode == REPLACE:
        return {pair.table.full_name: pair.wanted for pair in work.pairs}
    expected = {}
    for pair in work.pairs:
        before = work.before[pair.table.full_name]
        gone = _part(work.session, pair, pair.live, "live")
        come = _part(work.session, pair, pair.stage, "staged")
        total = int(before.hash) - int(gone.hash) + int(come.hash)
        expected[pair.table.full_name] = Digest(before.rows - gone.rows + come.rows, str(total))
    return expected


def _part(session: Session, pair: Pair, source: str, place: str) -> Digest:
    row = session.one(
        "SELECT count(*), coalesce(sum(%s), 0)::text FROM %s r__ JOIN %s d__ ON r__.ctid = d__.%s"
        % (digests.hash_expression(pair.columns), source, pair.difference, place)
    )
    return Digest(int(row[0]), str(row[1]))


def _prove(work: _Work, expected: Dict[str, Digest], in_backup: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Verify count, digest, earliest, latest and sums of the current contents.

    :param in_backup: the summary of each pair's rows in the backup
    :returns: all of these but the digests
    """
    if len(in_backup) != len(work.pairs):
        raise AssertionError("each table's rows in the backup must be summed up for the proof")
    summaries = []
    for pair, staged in zip(work.pairs, in_backup):
        name = pair.table.full_name
        found = digests.table_digest(work.session, pair.live, pair.columns)
        columns = references.columns(work.session, pair.table.oid)
        live = summary(work.session, pair.live, columns)
        same = work.request.mode != REPLACE or live == staged
        if found != expected[name] or not same:
            raise BackstopError(
                "Table %s would not have the expected rows; nothing was changed" % name,
                found="%d rows, digest %s" % (found.rows, found.hash),
                expected="%d rows, digest %s" % (expected[name].rows, expected[name].hash),
                hint=_REVERT,
            )
        summaries.append({"table": name, **live})
    reach("table.proved")
    return summaries


def _note_commit(work: _Work, found: TableRestored) -> None:
    """Record the transaction's id, so that a later run can ask the server whether it was committed."""
    site = work.site
    if site.operation is not None:
        transaction = transaction_to_ask_for(site, work.session)
        site.operation.write(RESTORE_TABLE, "committing", transaction=transaction, **as_json(found))


def _committed(session: Session, operation: Operation) -> Optional[TableRestored]:
    """Facts of this operation's transaction if the server reports that it was committed."""
    for entry in reversed(operation.journal()):
        if entry["step"] == RESTORE_TABLE and entry["event"] == "committing":
            if not was_committed(session, entry["transaction"]):
                return None
            return dataclasses.replace(from_json(TableRestored, entry), finished_after_interruption=True)
    return None


# Undo


def _lost(work: _Work) -> int:
    """How many rows are lost unintentionally.

    For a restore: rows that the backup does not have. For an undo: rows written since the undone operation.
    """
    undone = work.undone
    if undone is None:
        return sum(difference.newer for difference in work.found)
    facts = undone.result(RESTORE_TABLE)
    same = [name in work.before and work.before[name].to_json() == digest for name, digest in facts.digests.items()]
    if same and all(same):
        return 0
    known = [place for place in work.site.store.backups() if place.backup_id == facts.backup]
    if not known:
        return sum(difference.newer + difference.changed for difference in work.found)
    archived = ArchivedRows(work.site, work.session, known[0], manifests.load(known[0]))
    sources = pair_up(work.family, archived.manifest, "source_")
    stage(archived, sources)
    return sum(_written_since(work.session, *pairs) for pairs in zip(work.pairs, sources))


def _written_since(session: Session, pair: Pair, source: Pair) -> int:
    """Number of live rows to delete that the undone operation did not put there, and of rows deleted since."""
    text, known = digests.row_expression(pair.columns, "r__"), digests.row_expression(pair.columns, "k__")
    written = session.value(
        "SELECT count(*) FROM %s r__ JOIN %s d__ ON r__.ctid = d__.live WHERE NOT EXISTS (SELECT FROM %s k__ WHERE %s)"
        % (pair.live, pair.difference, source.stage, "%s = %s" % (known, text))
    )
    same = pair.same_key(session, "r__", "k__") if pair.table.key else "%s = %s" % (known, text)
    deleted = session.value(
        "SELECT count(*) FROM %s r__ JOIN %s d__ ON r__.ctid = d__.staged WHERE d__.kind = 'missing'"
        " AND EXISTS (SELECT FROM %s k__ WHERE %s)" % (pair.stage, pair.difference, source.stage, same)
    )
    return int(written) + int(deleted)


def _pair_children(work: _Work) -> None:
    """Tables in which the undone operation's cascade deleted rows: only their missing rows are restored."""
    own = {pair.table.full_name for pair in work.pairs}
    known = {table.full_name: table for table in catalog.tables(work.session)}
    names = set(work.backup.manifest.table_names) - own
    order = [name for name in referenced_first(work.session, known) if name in names]
    for number, name in enumerate(order):
        child = staged_alone(work.backup, known[name], "child%d_" % number)
        work.session.execute("DELETE FROM %s WHERE kind <> 'missing'" % child.difference)
        work.children.append(child)
