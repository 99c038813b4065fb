# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reusing a recent backup instead of making another."""

from __future__ import annotations

from typing import List, Optional, Sequence

from ..base.errors import BackstopError
from ..postgres import server
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from .options import BackupOptions


def reusable_backup(
    site: Site, kind: str, max_age: float, form: BackupOptions, commit: Optional[str] = None
) -> Optional[BackupPlace]:
    """The newest backup of this database that can replace a new one; None when there is none.

    That is one with the same options and release, recent enough, with undamaged files and with the database's current
    migration history. Rows may have been written since.

    :param max_age: maximum age of its snapshot in seconds
    """
    with site.connect() as session:
        identity = server.identity(session)
        rows = history.read_rows(session.cursor(), site.connection.schema)
    known = manifests.readable(site.store.backups(kind))
    for backup in sorted(known, key=lambda backup: backup.manifest.created, reverse=True):
        place, manifest = backup.place, backup.manifest
        same = (
            _is_of(manifest, identity)
            and _has_form(manifest, form)
            and _is_for(manifest, site.recipients)
            and manifest.commit == commit
            and manifests.age_seconds(manifest.created) <= max_age
            and backup.level in ("readable", "restored")
        )
        if same and not _history_changed(place, rows) and _files_hold(place, manifest):
            return place
    return None


def _is_of(manifest: Manifest, identity: server.Identity) -> bool:
    return (
        manifest.server.system_identifier == identity.system_identifier
        and manifest.database.oid == identity.database_oid
        and manifest.database.name == identity.database
    )


def _has_form(manifest: Manifest, form: BackupOptions) -> bool:
    """A backup of single tables never matches, because its tables are not compared."""
    found = manifest.archive
    return (
        form.tables is None
        and manifest.scope == form.scope
        and found.format == form.format
        and (not form.plain or found.plain is not None)
    )


def _is_for(manifest: Manifest, recipients: Sequence[str]) -> bool:
    """Whether it is encrypted like a new backup, for the same keys."""
    return set(manifest.archive.recipients) == set(recipients)


def _history_changed(place: BackupPlace, rows: Optional[List[history.HistoryRow]]) -> bool:
    return bool(history.history_differences(history.read_file(place.file("history.json")), rows))


def _files_hold(place: BackupPlace, manifest: Manifest) -> bool:
    try:
        manifests.check_files(place, manifest)
    except BackstopError:
        return False
    return True
