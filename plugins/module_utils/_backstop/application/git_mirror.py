# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's repository: the commit of a revision, and the files of a commit without a working copy."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from typing import Dict, Iterator, List, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..base import processes
from ..base.errors import BackstopError, Refused
from ..base.sql_names import near_names
from .commands import run_command, search_path
from .supervisor import Surroundings

#: SHA-1, and the longer hashes of SHA-256 repositories.
FULL_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ABBREVIATED_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_WHAT_IS_MIRRORED = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
#: These refs keep released commits from garbage collection, even after a branch was rewritten.
_KEPT = "refs/backstop/releases/"
#: Variables that git sets for a repository's hooks; they would point our git to that repository.
_OF_ANOTHER_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_INTERNAL_SUPER_PREFIX",
)
_TRANSFER_SECONDS = 600
_LOCAL_SECONDS = 120


def check_repository(url: str) -> None:
    """Refuse an address that git would misread, or that would show a password in the process list."""
    if not url:
        raise Refused("No repository is given", expected="the address or path of the application's git repository")
    if url.startswith("-"):
        raise Refused("This is not the address of a repository", found=repr(url))
    try:
        password = urlsplit(url).password if "://" in url else None
    except ValueError as error:
        raise Refused("This is not the address of a repository", found=str(error)) from error
    if password:
        raise Refused(
            "The repository's address holds a password",
            found="an address of the form scheme://user:password@host",
            expected="an address without a password, which git shows to everybody on the host",
            hint="use a deploy key over ssh, or a git credential helper",
        )


