# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of the application: each is installed and built in its own directory; ``current`` is a link to one.

root/repository.git              mirror of the application's repository
root/releases/<commit>           a finished release; .backstop-release.json records how it was built
root/releases/.partial-<commit>  a release that is being built, or debris of an interrupted build
root/shared/                     files that outlive releases, such as the environment file
root/current                     link to the release that runs
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..base.durable_files import FileLock, file_error, fsync_directory, read_json, write_json
from ..base.environment_file import secrets_in
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.progress import timestamp
from .commands import run_command, search_path
from .git_mirror import FULL_COMMIT, GitMirror
from .supervisor import Surroundings

MARKER = ".backstop-release.json"
MARKER_FORMAT = 1
MIGRATIONS = "prisma/migrations"
#: A killed run may have left an `npm install` running; it holds the lock until it ends.
LOCK_WAIT_SECONDS = 120.0
_PARTIAL = ".partial-"
_REMOVED = ".removed-"


class Releases:
    """The releases below one root directory.

    :param root: their directory; created when first needed
    :param repository: address of the git repository; only needed to look up a revision or to build a release
    """

    def __init__(
        self,
        root: str,
        repository: str = "",
        *,
        migrations: str = MIGRATIONS,
        lock_wait: float = LOCK_WAIT_SECONDS,
    ) -> None:
        if not os.path.isabs(root):
            raise Refused("The root of the releases must be an absolute path", found=repr(root))
        self.root = os.path.normpath(root)
        self._repository = repository
        self._migrations = migrations
        self._lock_wait = lock_wait
        self._lock = FileLock(os.path.join(self.root, ".lock"))

    # Paths

    @property
    def folder(self) -> str:
        return os.path.join(self.root, "releases")

    @property
    def link(self) -> str:
        return os.path.join(self.root, "current")

    def path(self, commit: str) -> str:
        """Directory of a release, whether it exists or not."""
        if not FULL_COMMIT.fullmatch(commit):
            raise Refused("A release is named by its full commit", found=repr(commit))
        return os.path.join(self.folder, commit)

    def migrations_path(self, commit: str) -> str:
        return os.path.join(self.path(commit), self._migrations)

    def commit_at(self, path: str) -> Optional[str]:
        """The commit of the release that contains a path, links resolved; None outside of the releases."""
        inner = os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder))
        commit = inner.split(os.sep, 1)[0]
        return commit if FULL_COMMIT.fullmatch(commit) else None

    # Queries

    def mirror(self) -> GitMirror:
        path = os.path.join(self.root, "repository.git")
        return GitMirror(path, self._repository, keep_open=self._held_lock())

    def _held_lock(self) -> List[int]:
        """The lock's descriptor for child processes, so that the lock is free only when they have ended too."""
        return [] if self._lock.descriptor is None else [self._lock.descriptor]

    def current(self) -> Optional[str]:
        """The commit that ``current`` points to; None without a link or when it points elsewhere."""
        return self.commit_at(self.link) if os.path.islink(self.link) else None

    def require_link(self) -> None:
        """Refuse where ``current`` is not a link: replacing it could delete the only copy of the application."""
        if os.path.lexists(self.link) and not os.path.islink(self.link):
            raise Refused(
                "Nothing is overwritten",
                found=self.link + " exists",
                expected="a link or nothing",
                hint="move it out of the way (what runs in it continues), or choose another root for the releases",
            )

    def marker(self, commit: str) -> Optional[Dict[str, Any]]:
        """How a finished release was built; None when there is no such release."""
        path = os.path.join(self.path(commit), MARKER)
        if not os.path.exists(path):
            return None
        content = read_json(path, "marker of the release")
        if not isinstance(content, dict) or content.get("commit") != commit:
            raise BackstopError(
                "The marker of a release does not match it",
                found=path + " does not name " + commit,
                hint="remove the directory %s; the release is then built again" % self.path(commit),
            )
        return content

    def is_complete(self, commit: str) -> bool:
        return self.marker(commit) is not None

    def finished(self) -> List[Dict[str, Any]]:
        """The finished releases, newest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise file_error("The releases cannot be listed", self.folder, error) from error
        found = []
        for name in names:
            marker = self.marker(name) if FULL_COMMIT.fullmatch(name) else None
            if marker:
                found.append({**marker, "path": self.path(name), "current": name == self.current()})
        return sorted(found, key=lambda release: str(release.get("prepared")), reverse=True)

    # Repository

    def resolve(self, revision: str, *, effect: bool = True) -> str:
        """The commit that a tag, branch or commit currently stands for; see GitMirror.resolve.

        :param effect: False for check mode: nothing below the root is changed
        """
        if not effect:
            return self.mirror().resolve(revision, effect=False)
        with self._locked():
            return self.mirror().resolve(revision)

    def read_migrations(self, commit: str, *, effect: bool = False) -> Dict[str, bytes]:
        """Name and migration.sql of each migration of a commit, whether it was released or not."""
        with contextlib.ExitStack() as stack:
            if effect:
                stack.enter_context(self._locked())
            mirror = stack.enter_context(self.mirror().holding(commit, effect=effect))
            files = mirror.read_files(commit, self._migrations, "/migration.sql")
        return {os.path.basename(os.path.dirname(path)): content for path, content in sorted(files.items())}

    # Acting

    def prepare(
        self,
        commit: str,
        commands: Sequence[Sequence[str]] = (),
        *,
        node_bin_dir: Optional[str] = None,
        environment: Optional[Mapping[str, str]] = None,
        shared_links: Optional[Mapping[str, str]] = None,
        command_timeout: Optional[float] = None,
    ) -> bool:
        """Build the release of a commit while the current one runs.

        :param commands: argument lists, run in the release in this order
        :param environment: variables for the commands, without secrets: these belong in a shared file
        :param shared_links: name in the release -> the file that it links to
        :returns: False when the release exists already
        """
        links = dict(shared_links or {})
        _check_links(links)
        with self._locked():
            if self.is_complete(commit):
                return False
            if os.path.lexists(self.path(commit)):
                raise Refused(
                    "The release's path is an existing directory",
                    found="%s has no %s" % (self.path(commit), MARKER),
                    hint="make sure that nothing runs in it, then remove it",
                )
            self._remove_debris()
            partial = os.path.join(self.folder, _PARTIAL + commit)
            try:
                secrets = [secret for target in links.values() for secret in secrets_in(target)]
                variables = {**(environment or {}), "PATH": search_path(node_bin_dir)}
                self._build(commit, commands, Surroundings(partial, variables, secrets), links, command_timeout)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            reach("release.before-rename")
            os.rename(partial, self.path(commit))
            fsync_directory(self.folder)
            reach("release.prepared")
        return True

    def _build(
        self,
        commit: str,
        commands: Sequence[Sequence[str]],
        inside: Surroundings,
        links: Mapping[str, str],
        timeout: Optional[float],
    ) -> None:
        started = time.monotonic()
        partial = inside.cwd
        _make_directory(partial)
        with self.mirror().holding(commit, effect=True) as mirror:
            mirror.check_out(commit, partial)
            mirror.keep(commit)
        for name, target in links.items():
            _link(partial, name, target)
        ran = []
        for argv in commands:
            seconds = run_command(
                argv,
                "A command of the release failed: " + " ".join(argv),
                inside,
                timeout=timeout,
                keep_open=self._held_lock(),
            )
            ran.append({"argv": list(argv), "seconds": round(seconds, 3)})
        # Sync the files first, write the marker last: after a power loss a release with a marker must be complete.
        sync_file_system(partial)
        write_json(
            os.path.join(partial, MARKER),
            {
                "format": MARKER_FORMAT,
                "commit": commit,
                "prepared": timestamp(),
                "seconds": round(time.monotonic() - started, 3),
                "commands": ran,
            },
        )
        os.chmod(os.path.join(partial, MARKER), 0o644)

    def activate(self, commit: str) -> bool:
        """Point ``current`` to a finished release, atomically.

        :returns: False when it already points there
        """
        with self._locked():
            if not self.is_complete(commit):
                raise Refused(
                    "The release is not finished, so it cannot become the current one",
                    found="no release in " + self.path(commit),
                    hint="prepare the release first",
                )
            self.require_link()
            if self.current() == commit:
                return False
            reach("release.before-activate")
            # A relative link, so that the root can be moved or mounted elsewhere.
            replacement = os.path.join(self.root, ".current-new")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(replacement)
            os.symlink(os.path.join("releases", commit), replacement)
            os.replace(replacement, self.link)
            fsync_directory(self.root)
            reach("release.activated")
        return True

    def prune(self, keep: int, protect: Sequence[str] = ()) -> List[str]:
        """Remove the oldest releases beyond a number, but never the current one and the protected ones.

        :returns: commits of the removed releases
        """
        if keep < 1:
            raise Refused("At least one release is kept", found="keep = %d" % keep)
        with self._locked():
            staying = {self.current(), *protect}
            removed = [release["commit"] for release in self.finished()[keep:] if release["commit"] not in staying]
            for commit in removed:
                # Renamed first: an interrupted removal must not leave half a release under a valid name.
                os.rename(self.path(commit), os.path.join(self.folder, _REMOVED + commit))
                self.mirror().let_go(commit)
            self._remove_debris()
        return removed

    def _remove_debris(self) -> None:
        """Remove the debris of interrupted runs. We hold the lock, so no process works on it."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.startswith((_PARTIAL, _REMOVED)):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for directory in (self.root, self.folder, os.path.join(self.root, "shared")):
            _make_directory(directory)
        with self._lock.held(self._lock_wait):
            try:
                yield
            except OSError as error:
                path = error.filename if isinstance(error.filename, str) else self.root
                raise file_error("The releases could not be changed", path, error) from error


