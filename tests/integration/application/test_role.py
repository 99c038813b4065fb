# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role through ansible-playbook: what changes, what check mode shows, what is left after a failure."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import pytest
import yaml
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import Pm2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import alive
from support import bytecode
from support.application_site import DATABASE_URL, PASSWORD, Site

pytestmark = pytest.mark.serial
KEPT = ["prepared", "activated", "started", "stopped", "smoke", "state"]


@dataclass
class Run:
    """The result of a playbook run."""

    status: int
    text: str
    kept: Dict[str, Any]

    @property
    def changed(self) -> int:
        found = re.search(r"changed=(\d+)", self.text)
        assert found, self.text
        return int(found.group(1))


def entry_point(name: str, **variables: Any) -> Dict[str, Any]:
    role = {"name": "backstop.postgres.application", "tasks_from": name}
    return {"name": name, "ansible.builtin.include_role": role, "vars": variables}


class Host:
    """Runs the role's entry points on the site."""

    def __init__(self, site: Site, pm2: Pm2, pm2_executable: pathlib.Path, folder: pathlib.Path) -> None:
        self.site = site
        self.pm2 = pm2
        self.folder = folder
        self.variables: Dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "application_name": "tiny",
            "application_root": str(site.root),
            "application_repository": str(site.repository.path),
            "application_install_command": [],
            "application_generate_command": [],
            "application_build_command": ["node", "build.js"],
            "application_start_command": ["node", "dist/server.js"],
            "application_node_bin_dir": str(site.node.bin_dir),
            "application_pm2_executable": str(pm2_executable),
            "application_pm2_home": pm2.home,
            "application_stable_seconds": 0.5,
            "application_health_timeout": 20,
            "application_url": site.url,
            "backstop_prisma_environment": {"LABEL": "from-the-role"},
        }

    def run(self, *entries: str, arguments: Optional[List[str]] = None, **variables: Any) -> Run:
        return self.play([entry_point(entry) for entry in entries], arguments, variables)

    def play(self, tasks: List[Any], arguments: Optional[List[str]] = None, variables: Optional[Any] = None) -> Run:
        """Run tasks, and save what the role left in variables."""
        kept = self.folder / "kept.json"
        kept.unlink(missing_ok=True)
        values = ", ".join("'%s': application_%s | default(none)" % (name, name) for name in KEPT)
        keep = {"content": "{{ {%s} | to_json }}" % values, "dest": str(kept), "mode": "0600"}
        last = {"name": "keep", "ansible.builtin.copy": keep, "check_mode": False, "diff": False, "changed_when": False}
        given = {**self.variables, **(variables or {})}
        play = {"hosts": "all", "gather_facts": False, "vars": given, "tasks": [*tasks, last]}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        argv = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "host,", "play.yml"]
        argv += arguments or []
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", **bytecode.environment()}
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        content = json.loads(kept.read_text()) if kept.exists() else {}
        return Run(done.returncode, done.stdout, content)

    def good(self, *entries: str, **keywords: Any) -> Run:
        run = self.run(*entries, **keywords)
        assert run.status == 0, run.text
        return run

    def version(self) -> str:
        with urllib.request.urlopen(self.site.url + "/api/health", timeout=5) as answer:
            return str(json.load(answer)["version"])


@pytest.fixture
def host(site: Site, pm2: Pm2, pm2_executable: pathlib.Path, tmp_path: pathlib.Path) -> Host:
    (tmp_path / "play").mkdir()
    return Host(site, pm2, pm2_executable, tmp_path / "play")


