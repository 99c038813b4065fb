# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retired databases: listing them, and dropping those that are no longer needed.

A database is dropped only when its undo window has passed, no operation is open, and a verified dump of it has the same
contents. That is compared right before, when no other session can connect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from typing import Any, Dict, List, Optional

from ..backups.catalog_comparison import catalog_differences
from ..backups.comparison import compare_tables
from ..backups.drill import verify
from ..backups.make import make_backup
from ..base.amounts import human_size, human_time
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.progress import parse_timestamp, timestamp, utc_now
from ..base.remedies import Action
from ..base.sql_names import RETIRED_PREFIX, quote_identifier, retired_name
from ..postgres import definitions, replication, server
from ..postgres.connection import Session
from ..site import Run, Site, database_lock, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation, open_operations, operations
from ..store.steps import KEEP, RETIRED_PRUNED, SWAP, RetiredKept
from .closed_database import connect_exclusively, opened
from .in_force import last_swap, undoes
from .safety_copies import DEFAULT_DAYS, prune_safety_copies, safety_copies

#: Levels of verification that can be required of a dump before its database is dropped.
DUMP_LEVELS = ("readable", "restored")
DEFAULT_WINDOW_DAYS = 7


@dataclasses.dataclass
class Retired:
    """A former live database."""

    name: str
    oid: int
    size: int
    accepts_connections: bool
    #: the operation that retired it; None if none of the store did
    operation: Optional[Operation]
    retired_at: Optional[datetime.datetime]
    dump: Optional[BackupPlace]

    @property
    def age_days(self) -> Optional[float]:
        return (utc_now() - self.retired_at).total_seconds() / 86400 if self.retired_at else None

    def to_json(self, window_days: float) -> Dict[str, Any]:
        ends = self.retired_at + datetime.timedelta(days=window_days) if self.retired_at else None
        age = self.age_days
        return {
            "name": self.name,
            "operation": self.operation.id if self.operation else None,
            "database": self.operation.database if self.operation else None,
            "retired_at": timestamp(self.retired_at) if self.retired_at else None,
            "age_days": None if age is None else round(age, 2),
            "size": self.size,
            "dump": self.dump.backup_id if self.dump else None,
            "dump_level": manifests.level_of(self.dump) if self.dump else None,
            "undo_window_end": timestamp(ends) if ends else None,
        }


def retired_databases(site: Site, admin: Session) -> List[Retired]:
    """Those of this database, and those of unknown operations; oldest first."""
    known = {retired_name(operation.id, str(operation.database)): operation for operation in operations(site.store)}
    identifier = server.identity(admin).system_identifier
    dumps = _dumps_by_oid(site, identifier)
    found = []
    for name, oid, size, open_ in admin.rows(
        "SELECT datname, oid::bigint, pg_database_size(oid), datallowconn FROM pg_database"
        " WHERE starts_with(datname, %s) ORDER BY 1",
        (RETIRED_PREFIX,),
    ):
        operation = known.get(str(name))
        if operation is None or operation.database == site.database:
            retired_at = _when(operation)
            dump = _best_dump(dumps.get(int(oid), []), retired_at)
            found.append(Retired(str(name), int(oid), int(size), bool(open_), operation, retired_at, dump))
    return found


def summary(site: Site) -> str:
    """Number, size and age of the retired databases, and how to drop them."""
    try:
        with site.administer() as admin:
            found = retired_databases(site, admin)
            copies = [one.name for one in safety_copies(site, admin)]
    except BackstopError as error:
        return "not counted (%s)" % error.message
    also = "; safety copies: %s" % ", ".join(copies) if copies else ""
    if not found:
        return "none" + also
    ages = [one.age_days for one in found if one.age_days is not None]
    oldest = "the oldest %s old; " % human_time(max(ages) * 86400) if ages else ""
    size = human_size(sum(one.size for one in found))
    return "%d, %s, %sto drop old ones: %s%s" % (len(found), size, oldest, Action.DROP_RETIRED, also)


def _when(operation: Optional[Operation]) -> Optional[datetime.datetime]:
    """When an operation swapped; if its journal lacks that line, when it began."""
    if operation is None:
        return None
    last = operation.last(SWAP) or {"at": operation.began}
    return parse_timestamp(str(last["at"]))


