# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of a database in use: the restored contents match the manifest, and no secret is exposed."""

from __future__ import annotations

import glob
import itertools
import json
import os
import pathlib
import random
import stat
import threading

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import quote_identifier
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.databases import OWNER, PASSWORD, Workers
from support.prisma_database import until


def writer(live, seed):
    """Inserts, updates and deletes purchases until it is stopped."""

    def work(stop):
        chance = random.Random(seed)
        with live.session(user=OWNER) as cursor:
            for number in itertools.count():
                if stop.is_set():
                    return
                name = "w%d-%d" % (seed, number)
                cursor.execute(
                    'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy")'
                    " VALUES (%s, %s, now(), 'u1')",
                    (name, chance.random()),
                )
                cursor.execute(
                    'UPDATE "TokenPurchase" SET "totalTokens" = %s WHERE "id" = %s',
                    (chance.random(), "p%06d" % chance.randrange(1, 500)),
                )
                if chance.random() < 0.3:
                    gone = "w%d-%d" % (seed, chance.randrange(number + 1))
                    cursor.execute('DELETE FROM "TokenPurchase" WHERE "id" = %s', (gone,))

    return work


def rows_written(live):
    return live.value('SELECT count(*) FROM "TokenPurchase" WHERE "id" LIKE \'w%\'')


@pytest.mark.fault(
    "backup",
    "two sessions insert, update and delete",
    by="the archive restored: digests equal to those of its snapshot",
)
def test_backup_under_writers_is_one_moment(plain, seed):
    """The archive restores exactly what the manifest says although rows change while pg_dump runs."""
    # Enough rows that the writers work while they are dumped.
    plain.execute(
        "INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, repeat(md5(g::text), 25) FROM generate_series(1, 6000) g"
    )
    with Workers(writer(plain, seed % 1000), writer(plain, seed % 1000 + 1)):
        for _run in range(3):
            before = until(lambda: rows_written(plain), "the writers write")
            place = plain.backup()
            assert rows_written(plain) != before, "nothing was written meanwhile: this run proves nothing"
            verify(plain.site, place, "restored")


REFILL = (
    "INSERT INTO \"UserContribution\" SELECT 'c' || g, 'p' || lpad(g::text, 6, '0'), 'u1', g"
    " FROM generate_series(1, 400) g"
)


def truncate_and_refill(live, cursor):
    cursor.execute('BEGIN; TRUNCATE "UserContribution"; %s; COMMIT' % REFILL)


@pytest.mark.fault("backup", "TRUNCATE by another session", by="locks that are taken before the snapshot")
def test_truncate_during_a_backup_is_never_in_it(plain):
    """TRUNCATE does not respect snapshots: without locks first, pg_dump writes an empty table and ends with 0."""
    done = []

    def truncate_once(stop):
        with plain.session(user=OWNER) as cursor:
            # Once the backup holds its locks: pg_dump, which comes later, queues behind this TRUNCATE.
            until(lambda: locks_of_a_backup(cursor), "the backup holds its locks")
            truncate_and_refill(plain, cursor)
            done.append(1)

    with Workers(truncate_once):
        place = plain.backup()
        until(lambda: done, "the TRUNCATE comes to its turn")
    assert manifests.load(place).table("public", "UserContribution").digest.rows == 400
    verify(plain.site, place, "restored")


def locks_of_a_backup(cursor):
    cursor.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'backstop'"
        " AND relation = '\"UserContribution\"'::regclass AND mode = 'AccessShareLock' AND granted"
    )
    return cursor.fetchone()[0]


@pytest.mark.fault("backup", "TRUNCATE without a pause", by="refused, the session named")
def test_truncate_that_leaves_no_room_for_a_backup(plain):
    """A session that truncates without a pause is named; the application waits no longer than one attempt takes."""
    rounds = []

    def truncate(stop):
        with plain.session(user=OWNER) as cursor:
            cursor.execute("SET application_name = 'endless job'")
            while not stop.is_set():
                truncate_and_refill(plain, cursor)
                rounds.append(1)

    with Workers(truncate):
        until(lambda: rounds, "the first TRUNCATE")
        with pytest.raises(Refused, match="A table is locked by another session") as caught:
            plain.backup()
    assert "public.UserContribution" in caught.value.found and "endless job" in caught.value.found
    assert plain.store.backups() == []


def tree(folder):
    return [os.path.join(where, name) for where, folders, files in os.walk(folder) for name in folders + files]


@pytest.mark.fault("backup", "umask 000", by="modes set by us: 0700 and 0600")
def test_files_are_private_whatever_the_umask(plain):
    old = os.umask(0)
    try:
        run = plain.begun("deploy")
        with journaled_step(run, "backup"):
            plain.site = run
            place = plain.backup(migrations={"m1/migration.sql": b"SELECT 1;\n", "migration_lock.toml": b"x"})
        verify(run, place, "restored")
    finally:
        os.umask(old)
    paths = tree(plain.store.root)
    assert len(paths) > 15
    for path in [plain.store.root, *paths]:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        assert mode == (0o700 if os.path.isdir(path) else 0o600), path