class GitMirror:
    """A bare copy of a repository's branches and tags, updated when a commit is missing.

    :param path: directory of the copy; created when first needed
    :param url: address of the repository, as git takes it
    :param keep_open: descriptors that the git processes inherit, so that a lock is free only when they have ended
    """

    def __init__(self, path: str, url: str, *, keep_open: Sequence[int] = ()) -> None:
        self.path = path
        self.url = url
        self._keep_open = list(keep_open)
        # git would ask for a password on the terminal. Its session has no terminal; this makes it fail earlier.
        self._environment = {"GIT_TERMINAL_PROMPT": "0"}

    def _run(self, *arguments: str, check: Optional[str] = None, timeout: float = _LOCAL_SECONDS) -> processes.Finished:
        return processes.run(
            self._argv("--git-dir", self.path, *arguments),
            environment=self._environment,
            timeout=timeout,
            keep_open=self._keep_open,
            check=check,
        )

    def _argv(self, *arguments: str, index: Optional[str] = None) -> List[str]:
        """The argument list that runs git, without the environment of a git hook that called us."""
        changes = [part for name in _OF_ANOTHER_REPOSITORY if name in os.environ for part in ("-u", name)]
        if index:
            changes.append("GIT_INDEX_FILE=" + index)
        return [*(["env", *changes] if changes else []), "git", *arguments]

    def has(self, commit: str) -> bool:
        """True when this commit can be read here."""
        if not os.path.isdir(self.path):
            return False
        return self._run("cat-file", "-e", commit + "^{commit}").status == 0

    def fetch(self) -> None:
        """Update branches and tags; the caller holds the exclusive lock."""
        check_repository(self.url)
        self._remove_stale_locks()
        # Harmless on an existing repository, and completes an interrupted init.
        self._run("init", "--quiet", "--bare", "--template=", check="The mirror of the repository could not be created")
        self._run(
            "-c",
            "gc.autoDetach=false",
            "fetch",
            "--quiet",
            "--prune",
            "--no-auto-maintenance",
            self.url,
            *_WHAT_IS_MIRRORED,
            check="The repository could not be fetched",
            timeout=_TRANSFER_SECONDS,
        )

    def _remove_stale_locks(self) -> None:
        """Remove the lock files of a killed git, on which the next git would fail."""
        for folder, folders, files in os.walk(self.path):
            if "objects" in folders:
                folders.remove("objects")
            for name in files:
                if name.endswith(".lock"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(folder, name))

    def remote_names(self) -> Dict[str, str]:
        """The current branches and tags of the repository, each with its commit."""
        check_repository(self.url)
        listed = processes.run(
            self._argv("ls-remote", "--quiet", "--", self.url),
            environment=self._environment,
            timeout=_TRANSFER_SECONDS,
            keep_open=self._keep_open,
            check="The repository could not be read",
        )
        names: Dict[str, str] = {}
        peeled: Dict[str, str] = {}
        for line in listed.stdout.splitlines():
            commit, _tab, name = line.partition("\t")
            if name.endswith("^{}"):
                peeled[name[:-3]] = commit  # the commit of an annotated tag
            elif name:
                names[name] = commit
        names.update(peeled)
        return names

    def resolve(self, revision: str, *, effect: bool = True) -> str:
        """The full commit that a tag, a branch or a commit currently stands for in the repository.

        :param effect: False leaves this mirror unchanged
        :raises Refused: the revision is unknown or ambiguous
        """
        if not revision or revision.startswith("-") or any(sign.isspace() or sign < " " for sign in revision):
            raise Refused("This is not a revision", found=repr(revision), expected="a tag, a branch or a commit")
        if FULL_COMMIT.fullmatch(revision) and self.has(revision):
            return revision
        names = self.remote_names()
        commit = _choose(revision, names)
        if commit:
            return commit
        if _ABBREVIATED_COMMIT.fullmatch(revision):
            with self.current(effect=effect) as mirror:
                commit = mirror._commit_named(revision)
            if commit:
                return commit
        raise _unknown(revision, names)

    def _commit_named(self, abbreviation: str) -> Optional[str]:
        finished = self._run("rev-parse", "--verify", "--quiet", abbreviation + "^{commit}")
        return finished.stdout.strip() if finished.status == 0 else None

    @contextlib.contextmanager
    def current(self, *, effect: bool) -> Iterator["GitMirror"]:
        """An up-to-date mirror: this one, or without effect a temporary one that borrows its objects."""
        if effect:
            self.fetch()
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="backstop-mirror-") as folder:
            other = GitMirror(folder, self.url, keep_open=self._keep_open)
            objects = os.path.join(self.path, "objects")
            if os.path.isdir(objects):
                os.makedirs(os.path.join(folder, "objects", "info"))
                with open(os.path.join(folder, "objects", "info", "alternates"), "w", encoding="utf-8") as stream:
                    stream.write(os.path.abspath(objects) + "\n")
            other.fetch()
            yield other

    @contextlib.contextmanager
    def holding(self, commit: str, *, effect: bool) -> Iterator["GitMirror"]:
        """A mirror from which this commit can be read.

        :raises Refused: no branch or tag of the repository contains it
        """
        if self.has(commit):
            yield self
            return
        with contextlib.ExitStack() as stack:
            mirror = stack.enter_context(self.current(effect=effect))
            if not mirror.has(commit):
                raise Refused(
                    "The repository does not have this commit",
                    found="no branch and no tag contains %s" % commit,
                    hint="push the commit, or a tag on it, to the repository",
                )
            yield mirror

    def keep(self, commit: str) -> None:
        """Keep this commit here, whatever happens to branches and tags."""
        self._run("update-ref", _KEPT + commit, commit, check="The commit could not be marked as released")

    def let_go(self, commit: str) -> None:
        """Undo :meth:`keep`."""
        self._run("update-ref", "-d", _KEPT + commit)

    def _entries(self, commit: str, *paths: str) -> List[Tuple[str, str, str]]:
        """Mode, object and path of each file of a commit."""
        listed = self._run(
            "ls-tree",
            "-r",
            "-z",
            "--full-tree",
            commit,
            "--",
            *paths,
            check="The files of the commit could not be listed",
        )
        entries = []
        for entry in listed.stdout.split("\0"):
            if entry:
                facts, _tab, path = entry.partition("\t")
                mode, _kind, name = facts.split(" ")
                entries.append((mode, name, path))
        return entries

    def check_out(self, commit: str, directory: str) -> None:
        """Write all files of a commit into an empty directory."""
        submodules = [path for mode, _name, path in self._entries(commit) if mode == "160000"]
        if submodules:
            raise Refused(
                "The commit has submodules, which a release cannot contain",
                found=", ".join(submodules[:5]),
                hint="add their files to the repository, or install them as packages",
            )
        # A separate index: the mirror has none, and two releases would share it.
        index = directory + ".index"
        # The user's git settings must not change a file's bytes or mode.
        settings = ["core.autocrlf=false", "core.fileMode=true", "core.symlinks=true", "core.bare=false"]
        git = self._argv("--git-dir", self.path, "--work-tree", directory, index=index)
        git += [part for setting in settings for part in ("-c", setting)]
        what = "The files of the commit could not be written"
        inside = Surroundings(directory, {**self._environment, "PATH": search_path(None)})
        try:
            for arguments in (["read-tree", commit], ["checkout-index", "--all", "--force"]):
                run_command(git + arguments, what, inside, timeout=_TRANSFER_SECONDS, keep_open=self._keep_open)
        finally:
            for path in (index, index + ".lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def read_files(self, commit: str, folder: str, ending: str) -> Dict[str, bytes]:
        """The files of a commit below a folder whose path ends with this: path and bytes."""
        found = {}
        for mode, name, path in self._entries(commit, folder.rstrip("/") + "/"):
            if path.endswith(ending) and mode.startswith("100"):
                found[path] = self._read(name)
        return found

    def _read(self, name: str) -> bytes:
        argv = self._argv("--git-dir", self.path, "cat-file", "blob", name)
        with processes.Running(argv, environment=self._environment, keep_open=self._keep_open) as program:
            content = program.stdout.read()
            program.check("A file of the commit could not be read", _LOCAL_SECONDS)
        return content


def _choose(revision: str, names: Dict[str, str]) -> Optional[str]:
    candidates = [name for name in ("refs/tags/" + revision, "refs/heads/" + revision) if name in names]
    if not candidates and revision in names:  # in full: refs/tags/name, HEAD
        candidates = [revision]
    commits = sorted({names[name] for name in candidates})
    if len(commits) > 1:
        raise Refused(
            "The revision is ambiguous",
            found=", ".join("%s is %s" % (name, names[name]) for name in candidates),
            expected="one commit",
            hint="write it in full: " + " or ".join(candidates),
        )
    return commits[0] if commits else None


def _unknown(revision: str, names: Dict[str, str]) -> BackstopError:
    short = {name.split("/", 2)[2] for name in names if name.startswith(("refs/tags/", "refs/heads/"))}
    near = near_names(revision, sorted(short))
    if FULL_COMMIT.fullmatch(revision):
        hint = "push the commit, or a tag on it, to the repository"
    elif near:
        hint = "did you mean %s?" % " or ".join(near)
    elif short:
        hint = "it has " + ", ".join(sorted(short)[:10])
    else:
        hint = "push a commit to the repository first"
    return Refused(
        "The repository does not have this revision",
        found="no tag, branch or commit named %s" % revision,
        hint=hint,
        details={"near": near},
    )
