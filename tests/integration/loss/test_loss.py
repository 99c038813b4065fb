# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that a rollback would lose are counted exactly, and the rows that it kept can be restored."""

from __future__ import annotations

import collections
import random
import shlex
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    qualified,
    quote_identifier,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss import differences
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.count import (
    count_losses,
    sum_up_base,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.kept_rows import write_lost_rows
from support.databases import OWNER

TABLES = """
CREATE TABLE keyed (id text PRIMARY KEY, a double precision, b text, c integer);
CREATE TABLE composite (a integer, b text, v jsonb, PRIMARY KEY (b, a));
CREATE TABLE indexed (code text NOT NULL UNIQUE, maybe integer UNIQUE, v numeric);
CREATE TABLE no_key (a integer, b text);
CREATE TABLE "Odd ""name"" 电" ("the Key" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "v.w" text,
  twice bigint GENERATED ALWAYS AS ("the Key" * 2) STORED);
CREATE TABLE untouched (id integer PRIMARY KEY);
INSERT INTO keyed SELECT 'k' || g, g / 3.0, NULL, g FROM generate_series(1, 150) g;
INSERT INTO composite SELECT g % 10, 'b' || g / 10, jsonb_build_object('v', g) FROM generate_series(1, 120) g;
INSERT INTO indexed SELECT 'c' || g, CASE WHEN g % 2 = 0 THEN g END, g FROM generate_series(1, 100) g;
INSERT INTO no_key SELECT g % 7, CASE WHEN g % 5 = 0 THEN NULL WHEN g % 5 = 1 THEN '' ELSE 'x' END
  FROM generate_series(1, 90) g;
INSERT INTO "Odd ""name"" 电" ("v.w") SELECT 'v' || g FROM generate_series(1, 60) g;
INSERT INTO untouched SELECT generate_series(1, 5000);
"""
KEYS = {
    "keyed": ["id"],
    "composite": ["b", "a"],
    "indexed": ["code"],
    "no_key": [],
    'Odd "name" 电': ["the Key"],
    "untouched": ["id"],
    "fresh": ["id"],
}


@pytest.fixture
def pair(databases):
    """A live database and its base, equal at first."""
    live = databases.make("live", "template0")
    live.as_owner(TABLES)
    return live, base_of(live, databases)


def base_of(live, databases):
    live.execute("CREATE DATABASE base TEMPLATE %s OWNER %s" % (quote_identifier(live.name), OWNER), "postgres")
    return databases.existing("base")


def count(live, base):
    with live.site.connect() as here, base.site.connect() as there:
        return {loss.name: loss for loss in count_losses(here, there)}


def counted(losses):
    return {name: (loss.inserted, loss.updated, loss.deleted) for name, loss in losses.items()}


# A model that reads everything


def contents(live):
    """Every row of every table, as texts."""
    found = {}
    with live.session() as cursor:
        cursor.execute("SET extra_float_digits = 3")
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        for (name,) in cursor.fetchall():
            cursor.execute("SELECT * FROM ONLY %s" % qualified("public", name))
            columns = [column.name for column in cursor.description]
            found[name] = columns, [tuple(map(repr, row)) for row in cursor.fetchall()]
    return found


def expected(live, base):
    """Inserted, updated and deleted rows, by comparing all rows with all."""
    result = {}
    here, there = contents(live), contents(base)
    for name, (columns, rows) in here.items():
        others = there[name][1]
        places = [columns.index(column) for column in KEYS[name]]
        if places:
            mine = {tuple(row[place] for place in places): row for row in rows}
            theirs = {tuple(row[place] for place in places): row for row in others}
            facts = (
                len(set(mine) - set(theirs)),
                sum(1 for key in set(mine) & set(theirs) if mine[key] != theirs[key]),
                len(set(theirs) - set(mine)),
            )
        else:
            mine, theirs = collections.Counter(rows), collections.Counter(others)
            facts = (sum((mine - theirs).values()), 0, sum((theirs - mine).values()))
        if any(facts):
            result[name] = facts
    return result


def random_change(chance, number):
    """One statement that changes some rows, or none."""
    text = chance.choice(["NULL", "''", "'x'", "E'tab\\there\\\\n'", "'电'", "'\\N'", "'\\.'"])
    some = chance.randrange(1, 160)
    return chance.choice(
        [
            "INSERT INTO keyed VALUES ('n%d', 'NaN', %s, NULL)" % (number, text),
            "UPDATE keyed SET b = %s WHERE c BETWEEN %d AND %d" % (text, some, some + chance.randrange(4)),
            "UPDATE keyed SET a = a WHERE c = %d" % some,
            "UPDATE keyed SET a = -0.0 WHERE c = %d" % some,
            "UPDATE keyed SET a = 0.0 WHERE c = %d" % some,
            "UPDATE keyed SET id = 'moved' || %d WHERE c = %d" % (number, some),
            "DELETE FROM keyed WHERE c = %d" % some,
            # Two rows exchange all columns except their keys, and their keys.
            "WITH pair AS (SELECT array_agg(id ORDER BY id) i, array_agg(a ORDER BY id) a FROM (SELECT id, a FROM keyed"
            " WHERE c IN (%d, %d)) s) UPDATE keyed SET a = CASE WHEN id = pair.i[1] THEN pair.a[2] ELSE pair.a[1] END"
            " FROM pair WHERE id = ANY(pair.i) AND cardinality(pair.i) = 2" % (some, some + 1),
            "UPDATE composite SET v = '[%d]' WHERE a = %d AND b = 'b%d'" % (number, some % 10, some % 12),
            "DELETE FROM composite WHERE a = %d AND b = 'b%d'" % (some % 10, some % 12),
            "INSERT INTO composite VALUES (%d, 'z', NULL)" % number,
            "INSERT INTO indexed VALUES ('z%d', NULL, 'NaN')" % number,
            "UPDATE indexed SET v = v + 0.0 WHERE code = 'c%d'" % (some % 100),
            "DELETE FROM indexed WHERE code = 'c%d'" % (some % 100),
            "INSERT INTO no_key SELECT %d, %s FROM generate_series(1, %d)" % (some % 7, text, chance.randrange(1, 4)),
            "DELETE FROM no_key WHERE ctid = (SELECT min(ctid) FROM no_key WHERE a = %d)" % (some % 7),
            "UPDATE no_key SET b = %s WHERE ctid IN (SELECT ctid FROM no_key WHERE a = %d LIMIT 2)" % (text, some % 7),
            'INSERT INTO "Odd ""name"" 电" ("v.w") VALUES (%s)' % text,
            'UPDATE "Odd ""name"" 电" SET "v.w" = %s WHERE "the Key" = %d' % (text, some % 60),
            'DELETE FROM "Odd ""name"" 电" WHERE "the Key" = %d' % (some % 60),
        ]
    )


@pytest.mark.fault("deploy", "random changes before a revert", by="counted exactly")
def test_random_changes_are_counted_exactly(pair, seed, monkeypatch):
    live, base = pair
    chance = random.Random(seed)
    assert count(live, base) == {}
    number = 0
    for _round in range(12):
        # One bucket and many must count the same.
        monkeypatch.setattr(differences, "_BUCKET_BYTES", chance.choice([64, 1024, 16 << 10]))
        with live.session(user=OWNER) as cursor:
            for _change in range(chance.randrange(1, 12)):
                number += 1
                cursor.execute(random_change(chance, number))
        assert counted(count(live, base)) == expected(live, base)


def test_counters_of_the_server_change_no_count(pair, tmp_path, monkeypatch):
    """They only decide what is read first: they may lag behind, be switched off, or be reset."""
    monkeypatch.setattr(differences, "_SMALL_BYTES", 0)
    live, base = pair
    kept = differences.BaseSums(str(tmp_path / "sums"))
    steps = [
        ("SET track_counts = off; UPDATE keyed SET b = 'x' WHERE c = 3", {"keyed": (0, 1, 0)}),
        (
            "SET track_counts = off; DELETE FROM no_key WHERE a = 1 AND b = ''",
            {"keyed": (0, 1, 0), "no_key": (0, 0, 3)},
        ),
        ("SELECT pg_stat_reset()", {"keyed": (0, 1, 0), "no_key": (0, 0, 3)}),
        ("UPDATE keyed SET b = NULL WHERE c = 3", {"no_key": (0, 0, 3)}),
    ]
    with live.site.connect() as here, base.site.connect() as there:
        sum_up_base(here, there, {}, kept)
        for sql, found in steps:
            live.execute(sql)
            for _again in range(2):
                assert counted({loss.name: loss for loss in count_losses(here, there, kept=kept)}) == found, sql


def put_back(live, base, folder):
    """Run the commands of the kept README in the base, and check psql's exit status."""
    readme = (folder / "README.txt").read_text("utf-8")
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("psql ")]
    for argv in commands:
        program = str(live.cluster.bin_dir / argv[0])
        argv = [base.name if part == live.name else part for part in argv[1:]]
        subprocess.run(
            [program, *argv], env=live.cluster.environment(base.name, OWNER), check=True, stdout=subprocess.DEVNULL
        )
    return commands


