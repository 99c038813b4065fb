# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command does, and the exit status of each outcome."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import tempfile
import threading
import time

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import safety_copy_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import exit_statuses
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import make_parser
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.run_records import RunRecords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.template_copy import (
    FILES,
    copy_database,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import database_lock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import safety_copies
from support.databases import APP, OWNER, PASSWORD, Workers

OK, FAILED, USAGE, COULD_NOT_VERIFY, TOO_OLD, LOCKED, NOT_COPIED = range(7)


def test_each_outcome_has_a_number_of_its_own():
    named = (
        exit_statuses.OK,
        exit_statuses.FAILED,
        exit_statuses.USAGE,
        exit_statuses.COULD_NOT_VERIFY,
        exit_statuses.TOO_OLD,
        exit_statuses.LOCKED,
        exit_statuses.NOT_COPIED,
    )
    assert named == (0, 1, 2, 3, 4, 5, 6) == tuple(exit_statuses.MEANINGS)
    assert all(meaning in make_parser().format_help() for meaning in exit_statuses.MEANINGS.values())


def test_a_life(backstop):
    """No backup, then a backup: shown, verified, restored twice; the reported status is correct every time."""
    assert backstop("status", "shop").status == TOO_OLD
    assert backstop("drill", "shop").status == COULD_NOT_VERIFY
    made = backstop("backup", "shop", "--kind", "weekly", "--json")
    assert (made.status, made.stderr) == (OK, "")
    backup, kind, level = made.json["backup"], made.json["kind"], made.json["level"]
    assert (kind, level) == ("weekly", "readable") and made.json["rows"] > 0
    (listed,) = backstop("list", "--json").json
    assert listed == {**made.json, "configuration": "shop", "copied": None}
    assert backup in backstop("list").stdout
    shown = backstop("show", "shop", backup)
    assert shown.status == OK and "public.TokenPurchase" in shown.stdout
    assert backstop("show", "shop", "--json").json["manifest"]["id"] == backup
    for level in ("checksum", "readable"):
        assert backstop("verify", "shop", "--level", level).status == OK
    drilled = backstop("drill", "shop", "--json").json
    assert drilled["backup"] == backup and drilled["recovery_seconds"] > 0
    assert backstop("restore", "shop", backup, "--into", "Shop restored").status == OK
    (status,) = backstop("status", "--json").json
    assert (status["newest"]["level"], status["exit_status"]) == ("restored", OK)
    assert status["runs"]["drill"]["passed"] and status["backups"]["weekly"] == 1
    assert backstop.live.names() == ["Shop restored", "shop"]
    count = 'SELECT count(*) FROM "TokenPurchase"'
    assert backstop.live.value(count, "Shop restored") == backstop.live.value(count)


def test_a_drill_in_a_server_of_its_own(backstop):
    """Short enough for a socket, and reachable for an unprivileged account."""
    assert backstop("backup", "shop").status == OK
    with tempfile.TemporaryDirectory(prefix="backstop-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        answer = backstop("drill", "shop", "--where", "cluster", "--scratch-directory", folder)
        assert answer.status == OK, answer.stderr
    assert backstop("list", "--json").json[0]["level"] == "restored"


def test_a_backup_ends_the_time_of_an_older_safety_copy(backstop, monkeypatch):
    run = backstop.live.begun("deploy")
    name = safety_copy_name(run.operation.id, "shop")
    with backstop.live.site.administer() as admin:
        copy_database(admin, "shop", name, FILES)
    run.operation.close("done")
    assert backstop("backup", "shop").status == OK and name in backstop.live.names()
    monkeypatch.setattr(safety_copies, "DEFAULT_DAYS", 0)
    assert backstop("backup", "shop").status == OK and backstop.live.names() == ["shop"]


def test_a_restore_overwrites_nothing(backstop):
    backstop("backup", "shop")
    for name, told in (
        ("shop", "exists already"),
        ("backstop_scratch_x", "Invalid name for a restored database"),
        ("ä" * 32, "1 to 63"),
    ):
        ended = backstop("restore", "shop", "--into", name)
        assert ended.status == FAILED and told in ended.stderr
    assert backstop.live.names() == ["shop"]


# 1: failed


def test_a_backup_that_fails(backstop):
    backstop("backup", "shop")
    before = backstop("list", "--json").json
    with backstop.live.session(user=OWNER) as cursor:
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase"')
        ended = backstop("backup", "shop", "--json")
        cursor.execute("ROLLBACK")
    assert ended.status == FAILED and "public.TokenPurchase" in ended.stderr
    assert ended.json["exit_status"] == FAILED and ended.json["message"] == "A table is locked by another session"
    assert backstop("list", "--json").json == before
    status = backstop("status", "shop")
    assert status.status == FAILED and status.stdout.startswith("CRITICAL: shop: The last run failed")
    assert backstop("backup", "shop").status == OK == backstop("status", "shop").status


def test_the_server_is_down(backstop):
    backstop.configure(connection={"port": 1})
    ended = backstop("backup", "shop")
    assert ended.status == FAILED and "No PostgreSQL server answers" in ended.stderr
    assert "backstop_server_up{" in backstop.textfile.read_text()
    assert '_run_success{configuration="shop",database="shop",job="backup"} 0.0' in backstop.textfile.read_text()


def test_hints_speak_of_what_is_on_the_host(backstop):
    backstop.configure(connection={"database": "shopp"})
    ended = backstop("backup", "shop")
    assert ended.status == FAILED and "one of: shop" in ended.stderr
    assert "the configuration below " in ended.stderr and "backstop_connection" not in ended.stderr


def test_a_backup_that_was_changed(backstop):
    path = pathlib.Path(backstop("backup", "shop", "--json").json["path"]) / "archive.dump"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for subcommand in ("verify", "drill"):
        ended = backstop(subcommand, "shop", path.parent.name)
        assert ended.status == FAILED and "was changed" in ended.stderr, subcommand
    assert backstop("status", "shop").status == COULD_NOT_VERIFY


# 2: usage and configuration


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["remove", "shop"], "invalid choice"),
        (["backup"], "required: DATABASE"),
        (["backup", "shop", "--kind", "hourly"], "invalid choice"),
        (["backup", "shop", "--knd", "daily"], "unrecognized"),
        (["status", "shop", "--max-age", "soon"], "such as 26h"),
        (["drill", "shop", "--wait", "-1"], "expected"),
        (["restore", "shop"], "--into"),
        (["backup", "shp"], "perhaps shop"),
        (["show", "shop", "shop-1"], "There is no backup shop-1"),
    ],
)
def test_what_cannot_be_meant(backstop, arguments, told):
    ended = backstop(*arguments)
    assert ended.status == USAGE and told in ended.stderr and ended.stdout == ""


