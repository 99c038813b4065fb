# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The complete revert and its undo: the live name goes to another database; nothing is overwritten.

A revert builds a new database from a backup beside the live one. An undo gives the name back to the retired one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..backups.comparison import compare_tables
from ..backups.restore import build_database
from ..base.errors import BackstopError, Refused
from ..base.remedies import Action, Given, Setting, remedy
from ..base.sql_names import retired_name, scratch_name
from ..loss.count import TableLoss, count_losses, sum_up_base
from ..loss.differences import BaseSums
from ..loss.kept_rows import write_lost_rows
from ..loss.migration_changes import mark
from ..loss.pairing import Name, known_by_oid
from ..loss.reapply import Carried, Reapply, carried_contents, carry_again, carry_over, take_back
from ..postgres import locks, replication, server
from ..postgres.catalog import Table
from ..postgres.connection import Session
from ..postgres.database_properties import drop_scratch_database
from ..postgres.digests import Digest
from ..postgres.restarts import tried_again
from ..postgres.sequences import advance_sequences, sequence_values
from ..prisma import history
from ..site import Run, Site, exclusive, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation, operations_of
from ..store.steps import BASE, BUILD, COUNT, KEEP, SWAP
from .closed_database import connect_exclusively
from .handover import facts_of, swap
from .lost_objects import OF_OBJECTS, LostObjects, lost_objects
from .pooled_clients import resume_left_behind, waiting

#: How long to look whether standbys have replayed it. Clients go on meanwhile.
FOLLOW_SECONDS = 5
#: Facts of the count that a swap's have too, besides the losses themselves.
_ALSO_COUNTED = ("reapply", *OF_OBJECTS)


def kept_sums(operation: Operation, base: Session) -> BaseSums:
    """Sums of a database that nobody writes to, read while the application runs."""
    oid = server.database_oid(base, base.settings.database)
    return BaseSums(os.path.join(operation.file("base-sums"), str(oid)))


def successor_name(operation: Operation) -> str:
    return scratch_name(operation.id, "new")


def build_successor(run: Run, place: BackupPlace) -> Dict[str, Any]:
    """Build the database that is to take over, beside the live one; reused when this operation built it already."""
    operation = run.operation
    with run.administer() as admin:
        built = _already_built(run, admin, operation, place)
    if built is not None:
        return {"changed": False, **built}
    with run.connect() as live:
        locks.require_room(live, locks.to_read_everything(live), "to fence writers out of every table")
    with journaled_step(run, BUILD) as facts:
        with run.administer() as admin:
            # The run that this one waited for may have done it.
            built = _already_built(run, admin, operation, place)
        if built is None:
            facts.update(build_database(run, place, successor_name(operation)), backup=place.backup_id)
            with run.connect() as live, run.connect(successor_name(operation)) as base:
                known = known_by_oid(live, manifests.load(place))
                sum_up_base(live, base, known, kept_sums(operation, base))
        else:
            facts.update(built)
    return {"changed": built is None, **facts}


def _already_built(
    site: Site, admin: Session, operation: Operation, place: BackupPlace
) -> Optional[Dict[str, Any]]:
    """Facts of the database that this operation built from the backup; None when there is none."""
    done = operation.facts(BUILD)
    there = server.database_oid(admin, successor_name(operation))
    if done and done["backup"] == place.backup_id and done["oid"] == there:
        return done
    return (done or {}) if swapped(site, admin, operation) else None


def swapped(site: Site, admin: Session, operation: Operation) -> bool:
    """Whether the swap of an operation is in force, told from the databases alone."""
    return server.database_oid(admin, retired_name(operation.id, site.database)) is not None


