# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fence of a deploy: it ends all other sessions in the database, and compares it with the backup."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Dict, List

from ..backups.comparison import compare_tables
from ..base.errors import Refused
from ..base.failpoints import reach
from ..postgres import definitions, server
from ..postgres.connection import Session
from ..postgres.database_properties import drop_scratch_database, scratch_databases
from ..site import Run, Site, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation
from ..store.steps import FENCE, MIGRATE, PROOFS, FencedOff
from .leftovers import leftovers
from .safety_copy import closed_to_others, make_safety_copy

#: How long ended sessions may take to disappear.
_GOING_SECONDS = 5


def fence(site: Site, place: BackupPlace, wait_seconds: float, safety_copy: str = "") -> FencedOff:
    """End idle sessions, wait for busy ones, then compare every table and definition with the backup.

    :param safety_copy: how to copy the database, if it equals the backup; empty: not at all
    :raises Refused: gates were skipped; or sessions are still active after the wait; names them
    """
    manifest = manifests.load(place)
    if site.operation is not None:
        require_proofs(site.operation)
    with journaled_step(site, FENCE) as facts, site.administer() as admin:
        _drop_debris(site, admin)
        ended = _clear(site, admin, wait_seconds)
        reach("fence.cleared")
        with contextlib.ExitStack() as stack:
            live = stack.enter_context(site.connect())
            resumed = _partly_migrated(site, live, place)
            run = site if isinstance(site, Run) and safety_copy and not resumed else None
            if run is not None:
                stack.enter_context(closed_to_others(run, admin, live))
            differences = [] if resumed else _differences(live, manifest)
            back = server.other_sessions(admin, site.database, besides=(live.backend,))
            if run is not None and not (differences or back):
                live.close()
                make_safety_copy(run, admin, place, safety_copy)
        if back:
            raise _others(back, "none that reconnects after it was ended")
        fenced = FencedOff(ended, not differences, differences)
        facts.update(dataclasses.asdict(fenced), backup=place.backup_id)
    return fenced


def require_proofs(operation: Operation) -> None:
    """:raises Refused: gates were skipped"""
    why = "Other sessions were not ended: an earlier step was left out"
    # A final backup behind an earlier fence may have been interrupted; the backup that it replaced was proved.
    operation.require(list(PROOFS.get(operation.kind, ())), why, once=True)


def _differences(live: Session, manifest: Manifest) -> List[str]:
    """What was written or created since the backup: going back to it would remove that."""
    found = compare_tables(live, manifest).tables
    if found:
        return found
    return definitions.differences(manifest.definitions, definitions.definitions(live))


def _partly_migrated(site: Site, live: Session, place: BackupPlace) -> bool:
    """Whether an earlier run of this deploy was interrupted after some of its migrations.

    The backup from before stays the one to go back to: a new one would contain changes of this deploy.

    :raises Refused: these migrations, or other sessions since, did more than add objects
    """
    if site.operation is None or site.operation.last(MIGRATE) is None:
        return False
    found = leftovers(site, live, place)
    if found.applied and found.reasons:
        raise Refused(
            "This deploy was interrupted after some of its migrations, and the database holds more than they added",
            found="applied: %s; %s" % (", ".join(found.applied), "; ".join(found.reasons)),
        )
    return bool(found.applied)


def _drop_debris(site: Site, admin: Session) -> None:
    """Drop the copy of a run that was killed right after its rehearsal."""
    if site.operation is not None:
        for name in scratch_databases(admin, site.operation.id):
            drop_scratch_database(admin, name)


def _clear(site: Site, admin: Session, wait_seconds: float) -> List[str]:
    """End idle sessions, which lose nothing, and give the others time to finish."""
    ended: Dict[int, str] = {}
    deadline = time.monotonic() + wait_seconds
    while True:
        others = server.other_sessions(admin, site.database)
        if not others:
            return list(ended.values())
        idle = [other for other in others if other.idle]
        server.terminate(admin, idle)
        ended.update({other.pid: str(other) for other in idle})
        # A terminated session takes a moment to disappear; a pool that still runs opens a new one.
        if time.monotonic() > deadline + (_GOING_SECONDS if len(idle) == len(others) else 0):
            raise _others(others, "none %g seconds after the application stopped" % wait_seconds)
        admin.execute("SELECT pg_sleep(0.05)")


def _others(sessions: List[server.OtherSession], expected: str) -> Refused:
    return Refused(
        "Other sessions are active in the database",
        found="; ".join(str(session) for session in sessions),
        expected="no session but those of this deploy; " + expected,
        hint="stop those programs, or end their sessions with pg_terminate_backend, then run this again",
    )
