# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Marks: a user's instruction to keep a backup."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import (
    mark_of,
    remove_mark,
    set_mark,
)
from support.made_backups import made_backup, utc


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def place(store):
    return made_backup(store, "daily", utc("2026-01-01"))


def mark_file(place):
    return pathlib.Path(place.file("keep.json"))


def test_set_and_removed(store, place):
    assert mark_of(place) is None
    set_mark(store, place, " closing of the books\n")
    assert mark_of(place)["reason"] == "closing of the books" and mark_of(place)["at"].endswith("Z")
    assert stat.S_IMODE(mark_file(place).stat().st_mode) == 0o600
    manifests.check_files(place, manifests.load(place))
    assert manifests.level_of(place) == "readable"
    set_mark(store, place, "another")
    assert mark_of(place)["reason"] == "another"
    remove_mark(store, place)
    assert mark_of(place) is None and not mark_file(place).exists()
    remove_mark(store, place)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_a_mark_needs_a_reason(store, place, reason):
    with pytest.raises(Refused, match="needs a reason"):
        set_mark(store, place, reason)
    assert mark_of(place) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"reason": ""}', b'{"reason": null}'])
def test_what_cannot_be_read_is_a_mark(place, content):
    mark_file(place).write_bytes(content)
    assert mark_of(place)["reason"]


def test_a_link_to_nowhere_is_a_mark(place):
    os.symlink("nowhere", mark_file(place))
    assert mark_of(place)["reason"]


def test_a_backup_that_went_meanwhile(store, place):
    store.give_up(place)
    for act in (lambda: set_mark(store, place, "x"), lambda: remove_mark(store, place)):
        with pytest.raises(Refused, match="any more"):
            act()


def test_a_mark_that_cannot_be_written(store, place):
    mark_file(place).mkdir()
    with pytest.raises(BackstopError):
        set_mark(store, place, "x")
    with pytest.raises(BackstopError):
        remove_mark(store, place)
    assert mark_of(place)["reason"]
