# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases on a real git repository: looked up, built next to the running one, made current in one step."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
from typing import Any, Dict, Set

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import MARKER, Releases
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    Locked,
    Refused,
)
from support.application_site import DATABASE_URL, PASSWORD, SECOND_MIGRATION, Site, git

#: Resolve, prepare and activate in a separate process, which a failpoint can kill.
DEPLOY = """
import sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases
root, repository, revision, node, env, command = sys.argv[1:]
releases = Releases(root, repository)
commit = releases.resolve(revision)
releases.prepare(commit, [command.split()], node_bin_dir=node, shared_links={".env": env})
releases.activate(commit)
"""


def deploy(site: Site, revision: str, command: str = "node build.js", **environment: str) -> subprocess.Popen[bytes]:
    arguments = [site.root, site.repository.path, revision, site.node.bin_dir, site.environment_file, command]
    return subprocess.Popen(
        [sys.executable, "-c", DEPLOY, *map(str, arguments)], env={**os.environ, **environment}, stderr=subprocess.PIPE
    )


def everything_below(root: pathlib.Path) -> Set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")} if root.exists() else set()


def test_a_release_is_built_beside_and_then_made_current(site: Site) -> None:
    commit = site.prepare("one", {"LABEL": "beside"})
    releases = site.releases
    path = pathlib.Path(releases.path(commit))
    assert commit == git(site.repository.path, "rev-parse", "one^{commit}")
    assert releases.current() is None
    built = json.loads((path / "dist" / "built-with.json").read_text())
    assert built["label"] == "beside"
    assert built["path"].startswith(str(site.node.bin_dir) + ":")
    assert os.readlink(path / ".env") == str(site.environment_file)
    marker = json.loads((path / MARKER).read_text())
    assert marker["commit"] == commit
    assert marker["commands"][0]["argv"] == ["node", "build.js"]
    assert PASSWORD not in (path / MARKER).read_text()
    # Another user may run Prisma in it; the shared file keeps its own mode.
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(path / "server.js").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(site.environment_file).st_mode) == 0o600
    assert os.listdir(releases.folder) == [commit]

    assert releases.activate(commit)
    assert releases.current() == commit
    assert os.readlink(releases.link) == os.path.join("releases", commit)
    assert not releases.activate(commit)


def test_a_finished_release_is_used_again(site: Site) -> None:
    commit = site.prepare("one")
    before = (pathlib.Path(site.releases.path(commit)) / MARKER).stat().st_mtime_ns
    assert not site.releases.prepare(commit, [["false"]])
    assert (pathlib.Path(site.releases.path(commit)) / MARKER).stat().st_mtime_ns == before


@pytest.mark.parametrize("revision", ["two", "main", "refs/tags/two", "HEAD", "{full}", "{short}"])
def test_what_a_revision_can_be(site: Site, revision: str) -> None:
    full = git(site.repository.path, "rev-parse", "two^{commit}")
    assert site.releases.resolve(revision.format(full=full, short=full[:9])) == full


def test_a_tag_that_moved_is_seen(site: Site) -> None:
    first = site.releases.resolve("two")
    second = site.repository.commit("3")
    git(site.repository.path, "tag", "--force", "two")
    assert site.releases.resolve("two") == second != first


def test_an_unknown_revision_names_the_near_ones(site: Site) -> None:
    git(site.repository.path, "tag", "before-et-100")
    with pytest.raises(Refused) as caught:
        site.releases.resolve("before-et100")
    assert "before-et-100" in str(caught.value)
    assert caught.value.details["near"][0] == "before-et-100"
    with pytest.raises(Refused, match="no branch and no tag contains"):
        site.releases.prepare("0" * 40)
    assert os.listdir(site.releases.folder) == []


def test_a_name_of_two_commits_is_refused(site: Site) -> None:
    git(site.repository.path, "branch", "one", "two^{commit}")
    with pytest.raises(Refused, match="is ambiguous.*refs/tags/one"):
        site.releases.resolve("one")
    assert site.releases.resolve("refs/tags/one") == git(site.repository.path, "rev-parse", "tags/one^{commit}")


@pytest.mark.parametrize("revision", ["", "-x", "--upload-pack=touch", "a b", "a\nb"])
def test_what_a_revision_cannot_be(site: Site, revision: str) -> None:
    with pytest.raises(Refused, match="not a revision"):
        site.releases.resolve(revision)


def test_a_repository_that_is_not_there(site: Site) -> None:
    for address, message in (
        (str(site.root / "nothing"), "could not be read.*does not"),
        ("", "No repository is given"),
        ("--help", "not the address"),
        ("https://user:hidden@example.org/x.git", "holds a password"),
    ):
        with pytest.raises(BackstopError, match=message) as caught:
            Releases(str(site.root), address).resolve("one")
        assert "hidden" not in str(caught.value)


