# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rollback would lose and cost, as far as it can be determined while the application runs. Reads only.

The rollback itself counts exactly, behind the fence.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Set

from ..base.progress import parse_timestamp
from ..base.tables import Table
from ..loss.count import TableLoss, count_losses, losses_of_dropping
from ..loss.lost_objects import LostObjects, lost_objects
from ..loss.migration_changes import as_migrated
from ..loss.pairing import known_by_oid
from ..postgres import server
from ..postgres.connection import Session
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BUILD, MIGRATE, STARTED, STOP
from .facts import Facts, TableFacts, ask_for
from .swap import successor_name


@dataclasses.dataclass(frozen=True)
class ForeseenLoss:
    """What would be lost of a table; if not exact, at least that."""

    table: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    exact: bool = True
    in_backup: bool = True

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted


def losses_of_revert(site: Site, facts: Facts) -> List[ForeseenLoss]:
    """What going back to the backup would lose, for each table."""
    copy = _restored_copy(site, facts)
    if copy is not None:
        with site.connect() as live, site.connect(copy) as base:
            losses = count_losses(live, base, known_by_oid(live, facts.manifest) if facts.manifest else {})
            return _exact(facts, _counting(site, facts, live, losses))
    with site.connect() as live:
        changed = [table.shown for table in facts.tables if table.same is False]
        untouched = _as_migrated(site, facts, live, changed)
        found = {
            table.shown: ForeseenLoss(table.shown) if table.shown in untouched else _bound(table)
            for table in facts.tables
        }
        going = ask_for(facts, "what new tables and columns hold", lambda: _losses_of_dropping(live, facts)) or []
        for loss in _counting(site, facts, live, going):
            name = loss.full_name
            if loss.whole_table:
                found[name] = ForeseenLoss(name, loss.inserted, in_backup=False)
                continue
            known = found[name]
            # Rows with new values may be among those counted already.
            exact = known.exact and not (known.inserted or known.deleted)
            found[name] = dataclasses.replace(known, updated=max(known.updated, loss.updated), exact=exact)
    return list(found.values())


def _losses_of_dropping(live: Session, facts: Facts) -> List[TableLoss]:
    known = known_by_oid(live, facts.manifest) if facts.manifest else {}
    return losses_of_dropping(live, _compared_tables(facts), known)


def objects_of_revert(site: Site, place: Optional[BackupPlace], facts: Facts) -> Optional[LostObjects]:
    """What is lost besides rows; None if unknown."""
    if place is None:
        return None
    with site.connect() as live:
        return ask_for(facts, "what was made since", lambda: lost_objects(site, live, place))


def _counting(site: Site, facts: Facts, live: Session, losses: Sequence[TableLoss]) -> List[TableLoss]:
    """The losses that the migration itself did not cause."""
    names = _as_migrated(site, facts, live, [loss.full_name for loss in losses])
    return [loss for loss in losses if loss.full_name not in names]


def _as_migrated(site: Site, facts: Facts, live: Session, names: Sequence[str]) -> Set[str]:
    place = facts.place
    if place is None:
        return set()
    return ask_for(facts, "what the migration did", lambda: as_migrated(live, names, site.store, place)) or set()


def _compared_tables(facts: Facts) -> Dict[str, Table]:
    """The backup's tables that were compared, by name."""
    names = {table.name for table in facts.tables}
    entries = facts.manifest.tables if facts.manifest else ()
    return {entry.full_name: entry.table for entry in entries if entry.full_name in names}


def _restored_copy(site: Site, facts: Facts) -> Optional[str]:
    """A database that an open rollback built from this backup and that has not taken over yet."""
    operation = facts.open_operation
    if operation is None or facts.place is None:
        return None
    built = operation.result(BUILD)
    if built.backup != facts.place.backup_id:
        return None
    with site.administer() as admin:
        there = server.database_oid(admin, successor_name(operation)) == built.oid
    return successor_name(operation) if there else None


def _exact(facts: Facts, losses: Sequence[TableLoss]) -> List[ForeseenLoss]:
    found = {table.shown: ForeseenLoss(table.shown) for table in facts.tables}
    found.update({loss.full_name: _counted(loss) for loss in losses})
    return list(found.values())


def _counted(loss: TableLoss) -> ForeseenLoss:
    return ForeseenLoss(loss.full_name, loss.inserted, loss.updated, loss.deleted)


def _bound(table: TableFacts) -> ForeseenLoss:
    if table.same is not False:
        return ForeseenLoss(table.shown, exact=bool(table.same))
    now = table.rows_now or 0
    inserted, deleted = max(0, now - table.rows_then), max(0, table.rows_then - now)
    updated = max(0, (table.written or 0) - inserted)
    if not inserted + updated + deleted:
        updated = 1
    return ForeseenLoss(table.shown, inserted, updated, deleted, exact=table.gone)


def losses_of_drop(site: Site, facts: Facts) -> List[ForeseenLoss]:
    """What is lost with the tables and columns that the migration added; exact."""
    known = _compared_tables(facts)
    with site.connect() as live:
        losses = ask_for(facts, "what would be dropped", lambda: losses_of_dropping(live, known)) or []
        return [_counted(loss) for loss in _counting(site, facts, live, losses)]


def costs(site: Site, facts: Facts, *, copies: bool, keeps: bool) -> Dict[str, Any]:
    """What it costs.

    :param copies: a database is restored from the backup
    :param keeps: an emergency backup is made
    """
    place = facts.place
    if place is None or facts.manifest is None:
        return {"backup": None, "level": None, "recovery_seconds": None, "disk_needed": 0, "downtime_seconds": None}
    drilled = manifests.drilled(place)
    with site.connect() as session:
        size = server.database_size(session, site.database)
    restart = _restart_seconds(facts.deploy)
    # Everything is read twice behind the fence; the drill measured one pass.
    reading = drilled.seconds.get("compare", 0.0) if copies else 0.0
    return {
        "backup": place.backup_id,
        "level": manifests.level_of(place),
        "recovery_seconds": drilled.recovery_seconds,
        "disk_needed": (size if copies else 0) + (facts.manifest.archive.size if keeps else 0),
        "downtime_seconds": None if restart is None else round(restart + 2 * reading, 1),
    }


def _restart_seconds(deploy: Optional[Operation]) -> Optional[float]:
    """How long the last deploy took to stop and start the application, without its migration."""
    if deploy is None:
        return None
    stop, started, migrated = (deploy.done(step) for step in (STOP, STARTED, MIGRATE))
    if not stop or not started:
        return None
    passed = (parse_timestamp(str(started["at"])) - parse_timestamp(str(stop["at"]))).total_seconds()
    return max(0.0, passed - float((migrated or {}).get("seconds", 0)))
