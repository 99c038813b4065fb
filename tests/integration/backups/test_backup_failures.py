# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups that cannot be made: a clear error, nothing listed, existing backups unchanged."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from demo.postgres_server import default_wheel_directory, major_of
from support.databases import OWNER, PASSWORD, Workers
from support.prisma_database import until

ROOT = os.geteuid() == 0
DRIVER = """
import json, resource, sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
url, store, tools, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
settings = Settings.from_url(url)
try:
    place = make_backup(Site(settings, settings.with_database("postgres"), Store(store), tools), "daily")
except BackstopError as error:
    sys.exit(str(error))
print(place.backup_id)
"""


def in_another_process(live, *, failpoint="", limit=0):
    """Make a backup in a separate process, which can be killed or limited."""
    environment = {**os.environ, "BACKSTOP_FAILPOINT": failpoint}
    argv = [live.cluster.url(live.name, user=OWNER), live.store.root, str(live.cluster.bin_dir), str(limit)]
    return subprocess.run(
        [sys.executable, "-c", DRIVER, *argv],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.fixture
def large(plain):
    """Enough rows that pg_dump can be observed while it writes."""
    plain.execute(
        "INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, repeat(md5(g::text), 40) FROM generate_series(1, 20000) g"
    )
    return plain


def fingerprint(folder):
    return {
        path: (hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(), os.stat(path).st_mtime_ns)
        for path in glob.glob(folder + "/**", recursive=True)
        if os.path.isfile(path)
    }


@contextlib.contextmanager
def fails_and_touches_nothing(live, message):
    """The block fails with this message; an older backup is unchanged, byte for byte, and nothing is added."""
    before = fingerprint(live.store.root)
    with pytest.raises(BackstopError, match=message) as caught:
        yield caught
    assert fingerprint(live.store.root) == before
    assert caught.value.hint and PASSWORD not in str(caught.value)


@pytest.mark.fault("backup", "a table locked by another session", by="refused, the session named")
def test_locked_table_is_named(plain):
    """The runbook's pg_dump waits until the lock is released."""
    plain.backup()
    with plain.session(user=OWNER) as cursor:
        cursor.execute("SET application_name = 'nightly job'")
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase"')
        began = time.monotonic()
        with fails_and_touches_nothing(plain, "A table is locked by another session") as caught:
            plain.backup()
        assert time.monotonic() - began < 15
        assert "public.TokenPurchase" in caught.value.found and "nightly job" in caught.value.found
        assert str(cursor.connection.get_backend_pid()) in caught.value.found
        cursor.execute("ROLLBACK")


def pg_dump_of(live):
    """The pg_dump process that writes into this store."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            argv = stream.read().split(b"\0")
            if argv[0].endswith(b"/pg_dump") and any(live.store.root.encode() in part for part in argv):
                return int(path.split("/")[2])
    return None


def writing(live):
    pid = pg_dump_of(live)
    sizes = [os.path.getsize(path) for path in glob.glob(live.store.root + "/*/.partial-*/archive.dump")]
    return pid if pid and any(size > 10000 for size in sizes) else None


@pytest.mark.fault("backup", "pg_dump killed while it writes", by="its exit status")
@pytest.mark.parametrize(
    "number, told", [(signal.SIGKILL, "killed by signal 9"), (signal.SIGTERM, "terminated by user")]
)
def test_pg_dump_is_killed(large, number, told):
    """The runbook keeps the partial file under the final name."""
    large.backup()

    def kill(_stop):
        os.kill(until(lambda: writing(large), "pg_dump writes"), number)

    with Workers(kill), fails_and_touches_nothing(large, "pg_dump could not write the archive") as caught:
        large.backup()
    assert told in caught.value.found
    assert not glob.glob(large.store.root + "/*/.partial-*")


@pytest.mark.fault("backup", "backend of pg_dump terminated", by="pg_dump's exit status")
def test_the_servers_side_of_pg_dump_is_ended(large):
    large.backup()

    def end(_stop):
        with large.session() as cursor:
            until(lambda: ended(cursor), "pg_dump copies")

    def ended(cursor):
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'backstop' AND query LIKE 'COPY %'"
        )
        return cursor.fetchone()

    with Workers(end), fails_and_touches_nothing(large, "pg_dump could not write the archive"):
        large.backup()


@pytest.mark.fault(
    "backup", "module killed at each of its failpoints", by="a partial directory is no backup; the next one removes it"
)
@pytest.mark.parametrize(
    "failpoint",
    ["backup.snapshot", "backup.dumping", "backup.dumped", "backup.before-manifest", "backup.before-rename"],
)
def test_killed_in_the_middle(plain, failpoint):
    """The leftovers are not listed, and the next backup removes them."""
    good = plain.backup()
    before = fingerprint(good.path)
    assert in_another_process(plain, failpoint=failpoint).returncode == -signal.SIGKILL
    assert [place.backup_id for place in plain.store.backups()] == [good.backup_id]
    assert len(glob.glob(plain.store.root + "/*/.partial-*")) == 1
    until(lambda: pg_dump_of(plain) is None, "pg_dump dies with its parent", 10)
    plain.backup()
    assert not glob.glob(plain.store.root + "/*/.partial-*")
    assert fingerprint(good.path) == before


@pytest.mark.fault("backup", "module killed right after the rename", by="the backup is complete: restored and compared")
def test_killed_right_after_the_rename(plain):
    """Then the backup exists, is complete, and can be verified."""
    assert in_another_process(plain, failpoint="backup.committed").returncode == -signal.SIGKILL
    (place,) = plain.store.backups()
    assert manifests.level_of(place) == "readable"
    verify(plain.site, place, "restored")
    assert manifests.level_of(place) == "restored"


def test_full_disk(large, tmp_path):
    """A small file system where one can be mounted, else a limit on the size of files."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)]
    mounted = ROOT and subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode == 0
    try:
        large.site = dataclasses.replace(large.site, store=Store(str(folder / "store")))
        said = in_another_process(large, limit=0 if mounted else 200_000)
        assert said.returncode == 1 and "pg_dump could not write the archive" in said.stderr
        assert ("No space left on device" if mounted else "signal %d" % signal.SIGXFSZ) in said.stderr
        assert large.store.backups() == [] and not glob.glob(large.store.root + "/*/.partial-*")
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.fault("backup", "no room for the manifest", by="the write's error")
def test_full_disk_at_the_manifest(plain):
    """The archive fits, the manifest does not: no backup."""
    plain.backup()
    plain.as_owner("CREATE TABLE many (%s)" % ", ".join("a_column_with_a_long_name_%d int" % n for n in range(900)))
    said = in_another_process(plain, limit=90_000)
    assert said.returncode == 1 and "could not be written" in said.stderr and "File too large" in said.stderr
    assert len(plain.store.backups()) == 1


@pytest.mark.fault("backup", "a store that cannot be written", by="refused before the dump")
def test_store_that_cannot_be_written(plain, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o700)
    # No user can write below /proc, not even root.
    path = "/proc/backstop" if ROOT else str(folder / "store")
    folder.chmod(0o500)
    plain.site = dataclasses.replace(plain.site, store=Store(path))
    try:
        with pytest.raises(BackstopError, match="A directory could not be created") as caught:
            plain.backup()
    finally:
        folder.chmod(0o700)
    assert path in caught.value.found


@pytest.mark.fault("backup", "a file where the store should be", by="refused before the dump")
def test_store_that_is_a_file(plain, tmp_path):
    (tmp_path / "file").write_text("x")
    plain.site = dataclasses.replace(plain.site, store=Store(str(tmp_path / "file")))
    with pytest.raises(BackstopError, match="store"):
        plain.backup()


@pytest.mark.fault("backup", "a store that other users can enter", by="refused before the dump")
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_store_that_others_can_enter(plain, mode):
    """The runbook's chmod comes after the dump, which every user could read until then."""
    plain.backup()
    os.chmod(plain.store.root, mode)
    with fails_and_touches_nothing(plain, "The store is accessible to other users") as caught:
        plain.backup()
    assert "%04o" % mode in caught.value.found and caught.value.hint == "chmod 700 " + plain.store.root


def other_version(cluster):
    """Programs of another major version, if this machine has any."""
    found = glob.glob("/usr/lib/postgresql/*/bin")
    found += glob.glob(str(default_wheel_directory() / "*" / "*" / "pginstall" / "bin"))
    majors = {path: major_of(pathlib.Path(path)) for path in found}
    return next((path for path, major in majors.items() if major not in (None, cluster.major)), None)


@pytest.mark.fault("backup", "client programs of another major version", by="refused before the dump")
def test_wrong_client_version(plain, tmp_path):
    """The runbook's pg_dump of another version leaves an empty file under the final name."""
    plain.backup()
    other = other_version(plain.cluster)
    plain.site = dataclasses.replace(plain.site, client_bin_dir=other or str(tmp_path))
    with fails_and_touches_nothing(plain, "client programs of version %d are missing" % plain.cluster.major) as caught:
        plain.backup()
    assert isinstance(caught.value, Refused)
    assert (other if other else "no pg_dump") in caught.value.found
    assert "postgresql-client-%d" % plain.cluster.major in caught.value.hint


@pytest.mark.fault("backup", "a role that may not read a table", by="the server's error")
def test_role_without_rights(databases):
    """A dump without some of the rows is not a backup."""
    live = databases.make("shop")
    live.backup()
    app = databases.existing("shop", user="shop_app")
    with fails_and_touches_nothing(live, "The database refused a statement") as caught:
        app.backup()
    assert "permission denied" in caught.value.found


@pytest.mark.fault("backup", "rows hidden by row level security", by="row_security = off: the server's error")
def test_rows_hidden_by_row_security(databases):
    """The runbook's dump as the application's role has 40 of 2000 rows, or fails; ours fails."""
    live = databases.make("shop")
    live.execute('ALTER TABLE "User" ENABLE ROW LEVEL SECURITY; ALTER TABLE "User" FORCE ROW LEVEL SECURITY')
    live.execute('CREATE POLICY few ON "User" USING ("id" = \'u1\')')
    with fails_and_touches_nothing(live, "refused a statement") as caught:
        live.backup()
    assert "row-level security" in caught.value.found
