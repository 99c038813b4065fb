# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table restored from a backup: only rows that differ are changed, everything else is unchanged, or nothing is."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import sha256_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import qualified
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions, digests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.restored_tables import plan_table_undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    plan,
    restore_table,
    undo_table,
)
from support.databases import OWNER, REALISTIC, run_sql
from support.interruptions import interrupted_at

RECEIPTS = (
    "INSERT INTO \"ReceiptData\" SELECT 'r' || g, 'p' || lpad(g::text, 6, '0'), 't' || g, g * 0.1, timestamp"
    " '2025-03-01' + g * interval '1 hour' FROM generate_series(1, 100) g"
)
#: A child of ReceiptData, and triggers that write rows; one of them sleeps.
AROUND = """
CREATE TABLE "ReceiptLine" ("id" serial PRIMARY KEY, "text" text,
  "receiptId" text NOT NULL REFERENCES "ReceiptData" ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO "ReceiptLine" ("receiptId") SELECT 'r' || g FROM generate_series(1, 60) g;
CREATE TABLE traces (op text);
CREATE FUNCTION trace() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.traces VALUES (TG_OP); RETURN COALESCE(NEW, OLD); END $$;
CREATE TRIGGER a_traced AFTER INSERT OR UPDATE OR DELETE ON "ReceiptData" FOR EACH ROW EXECUTE FUNCTION trace();
CREATE TRIGGER b_always BEFORE UPDATE ON "ReceiptData" FOR EACH ROW EXECUTE FUNCTION trace();
ALTER TABLE "ReceiptData" ENABLE ALWAYS TRIGGER b_always;
CREATE TRIGGER c_sleeping BEFORE UPDATE ON "ReceiptData" FOR EACH ROW EXECUTE FUNCTION trace();
ALTER TABLE "ReceiptData" DISABLE TRIGGER c_sleeping;
"""


@pytest.fixture
def receipts(plain):
    """The migrated database with receipts, lines that refer to them, and triggers."""
    plain.run("receipts.sql")
    plain.as_owner(RECEIPTS + ";" + AROUND)
    return plain


def state(live):
    """Digest of every table, and every definition."""
    with live.site.connect() as session:
        found = {
            name: (kind, digests.table_digest(session, "ONLY " + qualified(schema, name), columns))
            for kind, schema, name, columns in tables_of(session)
        }
        return found, definitions.definitions(session)


def tables_of(session):
    return session.rows(
        "SELECT c.oid::text, n.nspname, c.relname, ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid ="
        " c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_)'"
    )


def restore(live, table="ReceiptData", place=None, **wanted):
    """Restore in a separate operation."""
    run = live.begun("rollback", {"scenario": "corrupted_table", "table": table, **request_json(wanted)})
    result = restore_table(run, TableRestoreRequest(table, **wanted), place.backup_id if place else None)
    run.operation.close("done")
    return result


def request_json(wanted):
    return json.loads(json.dumps(wanted, default=dataclasses.asdict))


def test_ctrl_c(receipts):
    place = receipts.backup()
    receipts.as_owner('DELETE FROM "ReceiptLine" WHERE id < 5')
    wanted = TableRestoreRequest("ReceiptLine")
    run = receipts.begun("rollback", {"scenario": "corrupted_table", "table": "ReceiptLine"})
    with interrupted_at("table.before-commit"):
        restore_table(run, wanted, place.backup_id)
    assert receipts.value('SELECT count(*) FROM "ReceiptLine"') == 56
    assert restore_table(run, wanted, place.backup_id).changed
    assert receipts.value('SELECT count(*) FROM "ReceiptLine"') == 60


def counts(result):
    (found,) = result.differences
    return found["missing"], found["changed"], found["newer"]


CORRUPT = """
UPDATE "ReceiptData" SET "totalAmountZWG" = 'NaN', "tokenNumber" = NULL WHERE "id" IN ('r1', 'r2', 'r3');
DELETE FROM "ReceiptData" WHERE "id" IN ('r90', 'r91');
TRUNCATE traces;
"""