def test_a_revision_is_made_to_run_once(host: Host) -> None:
    predicted = host.good("main", application_revision="one", arguments=["--check", "--diff"])
    assert predicted.changed == 3, predicted.text
    assert sorted(os.listdir(host.site.root)) == ["shared"], "check mode left something behind"
    assert not host.pm2.daemon_runs()

    first = host.good("main", application_revision="one")
    assert first.changed == 3
    assert host.version() == "1"
    path = pathlib.Path(first.kept["prepared"]["path"])
    assert json.loads((path / "dist" / "built-with.json").read_text())["label"] == "from-the-role"
    pid = host.pm2.processes("tiny")[0].pid

    for arguments in ([], ["--check"]):
        again = host.good("main", "facts", application_revision="one", arguments=arguments)
        assert again.changed == 0, again.text
        assert host.pm2.processes("tiny")[0].pid == pid
        assert again.kept["state"]["running"]

    # The next revision: first in check mode, then deployed, then undone.
    predicted = host.good("main", application_revision="two", arguments=["--check", "--diff"])
    assert predicted.changed == 3, predicted.text
    assert predicted.kept["prepared"]["commit"] == host.site.releases.resolve("two")
    assert host.version() == "1"
    second = host.good("main", application_revision="two")
    assert second.changed == 3
    assert host.version() == "2"
    assert second.kept["activated"]["previous"] == first.kept["prepared"]["commit"]
    assert second.kept["started"]["seconds_to_health"] >= 0
    host.site.repository.path.rename(host.site.root / "gone")  # an undo needs no repository
    undone = host.good("main", application_revision=second.kept["activated"]["previous"])
    assert undone.changed == 2
    assert undone.kept["prepared"]["seconds"] == 0
    assert host.version() == "1"


def test_the_parts_of_a_deploy(host: Host) -> None:
    host.good("main", application_revision="one")
    prepared = host.good("prepare", "facts", application_revision="two")
    assert prepared.changed == 1
    assert host.version() == "1", "the old one runs on"
    one, two = host.site.releases.resolve("one"), host.site.releases.resolve("two")
    assert (prepared.kept["state"]["commit"], prepared.kept["state"]["running"]) == (one, True)
    assert [release["commit"] for release in prepared.kept["state"]["releases"]] == [two, one]

    pid = host.pm2.processes("tiny")[0].pid
    stopped = host.good("stop", "facts")
    assert stopped.changed == 1
    assert not alive(pid)
    assert stopped.kept["state"]["status"] == "stopped"
    assert not stopped.kept["state"]["running"]
    assert not stopped.kept["state"]["healthy"]
    assert host.good("stop").changed == 0

    steps = [{"name": "health", "path": "/api/health", "expect": {"version": "2"}}]
    entries = ["activate", "start", "smoke", "logs", "facts"]
    started = host.good(*entries, application_revision=two, application_smoke_tests=steps)
    assert started.changed == 2
    assert started.kept["started"]["previous"] == {"status": "stopped", "cwd": host.site.releases.path(one)}
    assert started.kept["smoke"]["results"][0]["passed"]
    assert started.kept["state"]["running"]
    assert started.kept["state"]["commit"] == two


def test_an_older_process_does_not_count_as_running(host: Host) -> None:
    """After a run that was killed between activate and start."""
    host.good("main", application_revision="one")
    run = host.good("prepare", "activate", "facts", application_revision="two")
    state = run.kept["state"]
    assert state["commit"] == host.site.releases.resolve("two")
    assert state["healthy"]
    assert not state["running"]
    assert state["running_commits"] == [host.site.releases.resolve("one")]
    finished = host.good("main", application_revision="two")
    assert finished.changed == 1
    assert host.version() == "2"


def test_nothing_is_there_yet(host: Host) -> None:
    run = host.good("facts", "stop")
    assert run.changed == 0
    expected = {
        "commit": None,
        "running": False,
        "healthy": False,
        "status": "absent",
        "running_commits": [],
        "elsewhere": [],
        "others": [],
        "releases": [],
        "processes": [],
        "log_errors": [],
    }
    assert {name: run.kept["state"][name] for name in expected} == expected
    assert "Connection refused" in run.kept["state"]["health"]
    assert not host.pm2.daemon_runs()


