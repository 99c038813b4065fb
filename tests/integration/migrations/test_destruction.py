# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration destroys is reported with its amount; what it only renames or recreates is not."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.destruction import Foreseen, Watch
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests, inventory
from support.databases import OWNER

MORE = """
CREATE TYPE "Role" AS ENUM ('ADMIN', 'USER', 'GUEST');
ALTER TABLE "User" ADD COLUMN "role" "Role" DEFAULT 'USER', ADD COLUMN "parts" numeric(10,2) DEFAULT 1.25;
UPDATE "User" SET "role" = 'GUEST', "name" = NULL WHERE "id" IN ('u1', 'u2');
CREATE TYPE "Pair" AS (a int, b int);
CREATE VIEW "Names" AS SELECT "name" FROM "User";
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
CREATE TABLE "Log" (at date, line text) PARTITION BY RANGE (at);
CREATE TABLE "Log_2024" PARTITION OF "Log" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO "Log" SELECT date '2024-02-01' + g, 'x' FROM generate_series(1, 7) g;
CREATE TABLE "Flat" (n float8);
INSERT INTO "Flat" VALUES (1), (1.5), (1.5), (NULL);
"""
RETYPED = "changes the type of TokenPurchase.purchaseDate from timestamp(3) without time zone to %s"
#: The SQL, and everything that is reported about it.
CASES = [
    ('ALTER TABLE "User" DROP COLUMN "name" CASCADE', ["drops User.name (18 values)", "drops the view Names"]),
    ('ALTER TABLE "User" RENAME COLUMN "name" TO "label"', []),
    ('ALTER TABLE "User" RENAME TO "Person"', []),
    ('DROP TABLE "UserContribution"', ["drops the table UserContribution (400 rows)"]),
    ('DROP TABLE "Log"', ["drops the table Log (7 rows)"]),
    ('DROP TABLE "Log_2024"', ["drops the table Log_2024 (7 rows)"]),
    ('ALTER TABLE "Log" DROP COLUMN "line"', ["drops Log.line (7 values)"]),
    ('DROP TABLE "Flat"; CREATE TABLE "Flat" (n float8)', ["drops the table Flat (4 rows)"]),
    (
        'ALTER TABLE "Flat" ALTER n TYPE int',
        ["changes the type of Flat.n from double precision to integer (3 values, 2 of them changed)"],
    ),
    (
        'ALTER TABLE "Flat" ALTER n TYPE text',
        ["changes the type of Flat.n from double precision to text (3 values, none of them changed)"],
    ),
    (
        'ALTER TABLE "User" ALTER "email" TYPE varchar(3) USING left("email", 3)',
        ["changes the type of User.email from text to character varying(3) (20 values, 20 of them changed)"],
    ),
    (
        'ALTER TABLE "User" ALTER "parts" TYPE numeric(10,1)',
        ["changes the type of User.parts from numeric(10,2) to numeric(10,1) (20 values, 20 of them changed)"],
    ),
    (
        'ALTER TABLE "TokenPurchase" ALTER "purchaseDate" TYPE timestamptz',
        [RETYPED % "timestamp with time zone (500 values, none of them changed)"],
    ),
    (
        'ALTER TABLE "TokenPurchase" ALTER "purchaseDate" TYPE date',
        [RETYPED % "date (500 values, 480 of them changed)"],
    ),
    # As Prisma removes a value of an enum.
    (
        """ALTER TABLE "User" ALTER "role" DROP DEFAULT; CREATE TYPE "Role_new" AS ENUM ('ADMIN', 'USER');
        ALTER TABLE "User" ALTER "role" TYPE "Role_new" USING (nullif("role"::text, 'GUEST')::"Role_new");
        ALTER TYPE "Role" RENAME TO "Role_old"; ALTER TYPE "Role_new" RENAME TO "Role"; DROP TYPE "Role_old";""",
        [
            "drops the value GUEST of the enum Role",
            'changes the type of User.role from public."Role" to public."Role" (20 values, 2 of them changed)',
        ],
    ),
    ("""ALTER TYPE "Role" RENAME VALUE 'GUEST' TO 'VISITOR'""", []),
    ('DROP TYPE "Pair"', ["drops the type Pair"]),
    ('ALTER TYPE "Pair" DROP ATTRIBUTE b', ["drops Pair.b"]),
    ('DROP INDEX "User_email_key"', ["drops the index User_email_key"]),
    ('DROP INDEX "User_email_key"; CREATE UNIQUE INDEX "User_email_key" ON "User" ("email")', []),
    (
        'ALTER TABLE "UserContribution" DROP CONSTRAINT "UserContribution_userId_fkey"',
        ['drops the constraint "UserContribution_userId_fkey" on public."UserContribution"'],
    ),
    ("DROP FUNCTION twice(int)", ["drops the function public.twice(integer)"]),
    ('DROP VIEW "Names"; CREATE VIEW "Names" AS SELECT "email" FROM "User"', []),
    ("SELECT lo_unlink(424242)", ["deletes 1 large object"]),
    ('CREATE TABLE "New" (id int PRIMARY KEY); ALTER TABLE "User" ADD COLUMN "more" text', []),
]
ROWS = [
    (
        'DELETE FROM "User" WHERE "id" = \'u20\' AND false; DELETE FROM "UserContribution" WHERE "userId" = \'u3\'',
        ["deletes 20 rows of UserContribution"],
    ),
    (
        'DELETE FROM "TokenPurchase" WHERE "id" <= \'p000010\'',
        ["deletes 10 rows of TokenPurchase", "deletes 9 rows of UserContribution"],
    ),
    ('TRUNCATE "UserContribution"', ["deletes 371 rows of UserContribution"]),
    ('TRUNCATE "Flat"; INSERT INTO "Flat" VALUES (9)', ["deletes 4 rows of Flat"]),
    ('UPDATE "User" SET "name" = \'x\' WHERE "id" < \'u15\'', ["updates 6 rows of User"]),
]


