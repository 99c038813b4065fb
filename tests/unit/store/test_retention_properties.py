# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties for every store, rule and time: retention compared with a simple model of its specification."""

from __future__ import annotations

import datetime
import functools
import os
import random

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import KINDS, BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import (
    Item,
    Policy,
    decide,
    zone_named,
)
from hypothesis import given, seed, settings
from hypothesis import strategies as some
from support.made_backups import utc

SEED = int(os.environ.get("BACKSTOP_TEST_SEED") or random.randrange(2**32))
ZONES = [
    "UTC",
    "Africa/Harare",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
]
#: Clock changes, years of 53 weeks, leap days, a day that Samoa skipped.
MOMENTS = [
    utc(text)
    for text in (
        "2026-03-29T01:00",
        "2026-10-25T01:00",
        "2026-03-08T07:00",
        "2026-11-01T05:00",
        "2026-04-04T15:00",
        "2020-12-28T00:00",
        "2021-01-04T00:00",
        "2026-12-28T00:00",
        "2027-01-03T23:59",
        "2024-02-29T12:00",
        "2011-12-30T10:00",
        "2025-01-01T00:00",
    )
]
READABLE = ["readable", "readable", "readable", "restored", "checksum", None]


def bounded(test, examples=40):
    """Bounded, without a deadline: other tests run in parallel. BACKSTOP_TEST_SEED repeats a run."""
    bound = seed(SEED)(settings(max_examples=examples, deadline=None, print_blob=True, database=None)(test))

    @functools.wraps(bound)
    def wrapped(*arguments, **keywords):
        print("repeat with BACKSTOP_TEST_SEED=%d" % SEED)
        return bound(*arguments, **keywords)

    return wrapped


@some.composite
def stores(draw):
    """Backups around one of the moments, some years apart; the time of the run; the backups that operations need."""
    anchor = draw(some.sampled_from(MOMENTS))
    number = draw(some.integers(0, 24))
    items = []
    for index in range(number):
        spread = draw(some.sampled_from([3, 3, 30, 30, 200, 3000]))
        created = anchor + datetime.timedelta(
            hours=draw(some.integers(-24 * spread, 24 * spread)), minutes=draw(some.sampled_from([0, 0, 29, 59]))
        )
        unusable = draw(some.integers(0, 11)) == 0
        items.append(
            Item(
                BackupPlace(draw(some.sampled_from(KINDS + ("daily", "daily", "weekly"))), "b%02d" % index, "/x"),
                size=1,
                server=draw(some.sampled_from(["1", "1", "1", "2", ""])),
                database=draw(some.sampled_from(["app", "app", "app", "app-2", "App"])),
                scope=draw(some.sampled_from(["", "", "", "", "tables: public.A"])),
                created=None if unusable and draw(some.booleans()) else created,
                level=draw(some.sampled_from(READABLE)),
                problem="damaged" if unusable else None,
                mark="wanted" if draw(some.integers(0, 9)) == 0 else None,
            )
        )
    now = anchor + datetime.timedelta(hours=draw(some.integers(-100, 24 * 40)))
    needed = draw(some.sets(some.sampled_from([item.backup_id for item in items]), max_size=2)) if items else set()
    return items, now, {backup_id: ["needed"] for backup_id in needed}


POLICIES = some.builds(
    Policy,
    days=some.integers(1, 9),
    weeks=some.integers(1, 6),
    pre_migration_days=some.integers(1, 120),
    post_migration_days=some.integers(1, 120),
    zone=some.sampled_from([zone_named(name) for name in ZONES]),
)


def ids(decisions, keep):
    return {decision.item.backup_id for decision in decisions if decision.keep == keep}


def counts(item, now):
    return (
        item.problem is None
        and item.created is not None
        and item.created <= now
        and item.level in ("readable", "restored")
    )


# The model: each backup separately, by the specification of the rule.


def model_keeps(item, items, policy, now, needed):
    if item.kind == "emergency" or item.mark or item.backup_id in needed or not counts(item, now):
        return True
    same = [
        other
        for other in items
        if (other.server, other.database, other.scope) == (item.server, item.database, item.scope)
        and counts(other, now)
        and other.kind != "emergency"
    ]
    newer = [other for other in same if (other.created, other.backup_id) > (item.created, item.backup_id)]
    if not newer:
        return True
    if item.level == "restored" and all(other.level != "restored" for other in newer):
        return True
    if item.kind == "pre-migration" and all(other.kind != "pre-migration" for other in newer):
        return True
    if item.kind in ("daily", "weekly"):
        series = [other for other in newer if other.kind in ("daily", "weekly")]
        return any(
            bucket(item) not in set(map(bucket, series)) and len(set(map(bucket, series))) < wanted
            for bucket, wanted in (
                (lambda one: one.created.astimezone(policy.zone).date(), policy.days),
                (lambda one: one.created.astimezone(policy.zone).isocalendar()[:2], policy.weeks),
            )
        )
    days = policy.pre_migration_days if item.kind == "pre-migration" else policy.post_migration_days
    return max(other.created for other in same) - item.created <= datetime.timedelta(days=days)


