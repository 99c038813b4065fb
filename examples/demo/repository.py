# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example application as a git repository of two commits: before ET-100, and with it.

    commits = repository.make(directory)       # {"before-et-100": "<commit>", "et-100": "<commit>"}
    repository.write_files(directory, "et-100")   # only the files of one of them, without git

The commits are the same on every machine, because their content, author and date are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .programs import clean_environment, run

SOURCE = Path(__file__).resolve().parents[1] / "electricity-tokens"
BEFORE, AFTER = "before-et-100", "et-100"
AUTHOR, ADDRESS = "Electricity Tokens", "electricity-tokens@example.com"
#: Tag, message, date, and the folders that are overlaid at that commit.
HISTORY = (
    (BEFORE, "Purchases and contributions", "2025-10-01T09:00:00+00:00", ("base",)),
    (AFTER, "ET-100: receipts", "2025-11-08T09:00:00+00:00", ("base", "et-100")),
)
NOT_SOURCE = ("node_modules", "dist", ".env")


def git(repository: Path, *arguments: str, environment: dict[str, str] | None = None, data: bytes | None = None) -> str:
    # When a git hook calls us, the environment has variables that point to the hook's repository.
    variables = {name: value for name, value in clean_environment().items() if not name.startswith("GIT_")}
    variables.update(environment or {}, GIT_DIR=str(repository))
    what = "The application's repository could not be made"
    return run(["git", *arguments], what=what, environment=variables, data=data, do="install git").stdout.strip()


def files_of(folders: tuple[str, ...]) -> dict[str, Path]:
    """The files of a commit: path in the repository -> file; later folders override earlier ones."""
    found: dict[str, Path] = {}
    for folder in folders:
        root = SOURCE / folder
        for path in sorted(root.rglob("*")):
            inner = path.relative_to(root)
            if path.is_file() and inner.parts[0] not in NOT_SOURCE:
                found[str(inner)] = path
    return found


def make(directory: Path) -> dict[str, str]:
    """A bare repository with both commits, both tags and the branch main; remade only when the source changed."""
    if not (directory / "HEAD").exists():
        git(directory, "init", "--quiet", "--bare", "--template=")
        git(directory, "symbolic-ref", "HEAD", "refs/heads/main")
    commits: dict[str, str] = {}
    for tag, message, date, folders in HISTORY:
        commits[tag] = commit(directory, files_of(folders), message, date, parents=list(commits.values()))
        git(directory, "update-ref", f"refs/tags/{tag}", commits[tag])
    git(directory, "update-ref", "refs/heads/main", commits[AFTER])
    return commits


def commit(directory: Path, files: dict[str, Path], message: str, date: str, parents: list[str]) -> str:
    """Create a commit from files, without a working copy and independent of the user's git settings."""
    entries = []
    for name, path in files.items():
        blob = git(directory, "hash-object", "-w", "--stdin", data=path.read_bytes())
        mode = "100755" if path.stat().st_mode & 0o100 else "100644"
        entries.append(f"{mode} {blob}\t{name}\0")
    index = directory / "index"
    index.unlink(missing_ok=True)
    with_index = {"GIT_INDEX_FILE": str(index)}
    git(directory, "update-index", "-z", "--index-info", data="".join(entries).encode(), environment=with_index)
    tree = git(directory, "write-tree", environment=with_index)
    index.unlink()
    person = {}
    for role in ("AUTHOR", "COMMITTER"):
        person.update({f"GIT_{role}_NAME": AUTHOR, f"GIT_{role}_EMAIL": ADDRESS, f"GIT_{role}_DATE": date})
    options = [word for parent in parents[-1:] for word in ("-p", parent)]
    return git(directory, "commit-tree", tree, *options, "-m", message, environment=person)


def write_files(directory: Path, tag: str) -> None:
    """Write the files of one commit into a plain directory, as in a release."""
    folders = next(folders for name, _message, _date, folders in HISTORY if name == tag)
    for name, path in files_of(folders).items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
