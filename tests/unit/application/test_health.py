# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For every error of a health check, the message contains the URL and the response."""

from __future__ import annotations

import http.server
import threading

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.web import (
    NotHealthy,
    wait_healthy,
)


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, text = {"/health": (200, '{"status": "ok"}'), "/page": (200, "<p>Hello"), "/moved": (302, "")}.get(
            self.path, (404, "Cannot GET " + self.path)
        )
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    "path,expect,back",
    [
        ("/helth", None, "status 404: Cannot GET /helth"),
        ("/moved", None, "status 302, no text"),
        ("/page", {"status": "ok"}, "the answer is not JSON; "),
        ("/page", {"status": "ok"}, "status 200: <p>Hello"),
        ("/health", {"status": "fine"}, 'status is "ok", not "fine"; '),
    ],
)
def test_a_wrong_address(port, path, expect, back):
    with pytest.raises(NotHealthy) as caught:
        wait_healthy("http://127.0.0.1:%d%s" % (port, path), expect, timeout=0.1)
    assert "GET http://127.0.0.1:%d%s: " % (port, path) in caught.value.found
    assert back in caught.value.found and "correct the URL" in caught.value.hint


def test_nobody_answers():
    for before in ("", "person:secret@"):
        with pytest.raises(NotHealthy) as caught:
            wait_healthy("http://%s127.0.0.1:1/health" % before, timeout=0.1)
        assert caught.value.found.startswith("GET http://127.0.0.1:1/health: "), "without the password"
        assert "Connection refused" in caught.value.found or before
