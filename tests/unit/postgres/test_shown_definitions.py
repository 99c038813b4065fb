# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects as users see them: a relation by its kind."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.definitions import differences, shown
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.report import shown_objects


@pytest.mark.parametrize("letter, kind", [("r", "table"), ("v", "view"), ("m", "materialized view"), ("S", "sequence")])
def test_a_relation_is_shown_by_its_kind(letter, kind) -> None:
    known = {"relation public.My Table": "kind %s; persistence p" % letter}
    assert shown("relation public.My Table", {}, known) == kind + " public.My Table"
    assert differences({}, known) == [kind + " public.My Table is added"]


def test_what_is_not_known_stays() -> None:
    assert shown("relation public.a", {}) == "relation public.a"
    assert shown("index public.a_pkey", {"index public.a_pkey": "kind r;"}) == "index public.a_pkey"


def test_the_parts_of_a_new_table_are_not_listed() -> None:
    keys = [
        "column public.My Table.id",
        "index public.i",
        "view public.v",
        "table public.My Table",
        "column public.b.c",
    ]
    assert shown_objects(keys) == ["index public.i", "view public.v", "table public.My Table", "column public.b.c"]
