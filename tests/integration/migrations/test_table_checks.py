# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of tables, and the effects on others of deleting from one, on a real server."""

from __future__ import annotations

import decimal
import json
import random
import time

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.table_checks import check_table
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, impact, measures
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.databases import OWNER
from support.module_runner import run_module


def check(live, name="ReceiptData", manifest=None, **wanted):
    with live.site.connect() as session:
        return check_table(session, {"name": name, **wanted}, "public", manifest)


def wrong(live, *args, **wanted):
    return check(live, *args, **wanted)[1]


@pytest.fixture
def receipts(plain):
    """Receipts whose float sum depends on the order of the rows."""
    plain.run("receipts.sql")
    plain.execute(
        "INSERT INTO \"ReceiptData\" SELECT 'r' || g, 'p' || lpad(g::text, 6, '0'), NULL, g / 10.0::float8,"
        " timestamp '2025-03-01' + g * interval '1 day' FROM generate_series(1, 300) g"
    )
    return plain


COLUMNS = {"id": 0, "amount": 3, "at": 4}


@pytest.fixture
def names(receipts):
    """The columns of the table by type of content."""
    with receipts.site.connect() as session:
        table = catalog.find_table(session, "ReceiptData")
    return {what: table.columns[place] for what, place in COLUMNS.items()}


def test_what_is_there(receipts, names):
    measured, sentences = check(
        receipts,
        columns=list(names.values()),
        key=[names["id"]],
        rows=300,
        min_rows=300,
        max_rows=300,
        earliest={names["at"]: "2025-03-02"},
        latest={names["at"]: "2025-12-26 00:00:00.0"},
        sums={names["amount"]: "4515.0"},
    )
    assert sentences == []
    assert measured == {
        "table": "public.ReceiptData",
        "exists": True,
        "rows": 300,
        "earliest": {names["at"]: "2025-03-02 00:00:00"},
        "latest": {names["at"]: "2025-12-26 00:00:00"},
        "sums": {names["amount"]: {"sum": "4515", "not_a_number": 0, "infinite": 0}},
    }


@pytest.mark.parametrize(
    "expected, told",
    [
        ({"columns": ["id", "tariff"]}, "lacks the columns tariff"),
        ({"key": ["purchaseId"]}, "has the key id, not purchaseId"),
        ({"key": []}, "has the key id, not none"),
        ({"rows": 299}, "has 300 rows, not 299"),
        ({"min_rows": 301}, "fewer than 301"),
        ({"max_rows": 299}, "more than 299"),
        ({"exists": False}, "table ReceiptData exists"),
        ({"sums": {"id": 1}}, "holds no numbers"),
        ({"sums": {"tariff": None}}, "has no column tariff"),
        ({"earliest": {"id": "r2"}}, "earliest id of table ReceiptData is r1, not r2"),
    ],
)
def test_what_does_not_hold_is_told(receipts, expected, told):
    [sentence] = wrong(receipts, **expected)
    assert told in sentence, sentence


def test_values_that_are_none_of_the_type(receipts, names):
    [sentence] = wrong(receipts, latest={names["at"]: "last tuesday"})
    assert "last tuesday" in sentence
    [sentence] = wrong(receipts, sums={names["amount"]: "a lot"})
    assert "is 4515, not a lot" in sentence


def test_all_that_is_wrong_is_told(receipts, names):
    sentences = wrong(receipts, rows=1, key=["x"], sums={names["amount"]: 1}, latest={names["at"]: "2020-01-01"})
    assert len(sentences) == 4


def test_a_table_that_is_missing_names_the_near_ones(receipts):
    [sentence] = wrong(receipts, "receipt_data")
    assert "perhaps ReceiptData" in sentence
    assert wrong(receipts, "receipt_data", exists=False) == []