def test_a_wrong_configuration(backstop):
    backstop.configure(stroe="/x")
    ended = backstop("backup", "shop")
    assert ended.status == USAGE and "did you mean store?" in ended.stderr
    assert backstop("status", "shop").status == USAGE
    assert not os.path.exists(backstop.live.store.root)


def test_a_password_that_others_can_read(backstop):
    backstop.password_file.chmod(0o644)
    ended = backstop("backup", "shop")
    assert ended.status == USAGE and "Other users can read the password file" in ended.stderr
    assert PASSWORD not in ended.stderr


def test_a_backup_of_another_database(backstop, databases):
    other = databases.make("other").backup().backup_id
    backstop("backup", "shop")
    assert [entry["database"] for entry in backstop("list", "--json").json] == ["shop"]
    ended = backstop("drill", "shop", other)
    assert ended.status == USAGE and "is of another database" in ended.stderr
    assert backstop("status", "shop").status == OK, "a slip of the pen is no failed drill"


# 3: could not verify


def test_a_drill_without_server_or_programs_says_nothing_of_the_backup(backstop, tmp_path):
    backstop("backup", "shop")
    (tmp_path / "empty").mkdir()
    for changes in ({"connection": {"port": 1}}, {"client_bin_dir": str(tmp_path / "empty")}):
        backstop.configure(**changes)
        for subcommand in ("drill", "verify"):
            ended = backstop(subcommand, "shop")
            assert ended.status == COULD_NOT_VERIFY and "could not be verified" in ended.stderr
    (backup,) = backstop("list", "--json").json
    assert backup["level"] == "readable"


def test_a_drill_without_the_right_to_make_databases(backstop):
    backstop("backup", "shop")
    backstop.configure(user=APP)
    ended = backstop("drill", "shop")
    assert ended.status == COULD_NOT_VERIFY and "without CREATEDB" in ended.stderr
    assert "restored" not in backstop("show", "shop", "--json").json["verification"]["levels"]


# 4: too old


