# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Marks: a user's decision to keep a backup in spite of the retention rule, with the reason.

A mark is the file ``keep.json`` next to the manifest. The manifest itself, whose checksum the verification records, is
never changed.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from ..base.durable_files import file_error, fsync_directory, read_json, write_json
from ..base.errors import BackstopError, Refused
from ..base.progress import timestamp
from .layout import BackupPlace, Store

_FILE = "keep.json"


def mark_of(place: BackupPlace) -> Optional[Dict[str, Any]]:
    """The mark of a backup: ``reason`` and ``at``; None when it has none.

    An unreadable mark counts too: a user wanted to keep this backup.
    """
    path = place.file(_FILE)
    if not os.path.lexists(path):
        return None
    try:
        found = read_json(path, "mark of backup " + place.backup_id)
    except BackstopError as error:
        return {"reason": str(error), "at": None}
    known = found if isinstance(found, dict) else {}
    return {"reason": str(known.get("reason") or "no reason in " + path), "at": known.get("at")}


def set_mark(store: Store, place: BackupPlace, reason: str) -> None:
    """Mark a backup, or change the reason of its mark."""
    if not reason.strip():
        raise Refused(
            "A mark needs a reason", found=repr(reason), hint="give the reason, for those who read it in a year"
        )
    with store.lock.held(60):
        _require_there(place)
        write_json(place.file(_FILE), {"reason": reason.strip(), "at": timestamp()})


def remove_mark(store: Store, place: BackupPlace) -> None:
    """Remove a backup's mark, so that the rule applies again."""
    with store.lock.held(60):
        _require_there(place)
        try:
            os.unlink(place.file(_FILE))
            fsync_directory(place.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise file_error("A mark could not be removed", place.file(_FILE), error) from error


def _require_there(place: BackupPlace) -> None:
    """Retention may have pruned the backup while we waited for the lock."""
    if not os.path.isfile(place.file("manifest.json")):
        raise Refused("There is no backup %s any more" % place.backup_id, found="retention removed it meanwhile")