def test_the_sum_does_not_depend_on_the_order_of_rows(plain, seed):
    """PostgreSQL's own sum of floats does; so does a cast to numeric, which keeps 15 digits."""
    chance = random.Random(seed)
    values = [chance.uniform(-1, 1) * 10 ** chance.randint(-12, 15) for _number in range(400)]
    with decimal.localcontext() as context:
        context.prec = 100
        exact = sum((decimal.Decimal(repr(value)) for value in values), decimal.Decimal(0))
    for _run in range(2):
        chance.shuffle(values)
        plain.execute("DROP TABLE IF EXISTS floats; CREATE TABLE floats (v float8)")
        plain.execute("GRANT SELECT ON floats TO %s" % OWNER)
        plain.execute("INSERT INTO floats SELECT unnest(ARRAY[%s]::float8[])" % ", ".join(map(repr, values)))
        measured, _wrong = check(plain, "floats", sums={"v": None})
        assert decimal.Decimal(measured["sums"]["v"]["sum"]) == exact


def test_what_is_no_number_is_counted_apart(plain):
    plain.execute(
        "CREATE TABLE odd (f float8, n numeric, i bigint, m money); GRANT SELECT ON odd TO %s; INSERT INTO odd VALUES"
        " (0.1, 0.1, 9223372036854775807, 1.10), (0.2, 0.2, 9223372036854775807, 2.20), ('NaN', 'NaN', NULL, NULL),"
        " ('Infinity', NULL, NULL, NULL), ('-Infinity', NULL, NULL, NULL), (NULL, NULL, NULL, NULL)" % OWNER
    )
    measured, sentences = check(plain, "odd", sums={"f": None, "n": None, "i": None, "m": None})
    assert sentences == []
    assert measured["sums"] == {
        "f": {"sum": "0.3", "not_a_number": 1, "infinite": 2},
        "n": {"sum": "0.3", "not_a_number": 1, "infinite": 0},
        "i": {"sum": "18446744073709551614", "not_a_number": 0, "infinite": 0},
        "m": {"sum": "3.3", "not_a_number": 0, "infinite": 0},
    }
    [sentence] = wrong(plain, "odd", sums={"f": "0.3"})
    assert sentence == "the sum of f in table odd is 0.3 and 1 NaN and 2 infinite, not 0.3"
    assert wrong(plain, "odd", sums={"m": 3.3}) == []


def test_a_partitioned_table_and_an_empty_one(realistic):
    with realistic.site.connect() as session:
        family = catalog.find_family(session, "measured")
        assert family.partitioned and measures.count_rows(session, family) > 0
    measured, sentences = check(realistic, "measured", min_rows=1)
    assert sentences == [] and measured["rows"] == realistic.value("SELECT count(*) FROM measured")
    realistic.execute("CREATE TABLE bare (n int)")
    measured, sentences = check(realistic, "bare", sums={"n": 0}, earliest={"n": None})
    assert sentences == [] and measured["sums"]["n"]["sum"] == "0" and measured["earliest"] == {"n": None}


def test_digests_against_a_backup(receipts):
    manifest = manifests.load(receipts.backup())
    measured, sentences = check(receipts, manifest=manifest)
    assert sentences == [] and measured["same_as_backup"]
    receipts.execute("UPDATE \"ReceiptData\" SET id = 'r1x' WHERE id = 'r1'")
    measured, [sentence] = check(receipts, manifest=manifest)
    assert not measured["same_as_backup"] and "holds other rows than in backup" in sentence
    receipts.execute('ALTER TABLE "ReceiptData" ADD extra int; CREATE TABLE new (); GRANT SELECT ON new TO %s' % OWNER)
    assert "has other columns" in wrong(receipts, manifest=manifest)[0]
    assert "is not in backup" in wrong(receipts, "new", manifest=manifest)[0]


