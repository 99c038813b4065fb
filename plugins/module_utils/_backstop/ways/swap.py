# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The complete revert and its undo: the live name is given to another database; nothing is overwritten.

A revert builds a new database from a backup. An undo gives the name to the retired database again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Iterator, List, Optional, Union

from ..backups.comparison import compare_tables
from ..backups.restore import RestoredDatabase, build_database
from ..base.errors import BackstopError, Refused
from ..base.processes import signals_deferred
from ..base.remedies import Action, remedy
from ..base.sql_names import retired_name, scratch_name
from ..loss.acceptance import Acceptance, Loss, LossPolicy, counted, snapshot
from ..loss.changes import Databases
from ..loss.count import TableLoss, count_losses, sum_up_base
from ..loss.differences import BaseSums
from ..loss.lost_objects import LostObjects, lost_objects
from ..loss.migration_changes import mark
from ..loss.pairing import known_by_oid
from ..loss.reapply import carried_digests, carry_again, take_back
from ..migrations.safety_copy import safety_copy_of
from ..postgres import locks, replication, server
from ..postgres.connection import Session
from ..postgres.database_properties import drop_scratch_database
from ..postgres.restarts import tried_again
from ..postgres.sequences import advance_sequences, sequence_values
from ..prisma import history
from ..site import Run, Site, exclusive, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation
from ..store.steps import BASE, BUILD, KEEP, SWAP, Built, Lost, Swapped, as_json
from .closed_database import connect_exclusively
from .handover import attempts
from .in_force import done_before, last_swap, settled, swapped, undoes
from .pooled_clients import waiting

#: How long to wait until standbys have replayed it. Clients continue meanwhile.
FOLLOW_SECONDS = 5


def kept_sums(operation: Operation, base: Session) -> BaseSums:
    """Sums of a database that is not written to, read while the application runs."""
    oid = server.database_oid(base, base.settings.database)
    return BaseSums(os.path.join(operation.file("base-sums"), str(oid)))


def successor_name(operation: Operation) -> str:
    return scratch_name(operation.id, "new")


def build_successor(run: Run, place: BackupPlace) -> Built:
    """Build the database that is to take over; reused if this operation built it already."""
    operation = run.operation
    with run.administer() as admin:
        built = _already_built(run, admin, operation, place)
    if built is not None:
        return dataclasses.replace(built, changed=False)
    with run.connect() as live:
        locks.require_room(live, locks.to_read_everything(live), "to fence writers out of every table")
    with journaled_step(run, BUILD) as facts:
        with run.administer() as admin:
            # The run that this one waited for may have done it.
            built = _already_built(run, admin, operation, place)
        if built is None:
            made = _build(run, place)
            facts.update(dataclasses.asdict(made), backup=place.backup_id)
            _sum_up(run, place, made.database)
        else:
            facts.update(as_json(built))
    return dataclasses.replace(operation.result(BUILD), changed=built is None)


def _sum_up(run: Run, place: BackupPlace, name: str) -> None:
    with run.connect() as live, run.administer() as admin, connect_exclusively(run, admin, name) as base:
        sum_up_base(live, base, known_by_oid(live, manifests.load(place)), kept_sums(run.operation, base), run.progress)


def _build(run: Run, place: BackupPlace) -> RestoredDatabase:
    """The safety copy, where the deploy made one, else a database restored from the backup."""
    with run.administer() as admin:
        made = safety_copy_of(run, admin, place)
    if made is None:
        return build_database(run, place, successor_name(run.operation))
    entries = manifests.load(place).tables
    rows = sum(entry.digest.rows for entry in entries)
    return RestoredDatabase(made.copy, made.oid, {}, len(entries), rows, [])


def _already_built(site: Site, admin: Session, operation: Operation, place: BackupPlace) -> Optional[Built]:
    """Facts of the database that this operation built from the backup; None without one."""
    built = operation.result(BUILD)
    there = server.database_oid(admin, built.database or successor_name(operation))
    same = (built.backup, built.oid) == (place.backup_id, there)
    return built if same or swapped(site, admin, operation) else None


