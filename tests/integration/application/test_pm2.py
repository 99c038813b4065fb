# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real pm2: what runs, where, and whether it has really ended. pm2's exit status is never relied on."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.request
from typing import Any, Callable, Dict, Iterator

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import Pm2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import alive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.web import wait_healthy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from support.application_site import DATABASE_URL, PASSWORD, Site

pytestmark = pytest.mark.serial
ECOSYSTEM = "ecosystem.config.js"


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about in %g seconds" % seconds)


def health(site: Site) -> Dict[str, Any]:
    wait_healthy(site.url + "/api/health", timeout=20)
    with urllib.request.urlopen(site.url + "/api/health", timeout=5) as answer:
        return dict(json.load(answer))


def release(site: Site, revision: str) -> str:
    return site.releases.path(site.prepare(revision))


def daemon_pid(pm2: Pm2) -> int:
    return int((pathlib.Path(pm2.home) / "pm2.pid").read_text())


@pytest.fixture
def call(pm2: Pm2, pm2_executable: pathlib.Path, site: Site) -> Iterator[Callable[..., str]]:
    """Call pm2 as a user does."""

    def run(*arguments: str, cwd: str = "/") -> str:
        environment = site.node.environment({"PM2_HOME": pm2.home})
        done = subprocess.run(
            [str(pm2_executable), *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    yield run


def test_started_stopped_started_elsewhere(pm2: Pm2, site: Site) -> None:
    one, two = release(site, "one"), release(site, "two")
    assert pm2.processes("tiny") == []
    assert pm2.start("tiny", one, ECOSYSTEM, stable=0.5)
    assert health(site)["version"] == "1"
    (process,) = pm2.processes("tiny")
    assert (process.status, process.cwd, process.restarts) == ("online", one, 0)
    assert site.releases.commit_at(process.cwd) == site.releases.resolve("one")
    assert alive(process.pid)
    assert not pm2.start("tiny", one, ECOSYSTEM)
    assert pm2.processes("tiny")[0].pid == process.pid

    assert pm2.stop("tiny")
    assert not alive(process.pid)
    assert pm2.processes("tiny")[0].status == "stopped"
    assert not pm2.stop("tiny")

    assert pm2.start("tiny", two, ECOSYSTEM, stable=0.5)
    assert health(site)["version"] == "2"
    assert [process.cwd for process in pm2.processes("tiny")] == [two]
    assert pm2.processes("another") == [], "only the named application is started"

    assert pm2.delete("tiny")
    assert pm2.processes("tiny") == []
    assert not pm2.delete("tiny")
    assert not pm2.stop("tiny")


def test_from_one_release_to_the_next_without_a_stop(pm2: Pm2, site: Site) -> None:
    one, two = release(site, "one"), release(site, "two")
    pm2.start("tiny", one, ECOSYSTEM, stable=0.3)
    first = pm2.processes("tiny")[0].pid
    assert pm2.start("tiny", two, ECOSYSTEM, stable=0.3)
    assert not alive(first)
    assert health(site)["version"] == "2"
    assert len(pm2.processes("tiny")) == 1


def test_looking_starts_no_daemon(pm2: Pm2, pm2_home: pathlib.Path) -> None:
    assert pm2.processes("tiny") == []
    assert not pm2.stop("tiny")
    assert not pm2.delete("tiny")
    assert not pm2.daemon_runs()
    assert list(pm2_home.iterdir()) == []


def test_a_link_that_moved_on_does_not_deceive(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """A user starts it from `current`; after the link is switched the old code still runs, whatever the link says."""
    one, two = release(site, "one"), release(site, "two")
    site.releases.activate(site.releases.resolve("one"))
    current = site.releases.link
    call("start", os.path.join(current, ECOSYSTEM), "--only", "tiny", "--cwd", current)
    assert health(site)["version"] == "1"
    site.releases.activate(site.releases.resolve("two"))
    (process,) = pm2.processes("tiny")
    assert process.cwd == one
    assert pm2.start("tiny", current, ECOSYSTEM, stable=0.3)
    assert pm2.processes("tiny")[0].cwd == two
    assert health(site)["version"] == "2"


def test_pm2_restart_would_keep_the_old_release(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """Why it is deleted and started: the usual `pm2 restart` keeps the old release."""
    one, two = release(site, "one"), release(site, "two")
    pm2.start("tiny", one, ECOSYSTEM, stable=0.3)
    call("restart", os.path.join(two, ECOSYSTEM), "--only", "tiny", cwd=two)
    wait_for(lambda: pm2.processes("tiny")[0].restarts == 1 and pm2.processes("tiny")[0].status == "online")
    assert health(site)["version"] == "1"
    assert pm2.processes("tiny")[0].cwd == one


def test_an_application_that_crashes(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """`pm2 start` returns 0 for it."""
    place = release(site, "one")
    site.write_environment(BEHAVIOUR="crash")
    with pytest.raises(BackstopError) as caught:
        pm2.start("tiny", place, ECOSYSTEM, stable=3)
    message = str(caught.value)
    assert "does not stay up" in message
    assert "fatal: cannot connect" in message, "the log's end is shown"
    assert PASSWORD not in message
    assert "s3cret" not in message
    assert "-error.log" in message
    assert DATABASE_URL not in json.dumps(caught.value.details)
    call("start", os.path.join(place, ECOSYSTEM), "--only", "tiny", "--cwd", place)  # checks the status: 0

    wait_for(lambda: pm2.processes("tiny")[0].status == "errored")
    site.write_environment()
    assert pm2.start("tiny", place, ECOSYSTEM, stable=0.5)
    assert health(site)["status"] == "ok"


@pytest.mark.fault("deploy", "an application that dies a moment after it was online", by="it must stay online")
def test_online_for_a_moment_is_not_running(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """In a crash loop pm2 reports "online" most of the time."""
    place = pathlib.Path(release(site, "one"))
    (place / "short.js").write_text("setTimeout(() => process.exit(1), 700)\n")
    description = {"apps": [{"name": "tiny", "script": "short.js", "min_uptime": 100, "max_restarts": 1000}]}
    (place / "short.json").write_text(json.dumps(description))
    call("start", str(place / "short.json"), "--cwd", str(place))
    wait_for(lambda: pm2.processes("tiny")[0].status == "online")
    with pytest.raises(BackstopError, match="does not stay up"):
        pm2.start("tiny", str(place), "short.json", stable=2)


def test_only_new_lines_of_the_log_are_shown(pm2: Pm2, site: Site) -> None:
    place = release(site, "one")
    logs = pathlib.Path(pm2.home) / "logs"
    logs.mkdir()
    (logs / "tiny-error.log").write_text("an error of last year\n")
    site.write_environment(BEHAVIOUR="crash")
    with pytest.raises(BackstopError) as caught:
        pm2.start("tiny", place, ECOSYSTEM, stable=3)
    assert "fatal" in str(caught.value)
    assert "last year" not in json.dumps(caught.value.details)


@pytest.mark.fault("deploy", "an application under pm2 that crash-loops", by="its restarts are counted; it is stopped")
def test_a_crash_loop_is_stopped(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """Between two attempts there is no process, but pm2 would start the next one."""
    place = release(site, "one")
    site.write_environment(BEHAVIOUR="crash")
    description = {"apps": [{"name": "tiny", "script": "dist/server.js", "restart_delay": 3600000}]}
    (pathlib.Path(place) / "slow.json").write_text(json.dumps(description))
    call("start", os.path.join(place, "slow.json"), "--cwd", place)
    wait_for(lambda: pm2.processes("tiny")[0].status == "waiting restart")
    assert pm2.stop("tiny")
    assert pm2.processes("tiny")[0].status == "stopped"


def test_the_application_gets_nothing_from_the_caller(pm2: Pm2, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """pm2 passes the whole environment on and keeps it: a secret or the wrong database would stay there forever."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://wrong")
    monkeypatch.setenv("VAULT_TOKEN", "hidden")
    pm2.start("tiny", release(site, "one"), ECOSYSTEM, stable=0.3)
    seen = health(site)["seen"]
    assert "DATABASE_URL" not in seen
    assert "VAULT_TOKEN" not in seen
    assert "PATH" in seen
    environ = pathlib.Path("/proc/%d/environ" % daemon_pid(pm2)).read_bytes()
    assert b"VAULT_TOKEN" not in environ
    assert os.readlink("/proc/%d/cwd" % daemon_pid(pm2)) == pm2.home


def start_and_kill_the_daemon(pm2: Pm2, site: Site) -> int:
    """Pid of an application that outlives its daemon."""
    place = release(site, "one")
    # With pm2's own module loaded, a Node application ends soon after its daemon; others do not.
    description = {"apps": [{"name": "tiny", "script": "dist/server.js", "pmx": False}]}
    (pathlib.Path(place) / "plain.json").write_text(json.dumps(description))
    pm2.start("tiny", place, "plain.json", stable=0.3)
    health(site)
    pid = pm2.processes("tiny")[0].pid
    os.kill(daemon_pid(pm2), signal.SIGKILL)
    wait_for(lambda: not pm2.daemon_runs())
    assert alive(pid)
    return pid


@pytest.mark.fault("deploy", "pm2's daemon gone, the application still there", by="found by its process, and ended")
def test_a_killed_daemon_leaves_an_orphan_that_is_ended(pm2: Pm2, site: Site) -> None:
    """It continues to write to the database, and the next daemon does not know it."""
    pid = start_and_kill_the_daemon(pm2, site)
    assert pm2.processes("tiny") == []
    assert pm2.orphans("tiny", []) == [pid]
    assert pm2.orphans("another", []) == []
    assert pm2.stop("tiny")
    assert not alive(pid)
    assert not pm2.stop("tiny")


@pytest.mark.fault("deploy", "pm2's daemon gone before a start", by="the orphan is ended first")
def test_starting_ends_an_orphan_first(pm2: Pm2, site: Site) -> None:
    pid = start_and_kill_the_daemon(pm2, site)
    assert pm2.start("tiny", release(site, "one"), ECOSYSTEM, stable=0.3)
    assert not alive(pid)
    assert health(site)["status"] == "ok"


def test_what_the_application_started_is_stopped_too(pm2: Pm2, site: Site) -> None:
    place = pathlib.Path(release(site, "one"))
    script = (
        "const child = require('child_process').spawn('sleep', ['3600'], { stdio: 'ignore' })\n"
        "require('fs').writeFileSync('child.pid', String(child.pid))\n"
        "setInterval(() => {}, 1000)\n"
    )
    (place / "parent.js").write_text(script)
    description = {"apps": [{"name": "tiny", "script": "parent.js", "treekill": False}]}
    (place / "tree.json").write_text(json.dumps(description))
    pm2.start("tiny", str(place), "tree.json", stable=0.3)
    child = int(wait_for((place / "child.pid").read_text))
    assert alive(child)
    pm2.stop("tiny")
    assert not alive(child)


@pytest.mark.fault("deploy", "an application that ignores its signal to end", by="killed after its time")
def test_an_application_that_ignores_the_signal(pm2: Pm2, site: Site) -> None:
    place = pathlib.Path(release(site, "one"))
    (place / "deaf.js").write_text("process.on('SIGINT', () => {}); setInterval(() => {}, 1000)\n")
    description = {"apps": [{"name": "tiny", "script": "deaf.js", "kill_timeout": 500}]}
    (place / "deaf.json").write_text(json.dumps(description))
    pm2.start("tiny", str(place), "deaf.json", stable=0.3)
    pid = pm2.processes("tiny")[0].pid
    assert pm2.stop("tiny")
    assert not alive(pid)


def test_several_processes_of_one_name(pm2: Pm2, site: Site) -> None:
    place = pathlib.Path(release(site, "one"))
    description = {"apps": [{"name": "tiny", "script": "dist/server.js", "instances": 2, "exec_mode": "cluster"}]}
    (place / "cluster.json").write_text(json.dumps(description))
    assert pm2.start("tiny", str(place), "cluster.json", stable=0.3)
    pids = [process.pid for process in pm2.processes("tiny")]
    assert len(pids) == 2
    assert not pm2.start("tiny", str(place), "cluster.json")
    assert pm2.stop("tiny")
    assert not any(map(alive, pids))
    assert pm2.daemon_runs(), "cluster workers share the daemon's group"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("server.js", "run this file as a program"),
        ("missing.config.js", "no such ecosystem file"),
    ],
)
def test_ecosystem_files_that_are_refused(pm2: Pm2, site: Site, file: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        pm2.start("tiny", release(site, "one"), file)
    assert not pm2.daemon_runs()


def test_an_ecosystem_file_without_the_application(pm2: Pm2, site: Site) -> None:
    with pytest.raises(BackstopError, match="did not start the application.*absent-name"):
        pm2.start("absent-name", release(site, "one"), ECOSYSTEM)


def test_a_broken_ecosystem_file(pm2: Pm2, site: Site) -> None:
    place = release(site, "one")
    (pathlib.Path(place) / "broken.config.js").write_text("module.exports = {")
    with pytest.raises(BackstopError, match="did not start the application.*malformated"):
        pm2.start("tiny", place, "broken.config.js")


@pytest.mark.parametrize("name", ["all", "0", "12", "", "-x", "/a/", "a,b"])
def test_names_that_mean_something_else_to_pm2(pm2: Pm2, name: str) -> None:
    with pytest.raises(Refused, match="Invalid name"):
        pm2.stop(name)


def test_homes_that_pm2_cannot_use(pm2_executable: pathlib.Path) -> None:
    longest = "/tmp/" + "h" * (107 - len("/tmp/" + "/rpc.sock"))
    Pm2(str(pm2_executable), longest)
    with pytest.raises(Refused, match="at most 107 bytes") as caught:
        Pm2(str(pm2_executable), longest + "h")
    assert "has 108 bytes" in str(caught.value)
    with pytest.raises(Refused, match="absolute"):
        Pm2(str(pm2_executable), "pm2")
    for sign in (" ", "#", "?"):
        with pytest.raises(Refused, match="never starts to listen"):
            Pm2(str(pm2_executable), "/tmp/pm2%shome" % sign)


def test_a_path_that_looks_like_another_kind_of_file(pm2: Pm2, site: Site) -> None:
    """pm2 looks for .json and .yml anywhere in the name of the ecosystem file."""
    site.root = site.root.with_name("srv.json.yml")
    site.write_environment()
    place = release(site, "one")
    assert pm2.start("tiny", place, ECOSYSTEM, stable=0.3)
    assert health(site)["version"] == "1"


def test_pm2_that_is_not_there(pm2_home: pathlib.Path, site: Site) -> None:
    with pytest.raises(Refused, match="pm2 is not found"):
        Pm2(str(site.root / "no-pm2"), str(pm2_home)).start("tiny", release(site, "one"), ECOSYSTEM)


def test_saved_for_the_next_boot_only_where_that_is_used(pm2: Pm2, site: Site, call: Callable[..., str]) -> None:
    """After a rollback, a boot must not bring back the release that was rolled back."""
    one, two = release(site, "one"), release(site, "two")
    pm2.start("tiny", two, ECOSYSTEM, stable=0.3)
    dump = pathlib.Path(pm2.home) / "dump.pm2"
    assert not pm2.save()
    assert not dump.exists()
    call("save")
    assert two in dump.read_text()
    pm2.start("tiny", one, ECOSYSTEM, stable=0.3)
    assert pm2.save()
    assert one in dump.read_text()
    assert two not in dump.read_text()


def test_the_facts_hold_no_environment(pm2: Pm2, site: Site) -> None:
    pm2.start("tiny", release(site, "one"), ECOSYSTEM, stable=0.3)
    facts = pm2.processes("tiny")[0].facts()
    assert set(facts) == {"pm_id", "status", "pid", "restarts", "cwd"}
