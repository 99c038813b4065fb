# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill compares a restored backup with what was backed up, and reports every difference."""

from __future__ import annotations

import dataclasses
import re

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import (
    build_database,
    compare,
    restore_jobs,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.databases import DatabaseSetting
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import forecast
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.database_properties import (
    read_properties,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from support.databases import ODD_ROLE, REALISTIC

PROPERTIES_OF_ITS_OWN = ("allow_connections", "connection_limit")


@pytest.fixture(scope="module")
def restored(shared_databases):
    """The realistic database, its backup, and the database that was built from it."""
    live = shared_databases.make("shop", REALISTIC, user=None)
    place = live.backup()
    name = scratch_name(new_id(), "new")
    facts = build_database(live.site, place, name)
    return live, manifests.load(place), name, facts


def test_realistic_database_comes_back_equal(restored):
    live, manifest, name, facts = restored
    assert facts.tables == len(manifest.tables) >= 18
    assert facts.rows == manifest.rows > 500
    with live.site.connect() as here, live.site.connect(name) as there:
        found = definitions.compare(definitions.definitions(here), definitions.definitions(there))
    assert not found["missing"] and not found["added"]
    # Only printed differently: IN becomes = ANY.
    assert {definitions.kind_of(key) for key in found["changed"]} <= set(definitions.REPRINTED)


def test_jobs_of_a_restore(databases, monkeypatch):
    """As many as there are cores, if the role may have that many sessions."""
    live = databases.make("many_cores")
    manifest = manifests.load(live.backup())
    found = {}
    for cores, limit in ((6, -1), (64, -1), (1, -1), (6, 40), (6, 5)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        live.execute("ALTER ROLE %s CONNECTION LIMIT %d" % (live.site.connection.user, limit))
        with live.site.administer() as admin:
            found[cores, limit] = restore_jobs(live.site, admin, manifest)
    live.execute("ALTER ROLE %s CONNECTION LIMIT -1" % live.site.connection.user)
    assert found == {(6, -1): 6, (64, -1): 8, (1, -1): 2, (6, 40): 6, (6, 5): 2}


def test_what_it_took_is_foretold(databases):
    """A deploy's --check shows it."""
    live = databases.make("measured_shop")
    place = live.backup()
    run_drill(live.site, place)
    told = forecast(live.store)
    rows = manifests.load(place).rows
    assert re.fullmatch(r"the newest backup has \d+\.\d MB, %d rows" % rows, told["size"])
    assert re.match(r"the newest drill restored in [\d.]+ s; no rehearsal was measured yet; no downtime", told["times"])


def test_every_kind_of_object_is_compared(restored):
    _live, manifest, _name, _facts = restored
    kinds = {definitions.kind_of(key) for key in manifest.definitions}
    assert kinds >= {
        "schema",
        "relation",
        "column",
        "sequence",
        "constraint",
        "index",
        "trigger",
        "rule",
        "policy",
        "function",
        "type",
        "statistics",
        "publication",
        "event trigger",
        "default privileges",
        "large object",
        "operator",
        "comment",
    }


def test_properties_of_the_database_come_back(restored):
    live, _manifest, name, _facts = restored
    with live.site.administer() as admin:
        here, there = read_properties(admin, live.name), read_properties(admin, name)
    assert here == dataclasses.replace(there, **{key: getattr(here, key) for key in PROPERTIES_OF_ITS_OWN})
    assert DatabaseSetting(ODD_ROLE, 'search_path=""') in there.settings
    assert any(entry.setting.startswith('search_path="$user", public, ') for entry in there.settings)


CHANGES = [
    ("DROP INDEX purchase_words", "index public.purchase_words is missing"),
    ("ALTER INDEX purchase_lower_note RENAME TO other", "index public.other is added"),
    (
        'REVOKE DELETE ON "UserContribution" FROM shop_app',
        'privileges on table public."UserContribution" are changed (- GRANT SELECT,INSERT,DELETE,UPDATE',
    ),
    ('GRANT SELECT ("email") ON "User" TO shop_report', 'privileges on column public."User".email are added'),
    ("ALTER TABLE no_key OWNER TO shop_app", "table public.no_key is changed (owner shop_app, not shop_owner)"),
    ("ALTER FUNCTION audit.note() OWNER TO shop_app", "function audit.note() is changed"),
    ("ALTER SCHEMA audit OWNER TO shop_app", "schema audit is changed"),
    ('DROP POLICY own_rows ON "TokenPurchase"', "policy public.TokenPurchase own_rows is missing"),
    ('ALTER POLICY by_kind ON "TokenPurchase" USING (true)', "policy public.TokenPurchase by_kind is changed"),
    ('ALTER TABLE "TokenPurchase" DISABLE ROW LEVEL SECURITY', "row security public.TokenPurchase is missing"),
    ('ALTER TABLE "User" ALTER "kind" SET DEFAULT \'farm\'', "+ kind character varying(10) DEFAULT 'farm'"),
    ('ALTER TABLE "User" ALTER "createdAt" DROP DEFAULT', '+ "createdAt" timestamp(3) without time zone NOT NULL'),
    (
        'ALTER TABLE "User" ALTER "status" DROP NOT NULL',
        '+ status public."MeterStatus" DEFAULT \'ACTIVE\'::public."MeterStatus" |',
    ),
    (
        'ALTER TABLE "TokenPurchase" DISABLE TRIGGER "TokenPurchase_audit"',
        "trigger public.TokenPurchase TokenPurchase_audit is changed",
    ),
    ('DROP TRIGGER sleeping ON "User"', "trigger public.User sleeping is missing"),
    ('ALTER TABLE "User" RENAME CONSTRAINT user_kind TO other', "+ CONSTRAINT other CHECK"),
    ('ALTER TABLE "User" DROP CONSTRAINT "User_email_key"', "constraint public.User User_email_key is missing"),
    (
        'ALTER TABLE "UserContribution" ALTER CONSTRAINT "UserContribution_userId_fkey" NOT DEFERRABLE',
        "fk constraint public.UserContribution UserContribution_userId_fkey is changed",
    ),
    (
        'COMMENT ON COLUMN "TokenPurchase"."note" IS \'other\'',
        'comment on column public."TokenPurchase".note is changed',
    ),
    ("COMMENT ON SCHEMA audit IS NULL", "comment on schema audit is missing"),
    (
        'CREATE OR REPLACE VIEW of_a_view AS SELECT "email", count(*) FROM "PurchaseView" WHERE false GROUP BY 1',
        "view public.of_a_view is changed",
    ),
    (
        "CREATE OR REPLACE FUNCTION half(x float8 DEFAULT 1) RETURNS float8 LANGUAGE sql IMMUTABLE RETURN x / 3",
        "function public.half(double precision) is changed",
    ),
    ("ALTER TYPE \"MeterStatus\" ADD VALUE 'NEW'", "type public.MeterStatus is changed"),
    ("ALTER DOMAIN positive DROP CONSTRAINT positive_check", "domain public.positive is changed (- CREATE DOMAIN"),
    ("ALTER SEQUENCE receipt_number INCREMENT 9", "sequence public.receipt_number is changed"),
    ("DROP STATISTICS correlated", "statistics public.correlated is missing"),
    ("ALTER PUBLICATION some_tables DROP TABLE no_key", "publication table public.some_tables no_key is missing"),
    ("ALTER EVENT TRIGGER watches_ddl DISABLE", "event trigger watches_ddl is changed"),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA public REVOKE SELECT ON TABLES FROM shop_report",
        "default privileges public.DEFAULT PRIVILEGES FOR TABLES are missing",
    ),
    ("GRANT SELECT ON LARGE OBJECT 424243 TO shop_report", "large object 424243 is changed"),
    ("DROP RULE no_delete ON alias", "rule public.alias no_delete is missing"),
    ("ALTER TABLE measured DETACH PARTITION measured_2024", "table attach public.measured_2024 is missing"),
    ("ALTER TABLE numbered ALTER a DROP IDENTITY", "sequence public.numbered_a_seq is missing"),
    ("DROP AGGREGATE total (double precision)", "aggregate public.total(double precision) is missing"),
    ("CREATE TABLE extra ()", "table public.extra is added"),
    (
        "CREATE TABLE measured_2026 PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "table public.measured_2026 is added",
    ),
    ("SELECT lo_put(424243, 0, 'x')", "the large objects differ"),
    (
        'UPDATE "User" SET "name" = \'\' WHERE "name" IS NULL AND "id" = \'u5\'',
        "table public.User has 40 rows with other contents",
    ),
    ("DELETE FROM ONLY child WHERE id = 2", "table public.child has 1 rows, not 2"),
    ("INSERT INTO nothing DEFAULT VALUES", "table public.nothing has 4 rows, not 3"),
    ("ALTER TABLE unique_not_null ADD more text", "table public.unique_not_null has other columns: code, v, more"),
    ("DROP TABLE fast", "table public.fast is missing"),
]


@pytest.fixture(scope="module")
def differences(restored):
    """The differences reported for a copy of the restored database in which all of that was changed."""
    live, manifest, name, _facts = restored
    copy = scratch_name(new_id(), "changed")
    live.execute('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy, name), "postgres")
    for change, _told in CHANGES:
        live.execute("SET search_path = public; " + change if "ADD VALUE" not in change else change, copy)
    with live.site.connect(copy) as session, pytest.raises(BackstopError) as caught:
        compare(live.site, session, manifest)
    return caught.value.details["differences"]


@pytest.mark.parametrize("told", [told for _change, told in CHANGES])
def test_a_difference_is_noticed(differences, told):
    assert any(told in difference for difference in differences), differences


def test_a_sequence_that_is_behind_is_noticed(restored):
    """It would return the same numbers again."""
    live, manifest, name, _facts = restored
    copy = scratch_name(new_id(), "behind")
    live.execute('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy, name), "postgres")
    live.execute("SELECT setval('public.receipt_number', 1014), setval('public.countdown', 100)", copy)
    live.execute('ALTER SEQUENCE public."User_seq_seq" RESTART', copy)
    with live.site.connect(copy) as session, pytest.raises(BackstopError, match="sequence is behind") as caught:
        compare(live.site, session, manifest)
    assert sorted(caught.value.found.split("; ")) == [
        "public.User_seq_seq is at None, not 40",
        "public.countdown is at 100, not 89",
        "public.receipt_number is at 1014, not 1035",
    ]


def test_a_sequence_that_went_on_is_fine(restored):
    live, manifest, name, _facts = restored
    copy = scratch_name(new_id(), "further")
    live.execute('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy, name), "postgres")
    live.execute("SELECT nextval('public.receipt_number'), nextval('public.countdown')", copy)
    with live.site.connect(copy) as session:
        assert compare(live.site, session, manifest).equal
