# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The complete revert inside the live database, for servers where no second one may be created; and its undo.

It is one transaction: writers are fenced out, the loss is counted and kept, the database is emptied, the backup's
script is run, tables and catalog are compared with the manifest, and then it commits. Before it, a new emergency backup
of what is removed is made, which the undo restores. If it is killed, it is done completely or not at all; the journal
has the transaction's id, with which the server reports the outcome.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, cast

from ..backups.catalog_comparison import catalog_differences, compare_catalog, schema_of_database
from ..backups.comparison import Comparison, compare_kept_tables, compare_tables, require_same_major
from ..backups.make import make_backup
from ..backups.restore import check_sequences
from ..backups.salvage import SAVED_ROWS, save_what_can_be_read
from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.progress import followed
from ..base.remedies import Action, Given, Setting, remedy
from ..base.sql_names import qualified, quote_identifier, quote_literal
from ..base.tables import Digest, Table
from ..loss.acceptance import Acceptance, Loss, LossPolicy, counted, snapshot
from ..loss.count import LARGE_OBJECTS, TableLoss, count_table_losses
from ..loss.lost_objects import lost_objects
from ..loss.migration_changes import mark
from ..loss.pairing import Name, Pair, is_history, known_by_oid, pair_up
from ..postgres import archive, catalog, digests, dumped_definitions, locks, replication, server
from ..postgres.connection import PINNED_SETTINGS, Session
from ..postgres.damage import damaged_tables, is_damage
from ..postgres.dropping import drop_each
from ..postgres.restarts import transaction_to_ask_for, tried_again, was_committed
from ..postgres.script import run_script
from ..postgres.sequences import advance_sequences, sequence_values
from ..site import Run, Site, exclusive, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest, TableEntry
from ..store.operation import Operation
from ..store.steps import EMERGENCY, IN_PLACE, IN_PLACE_COMMIT, Lost, RestoredInPlace, as_json
from .archived_rows import ArchivedRows
from .handover import fence_writers
from .in_force import done_before, settled
from .pooled_clients import waiting

_LOCK_TIMEOUT = "10s"


@tried_again
def revert_in_place(run: Run, place: BackupPlace, policy: LossPolicy, *, only_count: bool = False) -> Lost:
    """Restore the live database to the backup's contents.

    :param policy: if the loss of damaged rows is accepted, only the readable rows of a damaged table are backed up
    :param only_count: make the same checks while the application still runs, and change nothing
    :raises Refused: more would be lost than accepted, or it cannot be done here; nothing was changed
    """
    return _count_ahead(run, place, policy) if only_count else _restore(run, place, place, policy)


@tried_again
def undo_in_place(run: Run, undone: Operation, policy: LossPolicy, *, only_count: bool = False) -> Lost:
    """Restore the live database to its contents before another operation's revert in place.

    The loss is what was written since: the live tables are compared with the backup that was restored.
    """
    done = undone.recorded(IN_PLACE)
    if done is None:
        raise Refused("Operation %s cannot be undone" % undone.id, found="it did not restore in place")
    if run.database != undone.database:
        raise Refused("That operation was about another database", found=str(undone.database))
    saved = undone.result(EMERGENCY).saved
    if saved:
        raise Refused(
            "Operation %s cannot be undone: no whole backup could be made of what it removed" % undone.id,
            found="damaged were: " + ", ".join(one.table for one in saved),
            hint="what could be read is in %s and in backup %s" % (undone.file(SAVED_ROWS), done.emergency),
        )
    emergency = run.store.find_backup(done.emergency)
    base = run.store.find_backup(done.backup)
    return _count_ahead(run, base, policy) if only_count else _restore(run, emergency, base, policy)


def _restore(run: Run, place: BackupPlace, base: BackupPlace, policy: LossPolicy) -> RestoredInPlace:
    manifest = manifests.load(place)
    with exclusive(run) as run, run.administer() as admin:
        done = done_before(run, IN_PLACE, in_force)
        if done is not None:
            return done
        require_same_major(manifest, server.major_version(admin))
        replication.require_confirming(admin)
        manifests.check_files(place, manifest, run.progress)
        run.archive(place, manifest)
        with run.connect() as session:
            require_room_for_locks(session, manifest)
        emergency = _emergency_backup(run, policy.unreadable)
        return _restore_from(run, admin, _Backups(place, base, emergency), policy)


