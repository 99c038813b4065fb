# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables, keys and names as the library reads them from a real catalog."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, definitions
from support.databases import REALISTIC

ODD = 'odd schema.with "dot"'


@pytest.fixture(scope="module")
def session(shared_databases):
    live = shared_databases.make("shared", REALISTIC, user=None)
    with live.site.connect() as found:
        yield found


@pytest.fixture(scope="module")
def tables(session):
    return {table.name: table for table in catalog.tables(session)}


@pytest.mark.parametrize(
    "name, key",
    [
        ("User", ("id",)),
        ("composite_key", ("b", "a")),
        ("unique_not_null", ("code",)),
        ("no_key", ()),
        ("nothing", ()),
        ("child", ()),
        ("parent", ("id",)),
        ("measured_2024", ()),
        ('table.of "quotes" 电', ("Spalte Ü",)),
    ],
)
def test_key_by_which_rows_are_known(tables, name, key):
    assert tables[name].key == key


def test_columns_without_dropped_ones(tables):
    purchase = tables["TokenPurchase"]
    assert "gone" not in purchase.columns and not any("pg.dropped" in column for column in purchase.columns)
    assert purchase.generated == ("cents",) and "cents" not in purchase.writable_columns
    assert dict(zip(purchase.columns, purchase.types))["price"] == "numeric(12,4)"
    assert tables["nothing"].columns == () and tables["fast"].unlogged


def test_what_holds_rows_is_listed_and_nothing_else(tables):
    assert {"measured_2024", "measured_rest", "child", "log"} <= set(tables)
    assert not {"measured", "by_month", "PurchaseView", "receipt_number"} & set(tables)
    assert "a23456789012345678901234567890123456789012345678901234567890123" in tables


@pytest.mark.parametrize(
    "text",
    [
        "User",
        '"User"',
        "public.User",
        'public."User"',
        ' "public" . "User" ',
        '"odd schema.with ""dot"""."table.of ""quotes"" 电"',
    ],
)
def test_table_as_a_person_names_it(session, text):
    assert catalog.find_table(session, text).name in ("User", 'table.of "quotes" 电')


@pytest.mark.parametrize(
    "text, near",
    [
        ("user", "User"),
        ("token_purchase", "TokenPurchase"),
        ("TokenPurchases", "TokenPurchase"),
        ("log", "audit.log"),
        ("public.log", "audit.log"),
        ("USERCONTRIBUTION", "UserContribution"),
    ],
)
def test_near_names_are_told(session, text, near):
    with pytest.raises(Refused, match="There is no table") as caught:
        catalog.find_table(session, text)
    assert near in caught.value.expected


@pytest.mark.fault("input", "names that are none, or SQL", by="refused")
@pytest.mark.parametrize("text", ["", ".", "a.b.c", '"', "a b", "x; DROP TABLE y", "a."])
def test_names_that_are_none(session, text):
    with pytest.raises(Refused):
        catalog.find_table(session, text)


def test_what_is_not_covered_is_named(session):
    found = {(entry["kind"], entry["name"]) for entry in catalog.not_covered(session)}
    assert ("materialized view", "public.by_month") in found and ("sequence", "public.never_used") in found
    assert all(entry["reason"] for entry in catalog.not_covered(session))


def test_sequences(session):
    found = catalog.sequences(session)
    assert found["public.never_used"] is None and found["public.countdown"] == 89
    assert catalog.descending_sequences(session) == {"public.countdown"}


def test_no_identity_stands_for_two_objects(session):
    """Objects of one kind with the same displayed name would hide each other's changes."""
    for kind, sql in definitions._QUERIES:
        identities = [identity for identity, _text in session.rows(sql)]
        assert len(identities) == len(set(identities)), kind


@pytest.mark.parametrize("gone", ['"a.b".c', 'a."b.c"'])
def test_names_with_dots_do_not_hide_each_other(databases, gone):
    live = databases.make("shop", "template0")
    live.execute('CREATE SCHEMA "a.b"; CREATE SCHEMA a; CREATE TABLE "a.b".c (); CREATE TABLE a."b.c" ()')
    with live.site.connect() as session:
        before = definitions.definitions(session)
        live.execute("DROP TABLE " + gone)
        found = definitions.compare(before, definitions.definitions(session))
    assert found["missing"] + found["changed"]
