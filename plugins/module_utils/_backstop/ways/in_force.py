# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which changes are in force. The server decides, not the journal.

A change of the database is in force while the live database descends from it: a swap, while the database that it
retired exists; a restore in place, while the same database is live and no swap came after it; down-SQL, since its
COMMIT gave the history of its backup back. Restored tables have a rule of their own (table.py). A change of the release
alone is seen on the hosts; here the newest one is known from the journals.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, Optional

from ..base.sql_names import retired_name
from ..postgres import server
from ..postgres.connection import Session
from ..site import Run, Site, exclusive
from ..store.operation import Operation, operations_of
from ..store.steps import CODE, DOWN, IN_PLACE, RESTORE_TABLE, SWAP, D, Step, as_json
from . import choose
from .pooled_clients import resume_left_behind

#: How an operation changed the database or the release: one of these, or of the methods in choose.py.
SWAPPED = "swap"
_BY_STEP: Dict[str, str] = {
    SWAP: SWAPPED,
    IN_PLACE: choose.IN_PLACE,
    RESTORE_TABLE: choose.TABLE,
    DOWN: choose.DOWN_SQL,
    CODE: choose.RELEASE,
}


@dataclasses.dataclass(frozen=True)
class Change:
    """An operation whose change is in force, and the name of its method."""

    operation: Operation
    method: str

    @property
    def id(self) -> str:
        return self.operation.id

    @property
    def undoes(self) -> Optional[str]:
        """The operation that it undid; None if it is not an undo."""
        return undoes(self.operation)

    @property
    def what(self) -> str:
        return "%s, %s" % ("undo of %s" % self.undoes if self.undoes else self.operation.kind, self.method)

    def __str__(self) -> str:
        return "%s (%s)" % (self.id, self.what)


def undoes(operation: Operation) -> Optional[str]:
    """The operation that an undo reverts; None if it is not an undo."""
    found = operation.request.get("undoes")
    return str(found) if operation.kind == "undo" and found else None


# This operation

#: Reads an operation's change from the server: the facts of its step if it is in force, else None. They are those of
#: the journal, or what can still be known if it was killed before it wrote them.
InForce = Callable[[Run, Session], Optional[D]]


def settled(run: Run, step: Step[D], in_force: InForce[D]) -> Optional[D]:
    """What this operation did, after its process has ended; None if it changed nothing.

    If it was killed right after its COMMIT, the journal is completed: then ``changed`` is True.
    """
    with exclusive(run), run.administer() as admin:
        resume_left_behind(run)
        found = in_force(run, admin)
        if found is None:
            return None
        known = run.operation.done(step) is not None
        if not known:
            with run.operation.step(step) as facts:
                facts.update(as_json(found))
        return dataclasses.replace(found, changed=not known)


def done_before(run: Run, step: Step[D], in_force: InForce[D]) -> Optional[D]:
    """The same for a run that would do the step now. It holds the operation's locks."""
    found = settled(run, step, in_force)
    return None if found is None else dataclasses.replace(found, changed=False)


def swapped(site: Site, admin: Session, operation: Operation) -> bool:
    """Whether an operation's swap is in force, from the databases alone."""
    return server.database_oid(admin, retired_name(operation.id, site.database)) is not None


# All operations


def newest(site: Site, belongs: Callable[[Operation], bool]) -> Optional[Operation]:
    """The newest operation on this database that meets a condition."""
    return next(filter(belongs, reversed(operations_of(site.store, site.database))), None)


def last_swap(site: Site) -> Optional[Operation]:
    """The newest operation whose swap of this database is in force.

    The operation that made the current database live precedes newer ones, in case the clock was set back. One that was
    killed right after its COMMIT could not record that; nothing else has changed the database while it is open.
    """
    with site.administer() as admin:
        live_oid = server.database_oid(admin, site.database)
        found = [operation for operation in operations_of(site.store, site.database) if swapped(site, admin, operation)]
    unrecorded = [operation for operation in found if operation.facts(SWAP) is None]
    open_ones = [operation for operation in unrecorded if operation.is_open]
    made_it_live = [one for one in found if one in unrecorded or one.result(SWAP).live_oid == live_oid]
    candidates = open_ones or made_it_live or found
    return candidates[-1] if candidates else None


def last_in_place(site: Site, oid: Optional[int], swap: Optional[Operation]) -> Optional[Operation]:
    """The newest operation that restored the live database in place; None if there was a swap since."""
    here = newest(site, lambda operation: operation.result(IN_PLACE).live_oid == oid)
    if here is None or swap is None:
        return here
    return here if (here.began, here.id) > (swap.began, swap.id) else None


def newest_change(site: Site) -> Optional[Change]:
    """The newest change of the database or the release that is in force."""
    swap = last_swap(site)
    with site.connect() as session:
        oid = server.database_oid(session, site.database)
    candidates = {
        SWAPPED: swap,
        choose.IN_PLACE: last_in_place(site, oid, swap),
        choose.RELEASE: newest(site, _changed_the_release),
        choose.DOWN_SQL: newest(site, lambda operation: operation.facts(DOWN) is not None),
    }
    found = [Change(operation, method) for method, operation in candidates.items() if operation is not None]
    return max(found, key=lambda change: (change.operation.began, change.id)) if found else None


def _changed_the_release(operation: Operation) -> bool:
    """A rollback or undo that changed only the release, not the database."""
    return operation.kind != "deploy" and bool(operation.done(CODE)) and operation.outcome in (None, "done")


def change_of(site: Site, operation: Operation) -> Optional[Change]:
    """How an operation changed the database or the release; None if it changed neither."""
    for step, method in _BY_STEP.items():
        if operation.facts(step) is not None:
            return Change(operation, method)
    with site.administer() as admin:
        # If it was killed right after its COMMIT, the journal lacks it.
        return Change(operation, SWAPPED) if swapped(site, admin, operation) else None