def test_too_old(backstop):
    backstop("backup", "shop")
    assert backstop("status", "shop", "--max-age", "1d").status == OK
    manifest = next(pathlib.Path(backstop.live.store.root).glob("daily/*/manifest.json"))
    made = manifest.read_text("utf-8")
    year = made.split('"created": "')[1][:4]
    manifest.write_text(made.replace('"created": "' + year, '"created": "%d' % (int(year) - 1)), "utf-8")
    assert backstop("verify", "shop", manifest.parent.name, "--level", "readable").status == OK
    ended = backstop("status", "shop", "--max-age", "26h")
    assert ended.status == TOO_OLD
    assert ended.stdout.startswith("CRITICAL: shop: The newest verified backup is too old: %s" % manifest.parent.name)
    assert len(ended.stdout.splitlines()) == 1
    assert backstop("status", "shop").status == OK
    backstop.configure(max_age="26h")
    assert backstop("status", "shop").status == TOO_OLD
    assert backstop("status", "shop", "--nagios").status == 2


def test_the_worst_of_several_databases(backstop):
    backstop("backup", "shop")
    backstop.configure("another", connection={"database": "never_backed_up"})
    ended = backstop("status")
    assert ended.status == TOO_OLD
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == ["CRITICAL", "OK"]


@pytest.mark.parametrize("name", ["unknown", ""])
def test_what_nagios_is_told_of_a_mistake(backstop, name):
    ended = backstop("status", name, "--nagios") if name else backstop("status", "--nagios", "shop", "--max-age", "26h")
    assert ended.stdout.startswith("UNKNOWN: ") == bool(name) and ended.status == (3 if name else 2)


# 5: locked


@contextlib.contextmanager
def elapsed_below(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("subcommand", ["backup", "drill", "restore"])
def test_another_run_is_at_work(backstop, subcommand):
    backstop("backup", "shop")
    arguments = [subcommand, "shop", *(["--into", "new"] if subcommand == "restore" else [])]
    with FileLock(RunRecords(backstop.live.store, "shop").lock_path).held(), elapsed_below(10):
        ended = backstop(*arguments)
        assert ended.status == LOCKED and "Another run is working on the backups" in ended.stderr
        assert backstop("status", "shop").status == OK, "a refused run is no failed one"
        assert backstop("list").status == OK
    assert backstop(*arguments).status == OK


def test_waiting_for_another_run(backstop):
    backstop.live.store.prepare()
    lock = FileLock(RunRecords(backstop.live.store, "shop").lock_path)
    lock.acquire()
    timer = threading.Timer(0.5, lock.release)
    timer.start()
    assert backstop("backup", "shop", "--wait", "60").status == OK
    timer.join()


def test_an_operation_is_acting(backstop):
    """A dump would hold up its migration."""
    with database_lock(backstop.live.site), elapsed_below(15):
        ended = backstop("backup", "shop")
    assert ended.status == LOCKED and "Another operation is changing database shop" in ended.stderr


def test_an_operation_is_between_two_steps(backstop):
    run = backstop.live.begun("deploy")
    ended = backstop("backup", "shop")
    assert ended.status == LOCKED and run.operation.id in ended.stderr
    run.operation.close("done")
    assert backstop("backup", "shop").status == OK


def test_an_operation_of_a_dead_run_keeps_no_backup_from_being_made(backstop):
    run = backstop.live.begun("deploy")
    run.operation.write("operation", "adopted", controller={**run.operation.header["controller"], "start": "1"})
    assert backstop("backup", "shop").status == OK


def test_two_at_once(backstop):
    """Both begin at the same moment; exactly one makes a backup."""
    barrier = threading.Barrier(2)
    statuses = []

    def run(_stop):
        with backstop.start("backup", "shop") as process:
            barrier.wait()
            process.communicate(timeout=120)
        statuses.append(process.returncode)

    backstop.run("list")
    # The first one waits until the other was refused.
    with backstop.live.session(user=OWNER) as cursor:
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase"')
        with Workers(run, run):
            until_refused(statuses)
            cursor.execute("ROLLBACK")
            while len(statuses) < 2:
                threading.Event().wait(0.05)
    assert sorted(statuses) == [OK, LOCKED]
    assert len(backstop("list", "--json").json) == 1


def until_refused(statuses):
    deadline = time.monotonic() + 60
    while not statuses:
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


# Files and output


def test_files_are_private_whatever_the_umask(backstop):
    """The caller's umask is 022."""
    backstop("backup", "shop")
    for folder, folders, files in os.walk(backstop.live.store.root):
        modes = {stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode) for name in folders + files}
        assert modes <= {0o700, 0o600}, folder
    assert stat.S_IMODE(backstop.textfile.stat().st_mode) == 0o644
    assert [path.name for path in backstop.folder.glob("metrics*")] == ["metrics.prom"]


