# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Beginning an operation while another one is open: its run is alive, dead, or unknown."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Locked, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import (
    Action,
    Start,
    in_words_of,
    remedy,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import (
    database_lock,
    exclusive,
    journaled_step,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import (
    Beginning,
    begin,
    is_alive,
    this_controller,
    to_continue,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    Operation,
    open_operations,
)

REQUEST = {"revision": "et-100"}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def other():
    """Another program that runs, as a second ansible-playbook would."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


def deploy(store, controller=None, request=None, database="shop", kind="deploy", **keywords):
    request = REQUEST if request is None else request
    return begin(store, kind, database, request, controller or this_controller(), **keywords)


def dead_controller():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        controller = this_controller(process.pid)
        process.stdin.close()
        process.wait()
    return controller


@pytest.mark.fault("deploy", "a second deploy while one runs", by="the lock of the operation")
def test_a_second_deploy_while_one_runs(store, other):
    first, adopted = deploy(store, this_controller(other.pid))
    assert not adopted
    with pytest.raises(Locked, match="Another deploy of database shop is running") as caught:
        deploy(store)
    assert first.id in caught.value.found and str(other.pid) in caught.value.found
    assert first.file("progress.json") in caught.value.hint
    with pytest.raises(Locked):
        deploy(store, request={"revision": "other"}, kind="rollback")
    assert [operation.id for operation in open_operations(store)] == [first.id]
    # Another database is not affected.
    deploy(store, database="warehouse")


def test_the_same_run_asks_again(store):
    first, _adopted = deploy(store)
    again, adopted = deploy(store)
    assert adopted and again.id == first.id


def test_a_dead_run_is_adopted(store):
    first, _adopted = deploy(store, dead_controller())
    again, adopted = deploy(store)
    assert adopted and again.id == first.id
    assert again.last("operation")["event"] == "adopted"
    # From now on it belongs to this run: another one finds it alive.
    with pytest.raises(Locked):
        begin(store, "deploy", "shop", REQUEST, {**this_controller(), "pid": 1, "start": "0"})


@pytest.mark.fault("deploy", "a dead run whose process number was given again", by="the process's start time")
def test_a_process_number_that_was_given_again(store):
    """A pid alone does not identify a process: it may have been reused, or be from before a reboot."""
    controller = this_controller()
    assert is_alive(controller) is True
    assert is_alive({**controller, "start": "1"}) is False
    assert is_alive({**controller, "boot_id": "00000000-0000-0000-0000-000000000000"}) is False
    assert is_alive({**controller, "pid": 2**22 + 1, "start": None}) is False
    assert is_alive({**controller, "host": "elsewhere"}) is None
    assert is_alive({}) is False


def test_a_process_that_ended_and_was_not_waited_for():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        controller = this_controller(process.pid)
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_alive(controller) is False


def test_a_run_on_another_host_is_not_guessed_about(store):
    controller = {**this_controller(), "host": "elsewhere"}
    first, _adopted = deploy(store, controller)
    with pytest.raises(Locked, match="may be running") as caught:
        deploy(store)
    assert "elsewhere" in caught.value.found and "take_over=true" in caught.value.hint
    again, adopted = deploy(store, how=Beginning(take_over=True))
    assert adopted and again.id == first.id


def test_a_dead_deploy_that_touched_nothing_gives_way(store):
    first, _adopted = deploy(store, dead_controller())
    second, adopted = deploy(store, request={"revision": "other"})
    assert not adopted and second.id != first.id
    assert Operation.load(store, first.id).outcome == "abandoned"


def test_a_dead_deploy_that_stopped_the_application_does_not(store):
    """Half done: its own playbook finishes it, or a rollback replaces it."""
    first, _adopted = deploy(store, dead_controller())
    first.write("stop", "began")
    with pytest.raises(Refused, match="was interrupted and has another request") as caught:
        deploy(store, request={"revision": "other"})
    assert first.id in str(caught.value) and "revision=et-100" in caught.value.found
    assert caught.value.remedy == remedy("%s", Start(Action.DEPLOY, as_before=True))
    rollback, adopted = deploy(store, kind="rollback", request={"scenario": "complete"})
    assert not adopted and rollback.kind == "rollback"


@pytest.mark.parametrize(
    "kind, request_, command",
    [
        ("rollback", {"scenario": "complete", "backup": "x-1"}, "rollback_complete -e rollback_backup=x-1"),
        (
            "rollback", {"scenario": "complete", "backup": "x-1", "method": "in_place"},
            "rollback_complete -e rollback_backup=x-1 -e rollback_restore_method=in_place",
        ),
        ("undo", {"undoes": "y"}, "undo_rollback -e rollback_operation=y"),
        (
            "rollback", {"scenario": "corrupted_table", "table": "T", "backup": "", "where": "a = 'b c'", "keys": [1]},
            "rollback_corrupted_table -e " + shlex.quote('{"rollback_keys": [1]}') + " -e rollback_table=T -e "
            + shlex.quote("""{"rollback_where": "a = 'b c'"}"""),
        ),
    ],
)  # fmt: skip
def test_the_command_that_finishes_it_makes_the_same_request(store, kind, request_, command):
    first, _adopted = deploy(store, dead_controller(), kind=kind, request=request_)
    with in_words_of(AnsibleWords()):
        assert str(to_continue(first)).startswith("ansible-playbook backstop.postgres.%s, with" % command)


@pytest.mark.parametrize("kind", ["rollback", "undo"])
def test_a_dead_rollback_is_finished_first(store, kind):
    first, _adopted = deploy(store, dead_controller(), kind=kind)
    with pytest.raises(Refused, match="was interrupted") as caught:
        deploy(store)
    assert kind in caught.value.found
    again, adopted = deploy(store, kind=kind)
    assert adopted and again.id == first.id


def test_a_closed_operation_is_history(store):
    first, _adopted = deploy(store)
    first.close("done")
    second, adopted = deploy(store)
    assert not adopted and second.id != first.id


def test_a_directory_without_header_is_debris(store):
    """Killed between creating the directory and writing its header."""
    store.prepare()
    folder = pathlib.Path(store.operation_path("20250101T000000Z-abcdef"))
    folder.mkdir()
    operation, _adopted = deploy(store)
    assert not folder.exists() and [found.id for found in open_operations(store)] == [operation.id]


def test_unknown_kind(store):
    with pytest.raises(Refused, match="no such kind"):
        deploy(store, kind="deployment")


# Acting


@pytest.mark.fault("deploy", "two operations on one database", by="an advisory lock")
def test_two_operations_do_not_act_on_one_database(plain):
    """The lock is in the server: it works across hosts and stores, and is released when the session ends."""
    run = plain.begun("deploy")
    with journaled_step(run, "backup"):
        with pytest.raises(Locked, match="Another operation is changing") as caught, database_lock(plain.site, 0.3):
            pass
        assert run.operation.id in caught.value.found
    with database_lock(plain.site, 0.3):
        pass


def test_a_module_takes_the_locks_once_and_keeps_them(plain):
    run = plain.begun("deploy")
    with exclusive(run) as held:
        for step in ("backup", "drill"):
            with journaled_step(held, step), exclusive(held) as again:
                assert again.guard is held.guard and len(again.keep_open) == 1
            assert not FileLock.is_free(run.operation.lock.path)
            with pytest.raises(Locked), database_lock(plain.site, 0.3):
                pass
        # A server that restarts loses its locks.
        plain.execute("SELECT pg_terminate_backend(%d)" % held.guard.backend)
        with journaled_step(held, "drill"), pytest.raises(Locked), database_lock(plain.site, 0.3):
            pass
    assert FileLock.is_free(run.operation.lock.path) and run.keep_open == []
    with database_lock(plain.site, 0.3):
        pass


def test_no_step_of_an_operation_that_is_closed_or_another_run_has(plain, other):
    """A module that continues after its connection was cut must not migrate under the former release."""
    run = plain.begun("deploy")
    run.operation.write("operation", "adopted", controller=this_controller(other.pid))
    with pytest.raises(Locked, match="belongs to another run"), journaled_step(run, "migrate"):
        pytest.fail("the step began")
    run.operation.close("done")
    with pytest.raises(Refused, match="is closed") as caught, journaled_step(run, "migrate"):
        pytest.fail("the step began")
    assert "it ended as done" in caught.value.found and run.operation.last("migrate") is None


def test_another_database_is_free(databases):
    one, two = databases.make("one"), databases.make("two")
    with database_lock(one.site, 1), database_lock(two.site, 1):
        pass


def test_what_failed_is_in_the_journal_and_the_locks_are_free(plain):
    run = plain.begun("deploy")
    with pytest.raises(Refused), journaled_step(run, "gates"):
        raise Refused("A gate is closed")
    assert run.operation.last("gates")["event"] == "failed" and run.operation.done("gates") is None
    assert run.keep_open == []
    with journaled_step(run, "gates") as facts:
        assert len(run.keep_open) == 1
        facts["closed"] = []
    assert run.operation.facts("gates") == {"closed": []}
