# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Smoke tests against a real HTTP server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, Iterator

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import (
    smoke,
    smoke_steps,
    trial,
    web,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from support.application_site import Site

pytestmark = pytest.mark.serial


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    commit = site.prepare("one")
    command, node = ["node", "dist/server.js"], str(site.node.bin_dir)
    start = trial.Start(command, site.releases.path(commit), site.port, node_bin_dir=node)
    with trial.started(start) as running:
        web.wait_healthy(site.url + "/api/health", alive=running.check_alive)
        yield site.url


def run(url: str, *steps: Dict[str, Any], **keywords: Any) -> smoke.Report:
    return smoke.run(url, smoke_steps.parse(list(steps)), **keywords)


def items(url: str) -> int:
    return int(web.request(url + "/items").json["count"])


CREATE: Dict[str, Any] = {
    "name": "create",
    "method": "POST",
    "path": "/items",
    "body": {"size": 3, "name": "a b"},
    "status": 201,
    "expect": {"item": {"size": 3}, "list": [{"two": 2}], "flag": True},
    "save": {"id": "item.id"},
}
REMOVE: Dict[str, Any] = {"name": "remove", "method": "DELETE", "path": "/items/${id}", "cleanup": True}


def test_create_read_delete(url: str) -> None:
    report = run(
        url,
        CREATE,
        {"name": "read", "path": "/items/${id}", "expect": {"id": "${id}", "size": 3}},
        REMOVE,
        {"name": "gone", "path": "/items/${id}", "status": [404, 410]},
    )
    assert report.passed, report.summary()
    assert report.saved == {"id": "item 1"}, "a value with a space is one part of the path"
    assert [result.status for result in report.results] == [201, 200, 200, 404]
    assert items(url) == 0
    facts = report.facts()[0]
    assert set(facts) == {"name", "passed", "skipped", "cleanup", "status", "expected", "found", "milliseconds"}


def test_cleaned_up_after_a_failure(url: str) -> None:
    report = run(
        url,
        CREATE,
        {"name": "wrong", "path": "/items/${id}", "expect": {"size": 4}},
        {"name": "never", "path": "/api/health"},
        REMOVE,
    )
    assert not report.passed
    assert [(one.name, one.passed, one.skipped) for one in report.results] == [
        ("create", True, False),
        ("wrong", False, False),
        ("never", False, True),
        ("remove", True, False),
    ]
    assert "size is 3, not 4" in report.summary()
    assert items(url) == 0


def test_what_was_made_is_removed_although_the_answer_was_wrong(url: str) -> None:
    report = run(url, {**CREATE, "expect": {"item": {"size": 99}}}, REMOVE)
    assert [one.passed for one in report.results] == [False, True]
    assert items(url) == 0


def test_nothing_to_clean_up(url: str) -> None:
    report = run(url, {**CREATE, "path": "/nowhere/x"}, REMOVE)
    assert [(one.passed, one.skipped) for one in report.results] == [(False, False), (False, True)]
    assert "nothing was saved as id" in report.results[1].found


def test_a_cleanup_that_fails_is_a_failure(url: str) -> None:
    report = run(
        url,
        {**CREATE, "body": {"size": 3, "keep": True}},
        {"name": "remove kept", "method": "DELETE", "path": "/items/${id}", "cleanup": True},
        {"name": "after", "path": "/api/health"},
    )
    assert [(one.name, one.passed) for one in report.results] == [
        ("create", True),
        ("remove kept", False),
        ("after", True),
    ]
    assert not report.passed
    assert "status 409" in report.summary()


def test_cleaned_up_when_interrupted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = smoke.request

    def interrupted(address: str, *arguments: Any, **keywords: Any) -> web.Answer:
        if address.endswith("/api/health"):
            raise BackstopError("Interrupted")
        return real(address, *arguments, **keywords)

    monkeypatch.setattr(smoke, "request", interrupted)
    with pytest.raises(BackstopError, match="Interrupted"):
        run(url, CREATE, {"name": "health", "path": "/api/health"}, REMOVE)
    assert items(url) == 0


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ({"path": "/away"}, "status 302"),
        ({"path": "/text", "expect": {"a": 1}}, "not JSON"),
        ({"path": "/large", "expect": "x"}, "too long"),
        ({"path": "/items", "expect": {"counts": 0}}, "counts is missing"),
        ({"path": "/items", "save": {"x": "count.0"}}, "count.0 is missing"),
        ({"path": "/items", "expect": {"count": False}}, "count is 0, not false"),
    ],
)
def test_answers_that_fail(url: str, step: Dict[str, Any], found: str) -> None:
    report = run(url, {"name": "step", **step})
    assert not report.passed
    assert found in report.results[0].found


def test_large_answers_are_shown_short(url: str) -> None:
    report = run(url, {"name": "large", "path": "/large", "status": 201})
    assert len(report.results[0].found) < 300


@pytest.mark.fault("deploy", "an application that accepts connections and never answers", by="the smoke test's timeout")
def test_a_server_that_says_nothing(url: str) -> None:
    report = run(url, {"name": "silent", "path": "/silent"}, timeout=0.5)
    assert "timed out" in report.results[0].found
    assert report.results[0].milliseconds < 5000


def test_secrets_in_headers_are_not_shown(url: str) -> None:
    for report in (
        run(url, {"name": "secret", "path": "/secret"}, headers={"Authorization": "Bearer hidden"}),
        run(url, {"name": "secret", "path": "/secret", "headers": {"Authorization": "Bearer hidden"}}),
    ):
        assert "said" in report.results[0].found
        assert "hidden" not in json.dumps(report.facts())


def test_nobody_is_there(site: Site) -> None:
    report = run(site.url, {"name": "health", "path": "/api/health"})
    assert "Connection refused" in report.results[0].found


def test_a_proxy_is_not_asked(url: str) -> None:
    program = (
        "import sys\n"
        "from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web\n"
        "print(web.request(sys.argv[1]).status)\n"
    )
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    argv = [sys.executable, "-c", program, url + "/api/health"]
    assert subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True).stdout == b"200\n"


@pytest.mark.parametrize("url", ["", "localhost:3000", "file:///etc/passwd", "http://", "http://a b/", "http://h:0"])
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="not the address"):
        smoke.run(url, [])
    with pytest.raises(Refused, match="not the address"):
        web.wait_healthy(url)


def test_health_of_a_kind(url: str) -> None:
    assert web.check_health(url + "/api/health", {"status": "ok"}).status == 200
    with pytest.raises(web.NotHealthy, match='status is "ok", not "fine"'):
        web.check_health(url + "/api/health", {"status": "fine"})
    with pytest.raises(web.NotHealthy, match="not JSON"):
        web.check_health(url + "/text", {"status": "fine"})
    with pytest.raises(web.NotHealthy, match="in 0.3 seconds.*status 302"):
        web.wait_healthy(url + "/away", timeout=0.3)
