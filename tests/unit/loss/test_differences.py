# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sorted rows of two tables, compared as a stream: the result is the difference of two multisets."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss import differences


def lines(rows):
    return iter([b"%d\t%d\t%d\n" % (key, row, times) for (key, row), times in sorted(rows.items())])


def found(here, there):
    more, less = Counter(), Counter()
    for key, one, other in differences.unequal_rows(lines(here), lines(there)):
        more[key] += one
        less[key] += other
    return +more, +less


def expected(here, there):
    sums = Counter(), Counter()
    for rows, sum_ in zip((here - there, there - here), sums):
        for (key, _row), times in rows.items():
            sum_[key] += times
    return sums


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({}, {}),
        ({(1, 5): 1}, {}),
        ({}, {(-1 << 63, 5): 1}),
        ({((1 << 63) - 1, 5): 2}, {((1 << 63) - 1, 5): 2}),
        ({(1, 5): 3}, {(1, 5): 1}),
        ({(1, 5): 1}, {(1, 6): 1}),
        ({(1, 5): 1, (2, 9): 1}, {(1, -6): 2, (2, 9): 1, (3, 1): 1}),
    ],
)
def test_cases(here, there):
    here, there = Counter(here), Counter(there)
    for one, other in ((here, there), (there, here)):
        assert found(one, other) == expected(one, other)


def test_random_tables():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for number in range(300):
        few = chance.choice([2, 5, 50])
        shared = Counter((chance.randint(-few, few), chance.randint(0, 3)) for number in range(chance.randint(0, few)))
        here, there = shared.copy(), shared.copy()
        for side in (here, there):
            side.update((chance.randint(-few, few), chance.randint(0, 3)) for number in range(chance.randint(0, 3)))
        assert found(here, there) == expected(here, there)
