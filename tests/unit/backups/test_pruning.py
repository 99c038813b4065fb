# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pruning a store: operations keep what they need, a kill is safe, the survivor is read before others are deleted."""

from __future__ import annotations

import datetime
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import prune as pruning
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Locked, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import set_mark
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from support.made_backups import made_backup, utc

POLICY = Policy(days=2, weeks=1, pre_migration_days=10, post_migration_days=10, zone=datetime.timezone.utc)
NOW = utc("2026-02-01")


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "store"))
    made.prepare()
    return made


def nightly(store, days=4, **more):
    return [made_backup(store, "daily", utc("2026-01-%02dT02:00" % day), **more) for day in range(12, 12 + days)]


def pruned(store, **more):
    """Ids of deleted backups, checked against the store."""
    more = {"max_share": 1, "now": NOW, **more}
    before = listed(store)
    decisions = prune(store, POLICY, **more)
    gone = {decision.item.backup_id for decision in decisions if not decision.keep}
    assert listed(store) == before - gone or more.get("only_check")
    return gone


def listed(store):
    return {place.backup_id for place in store.backups()}


def everything(store):
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in pathlib.Path(store.root).rglob("*")
    }


def ids(places):
    return {place.backup_id for place in places}


def test_what_the_rule_does_not_keep_goes(store):
    places = nightly(store)
    assert pruned(store) == ids(places[:2])
    assert [name for name in os.listdir(os.path.join(store.root, "daily")) if name.startswith(".")] == []
    assert pruned(store) == set()


def test_check_mode_tells_the_same_and_touches_nothing(store):
    nightly(store)
    before = everything(store)
    told = pruned(store, only_check=True)
    assert everything(store) == before
    assert pruned(store) == told != set()


def test_a_store_that_is_not_there(tmp_path):
    store = Store(str(tmp_path / "none"))
    assert prune(store, POLICY, only_check=True) == [] and not os.path.exists(store.root)
    assert prune(store, POLICY) == []


def test_a_store_of_somebody_else(store):
    nightly(store)
    os.chmod(store.root, 0o755)
    with pytest.raises(Refused, match="is accessible to other users"):
        pruned(store)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_that_are_none(store, share):
    with pytest.raises(Refused, match="Invalid share"):
        prune(store, POLICY, max_share=share)


def test_too_much_at_once_is_refused(store):
    nightly(store, 8)
    for only_check in (True, False):
        with pytest.raises(Refused, match="would delete 6 of 8 backups"):
            prune(store, POLICY, now=NOW, only_check=only_check)
    assert len(listed(store)) == 8


# The survivor


def test_the_survivor_is_read_before_others_go(store):
    """One bit of the newest was flipped since it was verified: it no longer counts, and the one before it does."""
    places = nightly(store)
    path = pathlib.Path(places[-1].file("archive.dump"))
    good = path.read_bytes()
    path.write_bytes(b"A" + good[1:])
    before = everything(store)
    assert pruned(store, only_check=True) == ids(places[:1])
    assert everything(store) == before
    assert pruned(store) == ids(places[:1])
    assert listed(store) == ids(places[1:])
    failed = manifests.verification(places[-1])["levels"]["checksum"]
    assert not failed["passed"] and "was changed" in failed["reason"]


def test_with_every_survivor_damaged_nothing_goes(store):
    for place in nightly(store):
        pathlib.Path(place.file("archive.dump")).write_bytes(b"x" * os.path.getsize(place.file("archive.dump")))
    assert pruned(store) == set() and len(listed(store)) == 4


def test_only_those_that_others_go_for_are_read(store, monkeypatch):
    read = []
    check_files = manifests.check_files

    def reading(place, manifest):
        read.append(place.backup_id)
        check_files(place, manifest)

    monkeypatch.setattr(manifests, "check_files", reading)
    places = nightly(store)
    nightly(store, 2, database="other")
    pruned(store)
    assert read == [places[-1].backup_id]


# By hand


def test_by_hand(store):
    old = made_backup(store, "emergency", utc("2026-01-01"))
    failed = made_backup(store, "daily", utc("2026-01-02"), level=None)
    nightly(store, 2)
    assert pruned(store) == set()
    assert pruned(store, by_hand=[old.backup_id, failed.backup_id, "shop-gone"], max_share=0) == ids([old, failed])
    assert pruned(store, by_hand=[old.backup_id, failed.backup_id, "shop-gone"], max_share=0) == set()


def test_by_hand_not_what_is_needed(store):
    (newest,) = nightly(store, 1)
    marked = made_backup(store, "emergency", utc("2026-01-01"))
    set_mark(store, marked, "evidence")
    for place, reason in ((newest, "the newest verified"), (marked, "marked: evidence")):
        with pytest.raises(Refused, match="cannot be removed") as caught:
            pruned(store, by_hand=[place.backup_id])
        assert reason in caught.value.found
    assert len(listed(store)) == 2


# Operations


#: A time when rollbacks of these tests, which really begin now, are no longer recent.
LATER = utc_now() + datetime.timedelta(days=pruning.UNDO_DAYS + 1)


def reasons(store, place, now=NOW):
    decisions = prune(store, POLICY, max_share=1, only_check=True, now=now)
    (found,) = [decision for decision in decisions if decision.item.backup_id == place.backup_id]
    return "; ".join(found.reasons) if found.keep else None


