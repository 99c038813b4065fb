# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layout of a store.

::

    <store>/daily weekly pre-migration post-migration emergency
        <backup id>/            archive.dump manifest.json roles.sql history.json migrations/ verification.json
                                keep.json, if a user marked it
        .partial-<backup id>/   an unfinished backup, or debris; its file ``lock`` shows which
        .deleted-<backup id>/   a backup that was pruned: debris
    <store>/operations/<operation id>/
        operation.json journal.jsonl lock progress.json ...
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import stat
from typing import List, Optional
from urllib.parse import quote

from ..base.durable_files import FileLock, file_error, fsync_directory, make_private_directory
from ..base.errors import Refused
from ..base.progress import utc_now
from ..base.remedies import Action, Setting, remedy
from ..base.sql_names import near_names

#: Roles and tablespaces as SQL, next to the archive of a backup.
ROLES = "roles.sql"
KINDS = ("daily", "weekly", "pre-migration", "post-migration", "emergency")
MANIFEST = "manifest.json"
PARTIAL_PREFIX = ".partial-"
DELETED_PREFIX = ".deleted-"
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def new_id() -> str:
    """UTC time to the second and six hexadecimal digits: ``20251108T020000Z-3fa9c1``."""
    return "%s-%s" % (utc_now().strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(3))


def is_operation_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


@dataclasses.dataclass(frozen=True)
class BackupPlace:
    """A committed backup's directory."""

    kind: str
    backup_id: str
    path: str

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)


class Store:
    """The directory that holds backups and operations: 0700, its files 0600, owned by the user that runs backups."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def prepare(self) -> None:
        """Create missing directories, and refuse a store that other users can read or that is not ours."""
        make_private_directory(self.root)
        self.check()
        for name in KINDS + ("operations",):
            make_private_directory(os.path.join(self.root, name))

    def check(self) -> None:
        """Refuse a store that other users can read, that is not ours or is not writable; creates nothing.

        A missing store is fine if it can be created.
        """
        place = self.nearest_directory()
        if place == self.root:
            self._check_private()
        if not os.access(place, os.W_OK):
            raise Refused("The store cannot be written", found=place, hint="see its owner, mode and file system")

    def _check_private(self) -> None:
        try:
            state = os.stat(self.root)
        except OSError as error:
            raise file_error("The store cannot be read", self.root, error) from error
        if state.st_uid != os.geteuid():
            raise Refused(
                "The store belongs to another user",
                found="%s is owned by uid %d, this runs as uid %d" % (self.root, state.st_uid, os.geteuid()),
                hint=remedy("run as its owner (%s), or choose another %s", Setting.USER, Setting.STORE),
            )
        if stat.S_IMODE(state.st_mode) & 0o077:
            raise Refused(
                "The store is accessible to other users",
                found="%s has mode %04o" % (self.root, stat.S_IMODE(state.st_mode)),
                expected="0700",
                hint="chmod 700 " + self.root,
            )

    def nearest_directory(self) -> str:
        """The store's directory, or the nearest existing one above it."""
        path = self.root
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path

    def free_bytes(self) -> int:
        """Free space of the store's file system, for users other than root."""
        usage = os.statvfs(self.nearest_directory())
        return usage.f_bavail * usage.f_frsize

    # Backups

    def new_backup_id(self, database: str) -> str:
        """Name of the database (percent-encoded where a file name cannot hold it) and a new id."""
        return "%s-%s" % (quote(database, safe=" +@=~,").lstrip("."), new_id())

    def backup_path(self, kind: str, backup_id: str) -> str:
        if kind not in KINDS:
            raise Refused("There is no such kind of backup", found=kind, expected=", ".join(KINDS))
        return os.path.join(self.root, kind, backup_id)

    def partial_path(self, kind: str, backup_id: str) -> str:
        return os.path.join(self.root, kind, PARTIAL_PREFIX + backup_id)

    def backups(self, kind: Optional[str] = None) -> List[BackupPlace]:
        """Every committed backup (a directory with a manifest), oldest id first within its kind."""
        return [place for place in self.directories(kind) if os.path.isfile(os.path.join(place.path, MANIFEST))]

    def directories(self, kind: Optional[str] = None) -> List[BackupPlace]:
        """The same, including directories without a manifest: no backup is made so, but one whose manifest was lost
        must not disappear."""
        found: List[BackupPlace] = []
        for name in [kind] if kind else list(KINDS):
            folder = os.path.join(self.root, name)
            if not os.path.isdir(folder):
                continue
            for entry in sorted(os.listdir(folder)):
                path = os.path.join(folder, entry)
                if not entry.startswith(".") and os.path.isdir(path):
                    found.append(BackupPlace(name, entry, path))
        return found

    def find_backup(self, backup_id: str) -> BackupPlace:
        """The committed backup of this id.

        :raises Refused: names similar ids
        """
        known = self.backups()
        for place in known:
            if place.backup_id == backup_id:
                return place
        # An id ends with its time and six hexadecimal digits.
        newest = sorted((place.backup_id for place in known), key=lambda name: name[-23:])[-3:]
        near = near_names(backup_id, [place.backup_id for place in known])
        raise Refused(
            "There is no backup %s" % backup_id,
            found="%d backups in %s" % (len(known), self.root),
            expected="perhaps " + ", ".join(near) if near else "such as " + ", ".join(newest) if newest else None,
            hint=remedy("%s shows them", Action.LIST_BACKUPS),
        )

    @property
    def lock(self) -> FileLock:
        """Held while backups are started, marked or pruned."""
        return FileLock(os.path.join(self.root, ".lock"))

    def begin_backup(self, kind: str, backup_id: str) -> FileLock:
        """Create the directory of a new backup, after removing debris; returns the held lock that marks it as in use.

        A directory without a lock yet looks like debris, so only one process creates one at a time.
        """
        partial = self.partial_path(kind, backup_id)
        with self.lock.held(60):
            self.remove_debris()
            make_private_directory(partial)
            lock = FileLock(os.path.join(partial, "lock"))
            lock.acquire()
        return lock

    def give_up(self, place: BackupPlace) -> None:
        """Give a backup a name that is never listed, durably; remove_debris() then deletes its files."""
        target = os.path.join(os.path.dirname(place.path), DELETED_PREFIX + place.backup_id)
        try:
            os.rename(place.path, target)
            fsync_directory(os.path.dirname(target))
        except OSError as error:
            raise file_error("A backup could not be marked as deleted", place.path, error) from error

    def remove_debris(self) -> List[str]:
        """Remove pruned backups, and partial ones on which no process works any more; returns their paths.

        Every child process inherits the lock, so a free lock means that pg_dump has ended too.
        """
        removed: List[str] = []
        for kind in KINDS:
            folder = os.path.join(self.root, kind)
            for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                path = os.path.join(folder, entry)
                if not entry.startswith((PARTIAL_PREFIX, DELETED_PREFIX)):
                    continue
                if not FileLock.is_free(os.path.join(path, "lock")):
                    continue
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    raise file_error("The debris of a backup cannot be removed", path, error) from error
                removed.append(path)
        return removed

    # Operations

    def operation_path(self, operation_id: str) -> str:
        if not is_operation_id(operation_id):
            raise Refused("Invalid id of an operation", found=repr(operation_id), expected="such as " + new_id())
        return os.path.join(self.root, "operations", operation_id)

    def operation_ids(self) -> List[str]:
        folder = os.path.join(self.root, "operations")
        if not os.path.isdir(folder):
            return []
        return sorted(entry for entry in os.listdir(folder) if is_operation_id(entry))