def _make_directory(path: str) -> None:
    """Create a directory that other users can read: another user may run Prisma in a release."""
    try:
        if not os.path.isdir(path):
            os.makedirs(path)
            os.chmod(path, 0o755)
    except OSError as error:
        raise file_error("A directory could not be created", path, error) from error


def _check_links(links: Mapping[str, str]) -> None:
    for name, target in links.items():
        if os.path.isabs(name) or os.path.normpath(name).split(os.sep, 1)[0] in ("..", "."):
            raise Refused("A shared file must be linked inside the release", found=repr(name))
        if not os.path.isabs(target):
            raise Refused("A shared file must be named by an absolute path", found=repr(target))
        if not os.path.exists(target):
            raise Refused(
                "A shared file is missing",
                found="no file " + target,
                expected="the file that %s of each release is linked to" % name,
                hint="create it with mode 0600, owned by the application's user",
            )


def _link(directory: str, name: str, target: str) -> None:
    path = os.path.join(directory, name)
    if os.path.lexists(path):
        raise Refused(
            "The commit has a file where a shared file is to be linked",
            found="%s is in the repository" % name,
            hint="remove it from the repository, or link no shared file of this name",
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)


def sync_file_system(path: str) -> None:
    """Write all cached data of this path's file system to the disk.

    A release has tens of thousands of files in node_modules. Syncing each takes longer than installing them;
    syncfs(2) syncs all at once.
    """
    if sys.platform.startswith("linux"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) == 0:
                return
        finally:
            os.close(descriptor)
    os.sync()
