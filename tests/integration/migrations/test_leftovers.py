# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed migration's leftovers are dropped in one transaction if it only added objects; else nothing is changed."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.migration_changes import note_objects
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations import leftovers as module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import leftovers
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way_leftovers import Leftovers
from support.databases import OWNER, REALISTIC, SQL

#: Statements that only add; each with the objects that the next one may need.
ADDITIONS = {
    "table with a foreign key to an old one": """
        CREATE TABLE "ReceiptData" (id serial PRIMARY KEY, "purchaseId" text UNIQUE REFERENCES "TokenPurchase"
          ON DELETE CASCADE, up int REFERENCES "ReceiptData", n int GENERATED ALWAYS AS IDENTITY, CHECK (n > 0));
        COMMENT ON TABLE "ReceiptData" IS 'new'; COMMENT ON COLUMN "ReceiptData".n IS 'new'""",
    "tables that need each other": """
        CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a);
        ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES b""",
    "type, domain, table of them": """
        CREATE TYPE "Kind" AS ENUM ('x'); CREATE DOMAIN "Dom" AS "Kind" CHECK (VALUE <> 'x');
        CREATE TYPE pair AS (a "Kind", b int); CREATE TABLE typed (k "Kind" DEFAULT 'x', p pair, d "Dom")""",
    "views on views": """
        CREATE VIEW a_view AS SELECT "id" FROM "User"; CREATE VIEW b_view AS SELECT * FROM a_view;
        CREATE MATERIALIZED VIEW c_view AS SELECT * FROM b_view; CREATE INDEX c_index ON c_view (id)""",
    "index, statistics, constraint, trigger on an old table": """
        CREATE INDEX by_name ON "User" ("name"); CREATE STATISTICS two ON "name", "email" FROM "User";
        ALTER TABLE "User" ADD CONSTRAINT short CHECK (length("id") < 99);
        CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noop BEFORE UPDATE ON "User" FOR EACH ROW EXECUTE FUNCTION noop();
        CREATE UNIQUE INDEX unique_name ON "UserContribution" ("id", "userId");
        ALTER TABLE "UserContribution" ADD CONSTRAINT named_key UNIQUE USING INDEX unique_name""",
    "policy and rule on an old table": """
        CREATE POLICY everything ON "User" USING (true);
        CREATE RULE nothing AS ON INSERT TO "User" WHERE NEW."id" = 'never' DO INSTEAD NOTHING""",
    "column": """
        ALTER TABLE "User" ADD COLUMN "more" text DEFAULT 'x'; CREATE INDEX by_more ON "User" ("more");
        CREATE VIEW of_more AS SELECT "more" FROM "User"; ALTER TABLE "TokenPurchase" ADD COLUMN numbered serial""",
    "schema with everything": """
        CREATE SCHEMA "new schema"; CREATE SEQUENCE "new schema".s;
        CREATE TABLE "new schema"."t.""x y" (a int DEFAULT nextval('"new schema".s'));
        CREATE FUNCTION "new schema".f(int, VARIADIC text[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE "new schema".p() LANGUAGE sql AS 'SELECT 1';
        CREATE AGGREGATE "new schema".g (int) (SFUNC = int4pl, STYPE = int)""",
    "partitions and children": """
        CREATE TABLE parted (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
        CREATE INDEX on_parted ON parted (a); CREATE TABLE heir (own int) INHERITS ("User")""",
    "functions of one name": """
        CREATE FUNCTION same(a int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION same(OUT a int, INOUT b text) LANGUAGE sql AS 'SELECT 1, $1';
        CREATE TABLE uses (a int DEFAULT same(2)); CREATE VIEW used AS SELECT same(3)""",
    "publication, cast, check of a parent's": """
        CREATE PUBLICATION p FOR TABLE "User"; CREATE CAST (text AS "TokenPurchase") WITH INOUT;
        CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
        ALTER TABLE parent ADD COLUMN b int CHECK (b > 0)""",
    "extension": "CREATE EXTENSION citext; CREATE TABLE with_citext (a citext)",
}


HISTORY = next(one for one in (SQL / "plain.sql").read_text("utf-8").split(";") if "CREATE TABLE _prisma" in one)
FAILS = """INSERT INTO _prisma_migrations VALUES
  ('m3', repeat('d', 64), NULL, '20251109000000_half', NULL, NULL, '2025-11-09', 0)"""


NOTHING = module.Left([], [], [], [])


@pytest.fixture(scope="module")
def backed_up(shared_databases):
    first = shared_databases.make("first")
    return first.store, first.backup()