def test_what_was_kept_can_be_put_back(pair, seed, tmp_path):
    """Inserted or updated rows are restored; rows that were deleted are the only remaining difference."""
    live, base = pair
    chance = random.Random(seed)
    with live.session(user=OWNER) as cursor:
        for number in range(60):
            cursor.execute(random_change(chance, number))
        cursor.execute("CREATE TABLE fresh (id serial PRIMARY KEY, v text)")
        cursor.execute("INSERT INTO fresh (v) VALUES ('a'), (NULL)")
    with live.site.connect() as here, base.site.connect() as there:
        losses = count_losses(here, there)
        write_lost_rows(here, losses, str(tmp_path / "kept"))
    deleted = {loss.name: loss.deleted for loss in losses if loss.deleted}
    base.execute("CREATE TABLE fresh (id serial PRIMARY KEY, v text); ALTER TABLE fresh OWNER TO " + OWNER)
    put_back(live, base, tmp_path / "kept")
    assert expected(live, base) == {name: (0, 0, rows) for name, rows in deleted.items()}


# The migration's own changes


@pytest.mark.parametrize(
    "column",
    [
        "added text",
        "added integer DEFAULT 7",
        "added text NOT NULL DEFAULT 'a(b'",
        "added text[] DEFAULT '{}'",
        "added timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP",
        "added timestamptz NOT NULL DEFAULT now()",
        "added boolean NOT NULL DEFAULT false",
        "added jsonb DEFAULT '{\"a\": [1]}'",
        "added float8 DEFAULT 'NaN'",
        "added integer GENERATED ALWAYS AS (c + 1) STORED",
    ],
)
def test_a_new_column_is_no_loss_until_somebody_writes_to_it(pair, column):
    """Prisma's createdAt gets the time of the migration in every row: the migration wrote it, no other session."""
    live, base = pair
    with live.session(user=OWNER) as cursor:
        cursor.execute("ALTER TABLE keyed ADD COLUMN " + column)
        assert counted(count(live, base)) == {}
        if "GENERATED" in column:
            return
        kind = column.split()[1]
        other = {"text": "'new'", "integer": "8", "text[]": "'{x}'", "boolean": "true", "jsonb": "'[]'", "float8": "0"}
        value = other.get(kind, "'2001-01-01'")
        cursor.execute("UPDATE keyed SET added = %s WHERE c IN (3, 4)" % value)
        assert counted(count(live, base)) == {"keyed": (0, 2, 0)}
        # Setting another default changes no row.
        cursor.execute("ALTER TABLE keyed ALTER added SET DEFAULT " + value)
        cursor.execute("UPDATE keyed SET b = 'both' WHERE c = 4")
        cursor.execute("INSERT INTO keyed (id, c) VALUES ('new', 1000)")
        cursor.execute("DELETE FROM keyed WHERE c = 9")
        assert counted(count(live, base)) == {"keyed": (1, 2, 1)}


