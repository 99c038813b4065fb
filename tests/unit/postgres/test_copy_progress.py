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
    Size,
)

SIZES = {1: Size(100, 10), 2: Size(1000, 100), 3: Size(10), 4: Size(500, 5)}


def table(oid: int, schema: str, name: str) -> Table:
    return Table(oid, schema, name, 0, False, (), (), (), (), 0)


def dumping(jobs: int) -> Dumping:
    # pg_dump compares bytes: capitals come first.
    tables = [table(1, "a", "z"), table(2, "b", "Big"), table(3, "b", "a"), table(4, "c", "a")]
    return Dumping(tables[::-1], SIZES, jobs)


def test_tables_are_dumped_in_the_order_of_their_names() -> None:
    one = dumping(1)
    assert one.done({}) == (0, 0, 0)
    assert one.done({2: 50})[:2] == (100 + 500, 1)
    assert one.done({2: 130})[:2] == (100 + 1000, 1), "the statistics are older than the table"
    assert one.done({3: 7})[:2] == (100 + 1000, 2), "without statistics"
    assert one.done({})[:2] == (100 + 1000, 2), "between two tables"
    assert one.done({4: 5}) == (100 + 1000 + 10 + 500, 3, 1)


def test_headers_of_rows_are_not_dumped() -> None:
    """Narrow rows take less time than their bytes tell."""
    one = Dumping([table(1, "a", "narrow"), table(2, "a", "wide")], {1: Size(400, 10), 2: Size(400, 1)}, 1)
    assert one.done({2: 0}) == (400, 1, pytest.approx((400 - 280) / (400 - 280 + 400 - 28)))
    assert Dumping([], {}, 1).done({}) == (0, 0, 0)


def test_several_jobs_dump_the_largest_first() -> None:
    several = dumping(3)
    assert several.done({2: 10, 4: 1, 1: 1})[:2] == (100 + 100 + 10, 0)
    assert several.done({2: 20, 3: 0})[:2] == (200 + 500 + 100, 2)


def test_rows_are_restored() -> None:
    restoring = Restoring({("a", "one"): (100, 10), ("a", "two"): (1000, 50), ("b", "empty"): (8, 0)}, {}, 1)
    assert restoring.total == 1108

    def done(*found: Any) -> Any:
        bytes_done, tables_done, part = restoring.done(*found, set())
        assert part == pytest.approx(bytes_done / 1108), "there are no indexes"
        return bytes_done, tables_done

    assert done({}, {}) == (0, 0)
    made = {("a", "one"): (1, 0), ("a", "two"): (2, 0), ("b", "empty"): (3, 0), ("x", "other"): (4, 9)}
    assert done(made, {1: 5, 2: 5, 4: 7}) == (50 + 100, 1)
    assert done({**made, ("a", "one"): (1, 10)}, {2: 25}) == (100 + 500, 2)
    assert done(made, {}) == (1100, 3), "the counters are written later than the rows"


def test_indexes_and_foreign_keys_take_time_after_the_rows() -> None:
    """Jobs share the work, but not that on one table."""
    order, line, per_row = ("a", "order"), ("a", 'l"ine'), copy_progress._INDEXED
    definitions = {
        "index a.order_pkey": 'CREATE UNIQUE INDEX order_pkey ON a."order" USING btree (id); valid true',
        "index a.order_at": 'CREATE INDEX order_at ON ONLY a."order" USING btree (at); valid true',
        'constraint a.l"ine.to_order': 'FOREIGN KEY ("order") REFERENCES a."order"(id); validated true',
        "constraint a.order.order_pkey": "PRIMARY KEY (id); validated true",
        "index a.elsewhere": "CREATE INDEX elsewhere ON a.view USING btree (id); valid true",
    }
    restoring = Restoring({order: (2000, 10), line: (1000, 5)}, definitions, 2)
    cost = {"index a.order_pkey": 10 * per_row, "index a.order_at": 10 * per_row, "index a.elsewhere": 0}
    foreign = 10 * copy_progress._REFERRED_TO + 5 * copy_progress._REFERRING
    both = {'constraint a.l"ine.to_order': foreign}
    assert {key: cost for key, (_on, cost) in restoring.after_rows.items()} == {**cost, **both}
    whole = 2000 + 20 * per_row + foreign
    filled = {order: (1, 10), line: (2, 5)}
    assert restoring.done({}, {}, set())[2] == 0
    assert restoring.done({line: (2, 5)}, {}, set())[2] == 0, "the other table takes longer"
    assert restoring.done(filled, {}, set()) == (3000, 2, pytest.approx(2000 / whole))
    assert restoring.done(filled, {}, set(cost))[2] == pytest.approx(1 - foreign / whole)
    assert restoring.done(filled, {}, set(definitions))[2] == 1
    assert Restoring({}, {}, 2).done({}, {}, set()) == (0, 0, 1)


@pytest.fixture
def clock(monkeypatch) -> Any:
    made = SimpleNamespace(now=100.0)
    monkeypatch.setattr(copy_progress, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_within_a_table_the_rate_so_far_is_assumed(clock) -> None:
    reading = Reading({oid: Size(size.bytes) for oid, size in SIZES.items()})
    assert reading.total == 1610 and reading.done() == (0, 0, 0)

    def done() -> Any:
        amount, tables, part = reading.done()
        assert part == pytest.approx(amount / 1610), "the number of rows is not known"
        return amount, tables

    with reading.table(1):
        clock.now += 2
        assert done() == (0, 0), "there is no rate yet"
    assert done() == (100, 1)
    with reading.table(2):
        clock.now += 4
        assert done() == (300, 1)
        clock.now += 400
        assert done() == (100 + 950, 1)
    with reading.table(3):
        clock.now += 0.1
        assert done() == (pytest.approx(1100 + 1000 / 404 * 0.1), 2), "the rate of the largest table"
    with reading.table(9):
        assert done() == (1110, 3), "a table that is not known"
    assert done() == (1110, 4)


def test_narrow_rows_take_longer_to_digest_than_their_bytes_tell(clock) -> None:
    reading = Reading({1: Size(100, 10), 2: Size(1000, 10)})
    work = copy_progress._DIGESTED * 10
    with reading.table(1):
        clock.now += 3
    assert reading.done() == (100, 1, pytest.approx((100 + work) / (1100 + 2 * work)))
    with reading.table(2):
        clock.now += 1
        amount, _tables, part = reading.done()
    assert amount == pytest.approx(100 + 1000 * (100 + work) / 3 / (1000 + work))
    assert part == pytest.approx((100 + work) * 4 / 3 / (1100 + 2 * work))