def _dumps_by_oid(site: Site, identifier: str) -> Dict[int, List[manifests.Readable]]:
    """The backups of each database of this server.

    A database keeps its oid through renames, and the oid is unique on the server while it exists.
    """
    found: Dict[int, List[manifests.Readable]] = {}
    for backup in manifests.readable(site.store.backups()):
        if identifier and backup.manifest.server.system_identifier == identifier:
            found.setdefault(backup.manifest.database.oid, []).append(backup)
    return found


def _best_dump(backups: List[manifests.Readable], since: Optional[datetime.datetime]) -> Optional[BackupPlace]:
    """The backup with the highest level, then the newest, of those made after the database was retired."""
    best, place = None, None
    for one in backups:
        created = one.manifest.created
        rank = (manifests.LEVELS.index(one.level) if one.level else -1, created)
        if since is not None and parse_timestamp(created) >= since and (best is None or rank > best):
            best, place = rank, one.place
    return place


def prune(
    site: Site,
    *,
    window_days: float = DEFAULT_WINDOW_DAYS,
    level: str = "restored",
    dump: bool = False,
    copy_days: float = DEFAULT_DAYS,
    check: bool = False,
) -> List[Dict[str, Any]]:
    """Drop retired databases and safety copies that are no longer needed.

    :param level: required level of verification of a dump, one of DUMP_LEVELS
    :param dump: make a dump, verified to that level, where there is none
    :param copy_days: how long a safety copy is kept after its deploy
    :param check: only return what would be done
    :returns: facts of each, with ``action`` (kept or dropped) and ``reason``
    """
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(site.administer() if check else database_lock(site))
        found = prune_safety_copies(site, admin, days=copy_days, check=check)
        for one in retired_databases(site, admin):
            if one.accepts_connections and one.operation is not None and not check:
                # An interrupted run left it open.
                server.allow_connections(admin, one.name, False)
            reason = _why_keep(site, admin, one, window_days)
            decided = {"action": "kept", "reason": reason} if reason else _decide(site, admin, one, level, dump, check)
            found.append({**one.to_json(window_days), **decided})
        return found


def _decide(site: Site, admin: Session, one: Retired, level: str, dump: bool, check: bool) -> Dict[str, Any]:
    """Drop a database without other reasons to keep it, if a dump has the same contents."""
    place = one.dump if _reaches(one.dump, level) else None
    if place is None and not dump:
        return {"action": "kept", "reason": "no backup of it is verified to level %s" % level}
    if check:
        what = "a dump of it would be made and verified" if place is None else "backup %s has it" % place.backup_id
        what += ", to level %s; that nothing differs is compared first" % level
        return {"action": "dropped", "reason": what + _about_standbys(admin)}
    different = _differences(site, admin, one, place) if place is not None else ["not dumped yet"]
    if different and dump:
        # There is none, or an older one, or something was written meanwhile.
        place = _dump(site, admin, one, level)
        different = _differences(site, admin, one, place)
    if place is None or different:
        name = place.backup_id if place else "none"
        return {"action": "kept", "reason": "backup %s does not hold the same: %s" % (name, different[0])}
    _drop(admin, one, place, level)
    return {
        "action": "dropped",
        "reason": "backup %s holds the same, verified to level %s%s"
        % (place.backup_id, manifests.level_of(place), _about_standbys(admin)),
        "dump": place.backup_id,
        "dump_level": manifests.level_of(place),
    }


def _about_standbys(admin: Session) -> str:
    """Sessions on standbys stay in a database that lost the live name, until the drop."""
    names = ", ".join(standby.name for standby in replication.standbys(admin))
    return "; sessions in it on standbys (%s) end when they replay the drop" % names if names else ""


def _why_keep(site: Site, admin: Session, one: Retired, window_days: float) -> Optional[str]:
    if one.operation is None or one.retired_at is None:
        return "no operation of this store retired it"
    own = site.operation.id if site.operation else None
    busy = [operation for operation in open_operations(site.store) if operation.id != own]
    if busy:
        return "operation %s is open" % busy[0].id
    ends = one.retired_at + datetime.timedelta(days=window_days)
    if utc_now() < ends:
        return "its undo window ends at " + timestamp(ends)
    obstacles = server.obstacles_to_rename(admin, one.name)
    if obstacles:
        return "it has a " + ", ".join(obstacles)
    return None