@tried_again
def revert(
    run: Run,
    place: BackupPlace,
    accept_lost_rows: int,
    accept_changes_in: Sequence[str] = (),
    reapply: Optional[Reapply] = None,
    accept_unreadable: bool = False,
    *,
    accept_lost_objects: int = 0,
    only_count: bool = False,
) -> Dict[str, Any]:
    """Swap in the database that build_successor() made. Counts the loss behind the fence, keeps it, then acts.

    :param accept_changes_in: tables whose differences are kept and not counted: a failed migration's own work
    :param reapply: what is carried over to the new database; it does not count as lost
    :param accept_unreadable: go on although a damaged table cannot be counted; the former database keeps it
    :param only_count: refuse what would be refused, while the application still runs, and change nothing
    :raises Refused: more would be lost than accepted; tells the count for each table, nothing was changed
    """
    operation = run.operation
    # A build that was cut off leaves a database of this name that is only half of the backup.
    operation.require([BUILD], "The database is not swapped: the one to take over was not built to its end")
    manifest = manifests.load(place)
    successor = successor_name(operation)
    judgement = LossPolicy(
        operation,
        accept_lost_rows,
        accept_changes_in,
        reapply,
        accept_unreadable=accept_unreadable,
        accept_lost_objects=accept_lost_objects,
        only_count=only_count,
    )

    def judge(live: Session) -> List[TableLoss]:
        with run.connect(successor) as base:
            judgement.objects = lost_objects(run, live, place)
            take_back(run.store, base)
            losses = count_losses(live, base, known_by_oid(live, manifest), kept_sums(operation, base))
            mark(live, losses, run.store, place)
            before = {(entry.schema, entry.name): entry.digest for entry in manifest.tables}
            return judgement.of(live, losses, base, lambda: base, before)

    if only_count:
        return _counted_ahead(run, operation, judgement, judge)
    limit = manifest.properties["connection_limit"]
    return _take_over(run, operation, successor, judge, limit, place.backup_id)


def _counted_ahead(site: Site, operation: Operation, judgement: "LossPolicy", judge: Any) -> Dict[str, Any]:
    """What would be lost if nothing more was written; the live database is read in one snapshot.

    :raises Refused: it is more than what was accepted
    """
    with site.administer() as admin:
        if swapped(site, admin, operation):
            return {"changed": False}
    with site.connect() as live:
        live.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        judge(live)
        live.execute("ROLLBACK")
    return {"changed": False, **judgement.facts}


def _take_over(
    run: Run, operation: Operation, successor: str, judge: Any, limit: int, backup: Optional[str]
) -> Dict[str, Any]:
    """:param backup: id of the one that holds what the successor does, before rows are carried there"""
    retire_as = retired_name(operation.id, run.database)
    with run.administer() as admin:
        done = operation.facts(SWAP)
        if done and swapped(run, admin, operation):
            return {"changed": False, **done}
    with journaled_step(run, SWAP) as facts, run.administer() as admin:
        if swapped(run, admin, operation):
            # By the run that this one waited for, or by one that was killed right after its COMMIT.
            resume_left_behind(run)
            facts.update(operation.facts(SWAP) or _after_the_fact(run, admin, operation, retire_as))
            return {"changed": False, **facts}

        def advance(live: Session) -> None:
            with connect_exclusively(run, admin, successor) as session:
                facts["advanced_sequences"] = advance_sequences(sequence_values(live), session)

        facts["former_oid"] = server.database_oid(admin, run.database)
        facts["live_oid"] = server.database_oid(admin, successor)
        facts["retired"] = retire_as
        facts["backup"] = backup
        with waiting(run, operation) as facts["pooled"]:
            result = swap(
                run,
                admin,
                successor=successor,
                retire_as=retire_as,
                judge=judge,
                settle=advance,
                connection_limit=limit,
            )
        counted = operation.facts(COUNT) or {}
        facts.update(facts_of(result), **{key: counted[key] for key in _ALSO_COUNTED if key in counted})
        standbys = replication.follow(admin, FOLLOW_SECONDS)
        facts["standbys"] = [standby.to_json() for standby in standbys]
        facts["standbys_summary"] = replication.summary(standbys, result.confirmed)
        return {"changed": True, **facts}


@tried_again
def settle(run: Run) -> Dict[str, Any]:
    """Find out from the databases whether this operation's swap is in force, after the process that swaps has ended.

    One that was killed right after its COMMIT did not write so; the journal is made to say what is.
    """
    operation = run.operation
    with exclusive(run), run.administer() as admin:
        resume_left_behind(run)
        if not swapped(run, admin, operation):
            return {"changed": False, "swapped": False}
        known = operation.done(SWAP) is not None
        if not known:
            with operation.step(SWAP) as facts:
                retire_as = retired_name(operation.id, run.database)
                facts.update(operation.facts(SWAP) or _after_the_fact(run, admin, operation, retire_as))
    return {"changed": not known, "swapped": True}


