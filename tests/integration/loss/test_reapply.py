# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows written since are carried over to the new live database; rows that cannot be are reported, never guessed."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import retired_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss import reapply as reapply_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import swap as revert_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from support.databases import APP, OWNER

APPLY, APPLY_ALL, REPORT = Reapply("apply"), Reapply("apply", deletes=True), Reapply("report")
EVERYTHING = 10**9
PURCHASE = 'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (%s, 1.5, now(), %s)'


def begun(live, place):
    run = live.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    return run


def reverted(live, place, reapply=APPLY, accept=0):
    run = begun(live, place)
    result = revert(run, place, LossPolicy(accept, reapply=reapply, objects=99))
    run.operation.close("done")
    return run, result


def undone(live, operation, reapply=APPLY, accept=0):
    run = live.begun("undo", {"undoes": operation.id})
    result = undo(run, operation, LossPolicy(accept, reapply=reapply, objects=99))
    run.operation.close("done")
    return run, result


def carried(result):
    return {one.table.split(".", 1)[1]: (one.inserted, one.updated, one.deleted) for one in result.reapply.carried}


def conflicts(result):
    return {(one.table.split(".", 1)[1], one.reason): one.rows for one in result.reapply.conflicts}


def in_retired(live, result, query):
    name = result.retired
    live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % name, "postgres")
    try:
        return live.rows(query, name)
    finally:
        live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS false' % name, "postgres")