@pytest.fixture
def left(backed_up, databases):
    """For each test a database as it was at the backup, and the backup."""
    live = databases.make("left")
    live.site = dataclasses.replace(live.site, store=backed_up[0])
    return live, backed_up[1]


@contextlib.contextmanager
def looked_at(live):
    with live.site.connect() as session:
        yield session


def clean(live, place):
    with looked_at(live) as session:
        found = leftovers(live.site, session, place)
        assert found.added and not found.reasons, found.reasons
        return module._drop_added(live.site, session, place, found.statements)[0]


@pytest.mark.parametrize("what", list(ADDITIONS))
def test_additions_are_dropped(left, what):
    live, place = left
    live.as_owner(ADDITIONS[what])
    statements = clean(live, place)
    assert statements and not any("CASCADE" in statement for statement in statements)
    with looked_at(live) as session:
        assert definitions.definitions(session) == load(place).definitions
        assert leftovers(live.site, session, place) == NOTHING


def test_all_of_them_at_once(left):
    live, place = left
    for sql in ADDITIONS.values():
        live.as_owner(sql)
    clean(live, place)
    with looked_at(live) as session:
        assert definitions.definitions(session) == load(place).definitions


@pytest.mark.parametrize(
    "change, reason",
    [
        ('ALTER TABLE "User" DROP COLUMN "name"', "table public.User has other columns"),
        ('ALTER TABLE "User" RENAME COLUMN "name" TO "n"', "table public.User is changed (- name text)"),
        ('ALTER TABLE "User" ALTER COLUMN "name" TYPE varchar(99)', "- name text | + name character varying(99)"),
        ('ALTER TABLE "User" ALTER COLUMN "name" SET NOT NULL', "- name text | + name text NOT NULL"),
        ('ALTER TABLE "User" RENAME TO "Person"', "table public.User is missing"),
        ('DROP TABLE "UserContribution"', "table public.UserContribution is missing"),
        ('DROP INDEX "User_email_key"', "index public.User_email_key is missing"),
        ('UPDATE "User" SET "name" = \'x\' WHERE "id" = \'u1\'', "table public.User has 20 rows with other contents"),
        ('DELETE FROM "UserContribution" WHERE "id" = \'c1\'', "table public.UserContribution has 399 rows, not 400"),
        ("SELECT lo_from_bytea(0, 'x')", "the large objects differ"),
        ('GRANT SELECT ON "User" TO shop_app', 'privileges on table public."User" are added'),
        ('ALTER TABLE "User" ALTER "name" SET DEFAULT \'x\'', "+ name text DEFAULT 'x'::text"),
        ('ALTER TABLE "User" ENABLE ROW LEVEL SECURITY', "row security public.User is added"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO shop_app", "default privileges"),
        ("COMMENT ON TABLE \"User\" IS 'x'", 'comment on table public."User"'),
        ('ALTER TABLE "User" ALTER "name" SET STATISTICS 9', "ALTER COLUMN name SET STATISTICS 9"),
        ('ALTER TABLE "User" ALTER "name" SET COMPRESSION lz4', "SET COMPRESSION lz4"),
    ],
)
def test_a_change_needs_a_restore_and_nothing_is_dropped(left, change, reason):
    live, place = left
    live.as_owner("CREATE TABLE added (); " + change)
    with looked_at(live) as session:
        before = definitions.definitions(session)
        found = leftovers(live.site, session, place)
        assert any(reason in told for told in found.reasons), found.reasons
        assert "table public.added" in found.added
        assert definitions.definitions(session) == before


def test_privileges_that_no_dump_carries_need_a_restore(left):
    """A new database has none of them."""
    live, place = left
    live.execute("GRANT SELECT ON information_schema.sql_parts TO shop_app")
    with looked_at(live) as session:
        reasons = leftovers(live.site, session, place).reasons
    assert reasons == ["privileges on table information_schema.sql_parts are added"]


def test_prismas_table_is_left_alone(databases):
    """A failed first migration creates the history; its row is Prisma's to resolve."""
    live = databases.make("fresh", "template0")
    place = live.backup()
    live.as_owner(HISTORY + "; CREATE TABLE half_done (); " + FAILS)
    clean(live, place)
    assert live.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace") == [
        ("_prisma_migrations",)
    ]


def test_a_lock_in_the_way_rolls_all_back(left):
    live, place = left
    live.as_owner('CREATE TABLE a_first (); CREATE INDEX late ON "User" ("name")')
    with live.session(user=OWNER) as other:
        other.execute('BEGIN; SELECT 1 FROM "User" LIMIT 1')
        with pytest.raises(BackstopError, match="lock timeout"):
            clean(live, place)
        other.execute("ROLLBACK")
    assert live.value("SELECT to_regclass('a_first') IS NOT NULL AND to_regclass('late') IS NOT NULL")
    clean(live, place)