def test_the_impact_table_is_the_runbooks(receipts):
    with receipts.site.connect() as session:
        graph = impact.ForeignKeyGraph(session)
        wanted = graph.with_referenced([catalog.find_table(session, "ReceiptData").oid])
        tables = [table for table in catalog.tables(session) if table.oid in wanted]
        assert [table.name for table in tables] == ["ReceiptData", "TokenPurchase", "User"]
        found = impact.impact_of(graph, tables)
    effects = {(row.action, row.table.partition(".")[2]): row.effects for row in found}
    assert effects["DELETE", "TokenPurchase"] == {
        "public.TokenPurchase": "rows deleted",
        "public.ReceiptData": "deletes rows",
        "public.UserContribution": "deletes rows",
    }
    assert effects["DELETE", "ReceiptData"] == {"public.ReceiptData": "rows deleted"}
    assert effects["DELETE", "User"]["public.TokenPurchase"] == "refuses"
    assert effects["TRUNCATE CASCADE", "User"]["public.ReceiptData"] == "emptied"
    lines = impact.story(found)
    assert "DELETE and TRUNCATE CASCADE reach no other table from: ReceiptData" in lines
    assert "public." not in "".join(lines)
    assert "DELETE TokenPurchase: deletes rows of ReceiptData, UserContribution" in lines
    assert "DELETE User: refused by rows of TokenPurchase" in "\n".join(lines)
    assert "TRUNCATE CASCADE TokenPurchase: empties ReceiptData, UserContribution" in lines
    assert impact.story([]) == []
    # The catalog's prediction compared with what the server does.
    receipts.execute("DELETE FROM \"TokenPurchase\" WHERE id = 'p000001'")
    assert receipts.value('SELECT count(*) FROM "ReceiptData"') == 299
    assert receipts.value('SELECT count(*) FROM "UserContribution"') == 399


def test_six_hundred_tables(receipts, tmp_path):
    """Each refers to one before it and some to themselves; a cell for each pair of tables made 33 MB, and took 29 s."""
    receipts.execute(
        """DO $$ BEGIN FOR n IN 1..600 LOOP
             EXECUTE format('CREATE TABLE many_%%s (id int PRIMARY KEY, up int REFERENCES many_%%s ON DELETE CASCADE,'
               ' own int REFERENCES many_%%s)', n, greatest(n / 2, 1), n);
           END LOOP; END $$; GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s"""
        % OWNER
    )
    started = time.monotonic()
    with receipts.site.connect() as session:
        graph, tables = impact.ForeignKeyGraph(session), catalog.tables(session)
    found = impact.impact_of(graph, tables)
    text = impact.story(found)
    print("%d rows in %.2f s" % (len(found), time.monotonic() - started))
    assert len(text) > 2 * len(tables) and len("".join(text)) < 1 << 20 and max(map(len, text)) <= 96
    effects = {row.table: row.effects for row in found if row.action == "DELETE"}
    assert effects["public.many_600"] == {"public.many_600": "rows deleted, refuses"}
    assert effects["public.many_150"] == {
        "public.many_150": "rows deleted, refuses",
        "public.many_300": "refuses, deletes rows",
        **{"public.many_%d" % n: "refuses, deletes rows" for n in (301, 600)},
    }
    wanted = {"connection": {"url": receipts.cluster.url("shop", user=OWNER)}}
    known = run_module(tmp_path, "pg_table_info", wanted)
    assert len(known.result["tables"]) == len(tables)
    assert len(json.dumps(known.result)) < 2 << 20


def test_the_modules(receipts, tmp_path):
    common = {
        "connection": {"url": receipts.cluster.url("shop", user=OWNER)},
    }
    place = receipts.backup()
    store = {"store": receipts.store.root}
    answer = run_module(tmp_path, "pg_table_check", {**common, **store, "backup": place.backup_id})
    assert not answer.failed and answer.result["checks"] == 5, answer.printed
    receipts.execute('DELETE FROM "UserContribution"')
    tables = [{"name": "UserContribution"}, {"name": "User", "rows": 1}]
    answer = run_module(tmp_path, "pg_table_check", {**common, **store, "backup": place.backup_id, "tables": tables})
    assert answer.failed and len(answer.result["wrong"]) == 2 and answer.result["tables"][0]["rows"] == 0
    wanted = {**common, "tables": ["ReceiptData"], "referenced": True, "counts": False}
    known = run_module(tmp_path, "pg_table_info", wanted)
    assert [table["name"] for table in known.result["tables"]] == ["ReceiptData", "TokenPurchase", "User"]
    assert "rows" not in known.result["tables"][0] and known.result["story"][-1].endswith(" ReceiptData")