def test_the_old_release_needs_no_repository(site: Site) -> None:
    """A rollback must not depend on the network."""
    commit = site.prepare("one")
    site.repository.path.rename(site.root / "gone")
    assert site.releases.resolve(commit) == commit
    assert not site.releases.prepare(commit)
    assert site.releases.activate(commit)


def test_a_released_commit_outlives_its_branch(site: Site) -> None:
    commit = site.prepare("one")
    git(site.repository.path, "tag", "--delete", "one", "two")
    git(site.repository.path, "checkout", "--quiet", "--orphan", "new")
    site.repository.commit("9", "nine")
    git(site.repository.path, "branch", "--delete", "--force", "main")
    site.releases.resolve("nine")
    site.prepare("nine")
    mirror = site.root / "repository.git"
    subprocess.run(["git", "--git-dir", str(mirror), "gc", "--quiet", "--prune=now"], check=True)
    assert site.releases.read_migrations(commit)


def test_migrations_are_read_without_a_checkout(site: Site) -> None:
    commit = site.releases.resolve("two", effect=False)
    migrations = site.releases.read_migrations(commit)
    assert list(migrations) == ["20250101000000_first", "20250202000000_second"]
    assert migrations["20250202000000_second"] == SECOND_MIGRATION.encode()
    assert "20250202000000_second" not in site.releases.read_migrations(site.releases.resolve("one", effect=False))
    assert everything_below(site.root) == {"shared", "shared/.env"}, "looking left something behind"
    assert site.releases.read_migrations(commit, effect=True) == migrations
    assert site.releases.mirror().has(commit)


def test_check_mode_sees_what_the_mirror_lacks(site: Site) -> None:
    site.prepare("one")
    before = everything_below(site.root)
    commit = site.repository.commit("3", "three", **{"prisma__migrations__3_third__migration.sql": "SELECT 3"})
    assert site.releases.resolve("three", effect=False) == commit
    assert site.releases.resolve(commit[:10], effect=False) == commit
    assert site.releases.read_migrations(commit)["3_third"] == b"SELECT 3"
    assert everything_below(site.root) == before
    assert not site.releases.mirror().has(commit)


def test_a_failing_build_leaves_no_release_and_says_why(site: Site) -> None:
    with pytest.raises(BackstopError) as caught:
        site.prepare("one", {"BUILD": "fail"})
    message = str(caught.value)
    assert "node build.js" in message
    assert "status 2" in message
    assert "error TS2304" in message, "what it wrote to standard output"
    assert "build failed for" in message, "what it wrote to standard error"
    assert PASSWORD not in message
    assert "s3cret" not in message
    assert os.listdir(site.releases.folder) == []
    site.prepare("one")


def test_a_command_that_is_not_there(site: Site) -> None:
    with pytest.raises(Refused, match="could not be started.*no-such-program"):
        site.releases.prepare(site.releases.resolve("one"), [["no-such-program"]])
    assert os.listdir(site.releases.folder) == []


def test_a_command_must_not_show_a_secret(site: Site) -> None:
    """Every user of the host can read the arguments of a program."""
    commit = site.releases.resolve("one")
    links = {".env": str(site.environment_file)}
    with pytest.raises(Refused, match="contains a secret") as caught:
        site.releases.prepare(commit, [["echo", "--url=" + DATABASE_URL]], shared_links=links)
    assert "s3cret" not in str(caught.value)


def test_a_password_that_is_a_common_word(site: Site) -> None:
    """A command with this word is not refused, and the word is hidden in the output all the same."""
    site.write_environment(DATABASE_URL="postgresql://u:build@127.0.0.1/x")
    with pytest.raises(BackstopError) as caught:
        site.prepare("one", {"BUILD": "fail"})
    assert "u:build@" not in str(caught.value)
    site.prepare("one")


def test_a_command_that_never_ends(site: Site) -> None:
    with pytest.raises(BackstopError, match="took too long"):
        site.releases.prepare(site.releases.resolve("one"), [["sleep", "600"]], command_timeout=0.5)
    assert os.listdir(site.releases.folder) == []


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({".env": "/nowhere/.env"}, "shared file is missing"),
        ({".env": "relative"}, "absolute path"),
        ({"../outside": "{env}"}, "inside the release"),
        ({"/outside": "{env}"}, "inside the release"),
        ({"server.js": "{env}"}, "is in the repository"),
    ],
)
def test_links_that_cannot_be(site: Site, links: Dict[str, str], message: str) -> None:
    links = {name: target.format(env=site.environment_file) for name, target in links.items()}
    with pytest.raises(Refused, match=message):
        site.releases.prepare(site.releases.resolve("one"), shared_links=links)
    assert os.listdir(site.releases.folder) == []