def _restore_from(run: Run, admin: Session, backups: _Backups, policy: LossPolicy) -> RestoredInPlace:
    with journaled_step(run, IN_PLACE) as facts:
        started = time.monotonic()
        with run.connect() as session:
            with waiting(run, run.operation) as pooled:
                found = _transaction(run, admin, session, backups, policy)
            found = dataclasses.replace(
                found,
                **{**vars(_counted(run.operation)), "pooled": pooled, "seconds": round(time.monotonic() - started, 3)},
            )
            _pin(session)
            if not found.confirmed:
                session.execute("SET synchronous_commit = local")
            catalog.analyze(session)
        tolerated = _compare_committed(run, manifests.load(backups.place))
        found = dataclasses.replace(found, tolerated=sorted({*(found.tolerated or ()), *tolerated}))
        facts.update(as_json(found))
    return dataclasses.replace(found, changed=True)


def _compare_committed(site: Site, manifest: Manifest) -> List[str]:
    """Compare pg_dump's output, which cannot be read within the transaction; returns tolerated differences."""
    found = catalog_differences(site, manifest)
    if not found.equal:
        raise BackstopError(
            "The database was restored, but its definitions are not all those of the backup",
            found="; ".join(found.objects[:10]),
            hint=remedy("check whether the application works with that, or undo it: %s", Action.UNDO),
        )
    return found.tolerated


def in_force(run: Run, admin: Session) -> Optional[RestoredInPlace]:
    operation = run.operation
    found = operation.recorded(IN_PLACE)
    if found is not None:
        return found
    last = operation.last(IN_PLACE_COMMIT)
    if last is None or not was_committed(admin, last["transaction"]):
        return None
    return RestoredInPlace(
        **vars(_counted(operation)),
        **{key: last[key] for key in ("backup", "emergency", "live_oid")},
        finished_after_interruption=True,
    )


@tried_again
def settle(run: Run) -> Optional[RestoredInPlace]:
    """The facts of this operation's restore if it was committed, after its process has ended."""
    return settled(run, IN_PLACE, in_force)


def _counted(operation: Operation) -> Lost:
    # Rows cannot be carried over in place.
    return dataclasses.replace(counted(operation), reapply=None)


def _emergency_backup(run: Run, accept_unreadable: bool) -> BackupPlace:
    """A backup of what will be removed. Always a new one: the application may have written since the last."""
    with journaled_step(run, EMERGENCY) as facts:
        try:
            place = make_backup(run, "emergency")
        except BackstopError as error:
            if not is_damage(error):
                raise
            place, saved = save_what_can_be_read(run, run.operation.file(SAVED_ROWS), accept_unreadable)
            facts.update(saved=list(map(as_json, saved)), accepted={"unreadable": accept_unreadable})
        facts["backup"] = place.backup_id
    return place


# Before the transaction


def require_room_for_locks(session: Session, manifest: Manifest) -> None:
    """Each object that is dropped or created needs a lock until the end of the transaction.

    :raises Refused: the server's lock table may be too small
    """
    kinds = [key.split(" ", 1)[0] for key in manifest.definitions]
    # A table also has a TOAST table with an index.
    made = kinds.count("relation") + kinds.count("index") + 2 * len(manifest.tables)
    locks.require_room(
        session,
        locks.to_drop_everything(session) + made,
        "to restore in place",
        ", or use %s" % Given(Setting.RESTORE_METHOD, "swap"),
    )


# The transaction


@dataclasses.dataclass(frozen=True)
class _Backups:
    """The backups of a restore in place."""

    #: the one to restore
    place: BackupPlace
    #: the one that the live database is compared with, to count the loss
    base: BackupPlace
    #: the one of what is removed
    emergency: BackupPlace


def _transaction(run: Run, admin: Session, session: Session, backups: _Backups, policy: LossPolicy) -> RestoredInPlace:
    place = backups.place
    live_oid = server.database_oid(admin, run.database)
    manifest = manifests.load(place)
    ended = fence_writers(session, admin, run.database)
    reach("in-place.fenced")
    removed = manifests.load(backups.emergency)
    _require_same_as(session, removed)
    run.progress.phase("counting", backup=backups.base.backup_id)
    loss = _loss(run, session, _as_saved(session, removed), backups.base)
    Acceptance(run, policy).accept(session, loss)
    reach("in-place.counted")
    values = sequence_values(session)
    drops = _drops_beyond_schemas(run)
    _lock_out_readers(run, admin, session)
    run.progress.phase("restoring", backup=place.backup_id, bytes_total=manifest.archive.size)
    empty_database(session, "schema public" in manifest.definitions, drops)
    reach("in-place.emptied")
    tools = run.tools(session)
    with archive.start_script(tools, run.archive(place, manifest), keep_open=run.keep_open) as program:
        with followed(lambda: run.progress.done(program.bytes_counted("rchar"))):
            run_script(session, program.stdout)
        program.check("The archive could not be read", hint="nothing was changed")
    reach("in-place.restored")
    _pin(session)
    compared = _prove(run, session, manifest)
    advanced = advance_sequences(values, session)
    known: Dict[str, Any] = {"backup": place.backup_id, "emergency": backups.emergency.backup_id, "live_oid": live_oid}
    run.operation.write(IN_PLACE_COMMIT, "done", transaction=transaction_to_ask_for(run, session), **known)
    reach("in-place.before-commit")
    confirmed = replication.commit(session)
    reach("in-place.committed")
    return RestoredInPlace(
        **known,
        tables=compared.compared_tables,
        rows=compared.compared_rows,
        tolerated=compared.tolerated,
        advanced_sequences=advanced,
        ended_sessions=ended,
        confirmed=confirmed,
    )


