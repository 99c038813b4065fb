# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runbook's commands for backups: what they do, and what this collection does in the same place.

Each docstring quotes the command; the test runs it unchanged.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import archive, catalog, connection
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.databases import OWNER

DUMP = """pg_dump -h localhost -U postgres -d electricity_tokens \\
  --format=custom \\
  --file="backups/backup-$(date +%Y%m%d-%H%M%S).dump" \\
  --verbose"""
DAILY = (
    "pg_dump -h localhost -U postgres -d electricity_tokens --format=custom"
    ' --file="backups/daily/backup-$(date +%Y%m%d).dump" 2>&1'
)
VERIFY = "ls -lh backups/backup-*.dump && stat backups/backup-*.dump"


def test_dump_before_the_directory_is_made(live, shell):
    """pg_dump ... --file="backups/backup-....dump": the mkdir comes later in the document."""
    said = shell.run(DUMP)
    assert said.returncode == 1 and "could not open output file" in said.stderr
    assert manifests.level_of(live.backup()) == "readable"


def test_dump_is_readable_by_everybody_until_the_chmod(live, shell):
    """mkdir -p backups/{daily,weekly,pre-migration,emergency}; chmod 700 backups; chmod 600 backups/*.dump"""
    shell.run("umask 022; mkdir backups; " + DUMP)
    (dump,) = shell.files()
    assert stat.S_IMODE(dump.stat().st_mode) == 0o644
    place = live.backup()
    assert stat.S_IMODE(os.stat(place.file("archive.dump")).st_mode) == 0o600


def test_directories_and_modes_on_a_new_tree(shell):
    """mkdir -p backups/{daily,weekly,pre-migration,emergency}; chmod 700 backups; chmod 600 backups/*.dump"""
    snippet = "mkdir -p backups/{daily,weekly,pre-migration,emergency}\nchmod 700 backups\nchmod 600 backups/*.dump"
    said = shell.run(snippet)
    assert said.returncode == 1 and "cannot access 'backups/*.dump'" in said.stderr
    assert shell.run("sh -c 'mkdir -p sh/{daily,weekly}'").returncode == 0
    if os.path.realpath("/bin/sh").endswith("dash"):
        assert os.listdir(shell.folder / "sh") == ["{daily,weekly}"]
    shell.run("umask 022; %s | logger -t db-backup" % DAILY)
    (daily,) = shell.files()
    assert shell.run("chmod 600 backups/*.dump").returncode == 1
    assert stat.S_IMODE(daily.stat().st_mode) == 0o644


def flipped(good):
    """One bit in the middle of the rows."""
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    return bytes(bad)