def test_a_file_in_a_folder_can_be_linked(site: Site) -> None:
    commit = site.releases.resolve("one")
    site.releases.prepare(commit, shared_links={"config/.env": str(site.environment_file)})
    assert (pathlib.Path(site.releases.path(commit)) / "config" / ".env").read_text().startswith("PORT=")


def test_submodules_are_refused(site: Site) -> None:
    inner = git(site.repository.path, "rev-parse", "HEAD")
    git(site.repository.path, "update-index", "--add", "--cacheinfo", "160000," + inner + ",inner")
    git(site.repository.path, "commit", "--quiet", "--message", "with a submodule")
    with pytest.raises(Refused, match="submodules.*inner"):
        site.prepare("main")
    assert os.listdir(site.releases.folder) == []


def test_the_bytes_are_those_of_the_commit(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Independent of the user's own git settings."""
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\n\tautocrlf = true\n\tfileMode = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    commit = site.prepare("two")
    path = pathlib.Path(site.releases.migrations_path(commit))
    assert (path / "20250202000000_second" / "migration.sql").read_bytes() == SECOND_MIGRATION.encode()
    assert (path / "20250101000000_first" / "migration.sql").read_bytes().endswith(b");\n")


def test_called_from_a_hook_of_another_repository(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Variables that git sets for a hook, such as post-receive, must not point git to that repository, nor fail."""
    hook = tmp_path / "hook"
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], stdout=subprocess.PIPE, text=True, check=True)
    names = [name for name in listed.stdout.split() if "CONFIG" not in name]
    assert "GIT_DIR" in names
    with monkeypatch.context() as environment:
        for name in [*names, "GIT_NAMESPACE", "GIT_QUARANTINE_PATH"]:
            environment.setenv(name, str(hook))
        commit = site.releases.resolve("two", effect=False)
        assert site.releases.read_migrations(commit)
        site.prepare("two")
    assert not hook.exists()
    assert site.releases.read_migrations(commit, effect=True)
    assert site.releases.mirror().has(commit)


def test_an_unfinished_release_does_not_become_current(site: Site) -> None:
    commit = site.prepare("one")
    site.releases.activate(commit)
    other = site.releases.resolve("two")
    pathlib.Path(site.releases.path(other)).mkdir()
    with pytest.raises(Refused, match="not finished"):
        site.releases.activate(other)
    assert site.releases.current() == commit
    with pytest.raises(Refused, match="path is an existing directory"):
        site.prepare("two")


def test_current_that_is_no_link_is_left_alone(site: Site) -> None:
    commit = site.prepare("one")
    (site.root / "current").mkdir()
    (site.root / "current" / "precious").touch()
    with pytest.raises(Refused, match="Nothing is overwritten"):
        site.releases.activate(commit)
    assert (site.root / "current" / "precious").exists()


def test_current_always_leads_somewhere(site: Site) -> None:
    """The link is replaced in one step: a reader sees the old release or the new one."""
    first, second = site.prepare("one"), site.prepare("two")
    site.releases.activate(first)
    look = (
        "import os, sys\n"
        "print('ready', flush=True)\n"
        "while os.getppid() == int(sys.argv[2]):\n"
        "    os.stat(sys.argv[1] + '/server.js')\n"
    )
    argv = [sys.executable, "-c", look, site.releases.link, str(os.getpid())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"ready\n"
        for _time in range(100):
            site.releases.activate(second)
            site.releases.activate(first)
        assert watcher.poll() is None, watcher.stderr
        watcher.kill()


@pytest.mark.fault("deploy", "making of a release killed at each of its failpoints", by="the next run finishes it")
@pytest.mark.serial
@pytest.mark.parametrize(
    "failpoint", ["release.before-rename", "release.prepared", "release.before-activate", "release.activated"]
)
def test_killed_anywhere_the_next_run_finishes(site: Site, failpoint: str) -> None:
    old = site.prepare("one")
    site.releases.activate(old)
    killed = deploy(site, "two", BACKSTOP_FAILPOINT=failpoint)
    assert killed.wait(60) == -signal.SIGKILL
    assert site.releases.current() in (old, site.releases.resolve("two"))
    again = deploy(site, "two")
    assert again.wait(60) == 0, again.stderr
    new = site.releases.resolve("two")
    assert site.releases.current() == new
    assert site.releases.is_complete(new)
    assert sorted(os.listdir(site.releases.folder)) == sorted([old, new])
    assert sorted(os.listdir(site.root)) == [".lock", "current", "releases", "repository.git", "shared"]


@pytest.mark.serial
def test_killed_while_a_command_runs(site: Site, tmp_path: pathlib.Path) -> None:
    """Processes that the command had started end too, before they can write into the next attempt."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The command's child, like npm's children: it inherits nothing but its process group.
    command = "python3 -c __import__('subprocess').call(['cat','%s'])" % fifo
    killed = deploy(site, "one", command)
    with open(fifo, "wb", buffering=0) as writer:  # opened only when the child reads: it is running now
        killed.kill()
        assert killed.wait(60) == -signal.SIGKILL
        commit = site.prepare("one")
        with pytest.raises(BrokenPipeError):
            writer.write(b"x")
    assert os.listdir(site.releases.folder) == [commit]


def test_only_one_works_on_the_releases(site: Site) -> None:
    commit = site.prepare("one")
    with FileLock(str(site.root / ".lock")).held(), pytest.raises(Locked):
        Releases(str(site.root), lock_wait=0.2).activate(commit)
    assert site.releases.current() is None


def test_a_git_that_was_killed_does_not_block_the_next(site: Site) -> None:
    site.prepare("one")
    mirror = site.root / "repository.git"
    for name in ("packed-refs.lock", "config.lock", "HEAD.lock"):
        (mirror / name).touch()
    (mirror / "refs" / "tags").mkdir(exist_ok=True)
    (mirror / "refs" / "tags" / "three.lock").touch()
    site.repository.commit("3", "three")
    site.prepare("three")


def test_a_mirror_whose_making_was_cut_off(site: Site) -> None:
    (site.root / "repository.git" / "refs").mkdir(parents=True)
    site.prepare("one")


def test_old_releases_are_removed_but_not_those_in_use(site: Site) -> None:
    commits = [site.prepare("one"), site.prepare("two")]
    for version in ("3", "4", "5"):
        site.repository.commit(version, "v" + version)
        commits.append(site.prepare("v" + version))
    site.releases.activate(commits[0])
    removed = site.releases.prune(2, protect=[commits[1]])
    assert removed == [commits[2]]
    assert {release["commit"] for release in site.releases.finished()} == set(commits) - set(removed)
    assert [release["current"] for release in site.releases.finished()] == [False, False, False, True]
    with pytest.raises(Refused):
        site.releases.prune(0)


@pytest.mark.fault("peers", "two rollbacks in a row (ansistrano.rollback stays and deletes)", by="the link itself")
def test_back_twice(site: Site) -> None:
    """What is current is the link, never the newest directory."""
    site.repository.commit("3", "three")
    one, two, three = commits = [site.prepare(revision) for revision in ("one", "two", "three")]
    for commit in commits:
        site.releases.activate(commit)
    for commit in (two, one):
        os.utime(site.releases.path(three))
        assert site.releases.activate(commit) and site.releases.current() == commit
        assert site.releases.prune(3) == []


@pytest.mark.fault("peers", "a rollback to the newest release (ansistrano.rollback deletes it)", by="the link itself")
@pytest.mark.parametrize("revision", ["one", "two", "three"])
def test_back_to_any_release_and_clean_up(site: Site, revision: str) -> None:
    """``current`` always points to a whole release."""
    site.repository.commit("3", "three")
    commits = {name: site.prepare(name) for name in ("one", "two", "three")}
    site.releases.activate(commits["two"])
    site.releases.activate(commits[revision])
    site.releases.prune(1)
    assert site.releases.current() == commits[revision]
    assert os.path.exists(os.path.join(site.releases.link, MARKER))


def test_a_removal_that_was_cut_off_is_finished(site: Site) -> None:
    site.prepare("one")
    (pathlib.Path(site.releases.folder) / ".removed-x" / "node_modules").mkdir(parents=True)
    (pathlib.Path(site.releases.folder) / ".partial-y.index").touch()
    commit = site.prepare("two")
    assert sorted(os.listdir(site.releases.folder)) == sorted([commit, site.releases.resolve("one")])


def test_a_marker_of_another_release_is_noticed(site: Site) -> None:
    commit = site.prepare("one")
    marker = pathlib.Path(site.releases.path(commit)) / MARKER
    content: Dict[str, Any] = json.loads(marker.read_text())
    marker.write_text(json.dumps({**content, "commit": "0" * 40}))
    with pytest.raises(BackstopError, match="does not match"):
        site.releases.is_complete(commit)
    marker.write_text("{")
    with pytest.raises(BackstopError, match="cannot be read"):
        site.releases.is_complete(commit)


def test_the_root_must_be_absolute() -> None:
    with pytest.raises(Refused, match="absolute"):
        Releases("srv")


def test_a_root_that_cannot_be_written(site: Site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackstopError, match="directory could not be created"):
        Releases(str(tmp_path / "file" / "root"), str(site.repository.path)).resolve("one")