REWRITES = [
    "ALTER TABLE keyed ALTER c TYPE bigint, ALTER b TYPE varchar(500)",
    "ALTER TABLE no_key ALTER a TYPE bigint",
    "ALTER TABLE keyed SET UNLOGGED",
    "ALTER TABLE keyed SET LOGGED",
    "CLUSTER keyed USING keyed_pkey",
    "ALTER TABLE keyed ADD always integer GENERATED ALWAYS AS (c * 2) STORED",
    "ALTER TABLE composite ALTER v TYPE jsonb USING v || '{}'",
    "CREATE TYPE mood AS ENUM ('a')",
    "ALTER TYPE mood ADD VALUE 'b'",
    "ALTER TABLE keyed ADD mood mood DEFAULT 'b'",
]


def test_rows_that_were_only_rewritten_are_no_loss(pair):
    """Each row is a new version with the same contents; transaction numbers would show all of them as new."""
    live, base = pair
    with live.session(user=OWNER) as cursor:
        for statement in REWRITES:
            cursor.execute(statement)
            assert counted(count(live, base)) == {}, statement
        cursor.execute("UPDATE keyed SET b = 'x' WHERE c = 3")
    assert counted(count(live, base)) == {"keyed": (0, 1, 0)}


def test_dropped_and_renamed_columns(pair):
    live, base = pair
    with live.session(user=OWNER) as cursor:
        cursor.execute("ALTER TABLE keyed DROP COLUMN a; ALTER TABLE composite RENAME v TO w")
        assert counted(count(live, base)) == {"composite": (0, 120, 0)}
        cursor.execute("UPDATE keyed SET b = 'x' WHERE c = 1")
        assert counted(count(live, base))["keyed"] == (0, 1, 0)


def test_a_dropped_key_column(pair):
    """Then rows are compared by all common columns."""
    live, base = pair
    with live.session(user=OWNER) as cursor:
        cursor.execute("ALTER TABLE composite DROP COLUMN a")
        cursor.execute("DELETE FROM composite WHERE ctid IN (SELECT ctid FROM composite LIMIT 3)")
    assert counted(count(live, base)) == {"composite": (0, 0, 3)}


