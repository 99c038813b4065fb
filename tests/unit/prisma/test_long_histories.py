# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Histories after years of work: hundreds of migrations, squashed ones, a baseline, names rolled back twice."""

from __future__ import annotations

import datetime
import hashlib

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import (
    APPLIED,
    FAILED,
    ROLLED_BACK,
    HistoryRow,
    compare,
    from_mapping,
    history_differences,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
SQL = b"SELECT 1;\n"
CHECKSUM = hashlib.sha256(SQL).hexdigest()
SQUASHED = "000000000000_squashed_migrations"


def name_of(number):
    return "%d_m%d" % (20200101000000 + number, number)


def row(name, state=APPLIED, number=0, steps=1):
    moment = START + datetime.timedelta(seconds=number)
    return HistoryRow(
        "%s-%d" % (name, number),
        CHECKSUM,
        name,
        moment,
        moment if state == APPLIED else None,
        moment if state == ROLLED_BACK else None,
        steps if state == APPLIED else 0,
    )


def folder(names):
    return from_mapping(dict.fromkeys(names, SQL))


NAMES = [name_of(number) for number in range(300)]
STATES = st.sampled_from([APPLIED, FAILED, ROLLED_BACK])
#: Rows as (number of the migration, state), in the order of their creation.
ROWS = st.lists(st.tuples(st.integers(0, 12), STATES), max_size=30)
FOLDERS = st.sets(st.integers(0, 12), max_size=13)


def made(rows):
    return [row(name_of(one), state, number) for number, (one, state) in enumerate(rows)]


@settings(deadline=None, database=None, print_blob=True)
@given(ROWS, FOLDERS)
@example([(1, ROLLED_BACK), (1, ROLLED_BACK), (1, APPLIED)], {1})
def test_every_name_is_exactly_what_its_rows_make_it(rows, present):
    state = compare(folder(map(name_of, present)), made(rows))
    for number in range(13):
        name = name_of(number)
        mine = [one for which, one in rows if which == number]
        live = [one for one in mine if one != ROLLED_BACK]
        assert (name in state.pending) == (number in present and not live)
        assert (name in state.applied) == (number in present and APPLIED in live)
        assert (name in state.failed) == (FAILED in live)
        assert (name in state.unknown) == (number not in present and bool(live))
        assert (name in state.rolled_back) == (bool(mine) and not live)
        assert (name in state.duplicates) == (len(live) > 1)
    assert state.squashed == [] and state.edited == []
    wrong = state.failed or state.unknown or state.duplicates or state.pending
    assert state.up_to_date == (not wrong)


@settings(deadline=None, database=None, print_blob=True)
@given(ROWS, FOLDERS, st.integers(0, 12), st.integers(1, 3), st.randoms(use_true_random=False))
def test_rows_that_were_rolled_back_and_the_order_of_rows_change_nothing(rows, present, number, times, chance):
    before = made(rows)
    more = before + [row(name_of(number), ROLLED_BACK, 1000 + one) for one in range(times)]
    assert history_differences(before, more) == []
    chance.shuffle(more)
    files = folder(map(name_of, present))
    one, other = compare(files, before), compare(files, more)
    for field in ("applied", "pending", "failed", "edited", "unknown", "squashed", "duplicates", "up_to_date"):
        assert getattr(one, field) == getattr(other, field), field


def test_hundreds_of_migrations():
    rows = [row(name, number=number) for number, name in enumerate(NAMES[:299])]
    state = compare(folder(NAMES), rows)
    assert state.pending == NAMES[299:] and state.applied == NAMES[:299]
    assert state.problems(NAMES[299:]) == []
    assert compare(folder(NAMES), [*rows, row(NAMES[299], number=299)]).up_to_date


def test_a_baseline_that_was_marked_as_applied():
    """A database older than Prisma: its first migration was never run, only marked."""
    state = compare(folder(["0_init", NAMES[0]]), [row("0_init", number=0, steps=0)])
    assert (state.applied, state.pending, state.unknown, state.squashed) == (["0_init"], [NAMES[0]], [], [])
    assert state.problems([NAMES[0]]) == []


def squashed_rows(marked_at=500):
    return [row(name, number=number) for number, name in enumerate(NAMES[:200])] + [
        row(SQUASHED, number=marked_at, steps=0)
    ]


def test_squashed_migrations_are_no_reason_not_to_deploy():
    state = compare(folder([SQUASHED, NAMES[200]]), squashed_rows())
    assert (state.applied, state.pending) == ([SQUASHED], [NAMES[200]])
    assert (state.squashed, state.unknown) == (NAMES[:200], [])
    assert state.problems([NAMES[200]]) == []
    done = compare(folder([SQUASHED, NAMES[200]]), [*squashed_rows(), row(NAMES[200], number=600)])
    assert done.up_to_date


def test_what_came_after_the_squash_is_unknown_to_an_older_release():
    rows = [*squashed_rows(), row(NAMES[200], number=600)]
    assert compare(folder([SQUASHED]), rows).unknown == [NAMES[200]]


def test_a_mark_in_the_middle_of_the_folder_is_no_squash():
    """A hotfix that was applied by hand and marked; the branch's migration before it is still unknown."""
    rows = [row(NAMES[0], number=0), row(NAMES[1], number=1), row(NAMES[2], number=2, steps=0)]
    state = compare(folder([NAMES[0], NAMES[2]]), rows)
    assert (state.unknown, state.squashed) == ([NAMES[1]], [])


def test_a_failed_migration_is_never_squashed():
    rows = [row(NAMES[0], FAILED, 0), row(NAMES[1], number=1), row(SQUASHED, number=500, steps=0)]
    state = compare(folder([SQUASHED]), rows)
    assert (state.failed, state.unknown, state.squashed) == ([NAMES[0]], [NAMES[0]], [NAMES[1]])


def test_a_squash_that_is_not_marked_yet_is_told():
    """Prisma would run it in addition to the migrations that it replaces; both problems are reported."""
    state = compare(folder([SQUASHED]), squashed_rows()[:200])
    assert state.pending == [SQUASHED] and state.unknown == NAMES[:200]
