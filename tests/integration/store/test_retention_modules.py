# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules pg_backup_prune, pg_backup_mark and pg_backup_info, without any database."""

from __future__ import annotations

import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.modules import pg_backup_info, pg_backup_mark, pg_backup_prune
from support.made_backups import made_backup, utc
from support.module_runner import run_module

PRUNE = {
    "keep_days": 2,
    "keep_weeks": 1,
    "keep_pre_migration_days": 90,
    "keep_post_migration_days": 90,
    "time_zone": "UTC",
    "max_delete_share": 0.5,
    "remove": [],
    "keep_row_days": 90,
}


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "store"))
    made.prepare()
    return made


@pytest.fixture
def nightly(store):
    return [made_backup(store, "daily", utc("2025-06-%02dT12:00" % day)).backup_id for day in (2, 9, 10, 11)]


def asked(module, store, check=False, **parameters):
    """The module's result, in this process."""
    return module.act(Request({"store": store.root, **parameters}, check, True, lambda text: None))


def prune(store, check=False, **parameters):
    return asked(pg_backup_prune, store, check, **{**PRUNE, **parameters})


def mark(store, backup_id, state="present", reason=None, check=False):
    return asked(pg_backup_mark, store, check, backup=backup_id, state=state, reason=reason)


def listed(store):
    return {place.backup_id for place in store.backups()}


def test_prune(store, nightly):
    told = prune(store, check=True)
    assert told["changed"] and told["deleted"] == nightly[:2] and told["freed"] > 0 and listed(store) == set(nightly)
    gone = set(told["diff"]["before"].splitlines()) - set(told["diff"]["after"].splitlines())
    assert gone == {"daily/" + backup_id for backup_id in nightly[:2]}
    decisions = {item["backup"]: item["decision"] for item in told["items"]}
    assert decisions == dict(zip(nightly, ["delete", "delete", "keep", "keep"]))
    assert all(item["reason"] for item in told["items"])
    assert prune(store) == told and listed(store) == set(nightly[2:])
    again = prune(store)
    assert not again["changed"] and again["deleted"] == [] and again["freed"] == 0


def test_mark(store, nightly):
    reason = "closing of the books"
    assert mark(store, nightly[0], reason=reason, check=True)["changed"]
    marked = mark(store, nightly[0], reason=" %s " % reason)
    assert marked["changed"] and marked["mark"]["reason"] == reason
    assert marked["diff"] == {"before": "", "after": "kept: %s\n" % reason}
    assert not mark(store, nightly[0], reason=reason)["changed"]

    pruned = prune(store)
    assert pruned["deleted"] == [nightly[1]] and nightly[0] in listed(store)
    assert pruned["items"][0]["reason"] == "marked: " + reason
    shown = {each["backup"]: each for each in asked(pg_backup_info, store, backup=None, kind=None)["backups"]}
    assert shown[nightly[0]]["mark"]["reason"] == reason and shown[nightly[2]]["mark"] is None

    assert mark(store, nightly[0], "absent", check=True)["mark"] is None
    assert mark(store, nightly[0], "absent")["changed"] and not mark(store, nightly[0], "absent")["changed"]
    assert prune(store)["deleted"] == [nightly[0]]


@pytest.mark.parametrize(
    "parameters, told",
    [
        ({"keep_days": 0}, "days: 0"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"max_delete_share": 2.0}, "between 0 and 1"),
    ],
)
def test_prune_refuses(store, nightly, parameters, told):
    with pytest.raises(Refused) as caught:
        prune(store, **parameters)
    assert told in str(caught.value) and listed(store) == set(nightly)


def test_mark_refuses(store, nightly):
    with pytest.raises(Refused, match="needs a reason"):
        mark(store, nightly[0], reason="  ")
    with pytest.raises(Refused, match="There is no backup") as caught:
        mark(store, nightly[0][:-1] + "g", reason="x")
    assert nightly[0] in caught.value.expected
    assert not os.path.exists(store.find_backup(nightly[0]).file("keep.json"))


def test_run_by_ansible(store, nightly, tmp_path):
    """Options as in a task; with the defaults, three of four would be deleted at once."""
    made_backup(store, "emergency", utc("2025-06-01"))
    arguments = {"store": store.root, "keep_days": 1, "keep_weeks": 1}
    refused = run_module(tmp_path, "pg_backup_prune", arguments)
    assert refused.failed and "would delete 3 of 5 backups at once" in refused.result["msg"]
    assert [item["decision"] for item in refused.result["items"]] == ["keep"] + ["delete"] * 3 + ["keep"]
    acted = run_module(tmp_path, "pg_backup_prune", {**arguments, "max_delete_share": 0.6}, diff=True)
    assert not acted.failed and acted.result["deleted"] == nightly[:3] and nightly[3] in listed(store)
    given = {"store": store.root, "backup": nightly[3], "reason": "x"}
    assert run_module(tmp_path, "pg_backup_mark", given).result["mark"]["reason"] == "x"
