# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides whether the loss of a rollback is accepted, keeps lost rows, and carries rows over.

Every rollback does the same. First it counts in one snapshot, while the application runs, and changes nothing. Behind
the fence it counts again; then it either refuses, or keeps what will be lost and continues. A refusal reports what
would be lost, how much of it is accepted, and how to accept it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Iterator, List, Mapping, Optional, Sequence

from ..base.durable_files import known_fields
from ..base.errors import Refused
from ..base.remedies import Given, Hint, Setting, remedy
from ..postgres.connection import Session
from ..site import Run, Site
from ..store.operation import Operation
from ..store.steps import COUNT, LossCounted, Lost, Reapplied, as_json
from .changes import Databases
from .count import TableLoss
from .kept_rows import write_lost_rows
from .lost_objects import LostObjects
from .reapply import Carried, Reapply, carried_over


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The texts for a loss that was not accepted."""

    #: what would be lost
    found: Sequence[str]
    #: what to do instead of accepting it
    instead: Hint
    #: where it would be kept
    kept: str
    details: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LossPolicy:
    """What the user lets a rollback lose, and what to carry over."""

    rows: int = 0
    #: objects that the migrations did not create
    objects: int = 0
    #: a damaged table's loss, which cannot be counted, is accepted
    unreadable: bool = False
    #: tables whose differences are kept and not counted: changes of a failed migration
    changes_in: Sequence[str] = ()
    #: rows to carry over to the database that takes over; these are not lost
    reapply: Reapply = Reapply()

    def counts(self, loss: TableLoss) -> bool:
        return not loss.by_migration and loss.full_name not in self.changes_in

    def require(self, rows: int, refusal: Refusal, objects: Optional[LostObjects] = None) -> None:
        """:raises Refused: more would be lost than accepted"""
        too_many, options, found = [], [], list(refusal.found)
        if rows > self.rows:
            too_many.append("%d rows would be lost, more than the accepted %d" % (rows, self.rows))
            options.append(Given(Setting.ACCEPT_LOST_ROWS, rows))
        if objects is not None and objects.total > self.objects:
            too_many.append(
                "%d objects that the migrations did not create would be lost, more than the accepted %d"
                % (objects.total, self.objects)
            )
            options.append(Given(Setting.ACCEPT_LOST_OBJECTS, objects.total))
            found.append(str(objects))
        if not too_many:
            return
        raise Refused(
            " and ".join(too_many),
            found="; ".join(found),
            expected="at most %d rows" % self.rows + (", %d objects" % self.objects if objects is not None else ""),
            hint=remedy(
                "nothing was changed. %s, or accept their loss with %s; %s",
                refusal.instead,
                remedy(" ".join(["%s"] * len(options)), *options),
                refusal.kept,
            ),
            details=dict(refusal.details),
        )


@dataclasses.dataclass
class Loss:
    """What a rollback would lose."""

    tables: List[TableLoss]
    objects: LostObjects = dataclasses.field(default_factory=LostObjects)
    #: databases between which rows can be carried; None where nothing is to be carried
    databases: Optional[Databases] = None


class Acceptance:
    """The decision on the loss of one operation."""

    def __init__(self, run: Run, policy: LossPolicy, *, retires: bool = False, only_count: bool = False) -> None:
        """
        :param retires: the live database is retired, and rows can be carried to the database that takes over
        :param only_count: keep and carry nothing; the result is in ``facts``
        """
        self._run, self._operation = run, run.operation
        self._policy = policy
        self._retires = retires
        self._only_count = only_count
        self.facts = LossCounted()

    def accept(self, live: Session, loss: Loss) -> List[TableLoss]:
        """Carry over the requested rows, and keep what will be lost.

        :returns: the remaining loss
        :raises Refused: it exceeds what was accepted; nothing was carried
        """
        policy = self._policy
        aside = [one for one in loss.tables if not policy.counts(one)]
        wanted = [one for one in loss.tables if policy.counts(one)]
        if policy.reapply.mode == "off" or not wanted or loss.databases is None:
            self._keep(live, Carried(loss.tables, Reapplied(policy.reapply.mode)), loss.objects)
            return loss.tables
        carrying = carried_over(self._run, loss.databases, wanted, policy.reapply, only_count=self._only_count)
        with carrying as carried:
            carried.losses += aside
            self._keep(live, carried, loss.objects)
        return carried.losses

    def _keep(self, live: Session, carried: Carried, objects: LostObjects) -> None:
        """Keep the rows that will be lost, or refuse."""
        counted = [loss for loss in carried.losses if self._policy.counts(loss)]
        self.facts = LossCounted(
            losses=[loss.to_json() for loss in carried.losses],
            lost_rows=sum(loss.total for loss in counted),
            reapply=carried.facts,
            **objects.to_json(),
        )
        damaged = [loss for loss in carried.losses if loss.unreadable]
        if damaged and not self._policy.unreadable:
            raise self._refusal_of_damage(damaged)
        self._policy.require(int(self.facts.lost_rows or 0), self._refusal(counted), objects)
        if self._only_count:
            return
        if carried.losses:
            write_lost_rows(live, carried.losses, self._operation.file("lost-rows"))
        self.facts = dataclasses.replace(
            self.facts,
            losses=[loss.to_json() for loss in carried.losses],
            accepted_unreadable=[loss.full_name for loss in damaged] or None,
        )
        self._operation.write(COUNT, "done", **as_json(self.facts))

    def _refusal_of_damage(self, damaged: Sequence[TableLoss]) -> Refused:
        kept = (
            "the former database keeps the table as it is"
            if self._retires
            else "what can be read of it is in %s" % self._operation.file("saved-rows")
        )
        return Refused(
            "What would be lost cannot be counted: a table is damaged",
            found="; ".join(map(str, damaged)),
            hint=remedy(
                "nothing was changed. Copy the server's files first if you can. To continue without the count: %s; %s",
                Given(Setting.ACCEPT_UNREADABLE, True),
                kept,
            ),
            details=as_json(self.facts),
        )

    def _refusal(self, counted: Sequence[TableLoss]) -> Refusal:
        lost = int(self.facts.lost_rows or 0)
        conflicts = self.facts.reapply.conflicts if self.facts.reapply else []
        found = [str(loss) for loss in counted] * (lost > self._policy.rows)
        found += ["not carried over in %s: %d rows, %s" % (one.table, one.rows, one.reason) for one in conflicts]
        could_carry = self._retires and self._policy.reapply.mode != "apply"
        carry = remedy(", carry over what is possible with %s", Given(Setting.REAPPLY, "apply")) if could_carry else ""
        where = "the retired database" if self._retires else "the emergency backup"
        return Refusal(
            found=found,
            instead=remedy("Save them first%s", carry),
            kept="%s keeps them%s" % (where, " and the store the rows" if lost else ""),
            details=as_json(self.facts),
        )


@contextlib.contextmanager
def snapshot(site: Site, *, read_only: bool = True) -> Iterator[Session]:
    """A session that counts while the application writes: it sees one snapshot and changes nothing.

    :param read_only: forbid temporary tables too
    """
    with site.connect() as live:
        live.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" + (" READ ONLY" if read_only else ""))
        yield live
        live.execute("ROLLBACK")


def counted(operation: Operation) -> Lost:
    """The result of an operation's last count, for its steps and its report."""
    found = operation.result(COUNT)
    return Lost(**{**known_fields(Lost, vars(found)), "lost_rows": found.lost_rows or 0})