def test_replace_touches_only_what_differs(receipts):
    place = receipts.backup("daily", tables=["ReceiptData"])
    before = state(receipts)
    rows = dict(receipts.rows('SELECT "id", xmin::text || ctid::text FROM "ReceiptData"'))
    receipts.as_owner(CORRUPT)
    result = restore(receipts)
    assert result.changed and counts(result) == (2, 3, 0) and result.backup == place.backup_id
    assert result.now[0]["rows"] == 100 and result.now[0]["sums"]["totalAmountZWG"] == "505.0"
    assert result.now[0]["earliest"]["transactionDateTime"] == "2025-03-01 01:00:00"
    assert state(receipts) == before
    after = dict(receipts.rows('SELECT "id", xmin::text || ctid::text FROM "ReceiptData"'))
    assert {name for name in rows if rows[name] != after[name]} == {"r1", "r2", "r3", "r90", "r91"}
    # The emergency backup contains exactly the former rows.
    emergency = manifests.load(receipts.store.find_backup(result.emergency))
    assert emergency.kind == "emergency" and emergency.tables[0].digest.rows == 98
    again = restore(receipts)
    assert not again.changed and again.done_before
    assert len(receipts.store.backups("emergency")) == 1


def test_from_a_full_backup_and_undo_and_undo_of_that(receipts):
    place = receipts.backup()
    right = state(receipts)
    receipts.as_owner(CORRUPT)
    wrong = state(receipts)
    restore(receipts, place=place)
    assert state(receipts) == right
    for expected in (wrong, right):
        undoes = plan_table_undo(receipts.site, newest(receipts))["undoes"]
        run = receipts.begun("undo", {"undoes": undoes})
        assert undo_table(run, load(receipts, undoes), LossPolicy(0)).changed
        run.operation.close("done")
        assert state(receipts) == expected
    # Without an id the newest one is already an undo.
    assert not plan_table_undo(receipts.site, None)["needed"]


def newest(live):
    return live.store.operation_ids() and operations(live)[-1].id


def operations(live):
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import operation

    return operation.operations(live.store)


def load(live, operation_id):
    return next(one for one in operations(live) if one.id == operation_id)


def test_an_undo_counts_what_was_written_since(receipts):
    place = receipts.backup()
    receipts.as_owner(CORRUPT)
    wrong = state(receipts)
    restore(receipts, place=place)
    receipts.as_owner(
        'UPDATE "ReceiptData" SET "tokenNumber" = \'since\' WHERE "id" = \'r50\';'
        "INSERT INTO \"ReceiptData\" VALUES ('new', 'p000200', NULL, 1, now());"
        'DELETE FROM "ReceiptData" WHERE "id" = \'r80\'; TRUNCATE traces',
    )
    undoes = plan_table_undo(receipts.site, None)["undoes"]
    run = receipts.begun("undo", {"undoes": undoes})
    with pytest.raises(Refused, match="3 rows would be lost"):
        undo_table(run, load(receipts, undoes), LossPolicy(2))
    assert undo_table(run, load(receipts, undoes), LossPolicy(3)).lost_rows == 3
    assert state(receipts) == wrong


def test_newer_rows_need_consent(receipts):
    receipts.backup()
    receipts.as_owner("INSERT INTO \"ReceiptData\" VALUES ('new', 'p000200', NULL, 1, now())")
    before = state(receipts)
    for act in (restore, lambda live: plan(live.site, TableRestoreRequest("ReceiptData"))):
        with pytest.raises(Refused, match="1 rows would be lost") as caught:
            act(receipts)
        assert "id=new" in caught.value.found and "accept_lost_rows=1" in caught.value.hint
        assert state(receipts) == before
        for operation in operations(receipts):
            operation.close("failed")
    assert counts(restore(receipts, policy=LossPolicy(1))) == (0, 0, 1)


def test_a_writer_between_the_plan_and_the_act(receipts):
    """The plan found no loss; rows written since are counted again behind the lock, and need consent."""
    place = receipts.backup()
    receipts.as_owner(CORRUPT)
    assert plan(receipts.site, TableRestoreRequest("ReceiptData"), place.backup_id).lost_rows == 0
    receipts.as_owner("INSERT INTO \"ReceiptData\" VALUES ('late', 'p000201', NULL, 1, now())")
    before = state(receipts)
    with pytest.raises(Refused, match="1 rows would be lost"):
        restore(receipts, place=place)
    assert state(receipts) == before


