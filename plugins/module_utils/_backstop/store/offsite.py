# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where second copies of backups lie: a place that rclone reaches, with the tree of a store.

::

    <remote>/daily weekly pre-migration post-migration emergency
        <backup id>/            the files of the backup, manifest.json last
        .partial-<backup id>/   a copy that is being made, or debris

As in a store, a copy exists when its manifest does. Secrets of the remote are in rclone's configuration file alone.
"""

from __future__ import annotations

import json
import os
import re
from typing import Callable, Dict, List, Optional, Sequence

from ..base.errors import BackstopError, Refused
from ..base.processes import Finished, describe_failure, find_program, run
from .layout import KINDS, PARTIAL_PREFIX
from .manifest import Manifest

MANIFEST = "manifest.json"
#: rclone's status for a directory that is not there.
_NO_DIRECTORY = 3
#: How often rclone tries again by itself what failed on the way.
_RETRIES = "3"
#: What stands beside the files of a backup and is not copied with them.
_MUTABLE = tuple("--exclude=/" + name for name in (MANIFEST, "verification.json", "keep.json", "lock"))


def require_remote(remote: str) -> None:
    """:raises Refused: it may hold a secret, which would show among the running programs, or is no remote"""
    head, separator, _path = remote[1:].partition(":")
    if separator and "," in head:
        raise Refused(
            "A remote of rclone names no parameters here: its arguments can be seen by others",
            found="parameters after a comma",
            expected="name:path, with the rest in rclone's configuration file",
        )
    if remote.startswith("-") or not (separator or os.path.isabs(remote)):
        raise Refused("This is no remote of rclone", found=repr(remote), expected="name:path, or an absolute path")


class Offsite:
    """A remote with copies of the backups of one store."""

    def __init__(self, remote: str, configuration: Optional[str] = None) -> None:
        """:param configuration: rclone's configuration file; without one no remote is known by name"""
        require_remote(remote)
        self.remote = remote.rstrip("/") or remote
        self.configuration = configuration
        self._hashes: Optional[List[str]] = None

    def at(self, *parts: str) -> str:
        """A path below the remote, as rclone reads it."""
        base = self.remote
        return base + ("" if base.endswith((":", "/")) else "/") + "/".join(parts) if parts else base

    def place(self, kind: str, backup_id: str) -> str:
        return self.at(kind, backup_id)

    def partial(self, kind: str, backup_id: str) -> str:
        return self.at(kind, PARTIAL_PREFIX + backup_id)

    # What rclone does

    def call(
        self,
        *arguments: str,
        check: Optional[str] = None,
        data: Optional[bytes] = None,
        keep_open: Sequence[int] = (),
    ) -> Finished:
        """Run rclone.

        :param check: the error's message where it fails
        :raises Refused: there is no rclone
        """
        program = find_program("rclone")
        if program is None:
            raise Refused(
                "The program rclone is missing on this host",
                found="none in PATH",
                expected="rclone 1.60 or newer, for second copies",
                hint="install it: apt-get install rclone",
            )
        settings = ["--config=" + (self.configuration or ""), "--retries=" + _RETRIES, "--log-level=NOTICE"]
        argv = [program, *settings, *arguments]
        done = run(argv, data=data, keep_open=keep_open)
        if check and done.status != 0:
            raise BackstopError(
                check,
                found=describe_failure("rclone", done.status, done.stderr or done.stdout),
                hint="see rclone's configuration and the remote %s, then run this again" % self.remote,
            )
        return done

    @property
    def hashes(self) -> List[str]:
        """The hashes that the remote tells of its files; none means that they are compared by reading them back."""
        if self._hashes is None:
            said = self.call("backend", "features", self.remote, check="The remote cannot be asked what it can do")
            self._hashes = list(json.loads(said.stdout).get("Hashes") or [])
        return self._hashes

    def require_same(self, folder: str, path: str) -> None:
        """Compare a local directory with one of the remote, by hash or, where the remote tells none, byte by byte.

        :raises BackstopError: a file is missing or differs
        """
        how = [] if self.hashes else ["--download"]
        self.call("check", "--one-way", *how, *_MUTABLE, folder, path, check="A copy differs from its backup")

    def sha256_of(self, path: str) -> Dict[str, str]:
        """The sha256 of every file below a path, by the remote itself where it can, else by reading them back."""
        how = [] if "sha256" in self.hashes else ["--download"]
        said = self.call("hashsum", "sha256", *how, path, check="The copy cannot be read back")
        found = {}
        for line in said.output.decode().splitlines():
            digest, _space, name = line.partition("  ")
            found[name] = digest
        return found

    def files(self, path: Optional[str] = None) -> Dict[str, int]:
        """Every file below a path, default the remote, with its size; none where there is no such directory yet."""
        path = self.remote if path is None else path
        done = self.call("lsjson", "--recursive", "--files-only", "--no-mimetype", "--no-modtime", path)
        if done.status == _NO_DIRECTORY:
            return {}
        if done.status != 0:
            raise BackstopError(
                "The copies cannot be listed",
                found=describe_failure("rclone", done.status, done.stderr),
                hint="see rclone's configuration and the remote " + self.remote,
            )
        return {str(entry["Path"]): int(entry["Size"]) for entry in json.loads(done.stdout)}

    def read(self, kind: str, backup_id: str, name: str) -> bytes:
        return self.call("cat", self.place(kind, backup_id) + "/" + name, check="A copy cannot be read").output

    def write(self, kind: str, backup_id: str, name: str, content: bytes) -> None:
        """Write a small file of a copy and read it back."""
        target = self.place(kind, backup_id) + "/" + name
        self.call("rcat", target, data=content, check="A copy could not be written")
        if self.read(kind, backup_id, name) != content:
            raise BackstopError("A copy is not what was written", found=target)

    def put(self, folder: str, path: str, keep_open: Sequence[int] = ()) -> None:
        """Copy the files of a backup but for its manifest."""
        self.call("copy", *_MUTABLE, folder, path, check="A backup could not be copied", keep_open=keep_open)

    def remove(self, path: str) -> None:
        """Remove a directory with all that is in it, if it is there."""
        done = self.call("purge", path)
        if done.status not in (0, _NO_DIRECTORY):
            found = describe_failure("rclone", done.status, done.stderr)
            raise BackstopError("A directory of the remote cannot be removed", found=found)


