# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module that outlives its run, Ctrl-C, and a server that restarts: the operation ends before anything else begins,
or the next run finishes it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Optional

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import this_controller
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import operations
from support.live_modules import is_told_to_end
from support.prisma_database import until
from support.reliability import times

#: Operation, failpoint, and what the module does there when it receives SIGTERM or SIGINT.
ENDS, FINISHES = "ends", "finishes"
CUT = [
    ("deploy", "final backup", ENDS),
    ("deploy", "migrate.before", FINISHES),
    ("revert", "swap.fenced", FINISHES),
]
INTERRUPTED = [
    ("deploy", "restore.restored", ENDS),
    ("deploy", "final backup", ENDS),
    ("deploy", "rehearsal.migrated", ENDS),
    ("deploy", "fence.cleared", ENDS),
    ("deploy", "migrate.before", FINISHES),
    ("undo", "retired.opened", ENDS),
]
#: The step that the failpoint belongs to.
STEPS = {"migrate.before": "migrate", "swap.fenced": "swap"}


@pytest.fixture
def at(request, place: str) -> Any:
    """The site before an operation."""
    what = request.node.callspec.params["what"]
    site = request.getfixturevalue({"deploy": "site", "revert": "deployed", "undo": "reverted"}[what])
    if place == "final backup":
        # Rows written after the proofs cause the backup behind the fence.
        assert site.run(what, "step.rehearsal.done").returncode == -signal.SIGKILL
        site.sql("INSERT INTO \"User\" VALUES ('late', 'late@example.org')")
    return site


def start(
    site: Any, what: str, controller: Optional[Dict[str, Any]] = None, **environment: str
) -> "subprocess.Popen[str]":
    given = {**json.loads(site.settings.read_text("utf-8")), "controller": controller}
    settings = pathlib.Path(site.folder) / ("settings of %s.json" % (controller or {}).get("pid"))
    settings.write_text(json.dumps(given), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "support.operation_driver", what, str(settings)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def failpoint(place: str, number: int) -> Dict[str, str]:
    name = "backup.dumping" if place == "final backup" else place
    return {"BACKSTOP_FAILPOINT": name, "BACKSTOP_FAILPOINT_SIGNAL": str(int(number))}


@contextlib.contextmanager
def playbook() -> Iterator[Dict[str, Any]]:
    """A process in the role of ansible-playbook; killed at the end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield this_controller(process.pid)
        process.kill()


def journal(site: Any) -> List[Dict[str, Any]]:
    return operations(Store(str(site.store)))[-1].journal()


def holds(site: Any, place: str, how: str, pid: int) -> None:
    """The module's own journal lines end as expected."""
    lines = [entry for entry in journal(site) if entry["pid"] == pid]
    last = [entry["event"] for entry in lines if entry["step"] == STEPS.get(place, lines[-1]["step"])][-1]
    assert last == ("done" if how == FINISHES else "failed"), lines


@pytest.mark.fault(
    "deploy", "connection of Ansible cut while a module works", by="the next run waits for the module, or ends it"
)
@pytest.mark.parametrize("what, place, how", CUT)
def test_the_connection_is_cut(at, what, place, how) -> None:
    """The playbook is killed, and no process reads the module's result."""
    with playbook() as controller:
        job = start(at, what, controller, **failpoint(place, signal.SIGSTOP))
        os.waitid(os.P_PID, job.pid, os.WSTOPPED | os.WNOWAIT)
    for stream in (job.stdout, job.stderr):
        stream.close()
    with start(at, what) as following:
        until(lambda: is_told_to_end(job.pid), "the module is told to end")
        assert journal(at)[-1]["pid"] == job.pid, "the journal was read before the module ended"
        os.kill(job.pid, signal.SIGCONT)
        job.wait(60)
        output, errors = following.communicate(timeout=120)
    holds(at, place, how, job.pid)
    assert following.returncode == 0 and json.loads(output)["outcome"] in ("done", "nothing"), errors
    pids = [entry["pid"] for entry in journal(at)]
    assert set(pids[pids.index(following.pid) :]) == {following.pid}
    assert at.databases("backstop_scratch_") == []


@pytest.mark.fault("deploy", "Ctrl-C while a module works", by="the next run finishes it")
@pytest.mark.parametrize("what, place, how", INTERRUPTED)
def test_ctrl_c(at, what, place, how) -> None:
    with start(at, what, **failpoint(place, signal.SIGINT)) as job:
        _output, errors = job.communicate(timeout=120)
    assert job.returncode == 1 and "Interrupted. Found: signal 2" in errors, errors
    holds(at, place, how, job.pid)
    assert at.succeed(what)["outcome"] in ("done", "nothing")
    assert at.databases("backstop_scratch_") == []


#: Places between two steps.
RESTARTED_DEPLOY = [
    *("step.backup.done", "step.drill.done", "step.rehearsal.done", "step.fence.done", "step.migrate.began"),
    *("step.migrate.done", "step.check.done"),
]
RESTARTED_REVERT = ["step.build.done", "step.swap.began", "step.swap.done"]


def restart_at(site, what: str, place: str, tried) -> None:
    """Halt the operation at the failpoint while its server restarts, then let it continue."""
    # A step that fails with the connection is tried again, and comes to the failpoint a second time.
    with start(site, what, **failpoint(place + "#1", signal.SIGSTOP)) as job:
        os.waitid(os.P_PID, job.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        site.cluster.stop("fast")
        site.cluster.start()
        os.kill(job.pid, signal.SIGCONT)
        output, errors = job.communicate(timeout=120)
    assert "p@ss" not in output + errors
    tried(by="it continues with the server that is back" if job.returncode == 0 else "the next run finishes it")
    for _run in range(3):
        if site.succeed(what)["outcome"] in ("done", "nothing"):
            break
    assert site.databases("backstop_scratch_") == []


@pytest.mark.fault("deploy", "server restarted between two steps of a deploy", by="the next run finishes it")
@pytest.mark.parametrize("place", RESTARTED_DEPLOY[:: times(3, 1)])
def test_the_server_restarts_in_a_deploy(site, place: str, tried) -> None:
    before = site.contents()
    restart_at(site, "deploy", place, tried)
    after = site.contents()
    assert after.pop("ReceiptData") == "0|0"
    assert after.pop("migrations").split("\n")[-1] == "20251108000000_add_receipt_data"
    assert {**before, "migrations": None} == {**after, "migrations": None}


@pytest.mark.fault("deploy", "server restarted between two steps of a complete revert", by="the next run finishes it")
@pytest.mark.parametrize("place", RESTARTED_REVERT[:: times(2, 1)])
def test_the_server_restarts_in_a_revert(deployed, original, place: str, tried) -> None:
    restart_at(deployed, "revert", place, tried)
    assert deployed.contents() == original