def test_a_repair_leaves_the_other_rows(receipts):
    receipts.backup()
    receipts.as_owner(CORRUPT)
    receipts.as_owner(
        "INSERT INTO \"ReceiptData\" VALUES ('new', 'p000200', NULL, 1, now());"
        'UPDATE "ReceiptData" SET "tokenNumber" = \'fine\' WHERE "id" = \'r50\'; TRUNCATE traces',
    )
    report = restore(receipts, mode="repair")
    assert not report.changed and counts(report) == (2, 4, 1)
    assert report.differences[0]["samples"]["newer"] == [{"id": "new"}]
    result = restore(receipts, mode="repair", where="\"totalAmountZWG\" = 'NaN' -- these")
    assert counts(result) == (0, 3, 0)
    result = restore(receipts, mode="repair", keys=["r90", {"id": "r91"}, "r50", "nobody"])
    assert counts(result) == (2, 1, 0)
    assert counts(restore(receipts, mode="repair")) == (0, 0, 1)
    assert receipts.value("SELECT count(*) FROM traces") == 0


@pytest.mark.parametrize(
    "wanted, said",
    [
        ({"mode": "replace", "where": "true"}, "whole table is to be replaced"),
        ({"mode": "repair", "where": "true; DROP TABLE traces"}, "condition on the rows is not one"),
        ({"mode": "repair", "where": "true) OR (true"}, "condition on the rows is not one"),
        ({"mode": "repair", "where": "a = "}, "condition on the rows cannot be used"),
        ({"mode": "repair", "where": "nonsense = 1"}, "condition on the rows cannot be used"),
        ({"mode": "repair", "where": "\"totalAmountZWG\" = 'x'"}, "condition on the rows cannot be used"),
        ({"mode": "repair", "keys": [{"ID": 1}]}, "not the key of a row"),
        ({"mode": "repair", "keys": [None]}, "not the key of a row"),
    ],
)
def test_bad_requests(receipts, wanted, said):
    receipts.backup()
    receipts.as_owner(CORRUPT)
    before = state(receipts)
    with pytest.raises(BackstopError, match=said):
        restore(receipts, **wanted)
    assert state(receipts) == before


SWAP = """
UPDATE "ReceiptData" SET "purchaseId" = 'p000300' WHERE "id" = 'r1';
UPDATE "ReceiptData" SET "purchaseId" = 'p000001' WHERE "id" = 'r2';
UPDATE "ReceiptData" SET "purchaseId" = 'p000002' WHERE "id" = 'r1';
UPDATE "User" SET "email" = 'x' WHERE "id" = 'u1';
UPDATE "User" SET "email" = 'u1@example.org' WHERE "id" = 'u2';
UPDATE "User" SET "email" = 'u2@example.org' WHERE "id" = 'u1';
UPDATE "UserContribution" SET "purchaseId" = 'p000450' WHERE "id" = 'c1';
UPDATE "UserContribution" SET "purchaseId" = 'p000001' WHERE "id" = 'c2';
UPDATE "UserContribution" SET "purchaseId" = 'p000002' WHERE "id" = 'c1';
"""


@pytest.mark.parametrize("table", ["ReceiptData", "User", "UserContribution"])
def test_exchanged_unique_values(receipts, table):
    """In receipts that lines refer to, in users that purchases refer to, in contributions that nothing refers to."""
    receipts.backup()
    receipts.as_owner("TRUNCATE traces")
    before = state(receipts)
    ours = receipts.rows('SELECT "id", xmin::text FROM "ReceiptLine" ORDER BY 1')
    receipts.as_owner(SWAP)
    for other in ("ReceiptData", "User", "UserContribution"):
        if other != table:
            restore(receipts, other)
    result = restore(receipts, table)
    assert counts(result) == (0, 2, 0) and not result.effects
    receipts.as_owner("TRUNCATE traces")
    assert state(receipts) == before
    assert receipts.rows('SELECT "id", xmin::text FROM "ReceiptLine" ORDER BY 1') == ours


