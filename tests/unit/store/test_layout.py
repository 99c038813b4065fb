# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store: its directories, the names of backups, and which entries are leftovers."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import (
    KINDS,
    Store,
    is_operation_id,
    new_id,
)


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "deep" / "store"))
    made.prepare()
    return made


def commit(store, kind, backup_id):
    path = pathlib.Path(store.backup_path(kind, backup_id))
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    return path


def test_tree(store):
    assert sorted(os.listdir(store.root)) == sorted([*KINDS, "operations"])
    assert {os.stat(os.path.join(store.root, name)).st_mode & 0o777 for name in os.listdir(store.root)} == {0o700}
    store.prepare()


def test_ids():
    made = {new_id() for _number in range(50)}
    assert len(made) == 50 and all(map(is_operation_id, made))
    for text in ("", "x", "../20251108T020000Z-3fa9c1", "20251108T020000Z-3fa9c1/..", "20251108T020000Z-3FA9C1\n"):
        assert not is_operation_id(text)
        with pytest.raises(Refused, match="Invalid id of an operation"):
            Store("/nowhere").operation_path(text)


@pytest.mark.fault("input", "names of databases that would leave the store", by="encoded")
@pytest.mark.parametrize("database", ["shop", "a/b", "..", ".hidden", "%41", "电 x", "a\nb", "é" * 31, "-"])
def test_names_of_backups_stay_in_the_store(store, database):
    backup_id = store.new_backup_id(database)
    assert "/" not in backup_id and not backup_id.startswith(".") and len(backup_id) < 230 and "\n" not in backup_id
    commit(store, "daily", backup_id)
    assert [place.backup_id for place in store.backups()] == [backup_id]
    assert store.find_backup(backup_id).kind == "daily"


def test_only_what_has_a_manifest_is_a_backup(store):
    commit(store, "daily", "shop-1")
    commit(store, "pre-migration", "shop-2")
    (pathlib.Path(store.root) / "daily" / "no-manifest").mkdir()
    (pathlib.Path(store.root) / "daily" / "file").write_text("x")
    partial = pathlib.Path(store.partial_path("daily", "shop-3"))
    partial.mkdir()
    (partial / "manifest.json").write_text("{}")
    assert [place.backup_id for place in store.backups()] == ["shop-1", "shop-2"]
    assert [place.backup_id for place in store.backups("daily")] == ["shop-1"]


def test_a_backup_that_is_not_there(store):
    commit(store, "daily", "shop-20251108T020000Z-3fa9c1")
    with pytest.raises(Refused, match="There is no backup") as caught:
        store.find_backup("shop-20251108T020000Z-3fa9c2")
    assert "3fa9c1" in caught.value.expected and "1 backups" in caught.value.found
    with pytest.raises(Refused, match="no such kind"):
        store.backup_path("monthly", "x")


def test_debris_is_what_nobody_works_on(store):
    lock = store.begin_backup("daily", "shop-1")
    dead = pathlib.Path(store.partial_path("weekly", "shop-2"))
    dead.mkdir()
    (dead / "archive.dump").write_text("x")
    (dead / "lock").write_text("")
    assert store.remove_debris() == [str(dead)]
    assert os.path.isdir(store.partial_path("daily", "shop-1"))
    lock.release()
    other = store.begin_backup("weekly", "shop-3")
    assert not os.path.exists(store.partial_path("daily", "shop-1"))
    other.release()
    assert FileLock.is_free(os.path.join(store.root, ".lock"))


def test_a_store_that_is_not_there_has_nothing(tmp_path):
    store = Store(str(tmp_path / "none"))
    assert store.backups() == [] and store.operation_ids() == [] and store.remove_debris() == []
    assert store.free_bytes() > 0 and not os.path.exists(store.root)


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/store").root == str(tmp_path / "store")


def test_a_store_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BackstopError):
        Store(str(tmp_path / "file" / "store")).prepare()
