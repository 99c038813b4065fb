# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The complete revert inside the live database: one transaction, proved before its COMMIT, undone by its own backup."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import stat

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import sha256_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.definitions import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import in_place as in_place_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import (
    revert_in_place,
    undo_in_place,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.databases import APP, OWNER, REALISTIC, SQL
from support.interruptions import interrupted_at

EVERYTHING = 10**9
PURCHASE = (
    'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (\'%s\', 1, now(), \'u1\')'
)


def reverted(live, place, accept=0):
    run = live.begun("rollback", {"backup": place.backup_id})
    result = revert_in_place(run, place, LossPolicy(accept, objects=99))
    run.operation.close("done")
    return run, result


def equals(live, place):
    with live.site.connect() as session:
        return not compare_tables(session, load(place)).tables


def inventory(live):
    """All definitions, values of sequences, and the database's own properties."""
    with live.site.connect() as session:
        found = definitions(session)
    sequences = live.rows("SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2")
    database = live.rows(
        "SELECT d.oid, datname, datdba, datconnlimit, datacl::text, shobj_description(d.oid, 'pg_database'),"
        " (SELECT array_agg(setconfig::text || setrole ORDER BY 1) FROM pg_db_role_setting WHERE setdatabase = d.oid)"
        " FROM pg_database d WHERE datname = current_database()"
    )
    comments = live.rows("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'public'")
    return found, sequences, database, comments


def test_the_realistic_database_is_identical_afterwards(databases):
    """Every kind of object, whatever was created since; settings and privileges of the database are not changed."""
    live = databases.make('it\'s "the" shop \\ 电', REALISTIC, user=None)
    live.execute((SQL / "beyond_schemas.sql").read_text("utf-8"))
    place = live.backup()
    # Once restored, some definitions are printed differently, but do not change again.
    reverted(live, place)
    place = live.backup()
    before = inventory(live)
    live.execute(
        "CREATE SCHEMA later; CREATE TABLE later.t (id int REFERENCES parent); CREATE EXTENSION citext;"
        ' ALTER TYPE "MeterStatus" ADD VALUE \'NEW\'; DROP VIEW of_a_view; ALTER TABLE "User" DROP COLUMN "name";'
        " SELECT lo_from_bytea(99, 'x'), lo_unlink(424243); CREATE PUBLICATION late FOR TABLE child;"
        " DROP EVENT TRIGGER watches_ddl; DROP TABLE numbered; CREATE CAST (text AS reading) WITH INOUT;"
        " CREATE ACCESS METHOD heap3 TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE on_heap3 () USING heap3"
    )
    live.execute('DELETE FROM no_key WHERE a = 1; UPDATE "UserContribution" SET "amount" = 0 WHERE "id" = \'c1\'')
    site, result = reverted(live, place, EVERYTHING)
    assert result.changed and equals(live, place) and inventory(live) == before
    losses = {loss["name"]: (loss["inserted"], loss["updated"], loss["deleted"]) for loss in result.losses}
    assert losses["no_key"] == (0, 0, 2) and losses["UserContribution"] == (0, 1, 0)
    assert losses["numbered"] == (0, 0, 10) and losses["pg_largeobject"] == (0, 2, 0)
    with live.session(user=APP) as cursor:
        cursor.execute("SHOW timezone")
        assert cursor.fetchone() == ("Africa/Harare",)
    assert live.names() == [live.name]


def test_a_role_without_superuser_and_its_undo(plain):
    place = plain.backup()
    plain.run("receipts.sql")
    plain.as_owner(PURCHASE % "since", 'UPDATE "User" SET "name" = \'other\' WHERE "id" = \'u1\'')
    deployed = plain.backup("post-migration")
    with pytest.raises(Refused, match="2 rows would be lost") as caught:
        reverted(plain, place)
    assert caught.value.found == "public.TokenPurchase: 1 inserted; public.User: 1 updated"
    assert "emergency backup" in caught.value.hint and "reapply" not in caught.value.hint
    assert equals(plain, deployed)
    site, result = reverted(plain, place, 2)
    assert equals(plain, place) and result.lost_rows == 2
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    kept = pathlib.Path(site.operation.file("lost-rows")) / "public.TokenPurchase.copy"
    assert kept.read_text("utf-8").startswith("since\t")
    assert revert_in_place(site, place, LossPolicy(0)).changed is False
    assert plan_revert(plain.site, place.backup_id)["needed"] is False
    # The number of the lost purchase is not used again.
    assert plain.value("SELECT nextval('\"TokenPurchase_number_seq\"')") == 502

    plan = plan_undo(plain.site, None)
    assert plan["needed"] and plan["undoes"] == site.operation.id and plan["method"] == "in_place"
    plain.as_owner(PURCHASE % "after")
    back = plain.begun("undo", {"undoes": site.operation.id})
    with pytest.raises(Refused, match="1 rows would be lost") as caught:
        undo_in_place(back, site.operation, LossPolicy(0))
    assert caught.value.found == "public.TokenPurchase: 1 inserted"
    assert undo_in_place(back, site.operation, LossPolicy(1)).lost_rows == 1
    back.operation.close("done")
    assert equals(plain, deployed)
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")
    assert plan_undo(plain.site, None)["needed"] is False
    assert plan_revert(plain.site, place.backup_id)["needed"] is True
    assert len(plain.store.backups("emergency")) == 4


def damaged(place, change):
    """The backup with a changed archive whose checksum the manifest confirms."""
    path = pathlib.Path(place.file("archive.dump"))
    path.write_bytes(change(path.read_bytes()))
    manifest = load(place).to_json()
    manifest["files"]["archive.dump"]["sha256"] = sha256_of(place.file("archive.dump"))
    manifests.write_json(place.file("manifest.json"), manifest)


@pytest.mark.fault("archive", "restore in place of a cut archive", by="sha256 and size before anything is emptied")
@pytest.mark.parametrize("cut", [1, 50, 3000])
def test_a_truncated_archive_changes_nothing(plain, cut):
    place = plain.backup()
    plain.run("receipts.sql")
    now = plain.backup("daily")
    damaged(place, lambda archive: archive[:-cut])
    with pytest.raises(BackstopError):
        reverted(plain, place)
    assert equals(plain, now) and plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")


@pytest.mark.fault("deploy", "restore in place: pg_restore fails", by="one transaction, rolled back")
@pytest.mark.parametrize(
    "ending", ["| head -n 400; kill -9 $$", "; exit 1"], ids=["killed in the middle of a table", "fails after its end"]
)
def test_a_pg_restore_that_fails_changes_nothing(plain, tmp_path, ending):
    """It is killed at a line end, where psql -1 would commit the lines so far, or only its exit status is a failure."""
    place = plain.backup()
    plain.run("receipts.sql")
    now = plain.backup("daily")
    program = tmp_path / "bin" / "pg_restore"
    program.parent.mkdir()
    for name in ("pg_dump", "pg_dumpall"):
        (program.parent / name).symlink_to(plain.cluster.bin_dir / name)
    real = plain.cluster.bin_dir / "pg_restore"
    program.write_text('#!/bin/sh\ncase "$*" in *--file=-*) %s "$@" %s;; esac\nexec %s "$@"\n' % (real, ending, real))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    plain.site = dataclasses.replace(plain.site, client_bin_dir=str(program.parent))
    with pytest.raises(BackstopError):
        reverted(plain, place)
    assert equals(plain, now) and plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")


@pytest.mark.fault("deploy", "restore in place: rows other than the manifest says", by="digests before COMMIT")
def test_a_backup_that_does_not_give_back_what_it_says(plain):
    place = plain.backup()
    now = plain.backup("daily")
    manifest = load(place).to_json()
    entry = next(entry for entry in manifest["tables"] if entry["name"] == "User")
    entry["digest"] = {"rows": 20, "hash": "1"}
    manifests.write_json(place.file("manifest.json"), manifest)
    with pytest.raises(BackstopError, match="differs from the backup's source") as caught:
        reverted(plain, place, EVERYTHING)
    assert "table public.User has 20 rows with other contents" in caught.value.found
    assert equals(plain, now)


def test_a_reader_in_the_way_is_named(plain, monkeypatch):
    monkeypatch.setattr(in_place_module, "_LOCK_TIMEOUT", "100ms")
    place = plain.backup()
    now = plain.backup("daily")
    plain.execute('GRANT SELECT ON "User" TO ' + APP)
    now = plain.backup("daily")
    with plain.session(user=APP) as reader:
        reader.execute("BEGIN")
        reader.execute('SELECT count(*) FROM "User"')
        with pytest.raises(Refused, match="keep tables in use") as caught:
            reverted(plain, place)
        assert APP in caught.value.found and "pg_terminate_backend" in caught.value.hint
        reader.execute('SELECT count(*) FROM "User"; COMMIT')
    assert equals(plain, now)


@pytest.mark.fault("deploy", "restore in place: rows written after its backup", by="the digests behind the fence")
def test_rows_written_after_the_emergency_backup(plain, monkeypatch):
    """The emergency backup must contain every row that is removed."""
    place = plain.backup()
    make = in_place_module.make_backup

    def make_and_write(*arguments):
        made = make(*arguments)
        plain.as_owner(PURCHASE % "late")
        return made

    monkeypatch.setattr(in_place_module, "make_backup", make_and_write)
    with pytest.raises(Refused, match="after the emergency backup"):
        reverted(plain, place, EVERYTHING)
    assert plain.value('SELECT count(*) FROM "TokenPurchase" WHERE "id" = \'late\'') == 1


FAILPOINTS = [
    "in-place.fenced",
    "in-place.counted",
    "in-place.emptied",
    "in-place.restored",
    "in-place.before-commit",
    "in-place.committed",
]


@pytest.mark.fault(
    "deploy", "restore in place killed at each of its failpoints", by="one transaction: as before, or done"
)
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_anywhere_it_is_as_before_or_done(plain, failpoint):
    place = plain.backup()
    plain.run("receipts.sql")
    now = plain.backup("daily")
    run = plain.begun("rollback", {"backup": place.backup_id})
    child = os.fork()
    if child == 0:
        os.environ["BACKSTOP_FAILPOINT"] = failpoint
        try:
            revert_in_place(run, place, LossPolicy(0))
        finally:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    committed = failpoint == "in-place.committed"
    assert equals(plain, place if committed else now)
    result = revert_in_place(run, place, LossPolicy(0))
    assert result.changed is not committed and result.lost_rows == 0
    assert equals(plain, place) and plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")


@pytest.mark.fault("deploy", "restore in place interrupted by Ctrl-C", by="one transaction: as before, or done")
@pytest.mark.parametrize("failpoint", ["in-place.emptied", "in-place.committed"])
def test_ctrl_c(plain, failpoint):
    place = plain.backup()
    plain.run("receipts.sql")
    now = plain.backup("daily")
    run = plain.begun("rollback", {"backup": place.backup_id})
    with interrupted_at(failpoint):
        revert_in_place(run, place, LossPolicy(0))
    committed = failpoint == "in-place.committed"
    assert equals(plain, place if committed else now) and run.keep_open == []
    assert revert_in_place(run, place, LossPolicy(0)).changed is not committed
    assert equals(plain, place)


def test_the_list_is_whole(plain, tmp_path, monkeypatch):
    place = plain.backup()
    monkeypatch.setenv("BACKSTOP_FAILPOINT_LOG", str(tmp_path / "log"))
    reverted(plain, place)
    assert [name for name in (tmp_path / "log").read_text().split() if name.startswith("in-place")] == FAILPOINTS


def test_a_drilled_backup_tolerates_nothing(databases):
    """Definitions that are printed differently are proved by the drill, if there was one."""
    live = databases.make("shop", REALISTIC, user=None)
    place = live.backup()
    _site, result = reverted(live, place)
    assert any("printed differently" in sentence for sentence in result.tolerated)
    live = databases.make("mart", REALISTIC, user=None)
    place = live.backup()
    verify(live.site, place, "restored")
    _site, result = reverted(live, place)
    assert not any("printed differently" in sentence for sentence in result.tolerated)


def test_clients_must_connect_again_but_may_stay(plain):
    """Only sessions that hold a lock are terminated; the application then reads the restored rows."""
    place = plain.backup()
    plain.as_owner(PURCHASE % "since")
    connection = psycopg2.connect(plain.cluster.url(plain.name, user=OWNER))
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute('SELECT count(*) FROM "TokenPurchase"')
    assert cursor.fetchone() == (501,)
    reverted(plain, place, 1)
    cursor.execute('SELECT count(*) FROM "TokenPurchase"')
    assert cursor.fetchone() == (500,)
    connection.close()


def test_an_owner_who_may_make_no_database(plain):
    """Everything such a role can do: a backup, its drill in a scratch cluster, the fence, the revert and its undo."""
    plain.execute("ALTER ROLE %s NOCREATEDB" % OWNER, "postgres")
    try:
        place = plain.backup()
        assert run_cluster_drill(plain.site, place).method.startswith("restored into a scratch cluster")
        assert fence(plain.site, place, 5).same
        plain.run("receipts.sql")
        site, _result = reverted(plain, place)
        assert equals(plain, place)
        back = plain.begun("undo", {"undoes": site.operation.id})
        assert undo_in_place(back, site.operation, LossPolicy(0)).lost_rows == 0
        assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL") and plain.names() == [plain.name]
    finally:
        plain.execute("ALTER ROLE %s CREATEDB" % OWNER, "postgres")
