# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The remote for second copies of backups: a location that rclone can access, with the layout of a store.

::

    <remote>/daily weekly pre-migration post-migration emergency
        <backup id>/            the files of the backup, manifest.json last
        .partial-<backup id>/   an unfinished copy, or debris

As in a store, a copy exists when its manifest does. Secrets of the remote are only in rclone's configuration file.
"""

from __future__ import annotations

import json
import os
import re
from typing import Callable, Dict, List, Optional, Sequence

from ..base.errors import BackstopError, Refused
from ..base.processes import Finished, describe_failure, find_program, run
from ..base.progress import Progress
from .layout import KINDS, PARTIAL_PREFIX
from .manifest import Manifest

MANIFEST = "manifest.json"
#: rclone's exit status for a missing directory.
_NO_DIRECTORY = 3
#: How often rclone retries by itself.
_RETRIES = "3"
#: Files of a backup that may change, so they are not copied with the others.
_MUTABLE = tuple("--exclude=/" + name for name in (MANIFEST, "verification.json", "keep.json", "lock"))


def require_remote(remote: str) -> None:
    """:raises Refused: it may contain a secret, which the process list would show, or is not a remote"""
    head, separator, _path = remote[1:].partition(":")
    if separator and "," in head:
        raise Refused(
            "A remote of rclone must not contain parameters here: other users can see its arguments",
            found="parameters after a comma",
            expected="name:path, with the rest in rclone's configuration file",
        )
    if remote.startswith("-") or not (separator or os.path.isabs(remote)):
        raise Refused("Invalid remote of rclone", found=repr(remote), expected="name:path, or an absolute path")


class Offsite:
    """A remote with copies of the backups of one store."""

    def __init__(self, remote: str, configuration: Optional[str] = None) -> None:
        """:param configuration: rclone's configuration file; without one there are no named remotes"""
        require_remote(remote)
        self.remote = remote.rstrip("/") or remote
        self.configuration = configuration
        self._hashes: Optional[List[str]] = None

    def at(self, *parts: str) -> str:
        """A path below the remote, in rclone's syntax."""
        base = self.remote
        return base + ("" if base.endswith((":", "/")) else "/") + "/".join(parts) if parts else base

    def place(self, kind: str, backup_id: str) -> str:
        return self.at(kind, backup_id)

    def partial(self, kind: str, backup_id: str) -> str:
        return self.at(kind, PARTIAL_PREFIX + backup_id)

    # rclone

    def call(
        self,
        *arguments: str,
        check: Optional[str] = None,
        data: Optional[bytes] = None,
        keep_open: Sequence[int] = (),
        progress: Optional[Progress] = None,
    ) -> Finished:
        """Run rclone.

        :param progress: gets the bytes that it has written, to files or to the network
        :param check: the error's message if it fails
        :raises Refused: rclone is not installed
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
        watch = None if progress is None else lambda program: progress.done(program.bytes_counted("wchar"))
        done = run(argv, data=data, keep_open=keep_open, watch=watch)
        if check and done.status != 0:
            raise BackstopError(
                check,
                found=describe_failure("rclone", done.status, done.stderr or done.stdout),
                hint="see rclone's configuration and the remote %s, then run this again" % self.remote,
            )
        return done

    @property
    def hashes(self) -> List[str]:
        """The hashes that the remote supports; without any, files are compared by downloading them."""
        if self._hashes is None:
            said = self.call("backend", "features", self.remote, check="The features of the remote cannot be queried")
            self._hashes = list(json.loads(said.stdout).get("Hashes") or [])
        return self._hashes

    def require_same(self, folder: str, path: str) -> None:
        """Compare a local directory with one of the remote, by hash or, without common hashes, byte by byte.

        :raises BackstopError: a file is missing or differs
        """
        how = [] if self.hashes else ["--download"]
        self.call("check", "--one-way", *how, *_MUTABLE, folder, path, check="A copy differs from its backup")

    def sha256_of(self, path: str) -> Dict[str, str]:
        """The sha256 of every file below a path, from the remote if possible, else by downloading the files."""
        how = [] if "sha256" in self.hashes else ["--download"]
        said = self.call("hashsum", "sha256", *how, path, check="The copy cannot be read back")
        found = {}
        for line in said.output.decode().splitlines():
            digest, _space, name = line.partition("  ")
            found[name] = digest
        return found

    def files(self, path: Optional[str] = None) -> Dict[str, int]:
        """Every file below a path, default the remote, with its size; empty if the directory does not exist yet."""
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

    def put(self, folder: str, path: str, keep_open: Sequence[int], progress: Progress) -> None:
        """Copy the files of a backup except for its manifest."""
        check = "A backup could not be copied"
        self.call("copy", *_MUTABLE, folder, path, check=check, keep_open=keep_open, progress=progress)

    def remove(self, path: str) -> None:
        """Remove a directory with its contents, if it exists."""
        done = self.call("purge", path)
        if done.status not in (0, _NO_DIRECTORY):
            found = describe_failure("rclone", done.status, done.stderr)
            raise BackstopError("A directory of the remote cannot be removed", found=found)


class Listing:
    """The files below a remote at one moment."""

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
        """Check a copy against its manifest by file names and sizes."""
        found = self._files.get(kind + "/" + backup_id, {})

        def damage(manifest: Manifest) -> Optional[str]:
            for name, entry in sorted(manifest.files.items()):
                if found.get(name) != entry.size:
                    return "its file %s has %s bytes, not %d" % (name, found.get(name, "no"), entry.size)
            return None

        return damage
