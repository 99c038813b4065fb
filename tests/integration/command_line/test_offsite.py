# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Second copies by real rclone: in a directory, and on an encrypted remote that has no hashes. Failures there do not
affect the local backups."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest
from support.age_keys import make_key

pytestmark = pytest.mark.offsite

OK, FAILED, USAGE, COULD_NOT_VERIFY, TOO_OLD, LOCKED, NOT_COPIED = range(7)
REMOTES = ("directory", "crypt")


class Remote:
    """The destination of copies, and how a test reads them."""

    def __init__(self, folder: pathlib.Path, kind: str) -> None:
        self.folder = folder / "remote"
        self.folder.mkdir()
        self.configuration = folder / "rclone.conf"
        secret = subprocess.run(["rclone", "obscure", "s3cr3t"], check=True, capture_output=True, text=True).stdout
        encrypted = "crypt\nremote = %s\npassword = %s" % (self.folder, secret.strip())
        text = "[kept]\ntype = %s\n" % (encrypted if kind == "crypt" else "alias\nremote = %s" % self.folder)
        self.configuration.touch(0o600)
        self.configuration.write_text(text, "utf-8")
        self.kind = kind

    @property
    def settings(self):
        return {"remote": "kept:", "rclone_config": str(self.configuration)}

    def call(self, *arguments):
        argv = ["rclone", "--config", str(self.configuration), *arguments]
        return subprocess.run(argv, check=True, capture_output=True).stdout

    def files(self):
        return sorted(self.call("lsf", "--recursive", "--files-only", "kept:").decode().split("\n")[:-1])

    def copies(self):
        return {path.split("/")[1] for path in self.files() if path.endswith("/manifest.json")}


@pytest.fixture(params=REMOTES)
def any_remote(request, tmp_path):
    return Remote(tmp_path, request.param)


@pytest.fixture
def remote(tmp_path):
    return Remote(tmp_path, "directory")


def configured(backstop, remote, **offsite):
    backstop.configure(offsite={**remote.settings, **offsite})
    return backstop


def made(backstop, *arguments):
    answer = backstop("backup", "shop", "--json", *arguments)
    assert answer.status == OK, answer.stderr
    return answer.json["backup"]


def runs(backstop):
    return backstop("status", "--json").json[0]["runs"]


def test_a_life_with_a_second_copy(backstop, any_remote):
    """Copied and verified with the backup, listed, lost with the host, fetched again and verified."""
    configured(backstop, any_remote, max_age="1d")
    answer = backstop("backup", "shop", "--json")
    backup = answer.json["backup"]
    assert (answer.status, answer.json["copied"]) == (OK, [backup]), answer.stderr
    assert any_remote.copies() == {backup}
    assert not [path for path in any_remote.files() if "partial" in path or path.endswith("/lock")]
    assert backstop("list", "--json").json[0]["copied"] is True and "yes" in backstop("list").stdout
    (copy,) = backstop("list", "--copies", "--json").json
    assert (copy["backup"], copy["level"], copy["problem"]) == (backup, "readable", None)
    (status,) = backstop("status", "--json").json
    assert (status["exit_status"], status["copies"]) == (OK, [backup])
    assert "backstop_copies{" in backstop.textfile.read_text("utf-8")
    # Again: nothing to do, and nothing changes on the remote.
    before = any_remote.files()
    again = backstop("copy", "shop", "--json")
    assert (again.status, again.json["copied"], again.json["deleted"]) == (OK, [], []) and any_remote.files() == before
    # The host is lost, and with it the store.
    shutil.rmtree(backstop.live.store.root)
    assert backstop("drill", "shop").status == COULD_NOT_VERIFY
    fetched = backstop("fetch", "shop", "--json")
    assert (fetched.status, fetched.json["backup"], fetched.json["level"]) == (OK, backup, "readable"), fetched.stderr
    assert backstop("drill", "shop", backup).status == OK
    assert backstop("restore", "shop", backup, "--into", "brought_back").status == OK
    for folder, _folders, files in os.walk(backstop.live.store.root):
        assert not os.stat(folder).st_mode & 0o077
        assert not [name for name in files if os.stat(os.path.join(folder, name)).st_mode & 0o077]
    refused = backstop("fetch", "shop", backup)
    assert refused.status == FAILED and "exists already" in refused.stderr


