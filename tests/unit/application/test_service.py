# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules that report on, start and stop the application: which options they accept, and what they return."""

from __future__ import annotations

import http.server
import os
import pathlib
import threading
from typing import Any, Dict, Iterator, Optional

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import service, systemd
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service import service_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.systemd import Unit
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.modules import application_info, application_service
from support import service_script
from support.systemd_answers import Answers

ONE, TWO = "1" * 40, "2" * 40
PM2 = {
    "name": "tiny",
    "executable": "/nowhere/pm2",
    "home": "/nowhere/home",
    "node_bin_dir": None,
    "ecosystem_file": "ecosystem.config.js",
    "stable": 0,
    "save": True,
}
SYSTEMD = {"unit": "tokens", "scope": "system", "stable": 0}
COMMANDS = {"status": ["true"], "start": [], "stop": [], "log": []}


@pytest.mark.parametrize(
    ("manager", "given", "message"),
    [
        ("pm2", {}, "manager=pm2 without pm2"),
        ("systemd", {"pm2": PM2}, "pm2, with manager=systemd"),
        ("pm2", {"pm2": PM2, "commands": COMMANDS, "systemd": SYSTEMD}, "commands, systemd, with manager=pm2"),
    ],
)
def test_each_manager_takes_its_own_options_alone(manager: str, given: Dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        service_of(manager, {"pm2": None, "systemd": None, "commands": None, **given})
    assert message in str(caught.value)


@pytest.mark.parametrize(("manager", "options"), [("systemd", SYSTEMD), ("commands", COMMANDS)])
def test_only_pm2_can_forget_an_application(manager: str, options: Dict[str, Any]) -> None:
    with pytest.raises(Refused, match="Only pm2 can forget"):
        service_of(manager, {manager: options}).ensure("absent", "/", wait=1)


def request(check_mode: bool = False, **params: Any) -> Request:
    given = {"pm2": None, "systemd": None, "commands": None, "health_url": "", "wait": 5, **params}
    return Request(given, check_mode, True, print)


# systemd's answers


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(systemd, "find_program", lambda name, folders=(): "/usr/bin/" + name)
    monkeypatch.setattr(service, "Unit", lambda name, scope: Unit(name, scope, run=made.run))
    return made


def unit(state: str, release: Optional[str] = None, check_mode: bool = False) -> Dict[str, Any]:
    asked = request(check_mode, manager="systemd", systemd=SYSTEMD, state=state, release=release)
    result = application_service.act(asked)
    assert result.pop("seconds") >= 0
    return result


def test_a_unit_is_stopped(answers: Answers) -> None:
    here = os.getcwd()
    before = {"status": "active", "cwd": here}
    gone = {"status": "inactive", "cwd": None}
    expected = {"changed": True, "status": "inactive", "previous": before, "diff": {"before": before, "after": gone}}
    assert unit("stopped", check_mode=True) == expected
    assert answers.actions == []
    assert unit("stopped") == {**expected, "processes": []}
    assert answers.actions == ["stop"]
    again = {"changed": False, "status": "inactive", "previous": gone, "diff": {"before": gone, "after": gone}}
    assert unit("stopped", check_mode=True) == again
    assert unit("stopped") == {**again, "processes": []}


def test_a_unit_is_started(answers: Answers, tmp_path: pathlib.Path) -> None:
    here = os.getcwd()
    running = {"status": "active", "cwd": here}
    process = {"status": "active", "pid": os.getpid(), "restarts": 0, "cwd": here}
    same = {"before": running, "after": running}
    as_it_was = {"changed": False, "status": "active", "previous": running, "diff": same}
    assert unit("started", here, check_mode=True) == as_it_was
    assert unit("started", here) == {**as_it_was, "processes": [process]}

    predicted = unit("started", str(tmp_path), check_mode=True)
    assert (predicted["changed"], predicted["diff"]["after"]["cwd"]) == (True, str(tmp_path))
    assert answers.actions == []

    answers.properties.update(ActiveState="inactive", MainPID=0)
    answers.after_restart = {"ActiveState": "active", "MainPID": os.getpid()}
    started = unit("started", here)
    assert (started["changed"], started["log_start"], started["processes"]) == (True, "s=1;i=2", [process])
    assert started["previous"] == {"status": "inactive", "cwd": None}


# Real commands


def test_commands(tmp_path: pathlib.Path) -> None:
    script = str(service_script.write(tmp_path))
    commands = {
        "status": [script, "status"],
        "start": [script, "run", "${commit}"],
        "stop": [script, "stop"],
        "log": [],
    }

    def ensure(state: str, commit: str, check_mode: bool = False) -> Dict[str, Any]:
        release = str(tmp_path / commit)
        asked = request(check_mode, manager="commands", commands=commands, state=state, release=release)
        result = application_service.act(asked)
        assert result.pop("seconds") >= 0
        return result

    nothing, one = {"status": "stopped", "commits": []}, {"status": "online", "commits": [ONE]}
    start = {"changed": True, "status": "online", "previous": nothing, "diff": {"before": nothing, "after": one}}
    assert ensure("started", ONE, check_mode=True) == start
    started = ensure("started", ONE)
    assert started.pop("log_start").endswith("Z")
    assert started == start
    again = ensure("started", ONE)
    assert (again["changed"], "log_start" in again) == (False, False)
    assert ensure("started", TWO, check_mode=True)["changed"]
    stop = {"changed": True, "status": "stopped", "previous": one, "diff": {"before": one, "after": nothing}}
    assert ensure("stopped", ONE, check_mode=True) == stop
    assert ensure("stopped", ONE) == stop
    assert not ensure("stopped", ONE)["changed"]


# What counts as healthy


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield "http://127.0.0.1:%d" % made.server_port
        made.shutdown()


@pytest.mark.parametrize(
    ("path", "status", "healthy"),
    [("/well", "true", True), ("/ill", "true", False), ("", "true", True), ("", "false", False)],
)
def test_without_an_address_what_runs_is_taken_for_healthy(
    server: str, tmp_path: pathlib.Path, path: str, status: str, healthy: bool
) -> None:
    """Otherwise a deploy with nothing to do would stop the application each time."""
    (tmp_path / "releases" / ONE).mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / ONE)
    asked = request(
        manager="commands",
        commands={**COMMANDS, "status": [status]},
        root=str(tmp_path),
        log_start=None,
        log_error_pattern="x",
        health_url=server + path if path else "",
        health_expect={},
    )
    found = application_info.act(asked)
    assert (found["running"], found["healthy"]) == (status == "true", healthy)


def test_health_is_waited_for_after_a_start(server: str, tmp_path: pathlib.Path) -> None:
    script = str(service_script.write(tmp_path))
    commands = {**COMMANDS, "status": [script, "status"], "start": [script, "run", "${commit}"]}
    commands["stop"] = [script, "stop"]
    asked = dict(manager="commands", commands=commands, release=str(tmp_path / ONE), health_expect={}, health_timeout=5)
    try:
        result = application_service.act(request(state="started", health_url=server + "/well", **asked))
        assert result["seconds_to_health"] >= 0
        predicted = application_service.act(request(True, state="started", health_url=server + "/ill", **asked))
        assert "seconds_to_health" not in predicted
        with pytest.raises(BackstopError, match="did not become healthy in 0.1 seconds"):
            ill = {**asked, "health_timeout": 0.1, "health_url": server + "/ill"}
            application_service.act(request(state="started", **ill))
    finally:
        application_service.act(request(state="stopped", **asked))
