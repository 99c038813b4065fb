# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Executing a rollback: prepared while the application runs, applied behind the fence, settled after a kill.

The automatic rollback of a deploy, a rollback and an undo use the same calls: the operation determines the method.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, Sequence, Tuple, Type

from ..base.errors import BackstopError
from ..postgres.database_properties import drop_scratch_database, scratch_databases
from ..site import Run, database_lock
from ..store.steps import APPLIED
from .choose import LEFTOVERS
from .request import way_of
from .safety_copies import drop_old_copies
from .way import HALF_DONE, Consent, Outcome, Programs, Ready, Settled, TakeInstead, Way
from .way_down_sql import TakeOut
from .way_in_place import InPlace
from .way_leftovers import Leftovers
from .way_swap import Swap
from .way_table import Table

#: How an operation may have changed the database. A method that replaced another comes before it.
_MAY_HAVE_DONE: Sequence[Type[Way]] = (Swap, InPlace, TakeOut, Leftovers, Table)


def prepare(run: Run, programs: Programs, consent: Consent) -> Tuple[Way, Ready, List[str]]:
    """:returns: the final method, what is ready, and why it is not the requested one"""
    way = way_of(run, programs)
    reasons: List[str] = []
    found = way.prepare(run, consent)
    while isinstance(found, TakeInstead):
        way, reasons = found.way, [*reasons, found.why]
        found = way.prepare(run, consent)
    return way, found, reasons


def apply(run: Run, programs: Programs, consent: Consent) -> Tuple[Way, Outcome]:
    """Change the database. A killed run is continued; a finished one is recognised."""
    way = way_of(run, programs)
    try:
        found = way.apply(run, consent)
        while isinstance(found, TakeInstead):
            way = found.way
            found = way.apply(run, consent)
    except BackstopError:
        if run.operation.kind == "deploy":
            # What follows is an operation of its own, which does not use what this one built.
            with contextlib.suppress(BackstopError):
                drop_left(run)
        raise
    run.operation.write(APPLIED, "done", way=way.name)
    return way, found


def settle(run: Run) -> Settled:
    """Find out from the server what an operation did, after its process has ended."""
    outcomes = [(way.name, way.settle(run)) for way in _MAY_HAVE_DONE]
    found = [(name, outcome) for name, outcome in outcomes if outcome is not None]
    if not found:
        return Settled()
    name, outcome = found[0]
    state = outcome.state
    if name == LEFTOVERS and run.operation.facts(APPLIED) is None:
        # Its last step was done, but its process ended before it recorded that.
        state = HALF_DONE
    return Settled(state, name, any(one.changed for _name, one in found))


def drop_left(run: Run) -> List[str]:
    """Drop the scratch databases that proofs and restores of the operation left."""
    with run.administer() as admin:
        return [name for name in scratch_databases(admin, run.operation.id) if drop_scratch_database(admin, name)]


def clean_up(run: Run) -> List[str]:
    """Drop what the operation, which has ended, and earlier deploys left in the server; returns the names."""
    dropped = drop_left(run)
    # Another operation may have begun since, and may need a copy.
    with database_lock(run, 1) as admin:
        return dropped + drop_old_copies(run, admin)


def facts_of(way: Way, outcome: Outcome) -> Dict[str, Any]:
    """An outcome as a module's result."""
    return {**outcome.to_json(), "way": way.name, "story": list(outcome.story)}
