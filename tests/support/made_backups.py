# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of any age without a server: the files that a store's readers use are real, the archive is a few bytes."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import write_json
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import timestamp
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, Store


def utc(text: str) -> datetime.datetime:
    """``2025-11-08T02:00`` or ``2025-11-08``, in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)


def made_backup(
    store: Store,
    kind: str,
    created: datetime.datetime,
    *,
    database: str = "shop",
    server: str = "7300000000000000001",
    level: Optional[str] = "readable",
    operation: Optional[str] = None,
    size: int = 0,
    recovery: Optional[float] = None,
) -> BackupPlace:
    """A committed backup of that time, verified to a level.

    :param size: of its archive, at least
    :param recovery: seconds of a drill, half an hour later
    """
    store.prepare()
    backup_id = store.new_backup_id(database)
    place = BackupPlace(kind, backup_id, store.backup_path(kind, backup_id))
    pathlib.Path(place.path).mkdir(mode=0o700)
    pathlib.Path(place.file("archive.dump")).write_bytes((b"archive of " + backup_id.encode()).ljust(size, b"."))
    files = manifests.describe_files(place.path, ["archive.dump"])
    manifest = {
        "format": manifests.FORMAT,
        "id": backup_id,
        "kind": kind,
        "created": timestamp(created),
        "operation": operation,
        "database": {"name": database, "oid": 16384, "size": 1},
        "server": {"system_identifier": server, "major": 15, "version": "15.0"},
        "archive": {"file": "archive.dump", "format": "custom", "compression": "gzip", "size": 1, "tool": "15.0"},
        "files": {"archive.dump": dataclasses.asdict(files["archive.dump"])},
        "tables": [],
        "snapshot": {},
    }
    write_json(place.file("manifest.json"), manifest)
    if level:
        manifests.record_verification(place, level, {"passed": True})
    if recovery is not None:
        drilled = timestamp(created + datetime.timedelta(minutes=30))
        facts = {"passed": True, "at": drilled, "recovery_seconds": recovery, "role": "backup", "server": "15.0"}
        manifests.record_verification(place, "restored", facts)
    return place