def _after_the_fact(site: Site, admin: Session, operation: Operation, retire_as: str) -> Dict[str, Any]:
    """Facts of a swap that is in force but not in the journal."""
    counted = operation.facts(COUNT) or {}
    return {
        "former_oid": server.database_oid(admin, retire_as),
        "live_oid": server.database_oid(admin, site.database),
        "retired": retire_as,
        "backup": (operation.facts(BUILD) or operation.facts(KEEP) or {}).get("backup"),
        "losses": counted.get("losses", []),
        "lost_rows": counted.get("lost_rows", 0),
        **{key: counted[key] for key in _ALSO_COUNTED if key in counted},
        "finished_after_interruption": True,
    }


class LossPolicy:
    """Whether what would be lost is accepted; what is lost is kept, what is wanted is carried over."""

    def __init__(
        self,
        operation: Operation,
        accept: int,
        accept_changes_in: Sequence[str],
        reapply: Optional[Reapply] = None,
        *,
        can_carry: bool = True,
        accept_unreadable: bool = False,
        accept_lost_objects: int = 0,
        only_count: bool = False,
    ) -> None:
        """
        :param only_count: keep and carry nothing; what there is to say is in ``facts``
        :param can_carry: False where no other database takes over that rows could go to
        :param accept_unreadable: what a damaged table loses cannot be counted, and need not be
        """
        self._can_carry = can_carry
        self._accept_unreadable = accept_unreadable
        self._operation = operation
        self._accept = accept
        self._accept_changes_in = accept_changes_in
        self._reapply = reapply or Reapply()
        self._accept_lost_objects = accept_lost_objects
        self._only_count = only_count
        self.objects = LostObjects()
        self.facts: Dict[str, Any] = {}

    def of(
        self,
        live: Session,
        losses: List[TableLoss],
        base: Optional[Session],
        target: Callable[[], Session],
        before: Optional[Dict[Name, Digest]] = None,
    ) -> List[TableLoss]:
        """What is lost in the end.

        :param base: what the losses were counted against; None when there are none
        :param target: the database that takes over
        :param before: what its tables must hold before rows are carried there
        :raises Refused: it is more than what was accepted
        """
        aside = [loss for loss in losses if not self._counts(loss)]
        wanted = [loss for loss in losses if loss not in aside]
        if self._reapply.mode == "off" or not wanted or base is None:
            self.settle_for(live, Carried(losses, {"mode": "off"} if self._reapply.mode == "off" else {}))
            return losses

        def accept(carried: Carried) -> None:
            carried.losses += aside
            self.settle_for(live, carried)

        return carry_over(
            self._operation, live, base, target(), wanted, self._reapply, before=before, accept=accept,
            only_count=self._only_count,
        ).losses

    def settle_for(self, live: Session, carried: Carried) -> None:
        """Keep the rows that will be lost, or refuse."""
        counted = [loss for loss in carried.losses if self._counts(loss)]
        lost = sum(loss.total for loss in counted)
        facts = {
            "losses": [loss.to_json() for loss in carried.losses],
            "lost_rows": lost,
            "reapply": carried.facts or {"mode": self._reapply.mode},
            **self.objects.to_json(),
        }
        self.facts = facts
        damaged = [loss for loss in carried.losses if loss.unreadable]
        if damaged and not self._accept_unreadable:
            raise self._refusal_of_damage(damaged, facts)
        if lost > self._accept or self.objects.total > self._accept_lost_objects:
            raise self._refusal(counted, lost, facts)
        if self._only_count:
            return
        if damaged:
            facts["accepted_unreadable"] = [loss.full_name for loss in damaged]
        if carried.losses:
            write_lost_rows(live, carried.losses, self._operation.file("lost-rows"))
            facts["losses"] = [loss.to_json() for loss in carried.losses]
        self._operation.write(COUNT, "done", **facts)

    def _counts(self, loss: TableLoss) -> bool:
        return not loss.by_migration and loss.full_name not in self._accept_changes_in

    def _refusal_of_damage(self, damaged: List[TableLoss], facts: Dict[str, Any]) -> Refused:
        kept = (
            "the former database keeps the table as it is"
            if self._can_carry
            else "what can be read of it is in %s" % self._operation.file("saved-rows")
        )
        return Refused(
            "What would be lost cannot be counted: a table is damaged",
            found="; ".join(map(str, damaged)),
            hint=remedy(
                "nothing was changed. Copy the server's files first if you can. Go on without that count with %s; %s",
                Given(Setting.ACCEPT_UNREADABLE, True),
                kept,
            ),
            details=facts,
        )

    def _refusal(self, counted: List[TableLoss], lost: int, facts: Dict[str, Any]) -> Refused:
        conflicts = facts["reapply"].get("conflicts", [])
        found = [str(loss) for loss in counted] * (lost > self._accept)
        found += ["not carried over in %(table)s: %(rows)d rows, %(reason)s" % entry for entry in conflicts]
        could_carry = self._can_carry and self._reapply.mode != "apply"
        carry = remedy("carry over what goes with %s, ", Given(Setting.REAPPLY, "apply")) if could_carry else ""
        where = "the retired database" if self._can_carry else "the emergency backup"
        too_many = []
        options = []
        if lost > self._accept:
            too_many.append("%d rows would be lost, more than the accepted %d" % (lost, self._accept))
            options.append(Given(Setting.ACCEPT_LOST_ROWS, lost))
        if self.objects.total > self._accept_lost_objects:
            too_many.append(
                "%d objects that the migrations did not make would go, more than the accepted %d"
                % (self.objects.total, self._accept_lost_objects)
            )
            options.append(Given(Setting.ACCEPT_LOST_OBJECTS, self.objects.total))
            found.append(str(self.objects))
        return Refused(
            " and ".join(too_many),
            found="; ".join(found),
            expected="at most %d rows, %d objects" % (self._accept, self._accept_lost_objects),
            hint=remedy(
                "nothing was changed. Save them first, %sor accept their loss with %s; %s keeps them%s",
                carry,
                remedy(" ".join(["%s"] * len(options)), *options),
                where,
                " and the store the rows" if lost else "",
            ),
            details=facts,
        )