def test_a_cascade_needs_consent_and_comes_back_with_an_undo(receipts):
    receipts.as_owner("DELETE FROM \"ReceiptLine\" WHERE \"receiptId\" IN ('r5', 'r6')")
    place = receipts.backup()
    receipts.as_owner(
        "INSERT INTO \"ReceiptData\" VALUES ('new', 'p000200', NULL, 1, now());"
        "INSERT INTO \"ReceiptLine\" (\"receiptId\") VALUES ('new'), ('new'); TRUNCATE traces",
    )
    before = state(receipts)
    with pytest.raises(Refused, match="Rows of other tables would be touched") as caught:
        restore(receipts, policy=LossPolicy(1))
    assert "2 rows of public.ReceiptLine" in caught.value.found and "deletes rows" in caught.value.found
    assert state(receipts) == before
    operations(receipts)[-1].close("failed")
    result = restore(receipts, policy=LossPolicy(1), accept_cascade=True)
    assert result.cascaded == {"public.ReceiptLine": 2}
    emergency = manifests.load(receipts.store.find_backup(result.emergency))
    assert {entry.name for entry in emergency.tables} == {"ReceiptData", "ReceiptLine"}
    with receipts.site.connect() as session:
        wanted = manifests.load(place).table("public", "ReceiptData")
        assert digests.table_digest(session, 'ONLY public."ReceiptData"', wanted.table.columns) == wanted.digest
    undoes = plan_table_undo(receipts.site, None)["undoes"]
    undo_table(receipts.begun("undo", {"undoes": undoes}), load(receipts, undoes), LossPolicy(0))
    assert state(receipts) == before


def test_rows_of_others_that_are_touched_without_consent(receipts, monkeypatch):
    """The last check: whatever changed them, the server's own count reports it before the COMMIT."""
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import table as table_restore

    def and_more(session, pair):
        apply(session, pair)
        session.execute('DELETE FROM public."ReceiptLine" WHERE "receiptId" = \'r5\'')

    apply = table_restore.apply
    monkeypatch.setattr(table_restore, "apply", and_more)
    receipts.backup()
    receipts.as_owner(CORRUPT)
    before = state(receipts)
    with pytest.raises(BackstopError, match="would have been touched") as caught:
        restore(receipts)
    assert caught.value.found == "1 of public.ReceiptLine"
    assert state(receipts) == before


def test_rows_that_others_need_are_not_deleted(receipts):
    receipts.as_owner('CREATE TABLE strict (id int PRIMARY KEY, receipt text REFERENCES "ReceiptData")')
    receipts.backup()
    receipts.as_owner(
        "INSERT INTO \"ReceiptData\" VALUES ('new', 'p000200', NULL, 1, now());INSERT INTO strict VALUES (1, 'new')",
    )
    before = state(receipts)
    with pytest.raises(Refused, match="Other rows need rows") as caught:
        restore(receipts, policy=LossPolicy(1), accept_cascade=True)
    assert "public.strict" in caught.value.found
    assert state(receipts) == before


def test_a_missing_parent(receipts):
    receipts.backup()
    receipts.as_owner('DELETE FROM "TokenPurchase" WHERE "id" = \'p000007\'; TRUNCATE traces')
    before = state(receipts)
    with pytest.raises(Refused, match="cannot be repaired") as caught:
        restore(receipts)
    assert "p000007" in caught.value.found and "not there any more" in caught.value.hint
    assert state(receipts) == before


def test_sequences_are_advanced(plain):
    plain.as_owner(
        "CREATE TABLE counted (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, what text);"
        "INSERT INTO counted (what) SELECT 'x' FROM generate_series(1, 30)",
    )
    plain.backup()
    plain.as_owner("TRUNCATE counted RESTART IDENTITY; INSERT INTO counted (what) VALUES ('a'), ('b')")
    result = restore(plain, "counted")
    assert result.sequences == ["public.counted_id_seq", "public.counted_n_seq"]
    plain.as_owner("INSERT INTO counted (what) VALUES ('next')")
    assert plain.rows("SELECT id, n FROM counted ORDER BY 1 DESC LIMIT 1") == [(31, 31)]


