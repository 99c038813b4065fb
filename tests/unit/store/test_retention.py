# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention by example: what a user expects of the rule. Properties that always hold: test_retention_properties.py."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.tables import Digest, Table
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import TableEntry
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import set_mark
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import (
    Item,
    Policy,
    check_share,
    decide,
    read_items,
    zone_named,
)
from support.made_backups import made_backup, utc

UTC = Policy(zone=datetime.timezone.utc)
NOW = utc("2026-01-15T12:00")


def item(backup_id, created, kind="daily", level="readable", **more):
    moment = utc(created) if created else None
    facts = {"server": "1", "database": "shop", "created": moment, "level": level, **more}
    return Item(BackupPlace(kind, backup_id, "/nowhere/" + backup_id), **facts)


def decided(items, policy=UTC, now=NOW, **more):
    return {decision.item.backup_id: decision for decision in decide(items, policy, now, **more)}


def kept(items, policy=UTC, now=NOW, **more):
    return {backup_id for backup_id, decision in decided(items, policy, now, **more).items() if decision.keep}


def nightly(days, first="2026-01-01T02:00"):
    start = utc(first)
    return [
        item(moment.strftime("%m-%d"), moment.isoformat()[:16])
        for moment in (start + datetime.timedelta(days=number) for number in range(days))
    ]


def test_a_nightly_backup_for_two_weeks():
    """Seven days, and the Sunday of the first week; the Sunday of the second is one of the days."""
    assert kept(nightly(14)) == {"01-%02d" % day for day in [*range(8, 15), 4]}


def test_a_year_of_nightly_backups():
    """Seven days, and the newest of each of four weeks, of which two are among the seven."""
    found = decided(nightly(365, "2025-01-15T02:00"))
    assert sorted(backup_id for backup_id, decision in found.items() if decision.keep) == sorted(
        ["12-28", "01-04", *("01-%02d" % day for day in range(8, 15))]
    )
    assert found["01-04"].reasons == ("the newest of week 2026-W01, week 3 of 4",)
    assert found["01-14"].reasons == (
        "the newest verified backup of its database",
        "the newest of day 2026-01-14, day 1 of 7",
        "the newest of week 2026-W03, week 1 of 4",
    )
    assert "01-14 is newer and verified" in found["01-07"].reasons[0]


def test_one_dump_serves_both_whatever_its_kind():
    both = [item("sunday", "2026-01-04T03:00", "weekly"), item("the-same-day", "2026-01-04T02:00")]
    assert kept(both + nightly(3, "2026-01-05T02:00")) == {"sunday", "01-05", "01-06", "01-07"}


def test_a_stalled_job_ages_nothing_out():
    items = [*nightly(14), item("before", "2025-12-01T00:00", "pre-migration")]
    assert kept(items) == kept(items, now=utc("2036-01-15"))


def test_migrations_are_kept_for_ninety_days_before_the_newest():
    items = [
        item("pre-91", "2025-10-14T02:00", "pre-migration"),
        item("pre-90", "2025-10-16T02:00", "pre-migration"),
        item("post-91", "2025-10-14T02:00", "post-migration"),
        item("post-90", "2025-10-16T02:00", "post-migration"),
        *nightly(14),
    ]
    found = decided(items)
    assert [backup_id for backup_id in found if not found[backup_id].keep and "-9" in backup_id] == [
        "post-91",
        "pre-91",
    ]
    assert found["pre-91"].reasons == ("more than 90 days older than the newest backup; 01-14 is newer and verified",)
    longer = Policy(pre_migration_days=100, post_migration_days=95, zone=UTC.zone)
    assert {"pre-91", "post-91"} <= kept(items, longer)


def test_the_newest_pre_migration_backup_stays_for_ever():
    items = [*nightly(3), item("old", "2020-01-01", "pre-migration"), item("older", "2019-01-01", "pre-migration")]
    found = decided(items)
    assert found["old"].reasons == ("the newest pre-migration backup: a rollback may go back to it",)
    assert not found["older"].keep


def test_emergency_backups_are_removed_by_hand():
    items = [item("old", "2020-01-01", "emergency"), *nightly(2)]
    assert decided(items)["old"].reasons == ("emergency backups are removed by hand only",)
    found = decided(items, by_hand=["old"])
    assert not found["old"].keep and found["old"].reasons == ("named to be removed",)


