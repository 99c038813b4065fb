# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release started on a separate port: checked, and ended with all its child processes, whatever happens."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import (
    smoke,
    smoke_steps,
    trial,
    web,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import alive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from support.application_site import DATABASE_URL, PASSWORD, Site

pytestmark = pytest.mark.serial
COMMAND = ["node", "dist/server.js"]

HOLD_A_TRIAL = """
import sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import trial, web
cwd, node, port = sys.argv[1:]
url = "http://127.0.0.1:%s/api/health" % port
def callback():
    print(web.request(url).json["pid"], flush=True)
    sys.stdin.read()
start = trial.Start(["node", "dist/server.js"], cwd, int(port), node_bin_dir=node)
trial.run(start, callback, trial.Health(url))
"""


def run(site: Site, callback: Callable[[], Any] = list, *, timeout: float = 60, **changes: Any) -> trial.Outcome[Any]:
    given = {
        "command": COMMAND,
        "cwd": site.releases.path(site.prepare("one")),
        "port": site.port,
        "node_bin_dir": str(site.node.bin_dir),
        **changes,
    }
    return trial.run(trial.Start(**given), callback, trial.Health(site.url + "/api/health", timeout=timeout))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_tried_and_ended(site: Site) -> None:
    site.write_environment(PORT="1")  # the trial's own port takes precedence
    seen: List[Dict[str, Any]] = []
    outcome = run(
        site,
        lambda: seen.append(web.request(site.url + "/api/health").json) or "value",
        environment={"DATABASE_URL": "postgresql://scratch"},
    )
    assert outcome.value == "value"
    assert seen[0]["version"] == "1"
    assert 0 < outcome.seconds_to_health < outcome.seconds < 30
    assert not alive(seen[0]["pid"])
    assert not listens(site.port)


def test_smoke_tests_on_a_trial(site: Site) -> None:
    steps = smoke_steps.parse([{"name": "health", "path": "/api/health", "expect": {"status": "ok"}}])
    outcome = run(site, lambda: smoke.run(site.url, steps))
    assert outcome.value.passed


def test_a_release_that_ends_at_once(site: Site) -> None:
    started = time.monotonic()
    with pytest.raises(BackstopError, match="ended during its trial.*status 3") as caught:
        run(site, environment={"BEHAVIOUR": "crash", "DATABASE_URL": DATABASE_URL})
    assert time.monotonic() - started < 20, "it waits no longer for something that has ended"
    said = json.dumps(caught.value.details["output"])
    assert "fatal: cannot connect" in said
    assert PASSWORD not in said
    assert "s3cret" not in said


def test_health_that_never_turns_green(site: Site) -> None:
    with pytest.raises(BackstopError, match="did not become healthy in 1.5 seconds.*status 503") as caught:
        run(site, environment={"BEHAVIOUR": "unhealthy"}, timeout=1.5)
    assert caught.value.details["output"] == ["listening"]
    assert not listens(site.port)


def test_a_failing_callback_ends_the_release(site: Site) -> None:
    pids: List[int] = []

    def callback() -> None:
        pids.append(web.request(site.url + "/api/health").json["pid"])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(site, callback)
    assert not alive(pids[0])


def test_a_port_that_is_taken(site: Site) -> None:
    """Otherwise the running application would answer instead of the release on trial."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        with pytest.raises(Refused, match="not free"):
            run(site)
    assert trial.free_port() != site.port or not listens(site.port)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": []}, "command is empty"),
        ({"command": ["no-such-program"]}, "no-such-program"),
        ({"command": ["./no-such-file"]}, "no-such-file"),
        ({"cwd": "/proc/nowhere"}, "does not exist"),
    ],
)
def test_what_cannot_be_tried(site: Site, changes: Dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        run(site, **changes)


def test_what_the_release_started_ends_too(site: Site, tmp_path: pathlib.Path) -> None:
    """npm start is a shell that starts node, which starts workers."""
    pids = tmp_path / "pids"
    shell = "sleep 3600 & echo $! > %s; node dist/server.js" % pids
    run(site, command=["sh", "-c", shell])
    assert not alive(int(pids.read_text()))
    assert not listens(site.port)


def test_it_dies_with_its_parent(site: Site) -> None:
    argv = [
        sys.executable,
        "-c",
        HOLD_A_TRIAL,
        site.releases.path(site.prepare("one")),
        str(site.node.bin_dir),
        str(site.port),
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_waiting_for_health_sees_a_late_start(site: Site) -> None:
    """Refused connections are no failure until the timeout."""
    opened = threading.Event()

    def serve() -> None:
        with socket.create_server(("127.0.0.1", site.port)) as server:
            opened.set()
            for _time in range(2):
                connection, _address = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")

    questions: List[int] = []
    thread = threading.Thread(target=serve)

    def alive_or_start() -> None:
        questions.append(1)
        if len(questions) == 3:
            thread.start()
            assert opened.wait(10)

    health = web.wait_healthy(site.url, timeout=20, alive=alive_or_start)
    assert health.attempts == 3
    assert web.check_health(site.url).status == 200
    thread.join()