def test_new_and_dropped_tables_and_large_objects(pair, tmp_path):
    live, base = pair
    with live.session(user=OWNER) as cursor:
        cursor.execute("CREATE TABLE empty (id int); CREATE TABLE fresh (id int)")
        cursor.execute("INSERT INTO fresh VALUES (1), (1), (NULL)")
        cursor.execute("DROP TABLE no_key; DROP TABLE indexed")
        cursor.execute("SELECT lo_from_bytea(7, 'seven'), lo_from_bytea(8, 'eight')")
    with base.session(user=OWNER) as cursor:
        cursor.execute("DELETE FROM indexed")
        cursor.execute("SELECT lo_from_bytea(8, 'a longer text'), lo_from_bytea(9, ''), lo_from_bytea(10, '')")
    losses = count(live, base)
    assert counted(losses) == {"fresh": (3, 0, 0), "no_key": (0, 0, 90), "pg_largeobject": (1, 1, 2)}
    assert losses["fresh"].whole_table and losses["no_key"].whole_table
    with live.site.connect() as session:
        write_lost_rows(session, list(losses.values()), str(tmp_path / "kept"))
    base.as_owner("CREATE TABLE fresh (id int)")
    put_back(live, base, tmp_path / "kept")
    assert counted(count(live, base)) == {"no_key": (0, 0, 90), "pg_largeobject": (0, 0, 2)}


def test_parents_are_put_back_before_children(databases, tmp_path):
    """The names do not have the order that foreign keys require."""
    live = databases.make("live")
    with live.session(user=OWNER) as cursor:
        cursor.execute('CREATE TABLE "A_child" (id int PRIMARY KEY, u text REFERENCES "User", up int)')
        cursor.execute('ALTER TABLE "A_child" ADD FOREIGN KEY (up) REFERENCES "A_child"')
    base = base_of(live, databases)
    with live.session(user=OWNER) as cursor:
        cursor.execute("INSERT INTO \"User\" VALUES ('new', 'new@example.org')")
        cursor.execute("INSERT INTO \"A_child\" VALUES (1, 'new', NULL), (2, 'new', 1)")
        cursor.execute("INSERT INTO \"TokenPurchase\" VALUES ('new', DEFAULT, 1, now(), 'new')")
        # Only other columns of the children's parent changed: an UPDATE must not remove the children.
        cursor.execute('UPDATE "TokenPurchase" SET "totalTokens" = 7 WHERE "id" = \'p000003\'')
    with live.site.connect() as here, base.site.connect() as there:
        write_lost_rows(here, count_losses(here, there), str(tmp_path / "kept"))
    commands = put_back(live, base, tmp_path / "kept")
    assert count(live, base) == {}
    # A second run changes nothing.
    put_back(live, base, tmp_path / "kept")
    assert count(live, base) == {}
    assert len(commands) == 3


def test_values_of_new_columns_are_kept(pair, tmp_path):
    live, base = pair
    with live.session(user=OWNER) as cursor:
        cursor.execute("CREATE TYPE fresh_type AS ENUM ('of the new release'); ALTER TABLE keyed ADD extra fresh_type")
        cursor.execute("UPDATE keyed SET extra = 'of the new release' WHERE c = 5")
    with live.site.connect() as here, base.site.connect() as there:
        losses = count_losses(here, there)
        write_lost_rows(here, losses, str(tmp_path / "kept"))
    assert "of the new release" in (tmp_path / "kept" / "public.keyed.copy").read_text("utf-8")
    put_back(live, base, tmp_path / "kept")
    assert counted(count(live, base)) == counted({loss.name: loss for loss in losses}) == {"keyed": (0, 1, 0)}


def test_the_history_of_prisma_is_no_loss(databases):
    live = databases.make("live")
    base = base_of(live, databases)
    live.run("receipts.sql")
    assert count(live, base) == {}


def test_counts_agree_on_every_kind_of_value(databases):
    """Equal copies of the realistic database lose nothing, whatever settings the databases have."""
    live = databases.make("live", "template_realistic", user=None)
    live.execute("CREATE DATABASE base TEMPLATE live", "postgres")
    base = databases.existing("base", user=None)
    assert count(live, base) == {}
    live.execute("UPDATE \"TokenPurchase\" SET \"picture\" = '' WHERE \"id\" = 'p6'; UPDATE alias SET t = 'c'")
    live.execute("INSERT INTO nothing DEFAULT VALUES; UPDATE ONLY parent SET what = NULL")
    live.execute("DELETE FROM measured WHERE value = 1")
    assert counted(count(live, base)) == {
        "TokenPurchase": (0, 1, 0),
        "log": (1, 0, 0),
        "alias": (1, 0, 1),
        "nothing": (1, 0, 0),
        "parent": (0, 1, 0),
        "measured_2024": (0, 0, 1),
    }
