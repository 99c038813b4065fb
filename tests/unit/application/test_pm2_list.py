# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading pm2's list, whatever other output surrounds it, without keeping the environment that it contains."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import tempfile
from typing import Any, Iterator, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import Pm2, read_log, summary
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import Finished

SECRET = "hidden-value"


def entry(name: str, status: str = "online", **changes: Any) -> Any:
    settings = {
        "status": status,
        "restart_time": 0,
        "pm_uptime": 1,
        "pm_cwd": "/",
        "pm_exec_path": "/x.js",
        "pm_id": 4,
        "pm_err_log_path": "/logs/err",
        "pm_out_log_path": "/dev/null",
        "DATABASE_URL": SECRET,
        "env": {"A": SECRET},
    }
    return {"pid": 0, "name": name, "pm2_env": {**settings, **changes}, "pm_id": 4, "monit": {}}


@pytest.fixture
def home() -> Iterator[str]:
    """A home in which a daemon seems to listen; short, because the socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="pm2-") as folder, socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(folder + "/rpc.sock")
        daemon.listen(8)
        yield folder


def pm2(home: str, stdout: str) -> Pm2:
    def run(argv: List[str], **_keywords: Any) -> Finished:
        assert argv[-1] == "jlist"
        return Finished(argv, 0, stdout, "")

    return Pm2("/bin/true", home, run=run)


@pytest.mark.parametrize(
    "around", ["%s", "banner\n[PM2] Spawning PM2 daemon\n%s\n", "%s\n>>>> In-memory PM2 is out-of-date\n", "[PM2]\n%s"]
)
def test_words_around_the_list(home: str, around: str) -> None:
    text = around % json.dumps([entry("tiny"), entry("other")])
    (found,) = pm2(home, text).processes("tiny")
    assert (found.status, found.pm_id, found.logs) == ("online", 4, ["/logs/err"])
    assert SECRET not in repr(found)


def test_an_answer_without_a_list(home: str) -> None:
    with pytest.raises(BackstopError, match="did not answer with a list") as caught:
        pm2(home, "banner\n" + SECRET).processes("tiny")
    assert SECRET not in str(caught.value)


def test_entries_that_lack_what_others_have(home: str) -> None:
    (found,) = pm2(home, json.dumps([{"name": "tiny"}, "odd", {"name": "x", "pm2_env": None}])).processes("tiny")
    assert (found.status, found.pid, found.cwd) == ("unknown", 0, "")


def test_one_word_for_several_processes(home: str) -> None:
    several = pm2(home, json.dumps([entry("tiny"), entry("tiny", "errored")])).processes("tiny")
    assert summary(several) == {"status": "mixed", "cwd": "/"}
    assert summary(several[:1]) == {"status": "online", "cwd": "/"}
    assert summary([]) == {"status": "absent", "cwd": None}


def test_a_home_of_another_user(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Refused, match="belongs to another user"):
        Pm2("pm2", str(tmp_path))


def test_a_secret_at_which_the_end_of_a_log_is_cut(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    log.write_text("it was %s now\nlast\n" % SECRET, "utf-8")
    for most in range(6, 40):
        shown = "\n".join(read_log(str(log), 0, [SECRET], most))
        assert shown.endswith("last") == (most > len(SECRET) + 4) and not any(
            SECRET[place : place + 4] in shown for place in range(len(SECRET) - 3)
        )