DAMAGES = {
    "cut in half": lambda good: good[: len(good) // 2],
    "cut by one byte": lambda good: good[:-1],
    "one bit flipped": flipped,
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_size_says_nothing(live, shell, damage):
    """ls -lh backups/backup-*.dump  (should be > 0 bytes); stat backups/backup-<timestamp>.dump"""
    live.execute("INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, md5(g::text) FROM generate_series(1, 5000) g")
    shell.run("mkdir backups; " + DUMP)
    (dump,) = shell.files()
    dump.write_bytes(DAMAGES[damage](dump.read_bytes()))
    assert shell.run(VERIFY).returncode == 0 and dump.stat().st_size > 0
    # The usual replacement reads only the table of contents.
    assert shell.run("pg_restore --list backups/backup-*.dump").returncode == 0
    place = live.backup()
    path = place.file("archive.dump")
    with open(path, "rb") as stream:
        good = stream.read()
    with open(path, "wb") as stream:
        stream.write(DAMAGES[damage](good))
    with pytest.raises(BackstopError, match="was changed"):
        verify(live.site, place, "checksum")
    if damage.startswith("cut"):
        with live.site.administer() as admin:
            tools = live.site.tools(admin)
        with pytest.raises(BackstopError, match="cannot be read completely"):
            archive.decode(tools, path)


def test_head_of_a_truncated_file(live, shell):
    """head -n 50 backups/backup-*.sql"""
    shell.run("mkdir backups; " + DUMP.replace("custom", "plain").replace(".dump", ".sql"))
    (text,) = shell.files()
    whole = text.read_text("utf-8")
    text.write_text(whole[: whole.index("ADD CONSTRAINT")].rsplit("\n", 2)[0] + "\n", "utf-8")
    seen = shell.run("head -n 50 backups/backup-*.sql")
    assert seen.returncode == 0 and "PostgreSQL database dump" in seen.stdout
    # It restores without an error, and without a single key.
    restore = "psql -q -c 'CREATE DATABASE other' && psql -q -v ON_ERROR_STOP=1 -1 -d other -f backups/*.sql"
    assert shell.run(restore).returncode == 0
    assert live.value("SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid >= 16384", "other") == 0


def test_a_failing_dump_empties_the_good_one_of_the_day(live, shell):
    """0 2 * * * ... pg_dump ... --file="backups/daily/backup-$(date +\\%Y\\%m\\%d).dump" 2>&1 | logger -t db-backup"""
    shell.run("mkdir -p backups/daily")
    assert shell.run(DAILY).returncode == 0
    (dump,) = shell.files()
    assert dump.stat().st_size > 10000
    said = shell.run("PGPASSWORD=wrong %s | logger -t db-backup" % DAILY)
    assert said.returncode == 0 and dump.stat().st_size == 0

    place = live.backup("daily")
    settings = live.site.connection
    wrong = connection.Settings.from_mapping({"password": "wrong"}, base=settings)
    live.site = dataclasses.replace(live.site, connection=wrong)
    with pytest.raises(Refused, match="The password for the database is wrong"):
        live.backup("daily")
    live.site = dataclasses.replace(live.site, connection=settings)
    assert [found.backup_id for found in live.store.backups("daily")] == [place.backup_id]
    verify(live.site, place, "checksum")


def test_a_dump_that_reaches_a_limit_stays_under_its_final_name(live, shell):
    """pg_dump ... --file="backups/backup-....dump" on a disk that fills up (here: a limit on the size of files)."""
    live.execute("INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, md5(random()::text) FROM generate_series(1, 9000) g")
    said = shell.run("mkdir backups; ulimit -f 100; " + DUMP)
    assert said.returncode != 0
    (dump,) = shell.files()
    assert dump.stat().st_size > 0 and shell.run(VERIFY).returncode == 0
    # This collection on a full disk: test_backup_failures.py.


@pytest.mark.parametrize("wanted", ["token_purchases", "receipt_data", "TokenPurchase", "tokenpurchase"])
def test_table_names(live, shell, wanted):
    """pg_dump ... --table=token_purchases --data-only --file="backups/token_purchases-....sql" """
    said = shell.run(
        "mkdir backups; pg_dump -h localhost -U postgres -d electricity_tokens --table=%s --data-only"
        ' --file="backups/%s-$(date +%%Y%%m%%d-%%H%%M%%S).sql"' % (wanted, wanted)
    )
    assert said.returncode == 1 and "no matching tables were found" in said.stderr
    live.run("receipts.sql")
    with live.site.connect() as session:
        if wanted == "TokenPurchase":
            assert catalog.find_table(session, wanted).name == wanted
        else:
            with pytest.raises(Refused, match="There is no table %s" % wanted) as caught:
                catalog.find_table(session, wanted)
            near = "ReceiptData" if "receipt" in wanted else "TokenPurchase"
            assert near in caught.value.expected


@pytest.mark.parametrize("wanted", ["receipt_data", "ReceiptData"])
def test_whether_a_table_exists(live, shell, wanted):
    """psql -h localhost -U postgres -d electricity_tokens -c "\\dt receipt_data"  (and "\\dt ReceiptData")"""
    live.run("receipts.sql")
    said = shell.run('psql -h localhost -U postgres -d electricity_tokens -c "\\dt %s"' % wanted)
    assert said.returncode == 0 and "Did not find any relation" in said.stderr + said.stdout
    with live.site.connect() as session:
        assert catalog.find_table(session, "ReceiptData").full_name == "public.ReceiptData"
        assert catalog.find_table(session, 'public."ReceiptData"').full_name == "public.ReceiptData"


def test_a_locked_table(live, shell, monkeypatch):
    """pg_dump -h localhost -U postgres -d electricity_tokens ...: waits as long as the lock lives."""
    with live.session(user=OWNER) as cursor:
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase"')
        said = shell.run("mkdir backups; timeout 2 " + DUMP)
        assert said.returncode == 124
        assert [path.stat().st_size for path in shell.files()] == [0]
        pinned = [pair if pair[0] != "lock_timeout" else ("lock_timeout", "1s") for pair in connection.PINNED_SETTINGS]
        monkeypatch.setattr(connection, "PINNED_SETTINGS", tuple(pinned))
        with pytest.raises(Refused, match="A table is locked") as caught:
            live.backup()
        assert "public.TokenPurchase" in caught.value.found
        cursor.execute("ROLLBACK")


def test_masking_of_the_url(shell):
    """echo $DATABASE_URL | grep -o "^[^:]*://[^@]*@[^/]*" """
    one_liner = 'echo $DATABASE_URL | grep -o "^[^:]*://[^@]*@[^/]*"'
    url = "postgresql://app:S3cr3t@db.example.com:5432/shop?schema=public"
    assert "S3cr3t" in shell.run("DATABASE_URL=%s; %s" % (url, one_liner)).stdout
    masked = connection.Settings.from_url(url).masked
    assert masked == "postgresql://app@db.example.com:5432/shop"
    for password in ("p@ss/word", "a:b@c", "%41"):
        settings = connection.Settings(user="app", password=password, host="h", database="d")
        again = connection.Settings.from_url(settings.url())
        assert again.password == password and password not in again.masked and password not in repr(again)


def test_history_of_migrations(live, shell):
    """psql ... -c "SELECT * FROM _prisma_migrations ORDER BY finished_at DESC LIMIT 5;" > backups/....txt"""
    live.execute("INSERT INTO _prisma_migrations SELECT 'x' || g, 'c', now(), 'm' || g FROM generate_series(1, 9) g")
    said = shell.run(
        'mkdir backups; psql -h localhost -U postgres -d electricity_tokens -c "SELECT * FROM _prisma_migrations'
        ' ORDER BY finished_at DESC LIMIT 5;" > "backups/migration-history.txt"'
    )
    assert said.returncode == 0 and "(5 rows)" in (shell.folder / "backups" / "migration-history.txt").read_text()
    place = live.backup()
    with open(place.file("history.json"), encoding="utf-8") as stream:
        assert len(re.findall('"migration_name"', stream.read())) == 10