def test_the_program_in_the_environment_of_cron(backstop, remote):
    configured(backstop, remote)
    answer = backstop.run("backup", "shop", environment={"RCLONE_DRY_RUN": "true"})
    assert (answer.status, answer.stderr) == (OK, "")
    assert len(remote.copies()) == 1


def test_an_encrypted_backup_is_copied_and_comes_back_encrypted(backstop, remote, tmp_path):
    key = make_key(tmp_path)
    backstop.configure(offsite=remote.settings, age_recipients=[key.recipient])
    backup = made(backstop)
    assert "daily/%s/archive.dump.age" % backup in remote.files()
    drilled = backstop("drill", "shop")
    assert drilled.status == COULD_NOT_VERIFY and "no identity" in drilled.stderr and "--identity" in drilled.stderr
    assert backstop("verify", "shop").status == COULD_NOT_VERIFY
    assert backstop("verify", "shop", "--level", "checksum").status == OK
    assert backstop("list", "--json").json[0]["level"] == "readable"
    shutil.rmtree(backstop.live.store.root)
    assert backstop("fetch", "shop").status == OK
    for arguments in (("verify", "shop"), ("drill", "shop"), ("restore", "shop", "--into", "again")):
        answer = backstop(*arguments, "--identity", key.identity)
        assert answer.status == OK, answer.stderr
        assert key.secret not in answer.stdout + answer.stderr
    assert backstop("list", "--json").json[0]["level"] == "restored"


def test_what_was_missed_is_made_good(backstop, remote):
    """Backups of deploys, of nights without a remote, and from before it was configured; not those that are damaged."""
    first = made(backstop)
    damaged = made(backstop)
    path = pathlib.Path(backstop.live.store.backup_path("daily", damaged), "archive.dump")
    path.write_bytes(path.read_bytes()[:-1])
    before = backstop.live.backup("pre-migration").backup_id
    configured(backstop, remote)
    answer = backstop("copy", "shop", "--json")
    assert answer.status == OK and {first, before} >= set(answer.json["copied"]) >= {before}
    assert damaged not in remote.copies() and before in remote.copies()


def test_the_remote_is_away(backstop, remote):
    """The backup is made, verified and listed; the missing copy has its own status, record, metric and event."""
    configured(backstop, remote, max_age="1d")
    os.rename(remote.configuration, str(remote.configuration) + ".away")
    answer = backstop("backup", "shop", "--json")
    assert answer.status == NOT_COPIED and "(exit status 6)" in answer.stderr
    assert (answer.json["level"], answer.json["copied"]) == ("readable", None)
    told = runs(backstop)
    assert told["backup"]["passed"] and not told["copy"]["passed"]
    assert 'backstop_last_run_success{configuration="shop",database="shop",job="copy"} 0.0' in (
        backstop.textfile.read_text("utf-8")
    )
    judged = backstop("status", "shop")
    assert judged.status == NOT_COPIED and "no second copy" in judged.stdout
    nagios = backstop("status", "shop", "--nagios")
    assert nagios.status == 1 and nagios.stdout.startswith("WARNING")
    assert backstop("copy", "shop").status == NOT_COPIED and backstop("verify", "shop").status == OK
    os.rename(str(remote.configuration) + ".away", remote.configuration)
    assert backstop("copy", "shop").status == OK and backstop("status", "shop").status == OK
    assert remote.copies() == {answer.json["backup"]}


def test_the_newest_copy_is_too_old(backstop, remote):
    configured(backstop, remote, max_age="1h")
    made(backstop)
    records = next(pathlib.Path(backstop.live.store.root).glob(".runs-*"))
    content = json.loads(records.read_text("utf-8"))
    content["copies"] = dict.fromkeys(content["copies"], "2025-01-01T00:00:00.000Z")
    records.write_text(json.dumps(content), "utf-8")
    assert backstop("status", "shop").status == NOT_COPIED


