# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that rollbacks kept as files: deleted when no undo can need them, and not before."""

from __future__ import annotations

import datetime
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import row_files
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.row_files import prune_row_files
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import OPTIONS
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import SWAP
from ansible_collections.backstop.postgres.plugins.modules import pg_backup_prune

LATER = utc_now() + datetime.timedelta(days=91)
SOON = utc_now() + datetime.timedelta(days=89)


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "store"))
    made.prepare()
    return made


def rollback(store, database="shop", kind="rollback", closed=True, folders=("lost-rows", "carried", "saved-rows")):
    operation = Operation.create(store, kind, {"database": database, "request": {}})
    for name in folders:
        folder = pathlib.Path(operation.file(name))
        folder.mkdir()
        (folder / "public.User.copy").write_bytes(b"a row")
    if closed:
        operation.close("done")
    return operation


def kept(operation):
    return [name for name in ("lost-rows", "carried", "saved-rows") if pathlib.Path(operation.file(name)).exists()]


def decided(store, now=LATER, **keywords):
    return {one.operation.id: (one.keep, one.reason) for one in prune_row_files(store, 90, now=now, **keywords)}


def test_old_ones_go_and_what_is_perhaps_nowhere_else_stays(store):
    old, last = rollback(store), rollback(store)
    assert decided(store, only_check=True)[old.id][0] is False and len(kept(old)) == 3
    told = decided(store)
    assert told[old.id] == (False, "it ended more than 90 days ago, and no undo needs them any more")
    assert kept(old) == ["saved-rows"] and len(kept(last)) == 3
    assert old.facts("row_files")["removed"] == ["lost-rows", "carried"] and old.outcome == "done"
    assert list(decided(store)) == [last.id]
    assert not list(pathlib.Path(old.path).glob(".deleted-*"))


def test_reasons_to_stay(store):
    opened, retired, other = rollback(store, closed=False), rollback(store), rollback(store, "other")
    retired.write(SWAP, "done", live_oid=1)
    last = rollback(store, kind="undo")
    told = decided(store)
    assert [told[one.id][0] for one in (opened, retired, other, last)] == [True] * 4
    assert "is open" in told[opened.id][1] and "retired database" in told[retired.id][1]
    assert "may be undone" in told[other.id][1] and "may be undone" in told[last.id][1]
    retired.write("prune", "done", dropped="x")
    assert decided(store)[retired.id][0] is False


def test_not_before_its_time(store):
    old = rollback(store)
    rollback(store)
    keep, reason = decided(store, now=SOON)[old.id]
    assert keep and "kept for 90 days" in reason and len(kept(old)) == 3
    assert decided(store, now=utc_now() - datetime.timedelta(days=400))[old.id][0]


def test_a_deploy_is_no_rollback(store):
    """After a later deploy the last rollback is still the last one."""
    last = rollback(store)
    rollback(store, kind="deploy", folders=())
    assert decided(store)[last.id][0]


def test_killed_between_the_name_and_the_journal(store, monkeypatch):
    old = rollback(store)
    rollback(store)
    monkeypatch.setattr(row_files, "reach", lambda _name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decided(store)
    monkeypatch.undo()
    assert kept(old) == ["saved-rows"]
    decided(store)
    assert not list(pathlib.Path(old.path).glob(".deleted-*"))


def asked(store, check=False, **changes):
    parameters = {**OPTIONS, "remove": [], "time_zone": "UTC", "store": store.root, **changes}
    return pg_backup_prune.act(Request(parameters, check, False, lambda text: None))


def test_the_module(store):
    rollback(store)
    told = asked(store)
    assert not told["changed"] and [one["decision"] for one in told["row_files"]] == ["keep"]
    with pytest.raises(Refused, match="30 or more"):
        asked(store, keep_row_days=29)