@pytest.mark.fault("deploy", "rows written into leftovers before they are dropped", by="counted again behind the locks")
def test_rows_written_between_the_look_and_the_drop(left):
    """The proof runs again inside the transaction, before its COMMIT."""
    live, place = left
    live.as_owner("CREATE TABLE added ()")
    with looked_at(live) as session:
        assert leftovers(live.site, session, place).reasons == []
        live.as_owner('UPDATE "User" SET "name" = \'x\' WHERE "id" = \'u1\'')
        with pytest.raises(BackstopError, match="not as it was before the migration"):
            module._drop_added(live.site, session, place, ["DROP TABLE added"])
    assert live.value("SELECT to_regclass('added') IS NOT NULL")


def test_a_realistic_database(databases):
    live = databases.make("shop", REALISTIC, user=None)
    place = live.backup()
    for what in ("table with a foreign key to an old one", "views on views", "column", "schema with everything"):
        live.execute(ADDITIONS[what])
    live.execute((SQL / "beyond_schemas.sql").read_text("utf-8"))
    clean(live, place)
    with looked_at(live) as session:
        assert definitions.definitions(session) == load(place).definitions


# History, catalog and rows are compared together


def test_a_migration_that_left_nothing_goes_from_the_history(left):
    live, place = left
    live.as_owner(
        "INSERT INTO _prisma_migrations SELECT 'm2', checksum, now(), 'nothing', NULL, NULL, now(), 1"
        " FROM _prisma_migrations; " + FAILS,
    )
    with looked_at(live) as session:
        assert leftovers(live.site, session, place) == dataclasses.replace(NOTHING, applied=["nothing"])
        assert module._drop_added(live.site, session, place, []) == ([], 0)
    assert live.rows("SELECT id FROM _prisma_migrations ORDER BY 1") == [("m1",), ("m3",)]


@pytest.mark.parametrize(
    "change, reason",
    [
        ("DELETE FROM _prisma_migrations WHERE id = 'm1'", "20251001000000_init was applied and is absent"),
        ("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id = 'm1'", "20251001000000_init was applied and"),
        ("UPDATE _prisma_migrations SET checksum = repeat('e', 64) WHERE id = 'm1'", "has another checksum"),
        ("SELECT setval('\"TokenPurchase_number_seq\"', 1)", "public.TokenPurchase_number_seq is at 1, not 500"),
        ("INSERT INTO \"ReceiptData\" VALUES ('r1', 'p000001', NULL, 1, now())", "ReceiptData: 1 inserted"),
    ],
)
def test_what_else_the_database_is_not_as_before_in(left, change, reason):
    live, place = left
    live.run("receipts.sql")
    live.as_owner(FAILS + "; " + change)
    with looked_at(live) as session:
        reasons = leftovers(live.site, session, place).reasons
    assert len(reasons) == 1 and reason in reasons[0], reasons


def test_rows_that_were_written_into_what_an_applied_migration_made_are_for_the_swap_to_count(left):
    """Leftovers of the failed one are removed, with their rows kept; no other session could write there."""
    live, place = left
    live.as_owner("CREATE TABLE half (a int); INSERT INTO half VALUES (1); " + FAILS)
    with looked_at(live) as session:
        assert leftovers(live.site, session, place).reasons == []


def test_a_backup_from_after_the_failure_is_none_to_go_back_to(plain):
    plain.as_owner("CREATE TABLE half (); " + FAILS)
    place = plain.backup()
    with looked_at(plain) as session, pytest.raises(Refused, match="made after the migration had failed"):
        leftovers(plain.site, session, place)


def test_tables_whose_names_begin_like_prismas_are_seen(left):
    live, place = left
    live.as_owner("CREATE TABLE _prisma_migrations_old (a int)")
    clean(live, place)
    assert live.value("SELECT to_regclass('_prisma_migrations_old') IS NULL")


# Objects that the migrations did not create


@pytest.fixture
def failed(plain):
    """A deploy whose migration failed on the live database after it had created a table, and its backup."""
    place = plain.backup()
    run = plain.begun("deploy")
    with plain.site.connect() as session:
        before = definitions.definitions(session)
    plain.as_owner("CREATE TABLE half (a int)")
    with plain.site.connect() as session:
        note_objects(run.operation, before, definitions.definitions(session))
    run.operation.write("backup", "done", backup=place.backup_id)
    run.operation.write("rehearsal", "done", migrations=[{"name": "20251109000000_half", "seconds": 0.1}])
    plain.as_owner(FAILS)
    run.operation.close("failed")
    return plain, place