@functools.partial(bounded, examples=150)
@given(stores(), POLICIES)
def test_the_rule_is_the_model(world, policy):
    items, now, needed = world
    wanted = {item.backup_id for item in items if model_keeps(item, items, policy, now, needed)}
    decisions = decide(items, policy, now, needed=needed)
    assert ids(decisions, True) == wanted
    assert sorted(decision.item.backup_id for decision in decisions) == [item.backup_id for item in items]
    assert all(decision.reasons and all(decision.reasons) for decision in decisions)


@bounded
@given(stores(), POLICIES, some.data())
def test_never_zero_verified_left_and_nothing_before_a_newer_one(world, policy, data):
    """Also if a user names backups to be removed."""
    items, now, needed = world
    by_hand = data.draw(some.sets(some.sampled_from([item.backup_id for item in items])) if items else some.just(set()))
    decisions = decide(items, policy, now, needed=needed, by_hand=by_hand)
    kept = [decision.item for decision in decisions if decision.keep]
    for decision in decisions:
        verified_left = [item for item in kept if item.group == decision.item.group and counts(item, now)]
        if counts(decision.item, now):
            assert verified_left
        if not decision.keep and decision.item.created is not None:
            assert any(item.created >= decision.item.created and item.kind != "emergency" for item in verified_left)
        if decision.item.mark or decision.item.backup_id in needed:
            assert decision.keep


@bounded
@given(stores(), POLICIES)
def test_a_second_run_deletes_nothing(world, policy):
    items, now, needed = world
    left = [decision.item for decision in decide(items, policy, now, needed=needed) if decision.keep]
    assert all(decision.keep for decision in decide(left, policy, now, needed=needed))


@bounded
@given(stores(), POLICIES, some.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(world, policy, chance):
    items, now, needed = world
    mixed = list(items)
    chance.shuffle(mixed)
    assert decide(mixed, policy, now, needed=needed) == decide(items, policy, now, needed=needed)


@bounded
@given(stores(), POLICIES, some.integers(0, 4000))
def test_a_stalled_job_ages_nothing_out(world, policy, days):
    items, now, needed = world
    items = [item for item in items if item.created is None or item.created <= now]
    later = now + datetime.timedelta(days=days)
    assert decide(items, policy, now, needed=needed) == decide(items, policy, later, needed=needed)


@bounded
@given(stores(), POLICIES)
def test_what_is_not_counted_changes_nothing_for_others(world, policy):
    items, now, needed = world
    counted = [item for item in items if counts(item, now)]
    exclusive = {decision.item.backup_id: decision for decision in decide(counted, policy, now, needed=needed)}
    for decision in decide(items, policy, now, needed=needed):
        assert decision == exclusive.get(decision.item.backup_id, decision)
        assert decision.keep or decision.item.backup_id in exclusive


@bounded
@given(stores(), POLICIES)
def test_each_database_is_decided_on_alone(world, policy):
    items, now, needed = world
    apart = []
    for group in {item.group for item in items}:
        apart += decide([item for item in items if item.group == group], policy, now, needed=needed)
    together = decide(items, policy, now, needed=needed)
    assert sorted(apart, key=lambda each: each.item.backup_id) == sorted(together, key=lambda each: each.item.backup_id)


@bounded
@given(POLICIES, some.sampled_from(MOMENTS), some.integers(0, 60))
def test_a_nightly_job_with_pruning_every_night(policy, start, nights):
    """Pruning every night leaves the same backups as one pruning at the end."""
    left, everything, now = [], [], start
    for night in range(nights):
        now = start + datetime.timedelta(days=night)
        place = BackupPlace("daily", "n%03d" % night, "/x")
        made = Item(place, server="1", database="a", created=now, level="readable")
        left.append(made)
        everything.append(made)
        left = [decision.item for decision in decide(left, policy, now) if decision.keep]
    once = ids(decide(everything, policy, now), True)
    assert {item.backup_id for item in left} == once


@pytest.mark.parametrize("zone", ZONES)
def test_the_zones_are_there(zone):
    assert zone_named(zone) is not None