def _reaches(place: Optional[BackupPlace], level: str) -> bool:
    reached = manifests.level_of(place) if place else None
    return reached is not None and manifests.LEVELS.index(reached) >= manifests.LEVELS.index(level)


def _inside(site: Site, one: Retired) -> Site:
    """A Site of the retired database; without the operation, whose scratch databases belong to the live one."""
    return dataclasses.replace(site.apart(), connection=site.connection.with_database(one.name))


def _dump(site: Site, admin: Session, one: Retired, level: str) -> BackupPlace:
    """Dump the database into the store. It is open meanwhile, because programs must connect; see _differences()."""
    inside = _inside(site, one)
    with opened(admin, one.name):
        reach("retired.opened")
        place = make_backup(inside, "emergency")
        if level == "restored":
            verify(inside, place, level)
    reach("retired.dumped")
    return place


def _differences(site: Site, admin: Session, one: Retired, place: BackupPlace) -> List[str]:
    """The differences of the database from the backup: in pg_dump's output, for which it must be open; then, without
    other sessions, in rows and in our queries."""
    manifest = manifests.load(place)
    with opened(admin, one.name):
        dumped = catalog_differences(_inside(site, one), manifest, settle=False).objects
    with connect_exclusively(site, admin, one.name) as session:
        found = compare_tables(session, manifest).tables
        own = definitions.differences(manifest.definitions, definitions.definitions(session))
    return found + (dumped or own)


def back_up_retired(run: Run, undone: Operation) -> RetiredKept:
    """Back up the database that an operation retired, before an undo gives it the live name again.

    So an undo of that undo can count exactly what was written since. The application continues to run meanwhile. An
    equal backup, made since the database was retired, is used instead.
    """
    operation = run.operation
    done = dataclasses.replace(operation.result(KEEP), changed=False)
    newest = last_swap(run)
    if newest is not None and undoes(newest) == undone.id:
        # By this operation, or by one that was abandoned after its swap.
        return done
    with run.administer() as admin:
        known = [place for place in run.store.backups() if place.backup_id == done.backup]
        if known and not _differences(run, admin, _retired_by(run, admin, undone), known[0]):
            return done
    with journaled_step(run, KEEP) as facts, run.administer() as admin:
        one = _retired_by(run, admin, undone)
        if one.accepts_connections:
            # An interrupted run left it open.
            server.allow_connections(admin, one.name, False)
        place, different = one.dump, []
        if place is None or _differences(run, admin, one, place):
            place = _dump(run, admin, one, "readable")
            different = _differences(run, admin, one, place)
        if different:
            raise BackstopError(
                "Database %s changed while it was backed up" % one.name,
                found=different[0],
                hint="the retired database was written to; end these sessions and run this again",
            )
        facts.update(backup=place.backup_id, retired=one.name)
    return RetiredKept(True, place.backup_id, one.name)


def _retired_by(site: Site, admin: Session, operation: Operation) -> Retired:
    for one in retired_databases(site, admin):
        if one.operation is not None and one.operation.id == operation.id:
            return one
    raise Refused(
        "Operation %s cannot be undone" % operation.id,
        found="no database %s" % retired_name(operation.id, site.database),
        hint="it was undone already, or its retired database was dropped",
    )


def _drop(admin: Session, one: Retired, place: BackupPlace, level: str) -> None:
    """Drop one database. It accepts no connections, so nothing is written after the comparison."""
    operation = one.operation
    if operation is None or not one.name.startswith(RETIRED_PREFIX):
        raise AssertionError("only a database that an operation retired is ever dropped here")
    reach("prune.before-drop")
    if server.database_oid(admin, one.name) != one.oid:
        raise Refused("Database %s is not the one that was checked" % one.name, hint="run this again")
    try:
        admin.execute("DROP DATABASE %s" % quote_identifier(one.name))
    except BackstopError as error:
        raise BackstopError(
            "The retired database %s could not be dropped" % one.name,
            found=error.found,
            hint=error.hint or "its backup %s is kept; run this again" % place.backup_id,
        ) from error
    reach("prune.dropped")
    operation.write(RETIRED_PRUNED, "done", dropped=one.name, dump=place.backup_id, level=level)
