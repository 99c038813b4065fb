# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The retention of second copies, by real rclone on a directory. No database is needed."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import copies as copies_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.copies import (
    copy_missing,
    fetch,
    prune_copies,
    read_copies,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import set_mark
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.offsite import Offsite
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from support.made_backups import made_backup, utc

pytestmark = pytest.mark.offsite

NOW = utc("2025-06-12T00:00")
EVERY = Policy(days=30, weeks=30)
TWO = Policy(days=2, weeks=1)


class Copies:
    """A store and a remote."""

    def __init__(self, folder, database="shop"):
        self.store = Store(str(folder / "store"))
        self.folder = folder / "remote"
        self.offsite = Offsite(str(self.folder))
        settings = Settings(database=database)
        self.site = Site(settings, settings, self.store)

    def copied(self):
        return {place.name for place in self.folder.glob("*/*") if (place / "manifest.json").exists()}

    def prune(self, policy=TWO, **keywords):
        decisions = prune_copies(self.site, self.offsite, policy, max_share=1, now=NOW, **keywords)
        assert all(decision.reasons for decision in decisions)
        return {decision.item.backup_id for decision in decisions if not decision.keep}


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """Some nights of a week, oldest first, with their copies: made once."""
    folder = tmp_path_factory.mktemp("week")
    made = Copies(folder)
    nights = [made_backup(made.store, "daily", utc("2025-06-%02dT02:00" % day)).backup_id for day in (2, 9, 10, 11)]
    assert copy_missing(made.site, made.offsite, EVERY, NOW) == nights
    return folder, nights


@pytest.fixture
def site(week, tmp_path):
    """A separate copy of the store and the remote for one test."""
    folder, nights = week
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    made = Copies(tmp_path)
    made.nights = list(nights)
    return made


def test_a_rule_of_their_own(site):
    """Backups stay in the store when their copies are deleted, and vice versa."""
    assert site.prune(only_check=True) == set(site.nights[:2]) and site.copied() == set(site.nights)
    assert site.prune() == set(site.nights[:2])
    assert site.copied() == set(site.nights[2:]) and len(site.store.backups()) == 4
    assert site.prune() == set()
    # A deleted copy is not copied again.
    assert copy_missing(site.site, site.offsite, TWO, NOW) == []
    assert sorted(place.name for place in site.folder.glob("*/*")) == sorted(site.nights[2:])


def test_without_the_store(site):
    """The hashes of the manifests are used instead."""
    shutil.rmtree(site.store.root)
    assert site.prune() == set(site.nights[:2])


@pytest.mark.fault("archive", "a copy that was changed, when old ones are pruned", by="kept for it")
@pytest.mark.parametrize("store_is_there", [True, False])
def test_none_is_given_up_for_one_that_was_changed(site, store_is_there):
    path = site.folder / "daily" / site.nights[3] / "archive.dump"
    path.write_bytes(path.read_bytes()[::-1])
    if not store_is_there:
        shutil.rmtree(site.store.root)
    gone = site.prune(Policy(days=1, weeks=1))
    assert not gone & {site.nights[2], site.nights[3]} and site.nights[2] in site.copied()


def test_never_all(site):
    """However small the rule and however old they are."""
    for _time in range(3):
        site.prune(Policy(days=1, weeks=1))
    assert site.nights[3] in site.copied()


def test_too_much_at_once(site):
    with pytest.raises(Refused, match="max_delete_share") as caught:
        prune_copies(site.site, site.offsite, TWO, max_share=0.1, now=NOW)
    assert caught.value.details["items"] and site.copied() == set(site.nights)


def test_a_marked_backup_keeps_its_copy(site):
    set_mark(site.store, site.store.find_backup(site.nights[0]), "the auditors ask for it")
    assert site.prune() == {site.nights[1]}


def test_copies_of_other_databases_are_theirs(site):
    other = Copies(site.folder.parent, "shop-2")
    old = [made_backup(other.store, "daily", utc("2025-05-%02dT02:00" % day), database="shop-2") for day in (1, 2, 20)]
    copy_missing(other.site, other.offsite, EVERY, NOW)
    half_done = site.folder / "daily" / (".partial-" + old[0].backup_id)
    half_done.mkdir()
    (half_done / "archive.dump").write_bytes(b"being written")
    assert site.prune() == set(site.nights[:2]) and copy_missing(site.site, site.offsite, TWO, NOW) == []
    assert {place.backup_id for place in old} <= site.copied() and (half_done / "archive.dump").exists()
    copy_missing(other.site, other.offsite, EVERY, NOW)
    assert not half_done.exists()


def test_a_copy_that_cannot_be_read_is_kept_and_stops_nobody(site):
    (site.folder / "daily" / site.nights[1] / "manifest.json").write_text('{"format": 1, "id', "utf-8")
    problems = {copy.item.backup_id: copy.item.problem for copy in read_copies(site.site, site.offsite)}
    assert problems[site.nights[1]] and not problems[site.nights[0]]
    assert site.prune() == {site.nights[0]}
    with pytest.raises(Refused, match="can be used"):
        fetch(site.site, site.offsite, site.nights[1])


def test_given_up_and_killed(site, monkeypatch):
    """Files without a manifest do not count as a copy, and the next run removes them."""
    monkeypatch.setattr(copies_module, "reach", lambda name: 1 / 0 if name == "copy.given-up" else None)
    with pytest.raises(ZeroDivisionError):
        site.prune()
    monkeypatch.undo()
    assert site.nights[0] not in site.copied() and (site.folder / "daily" / site.nights[0] / "archive.dump").exists()
    assert copy_missing(site.site, site.offsite, TWO, NOW) == []
    assert not (site.folder / "daily" / site.nights[0]).exists()


@pytest.mark.fault("archive", "a damaged backup is to be copied", by="sha256 before the copy")
def test_a_damaged_backup_is_not_copied(tmp_path):
    """It does not keep others from being copied, is reported once, and is no longer a candidate."""
    site = Copies(tmp_path)
    place, good = (made_backup(site.store, "daily", utc("2025-06-%d" % day)) for day in (10, 11))
    path = pathlib.Path(place.file("archive.dump"))
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(BackstopError, match="sha256"):
        copy_missing(site.site, site.offsite, EVERY, NOW)
    assert site.copied() == {good.backup_id} and manifests.level_of(place) is None
    assert copy_missing(site.site, site.offsite, EVERY, NOW) == []


def test_copies_of_two_servers_are_not_guessed_between(site):
    made_backup(site.store, "daily", utc("2025-06-11T03:00"), server="7300000000000000002")
    copy_missing(site.site, site.offsite, EVERY, NOW)
    shutil.rmtree(site.store.root)
    with pytest.raises(Refused, match="more than one server"):
        fetch(site.site, site.offsite)
    assert fetch(site.site, site.offsite, site.nights[3]).backup_id == site.nights[3]


def test_names_that_need_care(tmp_path):
    name = "Shop/电 *[x] {y} 50%"
    site = Copies(tmp_path, name)
    place = made_backup(site.store, "daily", utc("2025-06-11"), database=name)
    assert copy_missing(site.site, site.offsite, EVERY, NOW) == [place.backup_id] and site.copied()
    shutil.rmtree(site.store.root)
    again = fetch(site.site, site.offsite)
    assert again.backup_id == place.backup_id
    assert json.loads(pathlib.Path(again.file("manifest.json")).read_text("utf-8"))["database"]["name"] == name