def operation(store, kind, *, closed=None, request=None, **steps):
    made = Operation.create(store, kind, {"database": "shop", "request": request or {}})
    for step, facts in steps.items():
        made.write(step, "began")
        made.write(step, "done", **facts)
    if closed:
        made.close(closed)
    return made


@pytest.fixture
def old(store):
    """A pre-migration backup that the rule deletes, because newer ones exist."""
    place = made_backup(store, "pre-migration", utc("2025-06-01"))
    nightly(store)
    made_backup(store, "pre-migration", utc("2026-01-14"))
    assert reasons(store, place) is None
    return place


def test_an_open_operation_needs_what_it_names(store, old):
    open_one = operation(store, "rollback", request={"scenario": "complete", "backup": old.backup_id})
    assert "operation %s (rollback) is open" % open_one.id in reasons(store, old)
    open_one.close("abandoned")
    operation(store, "rollback", closed="done")
    assert reasons(store, old, now=LATER) is None


def test_an_open_operation_needs_what_it_made_though_it_was_killed_before_it_said_so(store, old):
    open_one = operation(store, "deploy")
    made = made_backup(store, "pre-migration", utc("2025-06-02"), operation=open_one.id)
    assert "is open" in reasons(store, made)
    open_one.close("abandoned")
    assert reasons(store, made) is None


def test_an_undo_needs_the_backup_that_it_counts_from(store, old):
    """As long as the retired database exists."""
    swapped = operation(store, "rollback", closed="done", swap={"backup": old.backup_id, "live_oid": 1})
    operation(store, "rollback", closed="done", swap={"backup": None})
    operation(store, "rollback", closed="done")
    assert reasons(store, old, now=LATER) == "an undo of operation %s may need it" % swapped.id
    swapped.write("prune", "done", dropped="retired", dump="shop-1")
    assert reasons(store, old, now=LATER) is None


def test_rollbacks_without_a_swap_may_be_undone(store, old):
    """All of them for some weeks, then only the last."""
    repaired = operation(store, "rollback", closed="done", replace={"saved": [{"backup": old.backup_id}]})
    for now in (utc_now(), LATER):
        assert "an undo of " in reasons(store, old, now=now) and repaired.id in reasons(store, old, now=now)
    operation(store, "rollback", closed="done", replace={})
    assert repaired.id in reasons(store, old, now=utc_now())
    assert reasons(store, old, now=LATER) is None


def test_the_live_migration_needs_the_backup_before_it(store, old):
    operation(store, "deploy", closed="done", backup={"backup": old.backup_id}, migrate={"applied": ["x"]})
    assert "a rollback of the last migration" in reasons(store, old)
    operation(store, "deploy", closed="done", backup={"backup": old.backup_id})
    newer = made_backup(store, "pre-migration", utc("2025-06-02"))
    operation(store, "deploy", closed="done", backup={"backup": newer.backup_id}, migrate={"applied": ["y"]})
    assert reasons(store, old) is None and "a rollback of the last migration" in reasons(store, newer)


def test_the_last_deploy_of_another_server_is_another(store, old):
    operation(store, "deploy", closed="done", backup={"backup": old.backup_id}, migrate={})
    other = made_backup(store, "pre-migration", utc("2025-06-02"), server="2")
    operation(store, "deploy", closed="done", backup={"backup": other.backup_id}, migrate={})
    assert "a rollback of the last migration" in reasons(store, old)


def test_an_operation_that_began_meanwhile(store, old, monkeypatch):
    """Between the decision and the deletion."""
    decided = pruning._decide_on_proof

    def decide_then_begin(*arguments, **keywords):
        decisions = decided(*arguments, **keywords)
        operation(store, "rollback", request={"backup": old.backup_id})
        return decisions

    monkeypatch.setattr(pruning, "_decide_on_proof", decide_then_begin)
    assert old.backup_id not in pruned(store) and old.backup_id in listed(store)


def test_no_operation_begins_while_backups_are_given_up(store, monkeypatch):
    nightly(store)
    seen = []
    give_up = Store.give_up

    def looking(self, place):
        for lock in (FileLock(os.path.join(store.root, "operations", "lock")), store.lock):
            with pytest.raises(Locked):
                lock.acquire()
        seen.append(place)
        give_up(self, place)

    monkeypatch.setattr(Store, "give_up", looking)
    pruned(store)
    assert len(seen) == 2


# Kills

KILLED = """
import sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
prune(Store(sys.argv[1]), Policy(days=2, weeks=1), max_share=1)
"""


def given_up(store):
    return [name for name in os.listdir(os.path.join(store.root, "daily")) if name.startswith(".deleted-")]


@pytest.mark.parametrize(
    "failpoint, left, debris",
    [("prune.decided", 4, 0), ("prune.renamed", 3, 1), ("prune.renamed#2", 2, 2), ("prune.removed", 2, 0)],
)
def test_killed(store, failpoint, left, debris):
    """A backup is listed completely or not at all; the next backup or pruning removes the rest."""
    places = nightly(store)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, store.root], check=False, env={**os.environ, "BACKSTOP_FAILPOINT": failpoint}
    )
    assert ended.returncode == -signal.SIGKILL
    assert len(listed(store)) == left and len(given_up(store)) == debris
    for place in store.backups():
        manifests.check_files(place, manifests.load(place))
    if left == 3:
        store.begin_backup("daily", "shop-next").release()
        assert given_up(store) == []
    pruned(store)
    assert listed(store) == ids(places[2:]) and given_up(store) == []