def contents(opened):
    return {t.full_name: digests.table_digest(opened, t.source, t.columns) for t in catalog.tables(opened)}


@pytest.fixture(scope="module")
def prepared(shared_databases):
    """The database that each case copies."""
    made = shared_databases.make("destruction")
    made.as_owner(MORE + "SELECT lo_create(424242);")
    return made


def run(opened, sql):
    opened.execute("SET search_path TO public; %s; SET search_path TO pg_catalog" % sql.rstrip(" ;"))


def foreseen_of(opened, sql):
    """What the gates predict, in a transaction that is rolled back."""
    opened.execute("SAVEPOINT before")
    before = inventory.take(opened)
    run(opened, sql)
    found = Foreseen.of(inventory.compare(before, inventory.take(opened)))
    opened.execute("ROLLBACK TO before")
    return Foreseen.from_json(found.to_json())


@pytest.mark.parametrize("sql,told", CASES, ids=[case[0][:50] for case in CASES])
def test_what_is_dropped(prepared, sql, told):
    with prepared.site.connect() as opened:
        opened.execute("BEGIN")
        before, watch = contents(opened), Watch(opened, foreseen_of(opened, sql), "public")
        run(opened, sql)
        assert sorted(watch.destroyed(before, contents(opened))) == sorted(told)


def test_rows_are_counted_by_the_server(prepared, databases):
    """The server's statistics counters, which are updated when a session ends."""
    live = databases.make("shop", template=prepared.name)
    for sql, told in ROWS:
        with live.site.connect() as opened:
            before, watch = contents(opened), Watch(opened, Foreseen(), "public")
            live.as_owner(sql)
            assert sorted(watch.destroyed(before, contents(opened))) == told, sql


def test_nothing_foreseen_counts_all_the_same(prepared, databases):
    live = databases.make("shop", template=prepared.name)
    with live.site.connect() as opened:
        before, watch = contents(opened), Watch(opened, None, "public")
        with live.session(user=OWNER) as cursor:
            cursor.execute('ALTER TABLE "User" DROP COLUMN "role"; DROP TABLE "Flat"')
            cursor.execute('ALTER TABLE "TokenPurchase" ALTER "purchaseDate" TYPE date')
        assert watch.destroyed(before, contents(opened)) == [
            "drops the table Flat (4 rows)",
            "drops User.role (20 values)",
            RETYPED % "date (500 values, how many change is not known)",
        ]


def test_another_schema_is_named(prepared, databases):
    live = databases.make("shop", template=prepared.name)
    with live.site.connect() as opened:
        before, watch = contents(opened), Watch(opened, None, "other")
        live.as_owner('ALTER TABLE "User" DROP COLUMN "role"; DROP TABLE "Flat"')
        assert watch.destroyed(before, contents(opened)) == [
            "drops the table public.Flat (4 rows)",
            "drops public.User.role (20 values)",
        ]
