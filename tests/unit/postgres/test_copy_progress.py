# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far dumps, restores and digests are, from what the server shows of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.tables import Table
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import copy_progress
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.copy_progress import (
    Dumping,
    Reading,
    Restoring,
)

SIZES = {1: 100, 2: 1000, 3: 10, 4: 500}


def table(oid: int, schema: str, name: str) -> Table:
    return Table(oid, schema, name, 0, False, (), (), (), (), 0)


def dumping(jobs: int) -> Dumping:
    # pg_dump compares bytes: capitals come first.
    tables = [table(1, "a", "z"), table(2, "b", "Big"), table(3, "b", "a"), table(4, "c", "a")]
    made = Dumping(tables[::-1], SIZES, jobs)
    made._rows = {1: 10, 2: 100, 3: -1, 4: 5}
    return made


def test_tables_are_dumped_in_the_order_of_their_names() -> None:
    one = dumping(1)
    assert one.done({}) == (0, 0)
    assert one.done({2: 50}) == (100 + 500, 1)
    assert one.done({2: 130}) == (100 + 1000, 1), "the statistics are older than the table"
    assert one.done({3: 7}) == (100 + 1000, 2), "without statistics"
    assert one.done({}) == (100 + 1000, 2), "between two tables"
    assert one.done({4: 5}) == (100 + 1000 + 10 + 500, 3)


def test_several_jobs_dump_the_largest_first() -> None:
    several = dumping(3)
    assert several.done({2: 10, 4: 1, 1: 1}) == (100 + 100 + 10, 0)
    assert several.done({2: 20, 3: 0}) == (200 + 500 + 100, 2)


def test_rows_are_restored() -> None:
    restoring = Restoring({("a", "one"): (100, 10), ("a", "two"): (1000, 50), ("b", "empty"): (8, 0)})
    assert restoring.total == 1108
    assert restoring.done({}, {}) == (0, 0)
    made = {("a", "one"): (1, 0), ("a", "two"): (2, 0), ("b", "empty"): (3, 0), ("x", "other"): (4, 9)}
    assert restoring.done(made, {1: 5, 2: 5, 4: 7}) == (50 + 100, 1)
    assert restoring.done({**made, ("a", "one"): (1, 10)}, {2: 25}) == (100 + 500, 2)
    assert restoring.done(made, {}) == (1100, 3), "the counters are written later than the rows"


@pytest.fixture
def clock(monkeypatch) -> Any:
    made = SimpleNamespace(now=100.0)
    monkeypatch.setattr(copy_progress, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_within_a_table_the_rate_so_far_is_assumed(clock) -> None:
    reading = Reading(SIZES)
    assert reading.total == 1610 and reading.done() == (0, 0)
    with reading.table(1):
        clock.now += 2
        assert reading.done() == (0, 0), "there is no rate yet"
    assert reading.done() == (100, 1)
    with reading.table(2):
        clock.now += 4
        assert reading.done() == (300, 1)
        clock.now += 400
        assert reading.done() == (100 + 950, 1)
    with reading.table(9):
        assert reading.done() == (1100, 2), "a table that is not known"
    assert reading.done() == (1100, 3)