class Listing:
    """What lies below a remote at one moment."""

    def __init__(self, files: Dict[str, int]) -> None:
        self._files: Dict[str, Dict[str, int]] = {}
        for path, size in files.items():
            match = re.fullmatch(r"([^/]+/[^/]+)/(.+)", path)
            if match and match.group(1).split("/")[0] in KINDS:
                self._files.setdefault(match.group(1), {})[match.group(2)] = size

    def copies(self) -> List[List[str]]:
        """Kind and id of every copy that has a manifest."""
        return [place.split("/") for place in sorted(self._files) if self._is_copy(place)]

    def debris(self) -> List[List[str]]:
        """Kind and name of every directory without a manifest."""
        return [place.split("/") for place in sorted(self._files) if not self._is_copy(place)]

    def _is_copy(self, place: str) -> bool:
        return MANIFEST in self._files[place] and "/." not in place

    def size(self, kind: str, backup_id: str) -> int:
        return sum(self._files.get(kind + "/" + backup_id, {}).values())

    def damage_of(self, kind: str, backup_id: str) -> Callable[[Manifest], Optional[str]]:
        """Tells of a copy's manifest what can be told from names and sizes alone."""
        found = self._files.get(kind + "/" + backup_id, {})

        def damage(manifest: Manifest) -> Optional[str]:
            for name, entry in sorted(manifest.files.items()):
                if found.get(name) != entry.size:
                    return "its file %s has %s bytes, not %d" % (name, found.get(name, "no"), entry.size)
            return None

        return damage