def test_others_can_read_the_configuration_of_rclone(backstop, remote):
    configured(backstop, remote)
    remote.configuration.chmod(0o644)
    answer = backstop("backup", "shop")
    assert answer.status == NOT_COPIED and "0644" in answer.stderr and len(backstop.live.store.backups()) == 1


def test_rclone_is_missing(backstop, remote, monkeypatch, tmp_path):
    configured(backstop, remote)
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = backstop("backup", "shop")
    assert answer.status == NOT_COPIED and "apt-get install rclone" in answer.stderr


@pytest.mark.parametrize("remote_text", [":sftp,pass=hunter2:/x", "-x", "relative/path", "kept,pass=hunter2:"])
def test_remotes_that_are_refused(backstop, remote_text):
    backstop.configure(offsite={"remote": remote_text})
    answer = backstop("status", "shop")
    assert answer.status == USAGE and "hunter2" not in answer.stdout + answer.stderr


def test_without_a_remote(backstop):
    for command in ("copy", "fetch"):
        assert backstop(command, "shop").status == USAGE
    assert backstop("list", "--copies").stdout == "no copies\n"


@pytest.mark.parametrize("failpoint", ["copy.copied", "copy.before-manifest"])
def test_killed_while_copying(backstop, remote, failpoint):
    """The files on the remote do not count as a copy, and the next run makes one."""
    configured(backstop, remote)
    killed = backstop.run("backup", "shop", environment={"BACKSTOP_FAILPOINT": failpoint})
    assert killed.status == -signal.SIGKILL
    assert remote.copies() == set() and remote.files() != []
    assert backstop("list", "--copies").stdout == "no copies\n"
    (place,) = backstop.live.store.backups()
    answer = backstop("copy", "shop", "--json")
    assert answer.json["copied"] == [place.backup_id] and remote.copies() == {place.backup_id}
    assert not [path for path in remote.files() if "partial" in path]
    assert backstop("copy", "shop", "--json").json["copied"] == []


def test_killed_while_fetching(backstop, remote):
    configured(backstop, remote)
    backup = made(backstop)
    shutil.rmtree(backstop.live.store.root)
    killed = backstop.run("fetch", "shop", environment={"BACKSTOP_FAILPOINT": "fetch.copied"})
    assert killed.status == -signal.SIGKILL and backstop.live.store.backups() == []
    assert backstop("fetch", "shop").status == OK
    assert [place.backup_id for place in backstop.live.store.backups()] == [backup]
    assert not list(pathlib.Path(backstop.live.store.root, "daily").glob(".partial-*"))


def test_a_copy_that_was_changed(backstop, any_remote):
    """It is not fetched, and no other copy is deleted in its favour."""
    configured(backstop, any_remote)
    backup = made(backstop)
    path = "kept:daily/%s/archive.dump" % backup
    content = bytearray(any_remote.call("cat", path))
    content[len(content) // 2] ^= 1
    changed = any_remote.configuration.parent / "changed"
    changed.write_bytes(bytes(content))
    any_remote.call("copyto", str(changed), path)
    shutil.rmtree(backstop.live.store.root)
    answer = backstop("fetch", "shop")
    assert answer.status == FAILED and "sha256" in answer.stderr
    assert backstop.live.store.backups() == []


def test_a_copy_that_lacks_a_file(backstop, remote):
    configured(backstop, remote)
    backup = made(backstop)
    (remote.folder / "daily" / backup / "roles.sql").unlink()
    (copy,) = backstop("list", "--copies", "--json").json
    assert "roles.sql" in copy["problem"]
    shutil.rmtree(backstop.live.store.root)
    assert backstop("fetch", "shop").status == COULD_NOT_VERIFY
    assert backstop("fetch", "shop", backup).status == FAILED
