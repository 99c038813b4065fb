# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target of a rollback: the last deploy, its backup, and the release before it. Reads only."""

from __future__ import annotations

from typing import Callable, List, Optional

from ..base.errors import Refused
from ..base.remedies import Action, Given, Setting, remedy
from ..postgres.catalog import TableFamily
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BACKUP, CODE, MIGRATE, OLD_RELEASE
from .in_force import newest

ReadFolder = Callable[[], List[history.MigrationFile]]


def last_deploy(site: Site) -> Optional[Operation]:
    """The newest deploy of this database that applied migrations."""
    return newest(site, lambda operation: operation.kind == "deploy" and operation.last(MIGRATE) is not None)


def backup_to_revert_to(site: Site, backup_id: Optional[str]) -> BackupPlace:
    """The named backup, else the last one that was made before the last deploy migrated."""
    deploy = None if backup_id else last_deploy(site)
    done = deploy.done(BACKUP) if deploy else None
    if done:
        backup_id = done["backup"]
    if backup_id:
        place = site.store.find_backup(backup_id)
        manifests.load(place).require_whole()
        return place
    usable = [
        backup
        for backup in manifests.readable(site.store.backups("pre-migration"))
        if backup.manifest.database.name == site.database and backup.manifest.is_whole
    ]
    if not usable:
        raise Refused(
            "There is no backup to revert to",
            found="no pre-migration backup of %s in %s" % (site.database, site.store.root),
            hint=remedy("name one: %s; %s shows all", Given(Setting.BACKUP, "ID"), Action.LIST_BACKUPS),
        )
    return max(usable, key=lambda backup: backup.manifest.created).place


def newest_backup_with(site: Site, family: TableFamily) -> BackupPlace:
    """The newest verified backup of this database that holds a table.

    Emergency backups are excluded: they contain data that was considered bad.
    """
    found = [
        backup
        for backup in manifests.readable(site.store.backups())
        if backup.place.kind != "emergency"
        and backup.level not in (None, "checksum")
        and backup.manifest.database.name == site.database
        and any(backup.manifest.table(table.schema, table.name) for table in family.leaves)
    ]
    if not found:
        raise Refused(
            "There is no verified backup that holds table %s" % family.full_name,
            found="%d backups in %s" % (len(site.store.backups()), site.store.root),
            hint=remedy(
                "name one: %s; %s shows them all and what they hold", Given(Setting.BACKUP, "ID"), Action.LIST_BACKUPS
            ),
        )
    return max(found, key=lambda backup: (backup.manifest.created, backup.place.backup_id)).place


def release_before(site: Site) -> Optional[str]:
    """The release to go back to if the last change was a deploy without a migration, or its revert; else None."""
    last = newest(site, lambda operation: operation.outcome == "done")
    if last is None:
        return None
    if last.kind == "deploy" and last.last(MIGRATE) is None:
        return last.former_commit or None
    request = last.request
    if last.kind == "rollback" and request.get("scenario") == "complete" and not request.get("backup"):
        return last.result(CODE).commit
    return None


def old_release_proved(deploy: Optional[Operation]) -> bool:
    """Whether the rehearsal of a deploy proved that the former release works with the new schema."""
    return old_release_answer(deploy) == "works on the new schema"


def old_release_answer(deploy: Optional[Operation]) -> str:
    """The rehearsal's result for the former release, to follow its name in a sentence."""
    tried = (deploy.last(OLD_RELEASE) if deploy else None) or {}
    if tried.get("works"):
        return "works on the new schema"
    reason = ("" if tried.get("tried") else "not tried: ") + tried["reason"] if tried.get("reason") else ""
    return "was not proved on the new schema" + (": " + reason if reason else "")