def test_an_emergency_backup_is_no_reason_to_give_up_another():
    """It may contain the damage for which it was made."""
    items = [item("good", "2025-12-01"), item("broken", "2026-01-14", "emergency")]
    found = decided(items, Policy(days=1, weeks=1, zone=UTC.zone), by_hand=["good", "broken"])
    assert found["good"].keep and "the newest verified backup of its database" in found["good"].reasons
    assert found["broken"].reasons == ("there is no newer verified backup of its database yet",)


def test_the_only_backup_is_an_emergency_one():
    found = decided([item("only", "2026-01-01", "emergency")], by_hand=["only"])
    assert found["only"].keep and found["only"].reasons[0] == "the newest verified backup of its database"


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"level": None}, "it was not verified to level readable"),
        ({"level": "checksum"}, "it was not verified to level readable"),
        ({"problem": "it lacks the file archive.dump"}, "it lacks the file archive.dump"),
        ({"created": "2026-01-15T12:01"}, "it is dated in the future"),
        ({"created": None}, "its time is not known"),
    ],
)
def test_what_is_not_counted_is_kept(change, reason):
    """Seven failed dumps cause no deletion of a good one, unlike `find -mtime +7 -delete`."""
    failed = [
        item(**{"backup_id": "failed-%d" % day, "created": "2026-01-%02d" % day, **change}) for day in range(5, 13)
    ]
    items = [item("good", "2025-12-01"), *failed]
    found = decided(items, Policy(days=1, weeks=1, zone=UTC.zone))
    assert all(decision.keep for decision in found.values())
    assert found["failed-7"].reasons == ("not counted, and removed by hand only: " + reason,)
    assert not decided([*items, item("new", "2026-01-14")], Policy(days=1, weeks=1, zone=UTC.zone))["good"].keep


def test_the_newest_that_was_restored_stays():
    old = [item("older", "2025-05-01", level="restored"), item("drilled", "2025-06-01", level="restored")]
    found = decided(old + nightly(14), Policy(weeks=1, zone=UTC.zone))
    assert not found["older"].keep and found["drilled"].reasons == ("the newest that was restored in a drill",)


def test_marked_or_needed_stays_and_says_why():
    items = [item("marked", "2025-06-01", mark="closing of the books"), item("needed", "2025-06-02"), *nightly(8)]
    found = decided(items, needed={"needed": ["operation x is open"]}, by_hand=["marked", "needed"])
    assert found["marked"].reasons[0] == "marked: closing of the books"
    assert found["needed"].reasons[0] == "operation x is open"
    assert found["marked"].keep and found["needed"].keep


def test_databases_and_servers_do_not_mix():
    """Names that begin like another's, that differ in case only, and the same name on another server."""
    others = [
        item("b", "2025-01-01", database="shop-2"),
        item("c", "2025-01-01", database="Shop"),
        item("d", "2025-01-01", server="2"),
        item("e", "2025-01-01", server=""),
        item("f", "2025-01-01", scope="tables: public.A"),
    ]
    assert {"b", "c", "d", "e", "f"} <= kept([*others, *nightly(14)])


def test_a_day_begins_where_the_policy_says():
    """23:30 and 00:30 in Berlin are one day in UTC."""
    items = [item("late", "2026-01-10T22:30"), item("early", "2026-01-10T23:30"), item("new", "2026-01-12T12:00")]
    policy = Policy(days=3, weeks=1, zone=zone_named("Europe/Berlin"))
    assert kept(items, policy) == {"late", "early", "new"}
    assert kept(items, Policy(days=3, weeks=1, zone=UTC.zone)) == {"early", "new"}


def test_the_day_that_has_25_hours_is_one():
    items = [item("first", "2026-10-24T22:30"), item("last", "2026-10-25T22:30"), item("next", "2026-10-25T23:30")]
    assert kept(items, Policy(days=3, weeks=1, zone=zone_named("Europe/Berlin")), utc("2026-10-26")) == {"last", "next"}


def test_week_53_is_a_week_of_its_own():
    days = {"w52": "2026-12-27", "w53": "2026-12-28", "also-w53": "2027-01-03", "w1": "2027-01-04"}
    items = [item(backup_id, day) for backup_id, day in days.items()]
    found = decided(items, Policy(days=1, weeks=3, zone=UTC.zone), utc("2027-01-05"))
    assert [backup_id for backup_id in found if found[backup_id].keep] == ["w52", "also-w53", "w1"]
    assert found["also-w53"].reasons == ("the newest of week 2026-W53, week 2 of 3",)


