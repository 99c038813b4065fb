# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host becomes unreachable while its module works: the run ends, the module does not; the next run waits for it."""

from __future__ import annotations

import os
import pathlib
import signal
from typing import Any, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import operations
from support.demo_site import DemoSite, until
from support.live_modules import is_told_to_end
from support.ssh_server import ssh_server

pytestmark = pytest.mark.ssh
DEPLOY = "deploy_receiptdata.yml"


def journal(site: DemoSite) -> List[Dict[str, Any]]:
    return [entry for operation in operations(Store(str(site.places.store))) for entry in operation.journal()]


def stopped(site: DemoSite) -> bool:
    """Whether the process that wrote the journal's last line is stopped."""
    entries = journal(site)
    stat = pathlib.Path("/proc/%s/stat" % entries[-1]["pid"]) if entries else None
    return bool(stat and stat.exists() and stat.read_text("ascii").rpartition(")")[2].split()[0] == "T")


@pytest.mark.fault("deploy", "ssh connection cut in the migration, and back", by="the next run finishes it")
def test_a_host_is_unreachable_while_it_migrates(site: DemoSite) -> None:
    """The migration is finished by the module that began it, and the deploy by the same playbook."""
    halted = {"BACKSTOP_FAILPOINT": "migrate.before", "BACKSTOP_FAILPOINT_SIGNAL": str(int(signal.SIGSTOP))}
    with ssh_server() as server:
        playing = site.start(DEPLOY, environment=halted, **server.variables())
        until(lambda: stopped(site) or playing.process.poll() is not None, lambda: "the deploy does not migrate")
        pid = journal(site)[-1]["pid"]
        with server.unreachable():
            run = playing.end()
        run.must_say("cannot be asked how far it came", "When the runner answers again, run the same playbook again")
        assert site.outcomes() == [None] and journal(site)[-1]["pid"] == pid

        following = site.start(DEPLOY, **server.variables())
        until(lambda: is_told_to_end(pid), lambda: "the module is not told to end")
        assert journal(site)[-1]["pid"] == pid, "the journal was read before the module ended"
        os.kill(pid, signal.SIGCONT)
        run = following.end()
    assert run.status == 0, run.output
    assert "A module of the interrupted run was still running: process %d" % pid in run.text
    assert site.outcomes() == ["done"] and site.running() == site.commits["et-100"]
    events = [(entry["step"], entry["event"]) for entry in journal(site)]
    assert events.index(("migrate", "done")) < events.index(("operation", "adopted"))
    assert events.count(("migrate", "began")) == 1