class _Built:
    """The database that build_successor() made."""

    def __init__(self, run: Run, place: BackupPlace) -> None:
        self._run, self._place, self._manifest = run, place, manifests.load(place)
        self.name = run.operation.result(BUILD).database or successor_name(run.operation)
        self.connection_limit = self._manifest.properties.connection_limit
        #: the backup with the same contents, before rows are carried there
        self.backup: Optional[str] = place.backup_id

    @contextlib.contextmanager
    def compared(self, live: Session) -> Iterator[Loss]:
        """What would be lost if it took over now."""
        run = self._run
        with run.administer() as admin, connect_exclusively(run, admin, self.name) as base:
            objects = lost_objects(run, live, self._place)
            take_back(run.store, base)
            known = known_by_oid(live, self._manifest)
            losses = count_losses(live, base, known, kept_sums(run.operation, base), run.progress)
            mark(live, losses, run.store, self._place)
            before = {(entry.schema, entry.name): entry.digest for entry in self._manifest.tables}
            yield Loss(losses, objects, Databases(live, base, base, before))


@tried_again
def revert(run: Run, place: BackupPlace, policy: LossPolicy, *, only_count: bool = False) -> Lost:
    """Swap in the database that build_successor() made. Counts and keeps the loss behind the fence first.

    :param only_count: make the same checks while the application still runs, and change nothing
    :raises Refused: more would be lost than accepted; reports the count for each table, nothing was changed
    """
    # An interrupted build leaves an incomplete database with this name.
    run.operation.require([BUILD], "The database is not swapped: the new one was not built completely")
    return _take_over(run, _Built(run, place), policy, only_count=only_count)


def _take_over(run: Run, successor: Union[_Built, _Retired], policy: LossPolicy, *, only_count: bool) -> Lost:
    acceptance = Acceptance(run, policy, retires=True, only_count=only_count)
    if only_count:
        return _counted_ahead(run, successor, acceptance)
    with signals_deferred(), exclusive(run) as run, run.administer() as admin:
        return done_before(run, SWAP, in_force) or _swap(run, admin, successor, acceptance)


def _swap(run: Run, admin: Session, successor: Union[_Built, _Retired], acceptance: Acceptance) -> Swapped:
    operation, retire_as = run.operation, retired_name(run.operation.id, run.database)
    with journaled_step(run, SWAP) as facts:
        former, live = (server.database_oid(admin, name) for name in (run.database, successor.name))
        with waiting(run, operation) as pooled:
            for attempt in attempts(run, admin, successor.name, retire_as):
                with attempt as fence:
                    with successor.compared(fence.live) as loss:
                        losses = acceptance.accept(fence.live, loss)
                    fence.shut_out()
                    with connect_exclusively(run, admin, successor.name) as session:
                        advanced = advance_sequences(sequence_values(fence.live), session)
                    renamed = fence.rename(successor.connection_limit)
        lost = dataclasses.replace(
            counted(operation),
            losses=[loss.to_json() for loss in losses],
            lost_rows=sum(loss.total for loss in losses if not loss.by_migration),
        )
        standbys = replication.follow(admin, FOLLOW_SECONDS)
        found = Swapped(
            **{**vars(renamed), **vars(lost)},
            backup=successor.backup,
            former_oid=former,
            live_oid=live or 0,
            retired=retire_as,
            pooled=pooled,
            advanced_sequences=advanced,
            standbys=[standby.to_json() for standby in standbys],
            standbys_summary=replication.summary(standbys, bool(renamed.confirmed)),
        )
        facts.update(as_json(found))
    return dataclasses.replace(found, changed=True)


def _counted_ahead(run: Run, successor: Union[_Built, _Retired], acceptance: Acceptance) -> Lost:
    """What would be lost at this moment.

    :raises Refused: it exceeds what was accepted
    """
    with run.administer() as admin:
        if swapped(run, admin, run.operation):
            return Lost(changed=False)
    with snapshot(run) as live, successor.compared(live) as loss:
        acceptance.accept(live, loss)
    return dataclasses.replace(acceptance.facts, changed=False)


@tried_again
def settle(run: Run) -> Optional[Swapped]:
    """The facts of this operation's swap if it is in force, after its process has ended."""
    return settled(run, SWAP, in_force)


def in_force(run: Run, admin: Session) -> Optional[Swapped]:
    operation = run.operation
    if not swapped(run, admin, operation):
        return None
    retired = retired_name(operation.id, run.database)
    return operation.recorded(SWAP) or Swapped(
        **vars(counted(operation)),
        backup=operation.result(BUILD).backup or operation.result(KEEP).backup or None,
        former_oid=server.database_oid(admin, retired),
        live_oid=server.database_oid(admin, run.database) or 0,
        retired=retired,
        finished_after_interruption=True,
    )


# Undo


