# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safety copies that deploys left: listing them, and dropping those that are no longer needed.

A copy equals the backup of its deploy, so nothing is lost with it; it only makes going back quick.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, Dict, List, Optional

from ..base.failpoints import reach
from ..base.progress import parse_timestamp, timestamp, utc_now
from ..base.sql_names import SAFETY_COPY_PREFIX, safety_copy_name
from ..migrations.safety_copy import drop_safety_copy
from ..postgres.connection import Session
from ..site import Site
from ..store import manifest as manifests
from ..store.operation import Operation, operations_of

#: How long a copy is kept after its deploy.
DEFAULT_DAYS = 1


@dataclasses.dataclass(frozen=True)
class SafetyCopy:
    """A copy of this database, and the deploy that made it."""

    name: str
    size: int
    operation: Operation
    #: whether this role may drop it
    ours: bool

    @property
    def made(self) -> datetime.datetime:
        return parse_timestamp(self.operation.began)

    def to_json(self, days: float) -> Dict[str, Any]:
        """By the names of a retired database's facts."""
        return {
            "name": self.name,
            "operation": self.operation.id,
            "database": self.operation.database,
            "age_days": round((utc_now() - self.made).total_seconds() / 86400, 2),
            "size": self.size,
            "undo_window_end": timestamp(self.made + datetime.timedelta(days=days)),
        }


def safety_copies(site: Site, admin: Session) -> List[SafetyCopy]:
    """Those of this database, oldest first; also one whose deploy was killed before it could record it."""
    rows = admin.rows(
        "SELECT datname, pg_database_size(oid), pg_has_role(datdba, 'USAGE') FROM pg_database"
        " WHERE starts_with(datname, %s)",
        (SAFETY_COPY_PREFIX,),
    )
    there = {str(name): (int(size), bool(ours)) for name, size, ours in rows}
    of_operations = [(safety_copy_name(one.id, site.database), one) for one in operations_of(site.store, site.database)]
    return [SafetyCopy(name, there[name][0], one, there[name][1]) for name, one in of_operations if name in there]


def prune_safety_copies(site: Site, admin: Session, *, days: float, check: bool) -> List[Dict[str, Any]]:
    """Drop the copies that are no longer needed.

    :param days: how long a copy is kept
    :param check: only return what would be done
    :returns: facts of each, with ``action`` (kept or dropped) and ``reason``
    """
    found = []
    for one in safety_copies(site, admin):
        reason = _why_keep(site, one, days)
        if reason is None and not check:
            drop_safety_copy(admin, one.name)
            reach("safety-copy.dropped")
        action = "kept" if reason else "dropped"
        found.append({**one.to_json(days), "action": action, "reason": reason or "a verified backup is younger"})
    return found


def drop_old_copies(site: Site, admin: Session) -> List[str]:
    """Drop those of deploys that ended a day ago and more; returns their names.

    After a backup and at the end of an operation, so that nobody has to remember them.
    """
    found = prune_safety_copies(site, admin, days=DEFAULT_DAYS, check=False)
    return [one["name"] for one in found if one["action"] == "dropped"]


def _why_keep(site: Site, one: SafetyCopy, days: float) -> Optional[str]:
    if one.operation.is_open:
        return "operation %s is open" % one.operation.id
    if not one.ours:
        return "this role does not own it"
    ends = one.made + datetime.timedelta(days=days)
    if utc_now() < ends:
        return "its deploy is younger than %g days, until %s" % (days, timestamp(ends))
    younger = [
        backup
        for backup in manifests.readable(site.store.backups())
        if backup.manifest.database.name == site.database
        and parse_timestamp(backup.manifest.created) > one.made
        and backup.level in ("readable", "restored")
    ]
    return None if younger else "no backup that was made since is verified"