def _prove(site: Site, session: Session, manifest: Manifest) -> Comparison:
    result = compare_tables(session, manifest, progress=site.progress)
    compare_catalog(site, session, manifest, result, round_trips=False)
    hint = "nothing was changed; the backup does not give back what it was made from here"
    result.require_equal("What was restored differs from the backup's source", hint)
    check_sequences(session, manifest)
    return result


def _require_same_as(session: Session, manifest: Manifest) -> None:
    """The emergency backup must equal what is about to be removed: nothing was written between it and the fence."""
    whole = manifest.is_whole
    different = compare_tables(session, manifest).tables if whole else compare_kept_tables(session, manifest)
    if different:
        raise Refused(
            "Rows were written after the emergency backup",
            found="; ".join(different[:10]),
            hint="nothing was changed. Stop the program that writes and run this again",
        )


def _lock_out_readers(site: Site, admin: Session, session: Session) -> None:
    """Until the COMMIT reading is not possible either.

    :raises Refused: names the sessions that hold conflicting locks
    """
    names = [qualified(schema, name) for schema, name, _oid in catalog.locked_by_dump(session)]
    if not names:
        return
    session.execute("SET LOCAL lock_timeout = '%s'" % _LOCK_TIMEOUT)
    try:
        session.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % ", ".join("ONLY " + name for name in names))
    except BackstopError as error:
        if error.sqlstate not in (sqlstates.LOCK_NOT_AVAILABLE, sqlstates.DEADLOCK_DETECTED):
            raise
        others = server.other_sessions(admin, site.database, besides=(session.backend,))
        raise Refused(
            "Other sessions keep tables in use",
            found="; ".join(str(other) for other in others) or str(error.found),
            expected="no session that reads or writes for %s" % _LOCK_TIMEOUT,
            hint="nothing was changed. End these sessions (pg_terminate_backend), then run this again",
        ) from None


def _pin(session: Session) -> None:
    """The script changed settings; rows and definitions are read under the pinned ones."""
    session.execute("; ".join("SET %s = %s" % (name, quote_literal(value)) for name, value in PINNED_SETTINGS))


# Emptying