class MarkedByHand:
    """Stands for Prisma: it marks a migration as rolled back."""

    def __init__(self, folder):
        (folder / "migrations").mkdir(exist_ok=True)
        self.project = self
        self.migrations = lambda: str(folder / "migrations")

    def migrate_resolve(self, _url, *, cursor, rolled_back):
        cursor.execute(
            "UPDATE public._prisma_migrations SET rolled_back_at = now()"
            " WHERE migration_name = %s AND finished_at IS NULL",
            (rolled_back,),
        )


def test_what_was_made_by_hand_goes_only_with_consent(failed, tmp_path):
    live, place = failed
    live.as_owner("CREATE VIEW report AS SELECT 1 AS one; CREATE TABLE notes (t text); INSERT INTO notes VALUES ('x')")
    named = ["table public.notes", "view public.report"]
    plan = plan_of(live.site, Asked("failed_migration"), runs=False)
    assert plan["needed"] and sorted(plan["lost_objects"]) == named
    (loss,) = [line for line in plan["report"] if line.startswith("Loss: ")]
    assert all(name in loss for name in named) and "refused unless -e rollback_accept_lost_objects=2 allows it" in loss
    accepted = plan_of(live.site, Asked("failed_migration", accept_lost_objects=2), runs=False)["report"]
    assert any(line.endswith("; accepted") for line in accepted)
    run = live.begun("rollback", {"scenario": "failed_migration"})
    way = Leftovers(place, Programs(lambda: MarkedByHand(tmp_path)))
    for act in (way.prepare, way.apply):
        with pytest.raises(Refused, match="2 objects that the migrations did not create") as caught:
            act(run, Consent(LossPolicy(objects=1)))
        assert sorted(caught.value.found.split(", ")) == named
        assert "-e rollback_accept_lost_objects=2" in caught.value.hint
        assert live.value("SELECT to_regclass('half') IS NOT NULL AND to_regclass('report') IS NOT NULL")
    consent = Consent(LossPolicy(objects=2))
    way.prepare(run, consent)
    done = way.apply(run, consent)
    assert sorted(done.facts.lost_objects) == named and any("Lost objects: " in line for line in done.story)
    assert live.value("SELECT coalesce(to_regclass('half'), to_regclass('report'), to_regclass('notes')) IS NULL")
    # A second run finds that it is done, whatever was made since.
    live.as_owner("CREATE VIEW later AS SELECT 1")
    way.prepare(run, Consent())
    assert sorted(way.apply(run, Consent()).facts.lost_objects) == named
    assert live.value("SELECT to_regclass('later') IS NOT NULL")


def test_what_the_failed_migration_made_needs_no_consent(failed, tmp_path):
    live, place = failed
    assert plan_of(live.site, Asked("failed_migration"), runs=False)["lost_objects"] == []
    done = Leftovers(place, Programs(lambda: MarkedByHand(tmp_path))).apply(live.begun("rollback"), Consent())
    assert done.facts.outcome == "dropped" and live.value("SELECT to_regclass('half') IS NULL")


def test_the_way_back_of_a_deploy_drops_nothing_made_by_hand(failed, tmp_path):
    """It has no consent."""
    live, place = failed
    live.as_owner("CREATE VIEW report AS SELECT 1 AS one")
    run = live.begun("deploy")
    with pytest.raises(Refused, match="1 objects that the migrations did not create"):
        Leftovers(place, Programs(lambda: MarkedByHand(tmp_path)), ["public.half"]).apply(run, Consent())
    assert live.value("SELECT to_regclass('half') IS NOT NULL AND to_regclass('report') IS NOT NULL")


def test_without_a_rehearsal_it_is_unknown_who_made_it(plain, tmp_path):
    """Then everything is named and dropped, as in a complete revert."""
    place = plain.backup()
    plain.as_owner("CREATE TABLE half (a int); " + FAILS)
    (loss,) = [line for line in plan_of(plain.site, Asked("failed_migration"), runs=False)["report"] if "Loss" in line]
    assert "made by hand or by migrations that no deploy rehearsed: table public.half" in loss
    done = Leftovers(place, Programs(lambda: MarkedByHand(tmp_path))).apply(plain.begun("rollback"), Consent())
    assert done.facts.lost_objects == ["table public.half"] and done.facts.objects_of_unknown_origin