# Undo


def undoes(operation: Operation) -> Optional[str]:
    """The operation that an undo is about; None when it is no undo."""
    found = operation.request.get("undoes")
    return str(found) if operation.kind == "undo" and found else None


def last_swap(site: Site) -> Optional[Operation]:
    """The newest operation whose swap of this database is in force: its retired database exists.

    The one that made the database which is live now comes before newer ones, in case the clock was set back.
    """
    with site.administer() as admin:
        live_oid = server.database_oid(admin, site.database)
        found = [
            operation
            for operation in operations_of(site.store, site.database)
            if swapped(site, admin, operation)
        ]
    made_it_live = [operation for operation in found if (operation.facts(SWAP) or {}).get("live_oid") == live_oid]
    candidates = made_it_live or found
    return candidates[-1] if candidates else None


def built_by(site: Site, oid: Optional[int]) -> Optional[Operation]:
    """The operation that by its journal built this database and made it live; undos only give a name back."""
    found = [
        operation
        for operation in operations_of(site.store, site.database)
        if operation.kind != "undo"
        and (operation.facts(SWAP) or {}).get("live_oid") == oid
    ]
    return found[-1] if found else None


@tried_again
def undo(
    run: Run,
    undone: Operation,
    accept_lost_rows: int,
    reapply: Optional[Reapply] = None,
    accept_unreadable: bool = False,
    *,
    accept_lost_objects: int = 0,
    only_count: bool = False,
) -> Dict[str, Any]:
    """Give the live name back to the database that another operation retired.

    Lost is what was written since that operation: the live tables are compared with what they held when they took
    over. After a revert that is its backup; after an undo the one that back_up_retired() made in it.

    :param only_count: as for revert(); what must be restored for it is kept for the undo itself
    """
    operation = run.operation
    with run.administer() as admin:
        if swapped(run, admin, operation):
            return _take_over(run, operation, "", None, -1, None)
    retired = retired_name(undone.id, run.database)
    newest = last_swap(run)
    if newest and undoes(newest) == undone.id:
        # By an undo that was given up after its swap, perhaps before it could write so.
        settle(run.run(newest))
        return {"changed": False, **(newest.facts(SWAP) or {})}
    if run.connection.database != undone.database:
        raise Refused("That operation was about another database", found=str(undone.database))
    base = _Base(run, undone)
    with run.administer() as admin:
        if server.database_oid(admin, retired) is None:
            raise Refused(
                "Operation %s cannot be undone" % undone.id,
                found="no database %s" % retired,
                hint="it was undone already, or its retired database was dropped",
            )
        limit = int(admin.value("SELECT datconnlimit FROM pg_database WHERE datname = %s", (retired,)))
    judgement = LossPolicy(
        operation,
        accept_lost_rows,
        (),
        reapply,
        accept_unreadable=accept_unreadable,
        accept_lost_objects=accept_lost_objects,
        only_count=only_count,
    )
    try:
        base.prepare()

        def judge(live: Session) -> List[TableLoss]:
            with contextlib.ExitStack() as stack:
                admin = stack.enter_context(run.administer())
                target = stack.enter_context(connect_exclusively(run, admin, retired))
                take_back(run.store, target)
                there = stack.enter_context(base.session()) if base.built else None
                if base.place is not None:
                    judgement.objects = lost_objects(run, live, base.place)
                return judgement.of(live, base.losses(live, there), there, lambda: target)

        if only_count:
            return _counted_ahead(run, operation, judgement, judge)
        kept = (operation.facts(KEEP) or {}).get("backup")
        return _take_over(run, operation, retired, judge, limit, kept)
    finally:
        if not only_count:
            base.drop()


