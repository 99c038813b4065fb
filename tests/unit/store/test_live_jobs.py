# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that still works on an operation whose run is dead: it must end before the next decision."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import threading

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Locked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import lifecycle
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import (
    Beginning,
    begin,
    require_held,
    this_controller,
    wait_for_job,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation

#: Holds the operation's lock until it gets SIGTERM; then it writes this into the journal, once its input allows it.
MODULE = """
import signal, sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import work_on
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
operation = Operation.load(Store(sys.argv[1]), sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with operation.lock.held():
    work_on(operation) if sys.argv[3] == "named" else None
    operation.progress.phase("migrating")
    print("at work", flush=True)
    if sys.argv[3] == "named":
        print("told" if signal.sigtimedwait([signal.SIGTERM], 20) else "never told", flush=True)
    sys.stdin.read()
    operation.write("migrate", "done")
"""
REQUEST = {"revision": "et-100"}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@contextlib.contextmanager
def program(*words, **keywords):
    with subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **keywords
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def dead():
    with program("-c", "input()") as process:
        found = this_controller(process.pid)
    yield found


@contextlib.contextmanager
def module(operation, how="named"):
    """A running module."""
    with program("-c", MODULE, operation.store.root, operation.id, how, env={"PYTHONPATH": ":".join(sys.path)}) as job:
        assert job.stdout.readline() == "at work\n"
        yield job


def test_a_controller_names_its_user(monkeypatch):
    name = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert this_controller()["user"] == name
    monkeypatch.setenv("SUDO_USER", "alice")
    assert this_controller()["user"] == "%s (sudo by alice)" % name
    monkeypatch.setattr("os.geteuid", lambda: 987654321)
    assert this_controller()["user"] == "uid 987654321 (sudo by alice)"


def test_beginning_waits_for_a_module_that_outlived_its_run(store, dead):
    first, _adopted = begin(store, "deploy", "shop", REQUEST, dead)
    told = []
    adoptions = []
    with module(first) as job:

        def follow():
            adoptions.append(begin(store, "deploy", "shop", REQUEST, this_controller(), Beginning(notify=told.append)))

        following = threading.Thread(target=follow)
        following.start()
        assert job.stdout.readline() == "told\n"
        assert not adoptions and first.journal() == []
        job.stdin.close()
        following.join(30)
    assert [adopted for _operation, adopted in adoptions] == [True]
    assert [(entry["step"], entry["event"]) for entry in first.journal()] == [
        ("migrate", "done"), ("operation", "adopted"),
    ]  # fmt: skip
    assert "process %d, last migrating" % job.pid in told[0]


def test_another_request_waits_too(store, dead):
    """The module's result decides whether the operation may be abandoned."""
    first, _adopted = begin(store, "deploy", "shop", REQUEST, dead)
    with module(first) as job:
        job.stdin.close()
        begin(store, "rollback", "shop", {}, this_controller())
    assert [entry["event"] for entry in first.journal()] == ["done", "closed"]


def test_a_holder_that_cannot_be_told_is_waited_for_until_it_is_too_long(store, dead, monkeypatch):
    first, _adopted = begin(store, "deploy", "shop", REQUEST, dead)
    monkeypatch.setattr(lifecycle, "PREDECESSOR_SECONDS", 0.3)
    with module(first, "unnamed") as job, pytest.raises(Locked, match="Another process holds this lock"):
        begin(store, "deploy", "shop", REQUEST, this_controller())
    assert job.returncode == -signal.SIGKILL and first.journal() == []


def test_nobody_is_waited_for_and_nobody_tells_itself(store):
    operation, _adopted = begin(store, "deploy", "shop", REQUEST, this_controller())
    told = []
    wait_for_job(operation, told.append)
    with operation.lock.held():
        lifecycle.work_on(operation)
        wait_for_job(operation, told.append)
    assert told == []


def test_a_run_that_lost_its_operation_is_refused(store, dead):
    first, _adopted = begin(store, "deploy", "shop", REQUEST, {**dead, "host": "elsewhere"})
    require_held(first, {**dead, "host": "elsewhere"})
    begin(store, "deploy", "shop", REQUEST, this_controller(), Beginning(take_over=True))
    require_held(first, this_controller())
    with pytest.raises(Locked, match="belongs to another run") as caught:
        require_held(first, {**dead, "host": "elsewhere"})
    assert "process %d on " % this_controller()["pid"] in caught.value.found
    with pytest.raises(Locked):
        require_held(first, dead)


def test_children_keep_every_lock_open_that_is_held(store, dead):
    operation, _adopted = begin(store, "rollback", "shop", {}, dead)
    around = FileLock(str(store.root) + "/around")
    settings = Settings(database="shop")
    with around.held(), operation.lock.held():
        run = Site(settings, settings, store).under(around).run(operation)
        assert run.keep_open == [around.descriptor, operation.lock.descriptor] and run.controller == dead
        assert run.apart().keep_open == [] and run.apart().operation is None
    assert run.keep_open == []


def test_by_hand_an_operation_of_a_dead_run_can_be_ended(store, dead):
    first, _adopted = begin(store, "deploy", "shop", REQUEST, dead)
    require_held(Operation.load(store, first.id), this_controller())
