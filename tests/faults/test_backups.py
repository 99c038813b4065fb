# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to a server, a disk, a clock or a process while a backup is made: a backup that is listed is whole."""

from __future__ import annotations

import datetime
import glob
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import make
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import progress
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import layout
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import backup_to_revert_to
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from support.databases import OWNER, PASSWORD, Workers, databases, plain, seed, start_cluster
from support.prisma_database import until
from support.reliability import times

__all__ = ["databases", "plain", "seed"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A server of this file's own: it is stopped, and its transaction numbers are changed."""
    made = start_cluster(tmp_path_factory.mktemp("own"))
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def large(plain):
    """Enough rows that a backup takes a while."""
    plain.execute(
        "INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, repeat(md5(g::text), 40) FROM generate_series(1, 5000) g"
    )
    return plain


def start(live, store=None, before=()):
    argv = [live.cluster.url(live.name, user=OWNER), store or live.store.root, str(live.cluster.bin_dir)]
    return subprocess.Popen(
        [*before, sys.executable, "-m", "support.backup_driver", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(said)


def content(place):
    """The files of a backup, but for the record of when it was verified."""
    files = pathlib.Path(place.path).rglob("*")
    return {path.name: path.read_bytes() for path in files if path.is_file() and path.name != "verification.json"}


def programs_of(live):
    """The pg_dump and pg_restore processes that work in this store."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            argv = pathlib.Path(path).read_bytes()
        except OSError:
            continue
        if live.store.root.encode() in argv and argv.split(b"\0")[0].rpartition(b"/")[2].startswith(b"pg_"):
            found.append(int(path.split("/")[2]))
    return found


@pytest.mark.fault(
    "backup", "module, pg_dump or their process group killed at a random moment", by="no partial backup is listed"
)
def test_killed_at_a_random_moment(large, seed, tried):
    chance = random.Random(seed)
    began = time.monotonic()
    assert finish(start(large))["levels"] == ["readable"]
    whole = time.monotonic() - began
    (good,) = large.store.backups()
    before = content(good)
    for victim in itertools.islice(itertools.cycle(["module", "group", "pg_dump"]), times(3, 60)):
        process = start(large)
        try:
            process.wait(chance.uniform(0.2, 1) * whole)
        except subprocess.TimeoutExpired:
            pids = programs_of(large) if victim == "pg_dump" else []
            if victim == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(pids[0] if pids else process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        until(lambda: not programs_of(large), "what it started ends with it", 20)
        for place in large.store.backups():
            assert verify(large.site, place, "readable").level == "readable"
        assert content(good) == before
        tried()
    assert finish(start(large))["partial"] == [], "the next backup removes what was left"
    newest = large.store.backups()[-1]
    assert newest != good and verify(large.site, newest, "restored").level == "restored"


PLACES = ["backup.snapshot", "backup.dumping", "backup.dumped", "backup.before-manifest", "backup.before-rename"]


@pytest.mark.fault(
    "backup", "server stopped at once and started again at each failpoint", by="the connection's error; or whole"
)
@pytest.mark.parametrize("mode", ["immediate", "fast"][: times(1, 2)])
def test_a_server_that_restarts(plain, mode, tried, monkeypatch):
    def restart(name):
        if name == place:
            passed.append(name)
            plain.cluster.stop(mode)
            plain.cluster.start()

    monkeypatch.setattr(make, "reach", restart)
    for place in PLACES:
        passed = []
        before = plain.store.backups()
        try:
            made = plain.backup()
        except BackstopError as error:
            assert PASSWORD not in str(error)
            assert plain.store.backups() == before and place in PLACES[:2], error
        else:
            assert place in PLACES[2:], "it cannot be whole without its server"
            assert verify(plain.site, made, "restored").level == "restored"
        assert passed == [place] and not glob.glob(plain.store.root + "/*/.partial-*")
        tried(by="the connection's error" if plain.store.backups() == before else "whole: the archive was complete")
    monkeypatch.undo()
    assert verify(plain.site, plain.backup(), "restored").level == "restored"


def own_namespace():
    """Arguments before a program that may mount file systems, which nobody else sees; None where none may."""
    for argv in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        done = subprocess.run([*argv, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False, capture_output=True)
        if done.returncode == 0:
            return argv
    return None


@pytest.mark.fault("backup", "disk full at each stage", by="the write's error; or whole")
def test_a_full_disk_at_each_stage(large, tmp_path, tried):
    """On a file system of each size, from one block to enough; where none may be mounted, files may not grow."""
    needed = finish(start(large))["used"]
    namespace = own_namespace()
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    failed = 0
    stages = times(6, 32)
    for stage in range(1, stages + 1):
        size = needed * stage // (stages - 2)
        if namespace:
            mount = 'mount -t tmpfs -o size="$1",mode=0700 tmpfs "$2" && shift 2 && exec "$@"'
            before = [*namespace, "sh", "-c", mount, "sh", str(size), str(folder)]
        else:
            before = ["prlimit", "--fsize=%d" % size]
        done = finish(start(large, str(folder / ("store%d" % stage)), before))
        assert done["partial"] == []
        if done["error"]:
            assert done["levels"] == [] and PASSWORD not in done["error"]
            assert "No space left on device" in done["error"] or not namespace, done["error"]
            failed += 1
        else:
            assert done["levels"] == ["readable"]
        how = "the write's error" if done["error"] else "whole: it fits"
        tried(by=how if namespace else how + " (limit of a file's size: no file system could be mounted)")
    assert 0 < failed < stages


@pytest.mark.fault("backup", "a store on a file system that is read-only", by="refused before the dump")
def test_a_read_only_store(plain, tmp_path):
    namespace = own_namespace()
    before = ["sh", "-c", 'mkdir -m 0700 "$0/store" && chmod 0500 "$0/store" && exec "$@"', str(tmp_path)]
    if namespace:
        mount = 'mount -t tmpfs -o mode=0700 tmpfs "$0" && mkdir -m 0700 "$0/store" && mount -o remount,ro "$0"'
        before = [*namespace, "sh", "-c", mount + ' && exec "$@"', str(tmp_path)]
    done = finish(start(plain, str(tmp_path / "store"), before))
    assert "The store cannot be written" in done["error"] and done["levels"] == []


@pytest.mark.fault("backup", "a link in the store's path", by="followed: private, and found by both names")
def test_a_link_in_the_path(plain, tmp_path):
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    place = make.make_backup(at(plain, tmp_path / "link" / "store"), "daily")
    (found,) = Store(str(tmp_path / "disk" / "store")).backups()
    assert found.backup_id == place.backup_id
    assert verify(plain.site, found, "restored").level == "restored"
    assert os.stat(found.path).st_mode & 0o77 == 0


@pytest.mark.fault(
    "backup", "a link to nowhere, or to a directory of others, as the store", by="refused before the dump"
)
@pytest.mark.parametrize("target", ["nowhere", "open"])
def test_a_link_that_is_no_store(plain, tmp_path, target):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "store").symlink_to(tmp_path / target)
    with pytest.raises(BackstopError) as caught:
        make.make_backup(at(plain, tmp_path / "store"), "daily")
    assert str(tmp_path / "store") in str(caught.value)
    assert not os.path.exists(str(tmp_path / "nowhere")) and not os.listdir(str(tmp_path / "open"))


def at(live, path):
    return Site(live.site.connection, live.site.administration, Store(str(path)), live.site.client_bin_dir)


@pytest.mark.fault("backup", "a wrong password", by="the server's error, before anything is written")
def test_a_wrong_password(plain):
    plain.backup()
    before = plain.store.backups()
    wrong = Settings.from_url(plain.cluster.url(plain.name, user=OWNER, password="w:ong p@ss"))
    with pytest.raises(BackstopError) as caught:
        make.make_backup(Site(wrong, wrong.with_database("postgres"), plain.store, plain.site.client_bin_dir), "daily")
    assert "password" in str(caught.value) and "w:ong" not in str(caught.value)
    assert plain.store.backups() == before and not glob.glob(plain.store.root + "/*/.partial-*")


REWRITES = [
    'ALTER TABLE "UserContribution" ALTER "contributionAmount" TYPE numeric',
    'DROP TABLE "UserContribution"',
    'VACUUM FULL "UserContribution"',
    'TRUNCATE "UserContribution"',
]


@pytest.mark.fault(
    "backup", "ALTER that rewrites, DROP, VACUUM FULL or TRUNCATE by another session", by="locks before the snapshot"
)
@pytest.mark.parametrize("statement", REWRITES)
def test_a_table_rewritten_meanwhile(plain, statement):
    """It waits for the locks; the backup has the table as it was."""
    done = []

    def rewrite(_stop):
        with plain.session(user=OWNER) as cursor:
            until(lambda: locked(cursor), "the backup holds its locks")
            cursor.execute(statement)
            done.append(1)

    with Workers(rewrite):
        place = plain.backup()
        until(lambda: done, "the statement comes to its turn", 30)
    entry = manifests.load(place).table("public", "UserContribution")
    # If pg_dump could not get its own lock behind the statement, the backup was repeated after it.
    after = {"TRUNCATE": 0, "DROP": None}.get(statement.split()[0], 400)
    assert (entry and entry.digest.rows) in (400, after)
    assert verify(plain.site, place, "restored").level == "restored"


def locked(cursor):
    cursor.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'backstop'"
        " AND relation = to_regclass('\"UserContribution\"') AND mode = 'AccessShareLock' AND granted"
    )
    return cursor.fetchone()[0]


@pytest.mark.fault("backup", "200 savepoints open at the snapshot", by="the digests of its snapshot")
def test_savepoints_at_the_snapshot(plain):
    """More subtransactions than the server lists in shared memory; released, rolled back and open ones."""
    with plain.session(user=OWNER) as cursor:
        cursor.execute("BEGIN")
        for number in range(200):
            cursor.execute("SAVEPOINT s%d" % number)
            cursor.execute("INSERT INTO \"User\" VALUES ('s%d', 's%d')" % (number, number))
            if number % 3 == 0:
                cursor.execute("RELEASE SAVEPOINT s%d" % number)
            elif number % 3 == 1:
                cursor.execute("ROLLBACK TO SAVEPOINT s%d" % number)
        first = plain.backup()
        cursor.execute("COMMIT")
    second = plain.backup()
    rows = [manifests.load(place).table("public", "User").digest.rows for place in (first, second)]
    assert rows[0] == 20 and rows[1] == plain.value('SELECT count(*) FROM "User"') > 100
    for place in (first, second):
        assert verify(plain.site, place, "restored").level == "restored"


CLOCKS = {"a year back": -365, "ten years forward": 3650}


@pytest.mark.fault("backup", "a clock that jumps between backups", by="the server's time chooses the newest")
@pytest.mark.parametrize("jump", CLOCKS)
def test_a_clock_that_jumps_between(plain, jump, monkeypatch):
    first = plain.backup()
    real = progress.utc_now
    monkeypatch.setattr(layout, "utc_now", lambda: real() + datetime.timedelta(days=CLOCKS[jump]))
    second = plain.backup()
    assert (first.backup_id < second.backup_id) == (CLOCKS[jump] > 0)
    assert backup_to_revert_to(plain.site, None) == second
    assert [verify(plain.site, place, "restored").level for place in (first, second)] == ["restored"] * 2


@pytest.mark.fault("backup", "a clock that jumps while a backup is made", by="the digests of its snapshot")
def test_a_clock_that_jumps_meanwhile(plain, seed, monkeypatch):
    chance, real = random.Random(seed), progress.utc_now
    for module in (layout, progress, manifests):
        monkeypatch.setattr(module, "utc_now", lambda: real() + datetime.timedelta(days=chance.uniform(-4000, 4000)))
    place = plain.backup()
    monkeypatch.undo()
    assert plain.store.backups() == [place]
    assert verify(plain.site, place, "restored").level == "restored"


@pytest.mark.fault("backup", "past 2^32 transactions, between the backup and the revert", by="rows counted one by one")
def test_past_four_thousand_million_transactions(plain, tmp_path):
    """Numbers in rows have 32 bits: they begin again."""
    run = plain.begun("rollback")
    before = make.make_backup(run, "pre-migration")
    plain.cluster.stop()
    # As the server's user, who owns its files.
    reset = [str(plain.cluster.bin_dir / "pg_resetwal"), "-e", "3", "-D", str(plain.cluster.data)]
    if os.geteuid() == 0:
        reset = ["setpriv", "--reuid", plain.cluster.os_user, "--init-groups", *reset]
    subprocess.run(reset, check=True, capture_output=True, cwd="/")
    plain.cluster.start()
    assert int(plain.value("SELECT pg_current_xact_id()::text")) > 1 << 32
    plain.execute("UPDATE \"User\" SET \"name\" = 'late' WHERE \"id\" IN ('u1', 'u2', 'u3')")
    after = plain.backup()
    assert int(manifests.load(after).snapshot["transactions"].split(":")[0]) > 1 << 32
    assert verify(plain.site, after, "restored").level == "restored"
    run = plain.site.run(run.operation)
    build_successor(run, before)
    with pytest.raises(Refused) as caught:
        revert(run, before, LossPolicy(0))
    assert "3 rows" in str(caught.value)