def test_the_hosts_own_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    import time

    time.tzset()
    try:
        found = decided([item("x", "2026-01-10T12:30")], Policy())
        assert "the newest of day 2026-01-11, day 1 of 7" in found["x"].reasons
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("name", ["Africa/Nowhere", "../etc/passwd", "/etc/localtime", "x\0"])
def test_zones_that_are_none(name):
    with pytest.raises(Refused, match="no such time zone"):
        zone_named(name)


def test_zones_without_zoneinfo(monkeypatch):
    monkeypatch.setitem(sys.modules, "zoneinfo", None)
    assert zone_named("utc") is datetime.timezone.utc and zone_named("") is None
    with pytest.raises(Refused, match="needs Python 3.9"):
        zone_named("Africa/Harare")


@pytest.mark.parametrize("name", ["days", "weeks", "pre_migration_days", "post_migration_days"])
def test_a_policy_keeps_something(name):
    with pytest.raises(Refused, match="cannot keep nothing") as caught:
        Policy(**{name: 0})
    assert caught.value.found == name + ": 0"


def test_too_much_at_once():
    decisions = decide(nightly(20), UTC, utc("2026-02-01"))
    going = sum(not decision.keep for decision in decisions)
    assert going == 11
    check_share(decisions, 11 / 20)
    with pytest.raises(Refused, match="would delete 11 of 20 backups at once") as caught:
        check_share(decisions, 0.5)
    assert len(caught.value.details["items"]) == 20 and "max_delete_share" in caught.value.hint
    json.dumps(caught.value.details)
    by_hand = [decision.item.backup_id for decision in decisions if not decision.keep][:2]
    check_share(decisions, 0.5, by_hand)


# Reading


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def only_item(store):
    (found,) = read_items(store)
    return found


def test_a_backup_is_read(store):
    place = made_backup(store, "daily", utc("2026-01-01T02:00"), level="restored")
    set_mark(store, place, " books ")
    found = only_item(store)
    assert (found.backup_id, found.kind, found.database, found.level) == (place.backup_id, "daily", "shop", "restored")
    assert found.created == utc("2026-01-01T02:00") and found.problem is None and found.mark == "books"
    assert found.size == sum(path.stat().st_size for path in pathlib.Path(place.path).iterdir())


def edited(place, change):
    path = pathlib.Path(place.file("manifest.json"))
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(format=2),
        lambda manifest: manifest.update(created="yesterday"),
        lambda manifest: manifest.update(created=7),
        lambda manifest: manifest.update(database="shop"),
        lambda manifest: manifest.update(server=None),
        lambda manifest: manifest.update(files=["archive.dump"]),
        lambda manifest: manifest["files"]["archive.dump"].pop("size"),
        lambda manifest: manifest.pop("tables"),
    ],
)
def test_manifests_that_are_not_as_they_should_be(store, change):
    edited(made_backup(store, "daily", utc("2026-01-01")), change)
    assert only_item(store).problem
    (decision,) = decide([only_item(store)], UTC, NOW)
    assert decision.keep and decision.reasons[0].startswith("not counted")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]"])
def test_files_that_cannot_be_read(store, content):
    place = made_backup(store, "daily", utc("2026-01-01"))
    for name in ("verification.json", "manifest.json"):
        pathlib.Path(place.file(name)).write_bytes(content)
        assert only_item(store).level is None
    assert only_item(store).problem


def test_damage_that_shows_without_reading(store):
    place = made_backup(store, "daily", utc("2026-01-01"))
    os.truncate(place.file("archive.dump"), 3)
    assert "has 3 bytes, not" in only_item(store).problem
    os.unlink(place.file("archive.dump"))
    assert only_item(store).problem == "it lacks the file archive.dump"


def test_a_copy_is_not_another_backup(store):
    place = made_backup(store, "daily", utc("2026-01-01"))
    os.rename(place.path, store.backup_path("weekly", place.backup_id))
    assert only_item(store).problem == "its manifest is that of daily/" + place.backup_id


def test_a_backup_of_tables_is_none_of_the_database(store):
    tables = [
        TableEntry(Table(1, "public", name, 1, False, (), (), (), (), 0), Digest(0, "0")).to_json()
        for name in ("B", "A")
    ]
    edited(made_backup(store, "daily", utc("2026-01-01")), lambda m: m.update(scope="tables", tables=tables))
    assert only_item(store).scope == "tables: public.A, public.B"
    assert decide([only_item(store)], UTC, NOW)[0].to_json()["scope"] == only_item(store).scope


def test_a_failed_drill_voids_the_level(store):
    place = made_backup(store, "daily", utc("2026-01-01"))
    manifests.record_verification(place, "checksum", {"passed": False})
    assert only_item(store).level is None