def text_of(place, name):
    return pathlib.Path(place.file(name)).read_text("utf-8")


def test_what_a_backup_holds(plain):
    place = plain.backup(migrations={"m1/migration.sql": b"SELECT 1;\n"}, commit="abc")
    assert sorted(os.listdir(place.path)) == [
        "archive.dump",
        "history.json",
        "manifest.json",
        "migrations",
        "roles.sql",
        "verification.json",
    ]
    assert manifests.level_of(place) == "readable"
    manifest = manifests.load(place)
    assert set(manifest.files) == {"archive.dump", "history.json", "roles.sql", "migrations/m1/migration.sql"}
    assert manifest.commit == "abc" and manifest.to_json()["release"] == {"commit": "abc"}
    assert [row["migration_name"] for row in json.loads(text_of(place, "history.json"))] == ["20251001000000_init"]
    assert "CREATE ROLE %s;" % OWNER in text_of(place, "roles.sql")
    assert not glob.glob(plain.store.root + "/*/.*")


def test_a_password_that_is_also_a_name_spoils_nothing(databases):
    """The password must not be masked in stored files: roles.sql would create a role called ********."""
    live = databases.make("shop")
    databases.cluster.create_role("shop", "LOGIN SUPERUSER", password="shop")
    try:
        live = databases.existing("shop", user="shop")
        place = live.backup()
        assert "CREATE ROLE shop;" in text_of(place, "roles.sql")
        verify(live.site, place, "restored")
    finally:
        live.execute("DROP ROLE shop", "postgres")


def arguments_and_environment_of_all():
    """What every user of this host can see of each process, to find exposed passwords."""
    seen = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                seen.append(stream.read().replace(b"\0", b" "))
        except OSError:
            continue
    return seen


@pytest.mark.fault(
    "secrets", "backup and drill: arguments of all processes, all files", by="searched for the password: not there"
)
def test_no_password_where_others_can_see_it(plain):
    seen, programs = [], set()

    def look(stop):
        while not stop.is_set():
            for line in arguments_and_environment_of_all():
                if PASSWORD.encode() in line:
                    seen.append(line)
                programs.update(name for name in (b"pg_dump ", b"pg_dumpall ", b"pg_restore ") if name in line)

    run = plain.begun("deploy")
    plain.site = run
    with Workers(look):
        with journaled_step(run, "backup"):
            place = plain.backup()
        verify(run, place, "restored")
    assert programs >= {b"pg_dump ", b"pg_restore "}, "the programs were never seen"
    assert not seen
    for path in tree(plain.store.root):
        if os.path.isfile(path):
            with open(path, "rb") as stream:
                content = stream.read()
            for form in plain.site.connection.secrets:
                assert form.encode() not in content, path


@pytest.mark.fault("backup", "two backups at once", by="own directories and locks; both verified")
def test_two_backups_at_once(plain):
    made = []
    barrier = threading.Barrier(2)

    def work(_stop):
        for _run in range(2):
            barrier.wait()
            made.append(plain.backup("daily"))

    with Workers(work, work) as workers:
        until(lambda: len(made) == 4 or workers.failed, "four backups")
    assert [place.backup_id for place in plain.store.backups("daily")] == sorted(place.backup_id for place in made)
    for place in made:
        verify(plain.site, place, "readable")


NAMES = [
    'it\'s "a" \\ 电 $HOME; --',
    "é" * 31,
    "host=nowhere dbname=postgres",
    "postgresql://nowhere/x",
    ".hidden/../up",
    "-rf\n`touch x` $(touch x) | & > *\t\r",
]


@pytest.mark.fault(
    "input",
    "backup of databases with quotes, line breaks, dashes, slashes, shell characters, URLs as names",
    by="quoted",
)
@pytest.mark.parametrize("name", NAMES)
def test_databases_of_any_name(databases, name):
    live = databases.make(name)
    live.execute("ALTER DATABASE %s SET timezone = 'Asia/Tokyo'" % quote_identifier(name), "postgres")
    place = live.backup()
    verify(live.site, place, "restored" if name == NAMES[0] else "readable")
    assert live.store.find_backup(place.backup_id).path == place.path
    assert os.path.dirname(place.path) == os.path.join(live.store.root, "pre-migration")
    assert live.names() == [name]


def test_an_empty_database(databases):
    live = databases.make("empty", template="template0")
    place = live.backup()
    verify(live.site, place, "restored")
    assert manifests.load(place).tables == ()
    assert json.loads(text_of(place, "history.json")) is None


@pytest.mark.fault(
    "backup", "tables made and dropped by another session", by="the list of tables read again behind the locks"
)
def test_a_table_that_disappears_while_it_is_being_locked(plain):
    """Listed, then dropped before the lock: the list is read again."""

    def churn(stop):
        with plain.session(user=OWNER) as cursor:
            while not stop.is_set():
                cursor.execute('CREATE TABLE "Temporary" (id int)')
                cursor.execute('DROP TABLE "Temporary"')
                stop.wait(0.02)

    with Workers(churn):
        for _run in range(3):
            try:
                verify(plain.site, plain.backup(), "readable")
            except BackstopError as error:
                assert error.message == "The tables of shop keep changing"