@tried_again
def undo(run: Run, undone: Operation, policy: LossPolicy, *, only_count: bool = False) -> Lost:
    """Give the live name back to the database that another operation retired.

    The loss is what was written since that operation: the live tables are compared with their contents when they took
    over. After a revert that is its backup; after an undo the one that back_up_retired() made.

    :param only_count: as for revert(); a base restored for it is kept for the undo itself
    """
    done, newest = settle(run), last_swap(run)
    if done is None and newest is not None and undoes(newest) == undone.id:
        # By an undo that was abandoned after its swap, perhaps before it could record that.
        done = settle(dataclasses.replace(run.run(newest), guard=run.guard))
    if done is not None:
        return dataclasses.replace(done, changed=False)
    if run.connection.database != undone.database:
        raise Refused("That operation was about another database", found=str(undone.database))
    retired = _Retired(run, undone)
    try:
        retired.prepare()
        return _take_over(run, retired, policy, only_count=only_count)
    finally:
        if not only_count:
            retired.drop_base()


def manifest_at_swap(undone: Operation, place: BackupPlace) -> Manifest:
    """The contents of the live database when an operation made it live: its backup and the rows carried there."""
    manifest = manifests.load(place)
    carried = carried_digests(undone) or {}
    return dataclasses.replace(
        manifest,
        tables=tuple(
            dataclasses.replace(entry, digest=carried.get((entry.schema, entry.name), entry.digest))
            for entry in manifest.tables
        ),
    )


class _Retired:
    """The database that another operation retired.

    The base of its comparison is the contents of the live database when that took over: a backup and the rows carried
    over to it. They are restored again only if digests differ.
    """

    def __init__(self, run: Run, undone: Operation) -> None:
        self._run, self._undone = run, undone
        made_from = undone.result(SWAP).backup
        self._place = run.store.find_backup(made_from) if made_from else None
        self._base = scratch_name(run.operation.id, "base")
        self._built = False
        self.name = retired_name(undone.id, run.database)
        self.backup: Optional[str] = run.operation.result(KEEP).backup or None
        with run.administer() as admin:
            limit = admin.value("SELECT datconnlimit FROM pg_database WHERE datname = %s", (self.name,))
        if limit is None:
            raise Refused(
                "Operation %s cannot be undone" % undone.id,
                found="no database %s" % self.name,
                hint="it was undone already, or its retired database was dropped",
            )
        self.connection_limit = int(limit)

    def prepare(self) -> None:
        run, operation = self._run, self._run.operation
        with run.connect() as live:
            if self._same(live):
                return
        if self._place is None:
            raise BackstopError(
                "What was written since cannot be counted",
                found="rows were written since operation %s, and it has no backup to compare with" % self._undone.id,
                hint=remedy("make an emergency backup, compare by hand, or revert to a backup: %s", Action.COMPLETE),
            )
        self._built = True
        with run.administer() as admin:
            there = server.database_oid(admin, self._base)
            if there is not None and operation.result(BASE).oid == there:
                return
        build_database(run, self._place, self._base)
        if carried_digests(self._undone) is not None:
            with run.connect(self._base) as session:
                carry_again(self._undone, session)
        with run.administer() as admin:
            operation.write(BASE, "done", oid=server.database_oid(admin, self._base))

    def _same(self, live: Session) -> bool:
        if self._place is None:
            return False
        besides = "%s.%s" % (self._run.connection.schema, history.TABLE)
        return not compare_tables(live, manifest_at_swap(self._undone, self._place), besides=[besides]).tables

    @contextlib.contextmanager
    def compared(self, live: Session) -> Iterator[Loss]:
        run, place = self._run, self._place
        with contextlib.ExitStack() as stack:
            admin = stack.enter_context(run.administer())
            target = stack.enter_context(connect_exclusively(run, admin, self.name))
            take_back(run.store, target)
            base = stack.enter_context(run.connect(self._base)) if self._built else None
            objects = lost_objects(run, live, place) if place is not None else LostObjects()
            yield Loss(self._losses(live, base), objects, Databases(live, base, target) if base else None)

    def _losses(self, live: Session, base: Optional[Session]) -> List[TableLoss]:
        if base is not None:
            known = known_by_oid(live, manifests.load(self._place)) if self._place is not None else {}
            return count_losses(live, base, known, kept_sums(self._run.operation, base), self._run.progress)
        if self._same(live):
            return []
        raise BackstopError(
            "Rows were written while the undo was being prepared", hint="stop the writers and run the undo again"
        )

    def drop_base(self) -> None:
        if self._built:
            with self._run.administer() as admin:
                drop_scratch_database(admin, self._base)
