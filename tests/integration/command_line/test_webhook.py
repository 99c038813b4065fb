# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The webhook: what is sent, and where, and that an unreachable one causes no failure."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

TOKEN = "/services/T0KEN"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Receives POST requests."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.events.append((self.path, self.headers["Content-Type"], json.loads(content)))
        self.send_response(self.server.answer)
        if 300 <= self.server.answer < 400:
            self.send_header("Location", "http://127.0.0.1:%d/elsewhere" % self.server.server_port)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.events, server.answer = [], 204
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def listen(backstop, receiver, *events, **changes):
    url = "http://127.0.0.1:%d%s" % (receiver.server_port, TOKEN)
    backstop.configure(webhook={"url": url, "events": list(events) or ["success", "failure", "missing"]}, **changes)


def test_success_failure_and_missing(backstop, receiver):
    listen(backstop, receiver)
    assert backstop("status", "shop", "--notify").status == 4
    made = backstop("backup", "shop", "--json").json
    listen(backstop, receiver, connection={"port": 1})
    assert backstop("backup", "shop").status == 1
    events = [event for _path, _type, event in receiver.events]
    assert [event["event"] for event in events] == ["missing", "success", "failure"]
    assert {(path, kind) for path, kind, _event in receiver.events} == {(TOKEN, "application/json")}
    assert all(event["database"] == "shop" and event["configuration"] == "shop" and event["host"] for event in events)
    assert events[0]["message"].startswith("There is no backup")
    assert events[1]["backup"] == made["backup"] and events[1]["exit_status"] == 0
    assert "No PostgreSQL server answers" in events[2]["message"] and events[2]["exit_status"] == 1


def test_a_missing_backup_is_told_once_a_day(backstop, receiver):
    listen(backstop, receiver)
    for _time in range(3):
        backstop("status", "shop", "--notify")
    assert len(receiver.events) == 1


def test_only_the_events_that_were_asked_for(backstop, receiver):
    listen(backstop, receiver, "failure")
    backstop("status", "shop", "--notify")
    backstop("backup", "shop")
    assert receiver.events == []


@pytest.mark.parametrize("answer, told", [(500, "status 500"), (404, "status 404"), (302, "status 302")])
def test_a_receiver_that_refuses_fails_no_backup(backstop, receiver, answer, told):
    listen(backstop, receiver)
    receiver.answer = answer
    ended = backstop("backup", "shop")
    assert ended.status == 0 and "warning: The webhook did not take the event success" in ended.stderr
    assert told in ended.stderr and TOKEN not in ended.stderr and len(receiver.events) == 1


def test_no_receiver_fails_no_backup(backstop):
    backstop.configure(webhook={"url": "http://127.0.0.1:1" + TOKEN, "events": ["success"]})
    ended = backstop("backup", "shop")
    assert ended.status == 0 and "127.0.0.1: Connection refused" in ended.stderr and TOKEN not in ended.stderr