def test_a_purchase_made_after_the_deploy_survives_the_revert_and_its_undo(plain):
    place = plain.backup()
    plain.run("receipts.sql")
    with plain.session(user=OWNER) as cursor:
        cursor.execute("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
        cursor.execute(PURCHASE, ("new", "new"))
        cursor.execute("INSERT INTO \"UserContribution\" VALUES ('new', 'new', 'new', 0.1)")
        cursor.execute('UPDATE "User" SET "name" = E\'changed\\t\\\\\\n电\' WHERE "id" = \'u3\'')
    rows = plain.rows('SELECT * FROM "TokenPurchase" ORDER BY 1')
    users = plain.rows('SELECT * FROM "User" ORDER BY 1')
    site, result = reverted(plain, place)
    assert result.lost_rows == 0 and result.reapply.carried_rows == 4 and not conflicts(result)
    assert carried(result) == {"User": (1, 1, 0), "TokenPurchase": (1, 0, 0), "UserContribution": (1, 0, 0)}
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    assert plain.rows('SELECT * FROM "TokenPurchase" ORDER BY 1') == rows
    assert plain.rows('SELECT * FROM "User" ORDER BY 1') == users
    assert revert(site, place, LossPolicy(0, reapply=APPLY)).changed is False

    # Written in the reverted database: the undo carries it over, and does not count rows of the retired one as new.
    plain.as_owner(PURCHASE.replace("%s", "'after'").replace("'after')", "'u1')"))
    plain.as_owner('UPDATE "TokenPurchase" SET "totalTokens" = 9 WHERE "id" = \'new\'')
    _back, facts = undone(plain, site.operation)
    assert carried(facts) == {"TokenPurchase": (1, 1, 0)} and facts.lost_rows == 0
    assert plain.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")
    assert dict(plain.rows("SELECT id, \"totalTokens\" FROM \"TokenPurchase\" WHERE id IN ('new', 'after')")) == {
        "new": 9,
        "after": 1.5,
    }


def test_an_undo_right_after_loses_nothing_and_restores_nothing(plain, monkeypatch):
    """Carried rows are recognized by their digest: no copy has to be built to count."""
    place = plain.backup()
    plain.run("receipts.sql")
    plain.as_owner("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
    site, _result = reverted(plain, place)
    monkeypatch.setattr(revert_module, "build_database", lambda *_: pytest.fail("a copy was built"))
    _back, facts = undone(plain, site.operation, Reapply())
    assert facts.lost_rows == 0
    assert plain.value('SELECT count(*) FROM "User" WHERE "id" = \'new\'') == 1


def test_off_is_the_default_and_report_changes_nothing(plain):
    place = plain.backup()
    plain.as_owner("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
    run = begun(plain, place)
    with pytest.raises(Refused, match="1 rows would be lost") as caught:
        revert(run, place, LossPolicy(0))
    assert "rollback_reapply=apply" in caught.value.hint and caught.value.details["reapply"]["mode"] == "off"
    with pytest.raises(Refused, match="1 rows would be lost") as caught:
        revert(run, place, LossPolicy(0, reapply=REPORT))
    assert caught.value.details["reapply"]["carried"] == [
        {"table": "public.User", "inserted": 1, "updated": 0, "deleted": 0}
    ]
    result = revert(run, place, LossPolicy(1, reapply=REPORT))
    assert result.lost_rows == 1 and result.reapply.carried_rows == 1
    assert plain.value('SELECT count(*) FROM "User" WHERE "id" = \'new\'') == 0


def test_deletes_only_when_asked_for(plain):
    place = plain.backup()
    plain.as_owner('DELETE FROM "TokenPurchase" WHERE "id" = \'p000003\'')  # its contribution is deleted with it
    with pytest.raises(Refused, match="2 rows would be lost"):
        reverted(plain, place)
    _site, result = reverted(plain, place, APPLY_ALL)
    assert carried(result) == {"TokenPurchase": (0, 0, 1), "UserContribution": (0, 0, 1)}
    assert plain.value('SELECT count(*) FROM "TokenPurchase"') == 499
    assert plain.value('SELECT count(*) FROM "UserContribution"') == 399


SHAPES = """
CREATE TABLE composite (a integer, b text, v jsonb, PRIMARY KEY (b, a));
CREATE TABLE tree (id integer PRIMARY KEY, up integer REFERENCES tree, name text UNIQUE);
CREATE TABLE chicken (id integer PRIMARY KEY, egg integer NOT NULL);
CREATE TABLE egg (id integer PRIMARY KEY, chicken integer NOT NULL REFERENCES chicken);
ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE;
CREATE TABLE stiff_one (id integer PRIMARY KEY, other integer NOT NULL);
CREATE TABLE stiff_two (id integer PRIMARY KEY, other integer NOT NULL REFERENCES stiff_one);
ALTER TABLE stiff_one ADD FOREIGN KEY (other) REFERENCES stiff_two;
CREATE TABLE numbered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v numeric, twice numeric
  GENERATED ALWAYS AS (v * 2) STORED);
CREATE TABLE no_key (a integer);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE moods (id integer PRIMARY KEY, mood mood NOT NULL, code varchar(5), at timestamp(3));
CREATE TABLE "A child" ("odd %s Key" text PRIMARY KEY REFERENCES composite_parent ("p.q"), "ROW" integer);
CREATE TABLE audit (id serial PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO public.audit (what) VALUES (TG_OP); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON tree FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER sleeps BEFORE INSERT ON tree FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE tree DISABLE TRIGGER sleeps;
CREATE TRIGGER ever BEFORE INSERT ON tree FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE tree ENABLE ALWAYS TRIGGER ever;
INSERT INTO composite SELECT g % 10, 'b' || g / 10, jsonb_build_object('v', g) FROM generate_series(1, 60) g;
INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'two'), (3, 2, 'three'), (9, 9, 'itself');
INSERT INTO numbered (v) SELECT g / 3.0 FROM generate_series(1, 10) g;
INSERT INTO no_key VALUES (1), (1);
INSERT INTO moods VALUES (1, 'good', 'abc', '2025-01-01');
"""


@pytest.fixture
def shapes(databases):
    live = databases.make("shop", "template0")
    live.as_owner('CREATE TABLE composite_parent ("p.q" text PRIMARY KEY)', SHAPES)
    return live


def test_interrupted_before_rows_without_key_were_committed(plain, monkeypatch):
    """Equal rows do not show whether they were carried; the server knows of the transaction."""
    plain.as_owner("CREATE TABLE log (v text); INSERT INTO log VALUES ('a'), ('a'), ('b')")

    def interrupted(name):
        if name == "reapply.saved":
            raise BackstopError("interrupted")

    def twice(work):
        with monkeypatch.context() as patch, pytest.raises(BackstopError, match="interrupted"):
            patch.setattr(reapply_module, "reach", interrupted)
            work()
        assert work().lost_rows == 0
        return plain.rows("SELECT v FROM log ORDER BY 1")

    place = plain.backup()
    plain.as_owner("INSERT INTO log VALUES ('a'), ('c'); DELETE FROM log WHERE v = 'b'")
    run = begun(plain, place)
    policy = LossPolicy(0, reapply=APPLY_ALL, objects=99)
    assert twice(lambda: revert(run, place, policy)) == [("a",), ("a",), ("a",), ("c",)]
    run.operation.close("done")
    plain.as_owner("INSERT INTO log VALUES ('a'), ('d')")
    back = plain.begun("undo", {"undoes": run.operation.id})
    assert twice(lambda: undo(back, run.operation, policy)) == [("a",), ("a",), ("a",), ("a",), ("c",), ("d",)]


def test_order_of_foreign_keys_and_odd_shapes(shapes):
    """Parents first, whatever the tables' names; rows that refer to each other are carried over together."""
    place = shapes.backup()
    shapes.as_owner(
        "INSERT INTO composite_parent VALUES ('o''ne'), ('\\two')",
        "INSERT INTO \"A child\" VALUES ('o''ne', 1), ('\\two', NULL)",
        "INSERT INTO composite VALUES (77, 'z', NULL)",
        "UPDATE composite SET v = '[1.10, null]' WHERE a = 3",
        # Children before their parents in the heap.
        "BEGIN; ALTER TABLE tree DISABLE TRIGGER noted; INSERT INTO tree VALUES (5, NULL, 'five'), (6, 5, 'six');"
        " UPDATE tree SET up = 6 WHERE id = 3; INSERT INTO tree VALUES (7, 7, 'seven'); ALTER TABLE tree ENABLE TRIGGER"
        " noted; COMMIT",
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO chicken VALUES (1, 1); INSERT INTO egg VALUES (1, 1); COMMIT",
        "INSERT INTO numbered (v) VALUES (7), ('NaN'); UPDATE numbered SET v = 0 WHERE id = 2",
    )
    state = shapes.rows("SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1")
    tables = ["composite", "tree", "chicken", "egg", "numbered", '"A child"', "composite_parent", "audit"]
    before = {name: shapes.rows("SELECT (r.*)::text FROM %s r ORDER BY 1" % name) for name in tables}
    _site, result = reverted(shapes, place)
    assert not conflicts(result) and result.lost_rows == 0
    assert carried(result) == {
        "A child": (2, 0, 0),
        "composite_parent": (2, 0, 0),
        "composite": (1, 6, 0),
        "tree": (3, 1, 0),
        "chicken": (1, 0, 0),
        "egg": (1, 0, 0),
        "numbered": (2, 1, 0),
        "audit": (2, 0, 0),
    }
    assert {name: shapes.rows("SELECT (r.*)::text FROM %s r ORDER BY 1" % name) for name in tables} == before
    assert shapes.rows("SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1") == state
    # No number is used twice.
    shapes.as_owner("INSERT INTO numbered (v) VALUES (1)")
    assert shapes.value("SELECT max(id) FROM numbered") == 13


def test_conflicts_are_told_and_not_guessed(shapes):
    place = shapes.backup()
    shapes.as_owner(
        # A cycle whose foreign keys cannot be deferred.
        "ALTER TABLE stiff_one DROP CONSTRAINT stiff_one_other_fkey; INSERT INTO stiff_one VALUES (1, 1);"
        " INSERT INTO stiff_two VALUES (1, 1)",
        "INSERT INTO no_key VALUES (2)",
        # The unique value of a row that was deleted, while deletions are not carried over.
        "DELETE FROM tree WHERE id = 3; INSERT INTO tree VALUES (33, NULL, 'three'), (34, 33, 'below it')",
        # Types that allow more values.
        "ALTER TYPE mood ADD VALUE 'new'",
        "ALTER TABLE moods ALTER code TYPE varchar(50), ALTER at TYPE timestamp(6)",
        "INSERT INTO moods VALUES (2, 'new', 'a', NULL), (3, 'bad', 'longer', NULL), (4, 'bad', 'b',"
        " '2025-01-01 00:00:00.123456'), (5, 'bad', 'five5', '2025-01-01 00:00:00.5')",
        "CREATE TABLE fresh (id integer PRIMARY KEY); INSERT INTO fresh VALUES (1), (2)",
        "ALTER TABLE numbered ADD extra text",
        "INSERT INTO numbered (v, extra) VALUES (5, NULL), (6, 'kept in the file')",
        "SELECT lo_from_bytea(77, 'x')",
    )
    run = begun(shapes, place)
    with pytest.raises(Refused, match="11 rows would be lost") as caught:
        revert(run, place, LossPolicy(0, reapply=APPLY, objects=99))
    assert "public.fresh: 2 rows, the other database has no such table" in caught.value.found
    result = revert(run, place, LossPolicy(11, reapply=APPLY, objects=99))
    assert result.lost_rows == 11
    assert conflicts(result) == {
        ("stiff_one", "a row that it refers to is missing"): 1,
        ("stiff_two", "a row that it refers to is missing"): 1,
        ("tree", "a unique value is taken by another row"): 1,
        ("tree", "a row that it refers to is missing"): 1,
        ("moods", 'invalid input value for enum public.mood: "new"'): 1,
        ("moods", "it would not keep its values: a column has another type or a rule changes it"): 2,
        ("fresh", "the other database has no such table"): 2,
    }
    assert carried(result) == {
        "moods": (1, 0, 0),
        "numbered": (2, 0, 0),
        "audit": (4, 0, 0),
        "no_key": (1, 0, 0),
        "pg_largeobject": (1, 0, 0),
    }
    losses = {loss["name"]: (loss["inserted"], loss["updated"], loss["deleted"]) for loss in result.losses}
    # The value in a column that the reverted database does not have is still lost, and counted.
    assert losses["numbered"] == (0, 1, 0) and losses["tree"] == (2, 0, 1)
    told_rows = re.findall(r"(\d+) of public\.(\w+) \(", result.reapply.summary)
    assert sum(int(rows) for rows, _table in told_rows) == 11, result.reapply.summary
    assert "1 of public.numbered (values in columns that" in result.reapply.summary
    path = pathlib.Path(run.operation.file("reapply-conflicts.jsonl"))
    told = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert {
        "table": "public.tree",
        "key": {"id": "33"},
        "change": "insert",
        "reason": "a unique value is taken by another row",
    } in told
    assert path.stat().st_mode & 0o777 == 0o600
    kept = pathlib.Path(run.operation.file("lost-rows"))
    assert "kept in the file" in (kept / "public.numbered.copy").read_text("utf-8")
    assert len((kept / "public.moods.copy").read_text("utf-8").splitlines()) == 3


def test_partitions_and_generated_columns(plain):
    """Rows are carried into their own partition; one that moved to another, together with its deletion there."""
    plain.as_owner(
        "CREATE TABLE event (id integer, at date, n integer, twice integer GENERATED ALWAYS AS (n * 2) STORED,"
        " PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (MINVALUE) TO ('2025-01-01')",
        "CREATE TABLE event_rest PARTITION OF event DEFAULT",
        "INSERT INTO event SELECT g, date '2024-12-01' + g, g FROM generate_series(1, 60) g",
    )
    place = plain.backup()
    plain.as_owner(
        "INSERT INTO event VALUES (100, '2024-05-05', 5), (101, '2026-05-05', 6)",
        "UPDATE event SET at = '2025-06-06' WHERE id = 1",
        "UPDATE event SET n = 0 WHERE id IN (2, 59)",
        "CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
        "INSERT INTO event VALUES (102, '2027-05-05', 7)",
    )
    rows = "SELECT tableoid::regclass::text, e.* FROM event e WHERE id <> 102 ORDER BY 2, 3"
    before = plain.rows(rows)
    _site, result = reverted(plain, place, APPLY_ALL, accept=1)
    assert carried(result) == {"event_old": (1, 1, 1), "event_rest": (2, 1, 0)}
    assert conflicts(result) == {("event_new", "the other database has no such table"): 1}
    assert plain.rows(rows) == before


# Tables without a key, and large objects


KEYLESS = """
CREATE TABLE log (at timestamp, what text, n integer DEFAULT 1, twice integer GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE by_user (u text REFERENCES "User", v varchar(5));
INSERT INTO log (what) VALUES ('a'), ('a'), ('b'), (NULL);
"""


@pytest.fixture
def keyless(plain):
    plain.as_owner(KEYLESS)
    return plain


def multiset(live, table="log"):
    return sorted(str(row) for (row,) in live.rows("SELECT r::text FROM %s r" % table))


def test_rows_without_a_key_are_added(keyless):
    """As many equal rows are added as were written, duplicates too; the undo carries them back, none twice."""
    place = keyless.backup()
    keyless.as_owner(
        "INSERT INTO log (what, n) VALUES ('a', 1), ('a', 1), (E'x\t\\\\n\"', NULL), (NULL, 7)",
        "INSERT INTO \"User\" VALUES ('new', 'new@example.org')",
        "INSERT INTO by_user VALUES ('new', 'x')",
    )
    before = multiset(keyless)
    site, result = reverted(keyless, place)
    assert carried(result) == {"log": (4, 0, 0), "User": (1, 0, 0), "by_user": (1, 0, 0)}
    assert result.lost_rows == 0 and not conflicts(result)
    assert multiset(keyless) == before and multiset(keyless, "by_user") == ["(new,x)"]
    keyless.as_owner("INSERT INTO log (what) VALUES ('a')")
    _back, facts = undone(keyless, site.operation)
    assert carried(facts) == {"log": (1, 0, 0)} and multiset(keyless) == sorted([*before, "(,a,1,2)"])


def test_rows_without_a_key_that_were_changed(keyless):
    """Adding the new row without deleting the old one would double it; with deletes both are carried over."""
    place = keyless.backup()
    keyless.as_owner("UPDATE log SET n = 5 WHERE what = 'b'; DELETE FROM log WHERE ctid = '(0,1)'")
    why = "it has no key, so deleted and changed rows cannot be distinguished"
    run = begun(keyless, place)
    with pytest.raises(Refused, match="3 rows would be lost") as caught:
        revert(run, place, LossPolicy(0, reapply=APPLY))
    assert "public.log: 1 rows, " + why in caught.value.found
    before = multiset(keyless)
    result = revert(run, place, LossPolicy(0, reapply=APPLY_ALL, objects=99))
    assert carried(result) == {"log": (1, 0, 2)} and multiset(keyless) == before


def test_rows_without_a_key_on_both_sides(keyless):
    """A row to be deleted that is missing there too is a conflict, one per missing row; so is a row that cannot fit."""
    keyless.as_owner("INSERT INTO log (what) VALUES ('a'), ('c')")
    place = keyless.backup()
    keyless.as_owner("DELETE FROM log WHERE what = 'a'", "ALTER TABLE by_user ALTER v TYPE varchar(50)")
    site, result = reverted(keyless, place, Reapply(), accept=EVERYTHING)
    assert result.lost_rows == 3
    keyless.as_owner("DELETE FROM log WHERE what IN ('a', 'b')", "INSERT INTO log (what) VALUES ('d')")
    back = keyless.begun("undo", {"undoes": site.operation.id})
    with pytest.raises(Refused, match="3 rows would be lost"):
        undo(back, site.operation, LossPolicy(0, reapply=APPLY_ALL))
    facts = undo(back, site.operation, LossPolicy(3, reapply=APPLY_ALL))
    assert conflicts(facts) == {("log", "the row was deleted there"): 3} and carried(facts) == {"log": (1, 0, 1)}
    assert multiset(keyless) == ["(,,1,2)", "(,c,1,2)", "(,d,1,2)"]
    told = pathlib.Path(back.operation.file("reapply-conflicts.jsonl")).read_text("utf-8").splitlines()
    assert json.loads(told[0]) == {
        "table": "public.log",
        "row": {"at": None, "what": "a", "n": "1"},
        "change": "delete",
        "reason": "the row was deleted there",
    }


def test_rows_without_a_key_that_do_not_fit(keyless):
    place = keyless.backup()
    keyless.as_owner(
        "ALTER TABLE by_user ALTER v TYPE varchar(50)",
        "INSERT INTO by_user VALUES ('u1', 'fits'), ('u2', 'longer than five'), (NULL, 'ok')",
        "ALTER TABLE log ADD extra text; INSERT INTO log (what, extra) VALUES ('z', 'kept in the file')",
    )
    site, result = reverted(keyless, place, accept=2)
    assert carried(result) == {"by_user": (2, 0, 0)} and result.lost_rows == 2
    assert conflicts(result) == {
        ("by_user", "it would not keep its values: a column has another type or a rule changes it"): 1,
        ("log", "it has no key, and columns that the other database does not have"): 1,
    }
    kept = pathlib.Path(site.operation.file("lost-rows"))
    assert (kept / "public.by_user.copy").read_text("utf-8") == "u2\tlonger than five\n"
    assert "kept in the file" in (kept / "public.log.copy").read_text("utf-8")


PICTURES = "CREATE TABLE pictures (id integer PRIMARY KEY, image oid)"
OBJECTS = "SELECT oid::bigint, convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata ORDER BY 1"


def test_large_objects_go_with_their_numbers(plain):
    """New ones with owner and privileges, changed ones, and with deletes also deletions; rows find them by oid."""
    plain.as_owner(PICTURES, "SELECT lo_from_bytea(n, 'old ' || n::text::bytea) FROM unnest(ARRAY[901, 902, 903]) n")
    place = plain.backup()
    plain.as_owner(
        "SELECT lo_from_bytea(910, 'new'); GRANT SELECT ON LARGE OBJECT 910 TO " + APP,
        "SELECT lo_put(901, 0, 'OTHER'), lo_unlink(902)",
        "INSERT INTO pictures VALUES (1, 910)",
    )
    objects = plain.rows(OBJECTS)
    run = begun(plain, place)
    with pytest.raises(Refused, match="1 rows would be lost.*pg_largeobject: 1 deleted"):
        revert(run, place, LossPolicy(0, reapply=APPLY))
    result = revert(run, place, LossPolicy(0, reapply=APPLY_ALL, objects=99))
    assert carried(result) == {"pg_largeobject": (1, 1, 1), "pictures": (1, 0, 0)} and not conflicts(result)
    assert plain.rows(OBJECTS) == objects
    assert plain.value("SELECT lomacl::text FROM pg_largeobject_metadata WHERE oid = 910").count(APP + "=r/") == 1
    run.operation.close("done")
    # And back again: carried objects are not counted as written since.
    plain.as_owner("SELECT lo_from_bytea(911, 'later')")
    _back, facts = undone(plain, run.operation)
    assert carried(facts) == {"pg_largeobject": (1, 0, 0)} and facts.lost_rows == 0


def test_a_number_that_another_large_object_has(plain):
    """Neither the object nor any row that refers to it is carried over: there the row would show another object."""
    plain.as_owner(PICTURES)
    place = plain.backup()
    site, _result = reverted(plain, place)
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % _result.retired, "postgres")
    plain.execute("SET ROLE %s; SELECT lo_from_bytea(920, 'theirs')" % OWNER, _result.retired)
    plain.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS false' % _result.retired, "postgres")
    plain.as_owner(
        "SELECT lo_from_bytea(920, 'ours'), lo_from_bytea(921, 'free')",
        "INSERT INTO pictures VALUES (1, 920), (2, 921), (3, NULL)",
    )
    _back, facts = undone(plain, site.operation, accept=2)
    assert conflicts(facts) == {
        ("pg_largeobject", "its number is taken by another large object"): 1,
        ("pictures", "a large object that it refers to is not carried over"): 1,
    }
    assert carried(facts) == {"pg_largeobject": (1, 0, 0), "pictures": (2, 0, 0)} and facts.lost_rows == 2
    assert plain.rows(OBJECTS) == [(920, "theirs"), (921, "free")]


def test_an_owner_that_cannot_be_given(plain):
    place = plain.backup()
    plain.execute(
        "SELECT lo_from_bytea(930, 'of another'); ALTER LARGE OBJECT 930 OWNER TO %s;"
        " GRANT SELECT ON LARGE OBJECT 930 TO %s" % (APP, OWNER)
    )
    _site, result = reverted(plain, place, accept=1)
    assert conflicts(result) == {("pg_largeobject", "its owner or its privileges cannot be given there"): 1}
    assert plain.rows(OBJECTS) == []


def test_deletes_that_others_still_refer_to(shapes):
    """ON DELETE CASCADE would delete rows that nobody deleted."""
    shapes.as_owner("CREATE TABLE leaf (id integer PRIMARY KEY, t integer REFERENCES tree ON DELETE CASCADE, n text)")
    shapes.as_owner("INSERT INTO leaf VALUES (1, 3, 'a'), (2, 2, 'b')")
    place = shapes.backup()
    shapes.as_owner("ALTER TABLE leaf ALTER n TYPE varchar(100); UPDATE leaf SET t = 1 WHERE id = 2")
    shapes.as_owner("ALTER TABLE leaf DROP CONSTRAINT leaf_t_fkey; DELETE FROM tree WHERE id IN (2, 3, 9)")
    _site, result = reverted(shapes, place, APPLY_ALL, accept=2)
    assert conflicts(result) == {("tree", "other rows refer to it"): 2}
    assert carried(result) == {"tree": (0, 0, 1), "leaf": (0, 1, 0), "audit": (3, 0, 0)}
    assert shapes.rows("SELECT id, t FROM leaf ORDER BY 1") == [(1, 3), (2, 1)]
    assert shapes.rows("SELECT id FROM tree ORDER BY 1") == [(1,), (2,), (3,)]


def test_an_undo_sees_what_both_sides_changed(plain):
    """Three versions of a row: in the backup, in the retired database, in the live one."""
    place = plain.backup()
    plain.as_owner("UPDATE \"User\" SET \"name\" = 'before' WHERE \"id\" IN ('u1', 'u2', 'u3')")
    plain.as_owner("DELETE FROM \"UserContribution\" WHERE \"id\" IN ('c1', 'c2')")
    plain.as_owner("INSERT INTO \"User\" VALUES ('x', 'x@example.org', 'one')")
    site, result = reverted(plain, place, Reapply(), accept=EVERYTHING)
    assert result.lost_rows == 6
    plain.as_owner("UPDATE \"User\" SET \"name\" = 'after' WHERE \"id\" IN ('u1', 'u5')")  # u1 on both sides
    plain.as_owner('UPDATE "User" SET "name" = \'before\' WHERE "id" = \'u2\'')  # the same on both sides
    plain.as_owner('UPDATE "UserContribution" SET "contributionAmount" = 7 WHERE "id" IN (\'c1\', \'c9\')')
    plain.as_owner("INSERT INTO \"User\" VALUES ('x', 'x@example.org', 'other')")
    with pytest.raises(Refused, match="3 rows would be lost"):
        undone(plain, site.operation)
    _back, facts = undone(plain, site.operation, accept=3)
    assert conflicts(facts) == {
        ("User", "another row of this key is there"): 1,
        ("User", "the row was changed on both sides"): 1,
        ("UserContribution", "the row was deleted there"): 1,
    }
    assert carried(facts) == {"User": (0, 1, 0), "UserContribution": (0, 1, 0)}
    names = dict(plain.rows('SELECT "id", "name" FROM "User"'))
    assert [names[key] for key in ("u1", "u2", "u3", "u5", "x")] == ["before", "before", "before", "after", "one"]


@pytest.mark.parametrize("where", ["revert", "undo"])
def test_a_carry_without_its_swap_is_taken_back(plain, monkeypatch, where):
    """Interrupted between the carry's COMMIT and the renames: later changes count, rows deleted since do not stay."""
    plain.as_owner("CREATE TABLE log (w text); INSERT INTO log VALUES ('x'), ('x')")
    place = plain.backup()
    plain.run("receipts.sql")
    if where == "undo":
        site, _result = reverted(plain, place)
    else:
        site = begun(plain, place)
    plain.as_owner("INSERT INTO \"User\" VALUES ('ghost', 'ghost@example.org'), ('stays', 'stays@example.org')")
    plain.as_owner("SELECT lo_from_bytea(5, 'ghost'); INSERT INTO log VALUES ('ghost'); DELETE FROM log WHERE w = 'x'")
    plain.as_owner('UPDATE "User" SET "name" = \'first\' WHERE "id" = \'u1\'')
    plain.as_owner('DELETE FROM "UserContribution" WHERE "id" = \'c1\'')

    def run(accept=0):
        if where == "undo":
            return undone(plain, site.operation, APPLY_ALL, accept)[1]
        return revert(site, place, LossPolicy(accept, reapply=APPLY_ALL, objects=99))

    def cut_off(name):
        if name == "reapply.committed":
            raise BackstopError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(reapply_module, "reach", cut_off)
        with pytest.raises(BackstopError, match="cut off"):
            run()
    # The application continued in the meantime.
    plain.as_owner('DELETE FROM "User" WHERE "id" = \'ghost\'')
    plain.as_owner("SELECT lo_unlink(5); DELETE FROM log WHERE w = 'ghost'; INSERT INTO log VALUES ('x'), ('x')")
    plain.as_owner('UPDATE "User" SET "name" = \'second\' WHERE "id" = \'u1\'')
    plain.as_owner("INSERT INTO \"UserContribution\" SELECT 'c1', 'p000001', 'u2', 0.3")
    result = run()
    # The contribution is unchanged: neither deleted nor changed.
    assert carried(result) == {"User": (1, 1, 0)} and result.lost_rows == 0
    assert plain.rows('SELECT "id", "name" FROM "User" WHERE "id" IN (\'ghost\', \'stays\', \'u1\') ORDER BY 1') == [
        ("stays", None),
        ("u1", "second"),
    ]
    assert plain.value('SELECT count(*) FROM "UserContribution"') == 400
    assert plain.rows("SELECT w FROM log") == [("x",), ("x",)] and plain.rows(OBJECTS) == []


@pytest.mark.fault("deploy", "rows carried over that do not come out as they were", by="digests before COMMIT")
def test_what_cannot_be_proved_is_not_committed(plain):
    """A foreign key's ON UPDATE CASCADE changes rows that should not be changed."""
    plain.as_owner(
        'CREATE TABLE refers (id integer PRIMARY KEY, email text REFERENCES "User" ("email") ON UPDATE CASCADE)',
        "INSERT INTO refers VALUES (1, 'u1@example.org')",
    )
    place = plain.backup()
    plain.as_owner(
        "ALTER TABLE refers DROP CONSTRAINT refers_email_fkey",
        'UPDATE "User" SET "email" = \'other@example.org\' WHERE "id" = \'u1\'',
    )
    run = begun(plain, place)
    names = plain.names()
    with pytest.raises(BackstopError, match="does not hold exactly what was backed up") as caught:
        revert(run, place, LossPolicy(EVERYTHING, reapply=APPLY))
    assert caught.value.found == "other rows in public.refers" and plain.names() == names
    assert revert(run, place, LossPolicy(1, reapply=Reapply())).lost_rows == 1


def test_a_successor_that_somebody_changed_is_not_proved(plain):
    place = plain.backup()
    plain.as_owner("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
    run = begun(plain, place)
    successor = [name for name in plain.names() if name != plain.name][0]
    plain.execute('DELETE FROM "UserContribution" WHERE "id" = \'c7\'', successor)
    with pytest.raises(BackstopError, match="does not hold exactly what was backed up") as caught:
        revert(run, place, LossPolicy(EVERYTHING, reapply=APPLY))
    assert "public.UserContribution" in caught.value.found


@pytest.mark.fault("deploy", "random changes carried over a revert", by="all there afterwards")
def test_random_changes_all_survive(plain, seed):
    """After any inserts, updates and deletes in common tables, the new database has the same rows as the live one."""
    chance = random.Random(seed)
    place = plain.backup()
    with plain.session(user=OWNER) as cursor:
        for number in range(80):
            some = chance.randrange(1, 400)
            name = chance.choice(["NULL", "''", "E'\\\\N'", "E'a\\tb\\nc'", "'\"(,)'", "'电'"])
            cursor.execute(
                chance.choice(
                    [
                        "INSERT INTO \"User\" VALUES ('n%d', 'n%d@example.org', %s)" % (number, number, name),
                        'UPDATE "User" SET "name" = %s WHERE "id" = \'u%d\'' % (name, some % 20 + 1),
                        'DELETE FROM "TokenPurchase" WHERE "id" = \'p%06d\'' % some,
                        'UPDATE "TokenPurchase" SET "totalTokens" = %d / 3.0, "createdBy" = \'u%d\' WHERE "id" ='
                        " 'p%06d'" % (number, some % 20 + 1, some),
                        PURCHASE.replace("%s", "'%s'") % ("n%d" % number, "u%d" % (some % 20 + 1)),
                        'DELETE FROM "UserContribution" WHERE "id" = \'c%d\'' % some,
                        'UPDATE "UserContribution" SET "userId" = \'u%d\' WHERE "id" = \'c%d\'' % (some % 20 + 1, some),
                    ]
                )
            )
    tables = ["User", "TokenPurchase", "UserContribution"]
    before = {name: plain.rows('SELECT * FROM "%s" ORDER BY "id"' % name) for name in tables}
    number = plain.value('SELECT last_value FROM "TokenPurchase_number_seq"')
    _site, result = reverted(plain, place, APPLY_ALL)
    assert result.lost_rows == 0 and not conflicts(result)
    assert {name: plain.rows('SELECT * FROM "%s" ORDER BY "id"' % name) for name in tables} == before
    assert plain.value('SELECT last_value FROM "TokenPurchase_number_seq"') == number


# Sequences


def test_sequences_only_go_forward(databases):
    live = databases.make("shop", "template_realistic", user=None)
    place = live.backup()
    live.execute("SELECT nextval('receipt_number'), nextval('countdown'), nextval('never_used')")
    live.execute("SELECT setval('\"User_seq_seq\"', 7)")
    values = """
        SELECT 'receipt_number', last_value FROM receipt_number UNION SELECT 'countdown', last_value FROM countdown
        UNION SELECT 'never_used', last_value FROM never_used UNION SELECT 'user', last_value FROM "User_seq_seq"
    """
    before = dict(live.rows(values))
    site, result = reverted(live, place, Reapply())
    found = dict(live.rows(values))
    # The sequence that was set back in the live database keeps the backup's value.
    assert before.pop("user") == 7 and found.pop("user") == 40
    assert found == before and len(result.advanced_sequences) == 3
    live.execute("SELECT nextval('receipt_number'), nextval('never_used')")
    before = dict(live.rows(values))
    undone(live, site.operation, Reapply())
    found = dict(live.rows(values))
    assert found["receipt_number"] == before["receipt_number"] and found["never_used"] == before["never_used"]
    assert found["user"] == 40


def test_the_retired_database_stays_closed(plain):
    """Only the undo may connect to it meanwhile, and an undo that is refused leaves it closed."""
    place = plain.backup()
    site, result = reverted(plain, place, Reapply())
    plain.as_owner("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
    with pytest.raises(Refused, match="1 rows would be lost"):
        undone(plain, site.operation, Reapply())
    name = retired_name(site.operation.id, plain.name)
    assert plain.value("SELECT datallowconn FROM pg_database WHERE datname = '%s'" % name, "postgres") is False
    assert not in_retired(plain, result, 'SELECT 1 FROM "User" WHERE "id" = \'new\'')
    assert not os.path.exists(site.operation.file("carried"))
