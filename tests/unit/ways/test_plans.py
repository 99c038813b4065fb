# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each way's own plan, from facts alone."""

from __future__ import annotations

import types
from typing import Any

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    choose,
    way_down_sql,
    way_in_place,
    way_leftovers,
    way_swap,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import Facts
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.forecast import ForeseenLoss
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.request import WAYS

LOST = [ForeseenLoss("public.a", inserted=2)]


@pytest.fixture
def plan(monkeypatch: Any) -> Any:
    for module in (way_swap, way_in_place, way_leftovers, way_down_sql):
        monkeypatch.setattr(module, "losses_of_revert", lambda _site, _facts: LOST, raising=False)
        monkeypatch.setattr(module, "objects_of_revert", lambda *_: None)
    monkeypatch.setattr(way_down_sql, "losses_of_drop", lambda _site, _facts: LOST)
    place: Any = types.SimpleNamespace(backup_id="b1")
    facts = Facts(place=place, applied_since=["2_more"], failed=["3_bad"])
    site: Any = None
    return lambda name: WAYS[name].plan(site, facts, "old")


def test_every_method_has_a_way_of_its_name() -> None:
    named = (choose.LEFTOVERS, choose.RELEASE, choose.DOWN_SQL, choose.SWAP, choose.IN_PLACE, choose.TABLE)
    assert {name: way.name for name, way in WAYS.items()} == {name: name for name in named}


@pytest.mark.parametrize(
    ("name", "restores", "keeps", "loses"),
    [
        (choose.LEFTOVERS, True, False, False),
        (choose.RELEASE, False, False, False),
        (choose.DOWN_SQL, True, True, True),
        (choose.SWAP, True, False, True),
        (choose.IN_PLACE, True, False, True),
        (choose.TABLE, False, False, False),
    ],
)
def test_what_it_needs_and_loses(plan: Any, name: str, restores: bool, keeps: bool, loses: bool) -> None:
    found = plan(name)
    assert (found.copies, found.keeps, bool(found.losses)) == (restores, keeps, loses)
    # A way that stops the application says so, and ends with starting it.
    stops = WAYS[name].stops_application
    assert ("stop the application" in found.steps) is stops
    assert found.steps[-1].startswith("start ") is stops


def test_steps_name_the_backup_the_migrations_and_the_release(plan: Any) -> None:
    assert plan(choose.SWAP).steps[-1] == "start release old and check its health"
    assert all("backup b1" in " ".join(plan(name).steps) for name in (choose.SWAP, choose.IN_PLACE, choose.LEFTOVERS))
    assert "take 2_more out of the history" in plan(choose.DOWN_SQL).steps[2]
    assert plan(choose.LEFTOVERS).steps[3:5] == [
        "take out of the history what was applied since: 2_more",
        "mark as rolled back: 3_bad",
    ]
