# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and order that a restore changes do not count as differences if users see the same database."""

from __future__ import annotations

import dataclasses
import json

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.catalog_comparison import (
    catalog_differences,
    compare_catalog,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import Comparison
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, dumped_definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.client_tools import (
    find_client_tools,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store, new_id
from support.databases import OWNER

#: Each was refused, or compared with another result, although a restore brings everything back.
ODD = """
SET ROLE shop_owner;
CREATE TABLE customer (id int PRIMARY KEY);
CREATE TABLE bill (at date, customer int REFERENCES customer) PARTITION BY RANGE (at);
CREATE TABLE bill_old (at date, customer int CONSTRAINT kept_its_name REFERENCES customer);
ALTER TABLE bill ATTACH PARTITION bill_old FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE bill_new PARTITION OF bill FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE place (id int PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE place_1 PARTITION OF place FOR VALUES IN (1);
CREATE TABLE place_2 PARTITION OF place FOR VALUES IN (2);
CREATE TABLE visit (place int REFERENCES place);
CREATE TABLE place_3 PARTITION OF place FOR VALUES IN (3);
ALTER TABLE place DETACH PARTITION place_2;

CREATE TABLE parent (a int);
CREATE TABLE child (b int, c int) INHERITS (parent);
ALTER TABLE parent ADD d int;
CREATE TABLE adopted (x int, a int, d int);
ALTER TABLE adopted INHERIT parent;
INSERT INTO child VALUES (1, 2, 3, 4);
INSERT INTO adopted VALUES (1, 2, 3);

CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = ====);

CREATE MATERIALIZED VIEW below AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW above AS SELECT * FROM below;
REFRESH MATERIALIZED VIEW below WITH NO DATA;
CREATE MATERIALIZED VIEW old AS SELECT count(*) FROM customer;
INSERT INTO customer VALUES (1), (2);

CREATE TABLE in_list (v varchar(9) CHECK (v IN ('a', 'b')), w int CHECK (w > 0 AND (w < 9 AND w <> 5)));
CREATE FUNCTION atomic(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT n WHERE n::varchar IN ('1', '2'); END;
CREATE VIEW lists AS SELECT v FROM in_list WHERE v IN ('a', 'c');
CREATE FUNCTION looks_like_a_header() RETURNS text LANGUAGE sql AS $$ SELECT '
--
-- Name: nothing; Type: TABLE; Schema: public; Owner: nobody
--
SET default_table_access_method = heap;
' $$;
CREATE TABLE nobody_may (a int);
REVOKE ALL ON nobody_may FROM shop_owner;
CREATE TABLE granted (a int);
GRANT SELECT ON granted TO shop_report;
GRANT ALL ON granted TO shop_app WITH GRANT OPTION;
SET ROLE shop_app;
GRANT INSERT ON granted TO shop_report;
SET ROLE shop_owner;
REVOKE SELECT ON granted FROM shop_report;
GRANT SELECT ON granted TO shop_report;
CREATE TABLE explicit (a int);
GRANT SELECT ON explicit TO shop_app;
REVOKE SELECT ON explicit FROM shop_app;
SELECT lo_create(4711);
GRANT SELECT ON LARGE OBJECT 4711 TO shop_app;
REVOKE SELECT ON LARGE OBJECT 4711 FROM shop_app;
CREATE TABLE split (a int) PARTITION BY LIST (a);
CREATE TABLE split_1 PARTITION OF split FOR VALUES IN (1);
INSERT INTO split VALUES (1), (1);
CREATE UNIQUE INDEX split_a ON ONLY split (a);
CREATE TABLE numbered (a int UNIQUE);
INSERT INTO numbered VALUES (1), (2);
"""
FOREIGN = """
CREATE FOREIGN DATA WRAPPER elsewhere OPTIONS (mode 'fast');
CREATE SERVER far FOREIGN DATA WRAPPER elsewhere OPTIONS (host 'far.example');
CREATE USER MAPPING FOR shop_app SERVER far OPTIONS (password 'hunter2');
"""

SYSTEM_OBJECTS = [
    "language sql",
    "table column information_schema.sql_features.comments",
    "view information_schema.tables",
]


@pytest.fixture(scope="module")
def odd(shared_databases):
    """The odd database, with an index whose build failed, and its backup."""
    live = shared_databases.make("odd", user=None)
    live.execute(ODD)
    with pytest.raises(psycopg2.Error):
        live.execute("CREATE UNIQUE INDEX CONCURRENTLY half_made ON numbered ((a / 9))")
    with pytest.raises(psycopg2.Error):
        live.execute("CREATE UNIQUE INDEX CONCURRENTLY half_attached ON split_1 (a)")
    live.execute("ALTER INDEX split_a ATTACH PARTITION half_attached")
    live.execute(FOREIGN)
    live.execute(
        "REVOKE USAGE ON LANGUAGE sql FROM PUBLIC; REVOKE SELECT ON information_schema.tables FROM PUBLIC;"
        " GRANT SELECT (comments) ON information_schema.sql_features TO shop_app"
    )
    place = live.backup()
    return live, place, manifests.load(place)


@pytest.fixture(scope="module")
def restored(odd):
    live, place, _manifest = odd
    name = scratch_name(new_id(), "odd")
    return name, build_database(live.site, place, name)


def test_an_odd_database_is_proved_and_what_is_left_out_is_named(restored):
    _name, facts = restored
    assert sorted(told.split(":")[0] for told in facts.tolerated) == [
        "invalid index public.half_attached",
        "invalid index public.half_made",
        "materialized view public.above",
        *("privileges on " + name for name in SYSTEM_OBJECTS),
    ]


def test_privileges_that_no_dump_carries_are_named(odd):
    """Privileges on the server's own objects; in a new database none differ from the defaults."""
    live, _place, manifest = odd
    found = [entry.name for entry in manifest.not_covered if entry.kind == "privileges on"]
    assert found == SYSTEM_OBJECTS
    with live.site.connect("postgres") as session:
        assert catalog.not_covered(session) == []


def test_within_a_transaction_our_own_queries_find_the_same(odd, restored, tmp_path):
    """Where pg_dump cannot look, and no drill has proved anything."""
    live, _place, manifest = odd
    name, facts = restored
    site = dataclasses.replace(live.site, store=Store(str(tmp_path)))
    result = Comparison([], [])
    with site.connect(name) as session:
        compare_catalog(site, session, manifest, result, round_trips=False)
    assert result.objects == []
    assert set(facts.tolerated) <= set(result.tolerated)


def test_a_drill_in_a_scratch_cluster_finds_the_same(odd, restored):
    live, place, _manifest = odd
    assert sorted(run_cluster_drill(live.site, place).tolerated) == sorted(restored[1].tolerated)


def test_the_live_database_is_equal_to_its_backup(odd):
    live, _place, manifest = odd
    found = catalog_differences(live.site, manifest)
    assert (found.objects, found.tolerated, found.reprinted) == ([], [], {})


def test_what_only_reads_differently_is_kept_with_both_texts(odd, restored):
    _live, place, _manifest = odd
    reprinted = manifests.verification(place)["reprinted"]
    assert {"TABLE public.in_list", "VIEW public.lists", "FUNCTION public.atomic(integer)"} <= set(reprinted)
    assert "GRANT" not in json.dumps(reprinted)


def test_without_a_scratch_database_what_was_proved_is_believed_and_nothing_else(odd, restored):
    live, _place, manifest = odd
    name, _facts = restored
    assert catalog_differences(live.site, manifest, name, settle=False).equal
    live.execute("ALTER TABLE in_list ADD CHECK (v NOT IN ('x', 'y'))", name)
    try:
        found = catalog_differences(live.site, manifest, name, settle=False)
    finally:
        live.execute("ALTER TABLE in_list DROP CONSTRAINT in_list_v_check1", name)
    assert [told.split(" (")[0] for told in found.objects] == ["table public.in_list is changed"]


def test_a_backup_of_an_earlier_version_is_compared_by_its_archive(odd, restored):
    live, _place, manifest = odd
    older = dataclasses.replace(manifest, dumped=None)
    assert catalog_differences(live.site, older, restored[0]).equal


def test_a_directory_holds_the_same_definitions(odd, tmp_path):
    live, place, _manifest = odd
    tools = find_client_tools(15, live.site.client_bin_dir)
    found = dumped_definitions.of_database(tools, live.site.connection)
    assert found == dumped_definitions.of_archive(place.file("archive.dump"))


def test_no_password_is_in_a_manifest_and_another_one_is_noticed(odd, restored):
    live, place, manifest = odd
    name, _facts = restored
    with open(place.file("manifest.json"), encoding="utf-8") as stream:
        assert "hunter2" not in stream.read()
    live.execute("ALTER USER MAPPING FOR shop_app SERVER far OPTIONS (SET password 'hunter3')", name)
    try:
        found = catalog_differences(live.site, manifest, name)
    finally:
        live.execute("ALTER USER MAPPING FOR shop_app SERVER far OPTIONS (SET password 'hunter2')", name)
    assert found.objects == ["user mapping USER MAPPING shop_app SERVER far is changed"]
    assert "hunter" not in repr(found)


#: One change on the restored copy, the reported difference, and how the change is reverted.
CHANGES = [
    (
        "REVOKE ALL ON place_1 FROM shop_owner",
        "privileges on table public.place_1 are added",
        "GRANT ALL ON place_1 TO shop_owner",
    ),
    (
        "GRANT SELECT ON LARGE OBJECT 4711 TO shop_app",
        "large object 4711 is changed",
        "REVOKE SELECT ON LARGE OBJECT 4711 FROM shop_app",
    ),
    (
        "COMMENT ON LARGE OBJECT 4711 IS 'mine'",
        "comment on large object 4711 is changed",
        "COMMENT ON LARGE OBJECT 4711 IS NULL",
    ),
    ("ALTER TABLE visit DISABLE TRIGGER ALL", "internal trigger public.visit", "ALTER TABLE visit ENABLE TRIGGER ALL"),
    ("REFRESH MATERIALIZED VIEW old WITH NO DATA", "materialized view public.old", "REFRESH MATERIALIZED VIEW old"),
    ("ALTER TABLE child ADD e int", "table public.child is changed", "ALTER TABLE child DROP e"),
    (
        "COMMENT ON EXTENSION plpgsql IS 'mine'",
        "extension plpgsql is changed",
        "COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language'",
    ),
    (
        "COMMENT ON FUNCTION plpgsql_validator(oid) IS 'mine'",
        "extension plpgsql is changed",
        "COMMENT ON FUNCTION plpgsql_validator(oid) IS NULL",
    ),
    (
        "ALTER FUNCTION plpgsql_validator(oid) OWNER TO shop_app",
        "extension plpgsql is changed",
        "ALTER FUNCTION plpgsql_validator(oid) OWNER TO postgres",
    ),
    (
        "ALTER SERVER far OPTIONS (SET host 'near.example')",
        "server far is changed",
        "ALTER SERVER far OPTIONS (SET host 'far.example')",
    ),
    (
        "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
        "subscription s is added",
        "DROP SUBSCRIPTION s",
    ),
    ("ALTER TABLE granted OWNER TO shop_app", "table public.granted is changed (owner shop_app, not shop_owner)", None),
]


@pytest.mark.parametrize(("change", "told", "back"), CHANGES)
def test_a_change_is_noticed(odd, restored, change, told, back):
    live, _place, manifest = odd
    name, _facts = restored
    live.execute(change, name)
    try:
        objects = catalog_differences(live.site, manifest, name, settle=back is not None).objects
    finally:
        if back is not None:
            live.execute(back, name)
    assert any(told in sentence for sentence in objects), objects


def test_another_table_may_be_left_out_with_all_that_is_its_own(odd):
    live, _place, manifest = odd
    live.execute(
        'CREATE TABLE "_History" (id int PRIMARY KEY CHECK (id > 0)); COMMENT ON COLUMN "_History".id IS \'x\';'
        ' GRANT SELECT ON "_History" TO shop_app; CREATE TABLE "_History2" (a int)'
    )
    try:
        found = catalog_differences(live.site, manifest, ignore=["public._History"])
    finally:
        live.execute('DROP TABLE "_History", "_History2"')
    assert found.objects == ["table public._History2 is added"]


def test_an_encrypted_backup_is_compared_without_its_key(odd):
    live, _place, manifest = odd
    site = dataclasses.replace(live.site, identity=None)
    encrypted = dataclasses.replace(manifest, archive=dataclasses.replace(manifest.archive, recipients=("age1",)))
    assert catalog_differences(site, encrypted).equal


@pytest.fixture(scope="module")
def owned(shared_databases):
    """A database as a provider makes it: the superuser created the extension and the mapping, its owner backs it up."""
    live = shared_databases.make("owned", user=OWNER)
    live.execute("CREATE EXTENSION pg_trgm; COMMENT ON FUNCTION similarity(text, text) IS 'mine'")
    live.execute(FOREIGN + "GRANT USAGE ON FOREIGN SERVER far TO shop_owner")
    place = live.backup()
    return live, place, manifests.load(place)


def test_what_a_role_may_not_see_is_not_covered(owned):
    _live, _place, manifest = owned
    found = {(entry.kind, entry.name) for entry in manifest.not_covered}
    assert ("user mapping", "shop_app on server far") in found


def test_objects_of_an_extension_that_a_restore_makes_anew_are_named(owned):
    live, _place, _manifest = owned
    name = scratch_name(new_id(), "owned")
    live.execute("DROP SERVER far CASCADE; DROP FOREIGN DATA WRAPPER elsewhere")
    place = live.backup()
    assert [told.split(":")[0] for told in build_database(live.site, place, name).tolerated] == ["extension pg_trgm"]
    live.execute("ALTER FUNCTION similarity(text, text) OWNER TO shop_report", name)
    found = catalog_differences(live.site, manifests.load(place), name)
    assert [told.split(" (")[0] for told in found.objects] == ["extension pg_trgm is changed"]