def test_metrics_that_cannot_be_written_do_not_fail_a_backup(backstop):
    backstop.configure(textfile="/nonexistent/shop.prom")
    ended = backstop("backup", "shop")
    assert ended.status == OK and "warning: The metrics could not be written" in ended.stderr


def test_status_renews_the_metrics_when_asked(backstop):
    backstop("status", "shop")
    assert not backstop.textfile.exists()
    backstop("status", "shop", "--metrics")
    assert "backstop_backups{" in backstop.textfile.read_text()
    backstop.live.cluster.create_database("backstop_retired_20250101t000000z_abcdef_shop", owner=OWNER)
    backstop("status", "shop", "--metrics")
    assert 'backstop_retired_databases{configuration="shop",database="shop"} 1.0' in backstop.textfile.read_text()


def test_quiet(backstop):
    assert backstop("status", "shop", "--quiet").stdout.startswith("CRITICAL")
    assert backstop("backup", "shop", "--quiet").stdout == "" == backstop("status", "shop", "--quiet").stdout
    assert backstop("backup", "nobody", "--quiet").stderr != ""


def test_the_scratch_database_of_a_killed_drill_is_dropped_by_the_next(backstop):
    backstop("backup", "shop")
    killed = backstop.run("drill", "shop", environment={"BACKSTOP_FAILPOINT": "restore.restored"})
    assert killed.status == -9
    assert len([name for name in backstop.live.names() if name.startswith("backstop_scratch_")]) == 1
    assert backstop("drill", "shop").status == OK
    assert backstop.live.names() == ["shop"]


@pytest.mark.parametrize("next_run", [["backup", "shop"], ["drill", "shop"], ["restore", "shop", "--into", "beside"]])
def test_the_scratch_database_of_a_killed_restore_is_dropped_by_the_next_run(backstop, next_run):
    backstop("backup", "shop")
    failpoint = {"BACKSTOP_FAILPOINT": "restore.before-rename"}
    assert backstop.run("restore", "shop", "--into", "beside", environment=failpoint).status == -9
    assert len([name for name in backstop.live.names() if name.startswith("backstop_scratch_")]) == 1
    assert backstop(*next_run).status == OK
    assert backstop.live.names() == (["beside", "shop"] if "restore" in next_run else ["shop"])


def test_a_backup_without_its_manifest_does_not_vanish(backstop):
    for _time in range(2):
        backstop("backup", "shop")
    lost, kept = [pathlib.Path(backup["path"]) for backup in backstop("list", "--json").json]
    (lost / "manifest.json").unlink()
    listed = backstop("list", "shop")
    assert kept.name in listed.stdout and "%s cannot be used" % lost.name in listed.stderr
    told = backstop("status", "shop")
    assert told.status == OK and "manifest of %s cannot be read" % lost.name in told.stdout
    assert backstop("prune", "shop").status == OK and (lost / "archive.dump").exists()


def test_ready(backstop):
    answer = backstop.folder / "answer.json"
    assert backstop("ready", "shop", "--answer", answer).status == OK
    said = json.loads(answer.read_text("utf-8"))
    assert said["ready"] and said["uid"] == os.geteuid() and said["found"].startswith("server ")
    os.chmod(backstop.live.store.root, 0o755)
    assert backstop("ready", "shop", "--answer", answer).status == FAILED
    assert "accessible to other users" in json.loads(answer.read_text("utf-8"))["message"]
    os.chmod(backstop.live.store.root, 0o700)
    backstop.configure(client_bin_dir="/nowhere")
    assert backstop("ready", "shop", "--answer", answer).status != OK
    backstop.configure(connection={"port": 1})
    assert backstop("ready", "shop").status != OK


def test_no_password_anywhere(backstop):
    backstop("backup", "shop")
    backstop("drill", "shop")
    for root in (backstop.live.store.root, backstop.folder):
        for path in pathlib.Path(root).rglob("*"):
            if path.is_file() and path != backstop.password_file:
                assert PASSWORD.encode() not in path.read_bytes(), path
