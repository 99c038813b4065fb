# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example application's repository: two commits, the same on every machine."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from demo import repository

RECEIPTS = "prisma/migrations/20251108000000_add_receipt_data/migration.sql"


def git(directory: Path, *arguments: str) -> str:
    return (
        subprocess.run(["git", "--git-dir", directory, *arguments], check=True, stdout=subprocess.PIPE)
        .stdout.decode()
        .strip()
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "repository.git"
    repository.make(directory)
    return directory


def test_the_commits_do_not_depend_on_who_makes_them(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / ".gitconfig"
    settings.write_text("[core]\n autocrlf = true\n[commit]\n gpgsign = true\n[init]\n defaultBranch = other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    commits = repository.make(tmp_path / "repository.git")
    monkeypatch.undo()
    assert commits == repository.make(made)
    assert git(made, "rev-parse", "refs/tags/et-100", "main") == "\n".join([commits["et-100"]] * 2)
    assert git(made, "rev-parse", "et-100~1") == commits["before-et-100"]


def test_making_it_again_changes_nothing(made: Path) -> None:
    before = git(made, "show-ref")
    repository.make(made)
    assert git(made, "show-ref") == before
    assert git(made, "fsck", "--strict", "--no-dangling") == ""


def test_et_100_changes_only_what_it_needs(made: Path) -> None:
    changed = set(git(made, "diff", "--name-status", "before-et-100", "et-100").splitlines())
    assert changed == {
        "M\tpackage.json",
        "M\tpackage-lock.json",
        "M\tprisma/schema.prisma",
        "A\t" + RECEIPTS,
        "M\tsrc/routes/index.js",
        "A\tsrc/routes/receipts.js",
        "A\ttest/receipts.test.js",
    }


def test_the_migration_makes_each_index_once(made: Path) -> None:
    sql = git(made, "show", "et-100:" + RECEIPTS)
    assert sql.count("INDEX") == 1
    assert "ON DELETE CASCADE ON UPDATE CASCADE" in sql


def test_the_files_of_a_tag_are_those_of_its_commit(made: Path, tmp_path: Path) -> None:
    for tag in ("before-et-100", "et-100"):
        repository.write_files(tmp_path / tag, tag)
        listed = git(made, "ls-tree", "-r", tag).splitlines()
        assert len(listed) == sum(path.is_file() for path in (tmp_path / tag).rglob("*"))
        for line in listed:
            facts, name = line.split("\t")
            mode, _kind, blob = facts.split()
            path = tmp_path / tag / name
            assert git(made, "hash-object", str(path)) == blob
            assert bool(os.stat(path).st_mode & stat.S_IXUSR) == (mode == "100755")


def test_nothing_that_was_installed_or_built_gets_into_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("package.json", "node_modules/x/index.js", "dist/server.js", ".env", "src/node_modules.js"):
        path = tmp_path / "base" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    monkeypatch.setattr(repository, "SOURCE", tmp_path)
    assert set(repository.files_of(("base",))) == {"package.json", "src/node_modules.js"}