ODD_TABLE = '"odd schema.with ""dot"""."table.of ""quotes"" 电"'
LONG_TABLE = "a" + "23456789012345678901234567890123456789012345678901234567890123"
LONG_COLUMN = "c" + "23456789012345678901234567890123456789012345678901234567890123"
ODD = {
    "no_key": "UPDATE no_key SET b = 'x' WHERE a = 2; DELETE FROM no_key WHERE ctid = (SELECT min(ctid) FROM no_key);"
    "INSERT INTO no_key VALUES (NULL, NULL)",
    "nothing": "INSERT INTO nothing SELECT FROM generate_series(1, 2)",
    "numbered": "UPDATE numbered SET c = 'wrong' WHERE b < 4; DELETE FROM numbered WHERE b = 7",
    "parent": "UPDATE ONLY parent SET what = 'x'; INSERT INTO parent VALUES (77, 'new')",
    "child": "UPDATE child SET what = 'x'",
    "measured": "UPDATE measured SET value = 0 WHERE value < 5; DELETE FROM measured WHERE value = 50",
    "measured_2024": "UPDATE measured_2024 SET value = 0",
    "fast": "DELETE FROM fast",
    "composite_key": "UPDATE composite_key SET c = 'c' WHERE a = 1; DELETE FROM composite_key WHERE a = 2",
    "unique_not_null": "UPDATE unique_not_null SET v = 7",
    ODD_TABLE: 'UPDATE %s SET "a.b" = 9' % ODD_TABLE,
    LONG_TABLE: 'UPDATE "%s" SET "%s" = 9' % (LONG_TABLE, LONG_COLUMN),
    "TokenPurchase": 'UPDATE "TokenPurchase" SET "price" = 5, "note" = NULL, picture = NULL WHERE "id" < \'p3\'',
    "User": 'UPDATE "User" SET "last" = NULL, "level" = 3',
    "UserContribution": 'UPDATE "UserContribution" SET "amount" = 0',
}


def test_tables_of_every_shape(databases):
    """Without key, partitioned (leaf and parent), inherited, generated, unlogged, with odd names."""
    live = databases.make("shop", REALISTIC, user=None)
    place = live.backup()
    live.execute("TRUNCATE audit.log")
    before = state(live)
    for table, spoil in ODD.items():
        live.execute(spoil)
        live.execute("TRUNCATE audit.log")
        assert state(live) != before, table
        result = restore(live, table, place, policy=LossPolicy(100))
        assert result.changed, table
        assert state(live) == before, table
        assert not plan(live.site, TableRestoreRequest(table), place.backup_id, again=True).total, table


def test_a_rule_in_the_way_is_found_by_the_proof(databases):
    live = databases.make("shop", REALISTIC, user=None)
    live.backup()
    live.execute("INSERT INTO alias VALUES ('more')")
    before = state(live)
    with pytest.raises(BackstopError, match="would not have the expected rows"):
        restore(live, "alias", policy=LossPolicy(1))
    assert state(live) == before


def test_a_table_that_refers_to_itself(plain):
    """Rows that are changed to refer to rows inserted later, and to no longer refer to deleted rows."""
    plain.as_owner(
        "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE, name text UNIQUE);"
        "INSERT INTO tree SELECT g, nullif(g / 2, 0), 'n' || g FROM generate_series(1, 40) g",
    )
    plain.backup()
    before = state(plain)
    plain.as_owner(
        "INSERT INTO tree VALUES (99, 1, 'n99'); UPDATE tree SET up = 99 WHERE id IN (4, 5);"
        "UPDATE tree SET up = 1 WHERE up = 20; DELETE FROM tree WHERE id = 20;"
        "UPDATE tree SET name = 'tmp' WHERE id = 2; UPDATE tree SET name = 'n2' WHERE id = 3;"
        "UPDATE tree SET name = 'n3' WHERE id = 2",
    )
    result = restore(plain, "tree", policy=LossPolicy(1))
    assert result.changed and not result.effects
    assert state(plain) == before