def manifest_at_swap(undone: Operation, place: BackupPlace) -> Manifest:
    """What the live database held when an operation made it live: its backup's contents and what was carried there."""
    manifest = manifests.load(place)
    tables = (carried_contents(undone) or {"tables": []})["tables"]
    carried = {(entry["schema"], entry["name"]): Digest.from_json(entry["digest"]) for entry in tables}
    return dataclasses.replace(
        manifest,
        tables=tuple(
            dataclasses.replace(entry, digest=carried.get((entry.schema, entry.name), entry.digest))
            for entry in manifest.tables
        ),
    )


class _Base:
    """What the live database held when it took over: the backup and what was carried over to it, restored again only
    where digests differ."""

    def __init__(self, run: Run, undone: Operation) -> None:
        self._run = run
        operation = run.operation
        self._name = scratch_name(operation.id, "base")
        self.built = False
        backup_id = (undone.facts(SWAP) or {}).get("backup")
        self.place = run.store.find_backup(backup_id) if backup_id else None
        self._undone = undone
        self._carried = carried_contents(undone)

    def session(self) -> Session:
        return self._run.connect(self._name)

    def prepare(self) -> None:
        with self._run.connect() as live:
            if self._same(live):
                return
        if self.place is None:
            raise BackstopError(
                "What was written since cannot be counted",
                found="rows were written since operation %s, and it has no backup to compare with" % self._undone.id,
                hint=remedy(
                    "make an emergency backup, compare by hand, or revert to a backup: %s", Action.COMPLETE
                ),
            )
        operation = self._run.operation
        self.built = True
        with self._run.administer() as admin:
            there = server.database_oid(admin, self._name)
            if there is not None and (operation.facts(BASE) or {}).get("oid") == there:
                return
        build_database(self._run, self.place, self._name)
        if self._carried is not None:
            with self.session() as session:
                carry_again(self._undone, session)
        with self._run.administer() as admin:
            operation.write(BASE, "done", oid=server.database_oid(admin, self._name))

    def _same(self, live: Session) -> bool:
        if self.place is None:
            return False
        manifest = manifest_at_swap(self._undone, self.place)
        return not compare_tables(live, manifest, besides=[self._history()]).tables

    def _known(self, live: Session) -> Dict[int, Table]:
        return known_by_oid(live, manifests.load(self.place)) if self.place is not None else {}

    def _history(self) -> str:
        return "%s.%s" % (self._run.connection.schema, history.TABLE)

    def losses(self, live: Session, there: Optional[Session]) -> List[TableLoss]:
        """:param there: a session in the base, where it was built"""
        if there is not None:
            operation = self._run.operation
            return count_losses(live, there, self._known(live), kept_sums(operation, there))
        if self._same(live):
            return []
        raise BackstopError(
            "Rows were written while the undo was being prepared", hint="stop the writers and run the undo again"
        )

    def drop(self) -> None:
        if self.built:
            with self._run.administer() as admin:
                drop_scratch_database(admin, self._name)
