# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digests: equal for equal contents under any settings, different for any change."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import connect
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.digests import (
    Digest,
    large_objects_digest,
    table_digest,
)
from support.databases import REALISTIC


def digests_of(live):
    with live.site.connect() as session:
        return {
            (table.schema, table.name): table_digest(session, table.source, table.columns)
            for table in catalog.tables(session)
        }


@pytest.fixture(scope="module")
def shop(shared_databases):
    return shared_databases.make("shared", REALISTIC, user=None)


def purchase(change):
    return 'UPDATE "TokenPurchase" SET %s WHERE "id" = \'p1\'' % change


#: Each changes the contents of one table, and by how many rows.
CHANGES = {
    "one cell": (purchase('"price" = 0.0001'), "TokenPurchase", 0),
    "minus zero": ('UPDATE "TokenPurchase" SET "totalTokens" = 0 WHERE "id" = \'p4\'', "TokenPurchase", 0),
    "one more decimal": (purchase('"single" = 0.10000001'), "TokenPurchase", 0),
    "blanks in json": (purchase('"raw" = \'{"b": 1}\''), "TokenPurchase", 0),
    "a byte": (purchase('"picture" = \'\\x01\' || "picture"'), "TokenPurchase", 0),
    "NULL in an array": (purchase('"tags" = \'{"NULL"}\''), "TokenPurchase", 0),
    "a line end": (purchase("\"note\" = replace(\"note\", E'\\r', '')"), "TokenPurchase", 0),
    "NULL to the empty text": ('UPDATE "User" SET "name" = \'\' WHERE "id" = \'u5\'', "User", 0),
    "a domain, an enum, a composite type": (
        'UPDATE "User" SET "level" = 9, "status" = \'LOCKED\', "last" = NULL WHERE "id" = \'u1\'',
        "User",
        0,
    ),
    "two equal rows alike": ("UPDATE no_key SET b = 'other' WHERE b = 'twice'", "no_key", 0),
    "one of two equal rows": (
        "DELETE FROM no_key WHERE ctid = (SELECT min(ctid) FROM no_key WHERE b = 'twice')",
        "no_key",
        -1,
    ),
    "a third equal row": ("INSERT INTO no_key VALUES (1, 'twice')", "no_key", 1),
    "values of two rows exchanged": (
        'UPDATE "UserContribution" SET "amount" = 0.3 - "amount" WHERE "id" IN (\'c1\', \'c2\')',
        "UserContribution",
        0,
    ),
    "values of two columns exchanged": (
        "UPDATE composite_key SET c = b, b = coalesce(c, 'x') WHERE b = 'k3'",
        "composite_key",
        0,
    ),
    "a row of a table without columns": ("INSERT INTO nothing DEFAULT VALUES", "nothing", 1),
    "the column that is not called as the alias": ("UPDATE alias SET t = 'c'", "alias", 0),
    "the column that is called as the alias": ("UPDATE alias SET r__ = 'c'", "alias", 0),
    "a quoted name": (
        'UPDATE "odd schema.with ""dot"""."table.of ""quotes"" 电" SET "a.b" = 3',
        'table.of "quotes" 电',
        0,
    ),
    "a row of the child only": ("UPDATE child SET more = 'x' WHERE id = 2", "child", 0),
    "a row that moves to another partition": ("UPDATE measured SET at = '2031-01-01' WHERE value = 1", None, 0),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_is_seen_in_its_table_alone(shop, what):
    sql, table, more = CHANGES[what]
    with shop.site.connect() as session:
        tables = catalog.tables(session)

        def all_digests():
            return {t.name: table_digest(session, t.source, t.columns) for t in tables if t.name != "log"}

        before = all_digests()
        session.execute("BEGIN; SET LOCAL search_path = public; " + sql + "; SET LOCAL search_path = pg_catalog")
        after = all_digests()
        session.execute("ROLLBACK")
        assert all_digests() == before
    differing = {name for name in before if before[name] != after[name]}
    assert differing == ({table} if table else {"measured_2024", "measured_rest"})
    if table:
        assert after[table].rows - before[table].rows == more


def test_order_of_rows_and_dead_ones_do_not_matter(databases):
    live = databases.make("shop", REALISTIC, user=None)
    before = digests_of(live)
    live.execute('CLUSTER "TokenPurchase"; ALTER TABLE no_key ADD COLUMN gone int')
    live.execute('ALTER TABLE no_key DROP COLUMN gone; UPDATE "User" SET "id" = "id"')
    live.execute("VACUUM FULL")
    assert digests_of(live) == before


SETTINGS = {
    "extra_float_digits": "-15",
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Tokyo",
    "bytea_output": "escape",
    "search_path": "audit",
    "xmlbinary": "hex",
    "jit": "on",
    "lc_monetary": "C",
    "max_parallel_workers_per_gather": "4",
    "default_transaction_read_only": "on",
    "statement_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "row_security": "on",
    "client_encoding": "LATIN1",
}


def test_settings_of_the_database_and_the_role_do_not_matter(databases):
    live = databases.make("shop", REALISTIC, user=None)
    before = digests_of(live)
    for name, value in SETTINGS.items():
        quoted = value if name == "search_path" else "'%s'" % value
        live.execute("ALTER DATABASE shop SET %s = %s" % (name, quoted), "template_plain")
    with connect(live.site.connection, pinned=False) as session:
        assert session.value("SHOW timezone") == "Asia/Tokyo"
    assert digests_of(live) == before


def test_large_objects(databases):
    live = databases.make("shop", REALISTIC, user=None)
    seen = set()
    for sql in (
        "SELECT 1",
        "SELECT lo_put(424242, 3999, 'x')",
        "SELECT lo_unlink(424243)",
        "SELECT lo_from_bytea(424243, 'x')",
        "SELECT lo_from_bytea(7, '')",
    ):
        live.execute(sql)
        with live.site.connect() as session:
            seen.add(large_objects_digest(session))
    assert len(seen) == 5


def test_a_digest_survives_its_file():
    digest = Digest(3, "-123456789012345678901234567890")
    assert Digest.from_json(digest.to_json()) == digest and digest.to_json()["rows"] == 3