BAD_INPUT: List[Any] = [
    ({"application_revision": "onne"}, "did you mean one"),
    ({"application_revision": ""}, "not a revision"),
    ({"application_repository": ""}, "No repository is given"),
    ({"application_repository": "/nowhere"}, "could not be read"),
    ({"application_environment_file": "/nowhere/.env"}, "shared file is missing"),
    ({"application_build_environment": {"BUILD": "fail"}}, "error TS2304"),
    ({"application_pm2_home": "/tmp/" + "h" * 99}, "at most 107 bytes"),
    ({"application_ecosystem_file": "no.config.js"}, "no such ecosystem file"),
    ({"application_pm2_executable": "/nowhere/pm2"}, "pm2 is not found"),
    ({"application_manager": "upstart"}, "must be one of: pm2, systemd, commands"),
]


def test_bad_input_is_told(host: Host) -> None:
    tasks = []
    for number, (variables, _message) in enumerate(BAD_INPUT):
        role = entry_point("main", **{"application_revision": "one", **variables})
        says = "told %d: {{ ansible_failed_result.msg }}" % number
        tasks.append({"block": [role], "rescue": [{"name": "told", "ansible.builtin.debug": {"msg": says}}]})
    run = host.play(tasks)
    assert run.status == 0, run.text
    for number, (_variables, message) in enumerate(BAD_INPUT):
        told = re.search(r'"msg": "told %d: (.*)"' % number, run.text)
        assert told, "number %d did not fail:\n%s" % (number, run.text)
        assert message in told.group(1)
    assert "Traceback" not in run.text
    for secret in (PASSWORD, "s3cret", DATABASE_URL):
        assert secret not in run.text


def test_a_crashing_release(host: Host) -> None:
    host.good("main", application_revision="one")
    host.site.write_environment(BEHAVIOUR="crash")
    run = host.run("main", application_revision="two", arguments=["-vvv"], application_stable_seconds=3.0)
    assert run.status != 0
    assert "does not stay up" in run.text
    assert "fatal: cannot connect" in run.text
    assert "s3cret" not in run.text
    host.site.write_environment()
    host.good("main", application_revision="one")
    assert host.version() == "1"


@pytest.mark.fault("deploy", "an application that never answers", by="health check")
def test_a_release_that_is_never_healthy(host: Host) -> None:
    host.site.write_environment(BEHAVIOUR="unhealthy")
    run = host.run("main", application_revision="one", application_health_timeout=1.5)
    assert run.status != 0
    assert "did not become healthy in 1.5 seconds" in run.text
    assert "status 503" in run.text


def test_smoke_tests_that_fail(host: Host) -> None:
    host.good("main", application_revision="one")
    steps = [
        {
            "name": "create",
            "method": "POST",
            "path": "/items",
            "body": {"size": 1},
            "status": 201,
            "save": {"id": "item.id"},
        },
        {"name": "read", "path": "/items/${id}", "expect": {"size": 2}},
        {"name": "remove", "method": "DELETE", "path": "/items/${id}", "cleanup": True},
    ]
    run = host.run("smoke", application_smoke_tests=steps)
    assert run.status != 0
    assert "1 of 3 smoke tests failed" in run.text
    assert "size is 1, not 2" in run.text
    with urllib.request.urlopen(host.site.url + "/items", timeout=5) as answer:
        assert json.load(answer) == {"count": 0}
    checked = host.good("smoke", application_smoke_tests=steps, arguments=["--check"])
    assert checked.kept["smoke"]["passed"] is None
    run = host.run("smoke", application_smoke_tests=[{"name": "x", "path": "/", "stats": 200}], arguments=["--check"])
    assert "did you mean status" in run.text


def test_errors_in_the_log(host: Host) -> None:
    run = host.run("main", "logs", application_revision="one", application_log_error_pattern="listening")
    assert run.status != 0
    assert "logged errors since" in run.text
    assert "listening" in run.text
    assert host.good("start", "logs").changed == 0
    assert "Invalid regular expression" in host.run("facts", application_log_error_pattern="(").text
