# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients of PgBouncer wait, instead of getting errors, while the live name changes.

Their pools are paused before the fence, so that they have no sessions to terminate, and are always resumed afterwards.
The journal records the pools before they are paused. If a run is killed in between, the next one on this database
resumes them first.
"""

from __future__ import annotations

import contextlib
import time
from typing import Dict, Iterator, List, NamedTuple

from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Setting, remedy
from ..base.sql_names import quote_identifier
from ..postgres.pgbouncer import END, Pooler, console
from ..site import Site
from ..store.operation import Operation, operations_of
from ..store.steps import PAUSE_POOLS, PooledClients

#: Event of that step: the user was asked to resume the pools.
REPORTED = "reported"


class _Place(NamedTuple):
    """A pool of a PgBouncer."""

    address: str
    name: str

    def __str__(self) -> str:
        return "%s at %s" % (self.name, self.address)


@contextlib.contextmanager
def waiting(site: Site, operation: Operation) -> Iterator[PooledClients]:
    """Pooled clients wait while the block runs. The database's lock must be held.

    :returns: their ``seconds`` are known when the block has ended
    :raises Refused: clients keep their sessions, or a pool is not as declared; all pools were resumed
    :raises BackstopError: after the block, if pools could not be resumed; names the commands for that
    """
    resume_left_behind(site)
    facts = PooledClients()
    if not site.poolers:
        yield facts
        return
    places = _places(site)
    facts.pools = list(map(str, places))
    operation.write(PAUSE_POOLS, "began", pools=places)
    started = time.monotonic()
    try:
        for pooler in site.poolers:
            facts.held += _pause(site, pooler)
        reach("pooler.paused")
        yield facts
    except BaseException as error:
        left = _resume(site, operation, places)
        if left and isinstance(error, BackstopError):
            error.hint = "; ".join(filter(None, [error.hint, _command(left)]))
        raise
    left = _resume(site, operation, places)
    facts.seconds = round(time.monotonic() - started, 3)
    if left:
        raise BackstopError(
            "The work is done, but clients of PgBouncer still wait",
            found="; ".join("%s: %s" % place for place in left.items()),
            hint=_command(left),
        )


def _command(left: Dict[_Place, str]) -> str:
    commands = ["at %s: RESUME %s;" % (address, quote_identifier(name)) for address, name in left]
    return "run this again, which resumes the pools, or run in the console of PgBouncer " + " ".join(commands)


def _places(site: Site) -> List[_Place]:
    """Every pool to pause.

    :raises Refused: one of them is paused already: by another user, who would not want it to be resumed
    """
    found: List[_Place] = []
    for pooler in site.poolers:
        with console(pooler) as session:
            for pool in session.pools_of(site.database):
                if pool.paused:
                    raise Refused(
                        "The pool %s of PgBouncer at %s is paused already" % (pool.name, pooler.address),
                        found="another client paused it",
                        hint=remedy("run RESUME in its console, or leave this PgBouncer out of %s", Setting.POOLERS),
                    )
                found.append(_Place(pooler.address, pool.name))
    return found


def _pause(site: Site, pooler: Pooler) -> List[str]:
    """Pause the pools of one PgBouncer; returns the clients that keep a session nevertheless."""
    kept: List[str] = []
    with console(pooler) as session:
        for pool in session.pools_of(site.database):
            site.progress.phase("pausing pool %s" % pool.name)
            if session.pause(pool.name):
                continue
            holders = session.holders(pool.name)
            if pooler.held != END:
                raise Refused(
                    "Clients of PgBouncer keep their sessions in the database",
                    found="pool %s at %s (%s pooling): %s"
                    % (pool.name, pooler.address, pool.mode, "; ".join(holders) or "they just disconnected"),
                    expected="every session given back within %g seconds" % pooler.wait_seconds,
                    hint=remedy(
                        "nothing was changed, the pool continues. Stop these clients (with session pooling one keeps"
                        " its session for as long as it is connected), or give this PgBouncer 'held: end' in"
                        " %s: then their sessions are ended and they alone see an error",
                        Setting.POOLERS,
                    ),
                )
            kept += holders
    return kept


def _resume(site: Site, operation: Operation, places: List[_Place]) -> Dict[_Place, str]:
    """Resume pools; returns those that could not be resumed, with the reason."""
    left: Dict[_Place, str] = {}
    by_address = {pooler.address: pooler for pooler in site.poolers}
    for place in places:
        try:
            if place.address not in by_address:
                raise Refused("it is no longer in %s" % Setting.POOLERS)
            with console(by_address[place.address]) as session:
                session.resume(place.name)
        except BackstopError as error:
            left[place] = error.found or error.message
    if not left:
        operation.write(PAUSE_POOLS, "done", pools=places)
    return left


def resume_left_behind(site: Site) -> List[str]:
    """Resume the pools that a killed run left paused. The database's lock must be held.

    A pool of a PgBouncer that is no longer configured is reported only once: it must not block work permanently.

    :raises BackstopError: it cannot be resumed; names the command
    """
    resumed: List[str] = []
    for operation in operations_of(site.store, site.database):
        last = operation.last(PAUSE_POOLS)
        if last is None or last["event"] == "done":
            continue
        places = [_Place(*map(str, one)) for one in last["pools"]]
        left = _resume(site, operation, places)
        configured = {pooler.address for pooler in site.poolers}
        if left and configured.isdisjoint(place.address for place in left):
            if last["event"] == REPORTED:
                continue
            operation.write(PAUSE_POOLS, REPORTED, pools=places)
        if left:
            raise BackstopError(
                "Clients of PgBouncer have been waiting since operation %s was interrupted" % operation.id,
                found="; ".join("%s: %s" % place for place in left.items()),
                hint=_command(left),
            )
        resumed += map(str, places)
    return resumed