#: Queries for the statements that drop most objects.
_DROPS = (
    "SELECT format('DROP EXTENSION %I CASCADE', extname) FROM pg_extension WHERE extname <> 'plpgsql'",
    (
        "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace"
        " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    ),
    "SELECT format('SELECT lo_unlink(%s)', oid) FROM pg_largeobject_metadata",
)


def _drops_beyond_schemas(site: Site) -> List[str]:
    """The statements of ``pg_restore --clean`` for objects outside of schemas, event triggers first; all others are
    dropped with their schema."""
    with schema_of_database(site, site.database) as source:
        drops = dumped_definitions.drops(source, site.keep_open)
    return [drop.statement for drop in drops if not drop.in_schema and not drop.key.startswith("SUBSCRIPTION ")]


def empty_database(session: Session, with_public: bool, beyond_schemas: Sequence[str]) -> None:
    """Drop everything that a dump restores, and create what it requires.

    :param with_public: create the schema public, which a dump never does
    :param beyond_schemas: statements for objects outside of schemas
    """
    session.execute("SET LOCAL client_min_messages = error")
    drop_each(session, beyond_schemas)
    for query in _DROPS:
        statements = [str(statement) for (statement,) in session.rows(query)]
        if statements:
            session.execute("; ".join(statements))
    # Objects on which something in a schema depended.
    drop_each(session, beyond_schemas)
    if with_public:
        if server.major_version(session) >= 15:
            owner, rights = "pg_database_owner", "USAGE"
        else:
            owner, rights = str(session.value("SELECT rolname FROM pg_roles WHERE oid = 10")), "ALL"
        session.execute("CREATE SCHEMA public AUTHORIZATION " + quote_identifier(owner))
        session.execute("GRANT %s ON SCHEMA public TO PUBLIC" % rights)
        session.execute("COMMENT ON SCHEMA public IS 'standard public schema'")


# Loss


def _loss(site: Site, session: Session, held: _Held, base: BackupPlace) -> Loss:
    losses = _losses(site, session, held, base)
    mark(session, losses, site.store, base)
    return Loss(losses, lost_objects(site, session, base))


def _count_ahead(run: Run, base: BackupPlace, policy: LossPolicy) -> Lost:
    """What would be lost at this moment.

    :raises Refused: it exceeds what was accepted
    """
    with run.administer() as admin:
        if in_force(run, admin) is not None:
            return Lost(changed=False)
    acceptance = Acceptance(run, policy, only_count=True)
    with snapshot(run, read_only=False) as session:
        acceptance.accept(session, _loss(run, session, _as_it_is(session), base))
    return dataclasses.replace(acceptance.facts, changed=False)


class _Held(NamedTuple):
    """The contents of the live database: those of its readable tables."""

    tables: Dict[Name, TableEntry]
    large_objects: Digest


def _as_saved(session: Session, removed: Manifest) -> _Held:
    """From the emergency backup, which equals the live tables; a partial one has no large objects."""
    whole = removed.is_whole
    return _Held(
        {(entry.schema, entry.name): entry for entry in removed.tables},
        removed.large_objects if whole else digests.large_objects_digest(session),
    )


def _as_it_is(session: Session) -> _Held:
    tables = catalog.tables(session)
    damaged = damaged_tables(session, tables)
    entries = [
        TableEntry(table, digests.table_digest(session, table.source, table.columns))
        for table in tables
        if table.full_name not in damaged
    ]
    return _Held({(entry.schema, entry.name): entry for entry in entries}, digests.large_objects_digest(session))


_TEMPORARY, _STAGED = "pg_temp", "backstop_base_"


def _losses(site: Site, session: Session, held: _Held, base: BackupPlace) -> List[TableLoss]:
    """Exactly what the live tables hold and the backup does not: rows of differing tables are read from its archive
    into temporary tables."""
    manifest = manifests.load(base)
    tables = [_without_generated(entry.table) for entry in manifest.tables]
    pairs = pair_up(catalog.tables(session), tables, known_by_oid(session, manifest))
    archived = ArchivedRows(site, session, base, manifest)
    staged = [
        _staged(session, archived, pair, number)
        for number, pair in enumerate(pairs)
        if not _same_contents(session, pair, held, manifest)
    ]
    losses = count_table_losses(session, staged, session)
    for pair in staged:
        if pair.staged is not None:
            session.execute("DROP TABLE pg_temp." + pair.staged.name)
    return losses + _large_objects(held, session, manifest)


def _staged(session: Session, archived: ArchivedRows, pair: Pair, number: int) -> Pair:
    """The backup's rows of a table are in a temporary table, as texts."""
    table = pair.base
    if table is None:
        return pair
    name, columns = "%s%d" % (_STAGED, number), table.writable_columns
    listed = ", ".join(quote_identifier(column) + " text" for column in columns)
    session.execute("CREATE TEMPORARY TABLE %s (%s) ON COMMIT DROP" % (name, listed))
    archived.copy(table, "%s.%s" % (_TEMPORARY, name), columns)
    types = ("text",) * len(columns)
    return dataclasses.replace(
        pair, staged=Table(0, _TEMPORARY, name, 0, False, tuple(columns), types, (), table.key, 0)
    )


def _without_generated(table: Table) -> Table:
    """The archive has no values of generated columns."""
    kept = [place for place, column in enumerate(table.columns) if column not in table.generated]
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[place] for place in kept),
        types=tuple(table.types[place] for place in kept),
        numbers=tuple(table.numbers[place] for place in kept if table.numbers),
        generated=(),
    )


def _name_of(table: Optional[Table]) -> Name:
    return (table.schema, table.name) if table is not None else ("", "")


def _same_contents(session: Session, pair: Pair, held: _Held, there: Manifest) -> bool:
    """Whether a table's loss need not be counted: the emergency backup has the same contents as the other one."""
    if is_history(session, cast(Table, pair.live or pair.base)):
        return True
    now, then = held.tables.get(_name_of(pair.live)), there.table(*_name_of(pair.base))
    if now is None or then is None:
        return False
    return (now.digest, now.table.columns) == (then.digest, then.table.columns)


def _large_objects(held: _Held, session: Session, manifest: Manifest) -> List[TableLoss]:
    """The manifest has only their common digest: if it differs, all existing ones count."""
    if held.large_objects == manifest.large_objects:
        return []
    oids = [int(oid) for (oid,) in session.rows("SELECT oid::bigint FROM pg_largeobject_metadata")]
    gone = max(0, manifest.large_objects.rows - len(oids))
    return [TableLoss(*LARGE_OBJECTS, updated=len(oids), deleted=gone, keys=dict.fromkeys(oids, 1))]