@pytest.mark.parametrize(
    "change, said",
    [
        ('ALTER TABLE "ReceiptData" RENAME "tokenNumber" TO "token"', "no tokenNumber; token is new"),
        ('ALTER TABLE "ReceiptData" ADD "more" text', "more is new"),
        ('ALTER TABLE "ReceiptData" ALTER "tokenNumber" TYPE varchar(50)', "tokenNumber is character varying"),
    ],
)
def test_a_table_that_was_altered_since(receipts, change, said):
    receipts.backup()
    receipts.as_owner(change)
    before = state(receipts)
    with pytest.raises(Refused, match="other columns than in backup") as caught:
        restore(receipts)
    assert said in caught.value.found
    assert state(receipts) == before


def damage(place, how, *, hidden):
    """Damage the archive; hidden: with sha256 and size in the manifest adjusted."""
    path = place.file("archive.dump")
    with open(path, "rb") as stream:
        content = how(stream.read())
    with open(path, "wb") as stream:
        stream.write(content)
    if hidden:
        manifest = manifests.load(place).to_json()
        manifest["files"]["archive.dump"] = {"size": len(content), "sha256": sha256_of(path)}
        with open(place.file("manifest.json"), "w", encoding="utf-8") as stream:
            json.dump(manifest, stream)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("how", [lambda good: good[:-300], lambda good: good[: len(good) // 2]])
def test_a_truncated_archive(receipts, how, hidden):
    place = receipts.backup(tables=["ReceiptData"])
    receipts.as_owner(CORRUPT)
    before = state(receipts)
    damage(place, how, hidden=hidden)
    with pytest.raises(BackstopError):
        restore(receipts, place=place)
    assert state(receipts) == before and not receipts.store.backups("emergency")


def test_rows_that_are_not_those_of_the_manifest(receipts, monkeypatch):
    """A flipped byte in rows that are not compressed: only the digest finds it."""
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import archive

    monkeypatch.setattr(archive, "choose_compression", lambda _tools: "0")
    place = receipts.backup(tables=["ReceiptData"])
    receipts.as_owner(CORRUPT)
    before = state(receipts)
    damage(place, lambda good: good.replace(b"\tt77\t", b"\tt67\t"), hidden=True)
    with pytest.raises(BackstopError, match="are not those of its manifest"):
        restore(receipts, place=place)
    assert state(receipts) == before


def test_readers_go_on_and_a_writer_that_does_not_end_is_waited_for(receipts, monkeypatch):
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import connection
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import table as table_restore

    receipts.backup()
    receipts.as_owner(CORRUPT)
    read = []

    def prove(*arguments):
        """Called within the transaction, after the change."""
        with receipts.session() as cursor:
            cursor.execute('SELECT count(*) FROM "ReceiptData"')
            read.append(cursor.fetchone()[0])
        return proved(*arguments)

    proved = table_restore._prove
    monkeypatch.setattr(table_restore, "_prove", prove)
    pinned = [pair if pair[0] != "lock_timeout" else ("lock_timeout", "1s") for pair in connection.PINNED_SETTINGS]
    with receipts.session(user=OWNER) as other, monkeypatch.context() as patch:
        patch.setattr(connection, "PINNED_SETTINGS", tuple(pinned))
        other.execute('BEGIN; UPDATE "ReceiptData" SET "tokenNumber" = \'open\' WHERE "id" = \'r9\'')
        with pytest.raises(Refused, match="written to by a transaction that does not end"):
            restore(receipts)
        other.execute("ROLLBACK")
    operations(receipts)[-1].close("failed")
    assert restore(receipts).changed and read == [98]


def test_backups_it_does_not_take(receipts, databases):
    with pytest.raises(Refused, match="no verified backup that holds table public.ReceiptData"):
        plan(receipts.site, TableRestoreRequest("ReceiptData"))
    other = receipts.backup(tables=["User"])
    with pytest.raises(Refused, match="cannot restore table public.ReceiptData"):
        plan(receipts.site, TableRestoreRequest("ReceiptData"), other.backup_id)
    with pytest.raises(Refused, match="There is no table receipt_data"):
        plan(receipts.site, TableRestoreRequest("receipt_data"), other.backup_id)
    elsewhere = databases.make("elsewhere")
    place = elsewhere.backup()
    with pytest.raises(Refused, match="is of another database"):
        plan(receipts.site, TableRestoreRequest("User"), place.backup_id)
    with pytest.raises(Refused, match="no verified backup"):
        plan(receipts.site, TableRestoreRequest("ReceiptData"))


def test_without_an_operation(receipts):
    receipts.backup()
    before = state(receipts)
    receipts.as_owner(CORRUPT)
    result = restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert result.changed and state(receipts) == before
    assert not restore_table(receipts.site, TableRestoreRequest("ReceiptData")).changed
    assert os.listdir(receipts.store.root + "/operations") == []


def test_check_has_no_effect(receipts):
    receipts.backup()
    receipts.as_owner(CORRUPT)
    before, files = state(receipts), sorted(os.listdir(receipts.store.root + "/emergency"))
    report = plan(receipts.site, TableRestoreRequest("ReceiptData"))
    assert report.changed and counts(report) == (2, 3, 0) and report.level == "readable"
    assert report.in_backup[0]["rows"] == 100
    assert state(receipts) == before and sorted(os.listdir(receipts.store.root + "/emergency")) == files
    assert dataclasses.replace(TableRestoreRequest("x"), mode="repair").only_reports


def test_partitions_with_a_trigger_and_children(plain):
    """A row that moved to another partition, and one that another table refers to."""
    plain.as_owner(
        """
        CREATE TABLE months (id int, month int, what text, PRIMARY KEY (id, month)) PARTITION BY LIST (month);
        CREATE TABLE january PARTITION OF months FOR VALUES IN (1);
        CREATE TABLE later PARTITION OF months FOR VALUES IN (2, 3) PARTITION BY LIST (month);
        CREATE TABLE february PARTITION OF later FOR VALUES IN (2);
        CREATE TABLE march PARTITION OF later FOR VALUES IN (3);
        CREATE TABLE uses (id int, month int, FOREIGN KEY (id, month) REFERENCES months ON DELETE CASCADE);
        INSERT INTO months SELECT g, 1 + g % 3, 'w' || g FROM generate_series(1, 30) g;
        INSERT INTO uses SELECT id, month FROM months WHERE id < 20;
        CREATE TABLE traces (op text);
        CREATE FUNCTION trace() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO public.traces VALUES (TG_OP); RETURN NULL; END $$;
        CREATE TRIGGER traced AFTER INSERT OR UPDATE OR DELETE ON months FOR EACH ROW EXECUTE FUNCTION trace()""",
    )
    plain.backup(tables=["months"])
    before = state(plain)
    plain.as_owner(
        "UPDATE months SET what = 'x' WHERE id < 5; UPDATE months SET month = 3 WHERE id = 25;"
        "DELETE FROM months WHERE id = 30; TRUNCATE traces",
    )
    result = restore(plain, "months", policy=LossPolicy(1))
    assert result.lost_rows == 1 and result.total == 7
    assert state(plain) == before
    plain.as_owner("DELETE FROM uses; ALTER TABLE months DETACH PARTITION january")
    with pytest.raises(Refused, match="cannot restore table public.months") as caught:
        plan(plain.site, TableRestoreRequest("months"), result.backup)
    assert caught.value.found == "partition public.january of it is not there"


@pytest.mark.parametrize("tables", [None, ["Käufe"]])
def test_a_database_that_is_not_in_utf8(databases, tables):
    made = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER %s" % OWNER
    run_sql(databases.cluster, "postgres", made)
    live = databases.existing("latin")
    live.as_owner(
        'CREATE TABLE "Käufe" ("Größe" int PRIMARY KEY, "é, x" text);'
        "INSERT INTO \"Käufe\" SELECT g, 'ünï' || g FROM generate_series(1, 20) g",
    )
    live.backup(tables=tables)
    before = state(live)
    live.as_owner('UPDATE "Käufe" SET "é, x" = \'ö\' WHERE "Größe" < 4')
    assert restore(live, "Käufe").total == 3 and state(live) == before
