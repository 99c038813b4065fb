# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in SQL: quoted to keep their meaning, read as a user types them, created to fit the length limit."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import sql_names
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from hypothesis import given
from hypothesis import strategies as st

OPERATION = "20251108T020000Z-3fa9c1"
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    "name, quoted", [("User", '"User"'), ('a"b', '"a""b"'), ("select", '"select"'), ("a.b", '"a.b"'), ("电", '"电"')]
)
def test_identifiers(name, quoted):
    assert sql_names.quote_identifier(name) == quoted


@pytest.mark.parametrize(
    "text, quoted",
    [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("'; --", "'''; --'"), ("", "''"), ("\n", "'\n'")],
)
def test_literals(text, quoted):
    assert sql_names.quote_literal(text) == quoted


@pytest.mark.parametrize("quote", [sql_names.quote_identifier, sql_names.quote_literal])
def test_nul_is_refused(quote):
    with pytest.raises(Refused, match="NUL"):
        quote("a\0b")


@pytest.mark.parametrize(
    "text, parts",
    [
        ("ReceiptData", (None, "ReceiptData")),
        ("public.ReceiptData", ("public", "ReceiptData")),
        ('"odd.name"', (None, "odd.name")),
        ('"a""b"."c d"', ('a"b', "c d")),
        (' public . "X" ', ("public", "X")),
        ("receipt-data", (None, "receipt-data")),
    ],
)
def test_tables_as_typed(text, parts):
    assert sql_names.parse_table_name(text) == parts


@pytest.mark.parametrize("text", ["", " ", ".", "a.", ".a", "a.b.c", "a b", '"', '""', '"a', 'a"b', "a..b"])
def test_what_is_no_table(text):
    with pytest.raises(Refused, match="not the name of a table"):
        sql_names.parse_table_name(text)


@given(NAMES, NAMES)
def test_what_was_quoted_is_read_back(schema, table):
    assert sql_names.parse_table_name(sql_names.qualified(schema, table)) == (schema, table)
    assert sql_names.parse_table_name(sql_names.typed_name(schema, table)) == (schema, table)


def test_names_as_options_take_them():
    assert sql_names.typed_name("public", "ReceiptData") == "public.ReceiptData"
    assert sql_names.typed_name("public", "a.b c") == 'public."a.b c"'


@pytest.mark.parametrize(
    "wanted, first", [("receipt_data", "ReceiptData"), ("tokenpurchases", "TokenPurchase"), ("USER", "User")]
)
def test_near_names(wanted, first):
    assert sql_names.near_names(wanted, ["TokenPurchase", "User", "ReceiptData", "audit"])[0] == first


def test_no_near_name():
    assert sql_names.near_names("qqq", ["User", "ReceiptData"]) == [] == sql_names.near_names("x", [])


@given(NAMES)
def test_names_of_databases_fit_and_tell_their_operation(live):
    scratch, retired = sql_names.scratch_name(OPERATION, "drill"), sql_names.retired_name(OPERATION, live)
    for name in (scratch, retired):
        assert len(name.encode()) <= sql_names.MAX_NAME_BYTES and sql_names.belongs_to(name, OPERATION)
        assert not sql_names.belongs_to(name, "20251108T020000Z-3fa9c2")
    assert sql_names.is_scratch(scratch) and not sql_names.is_scratch(retired)
    assert not sql_names.is_scratch(live) or live.startswith("backstop_scratch_")
    # Two purposes of one operation never share a database.
    purposes = ("drill", "new", "base", "trip1", "trip2")
    assert len({sql_names.scratch_name(OPERATION, purpose) for purpose in purposes}) == 5
