# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy's questions and messages, the maintenance page that visitors see, and runs of a single phase."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import pathlib
import re
import sys
import threading
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import yaml
from support.broken_releases import FIRST, MIGRATION
from support.demo_site import DemoSite

DEPLOY = "deploy_receiptdata.yml"
CONTACT = {"name": "Tariro", "role": "database administrator", "reach": "+263 1 555"}
PEOPLE = {"backstop_contacts": [CONTACT], "backstop_escalation": ["call the administrator", "tell the team leads"]}
#: In the URL and a header of a notification, as chat services use them.
TOKEN = "xTk9vQ2r"
#: Tasks that an idle deploy may run on a host.
MOST_IDLE_TASKS = 15


class Messenger:
    """A real HTTP server that stores the notifications that it receives."""

    def __init__(self, port: int, told: List[Tuple[str, Dict[str, Any]]]) -> None:
        self.url = "http://127.0.0.1:%d/%s" % (port, TOKEN)
        self.told = told

    @property
    def events(self) -> List[str]:
        return [str(body["event"]) for _header, body in self.told]


@pytest.fixture
def messenger() -> Iterator[Messenger]:
    told: List[Tuple[str, Dict[str, Any]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.append((self.headers.get("Authorization", ""), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Messenger(server.server_port, told)
        server.shutdown()
        thread.join()


class Page:
    """A maintenance page as a file and as a pair of commands; the commands record both."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.file = folder / "maintenance"
        self._record = folder / "record"
        self._record.touch()
        self._script = folder / "switch.py"
        self._script.write_text(
            "import os, sys\nwith open(%r, 'a') as stream:\n    print(sys.argv[1], os.path.exists(%r), file=stream)\n"
            % (str(self._record), str(self.file))
        )

    def command(self, word: str) -> List[str]:
        return [sys.executable, str(self._script), word]

    @property
    def options(self) -> Dict[str, Any]:
        return {
            "deploy_maintenance_file": str(self.file),
            "deploy_maintenance_on": self.command("on"),
            "deploy_maintenance_off": self.command("off"),
        }

    def hook(self, word: str) -> str:
        """A task file for one of the deploy's hooks; it records whether the file exists."""
        path = self._script.with_name(word + ".yml")
        task = {"name": "Look", "ansible.builtin.command": {"argv": self.command(word)}, "changed_when": False}
        path.write_text(yaml.safe_dump([task]))
        return str(path)

    @property
    def seen(self) -> List[str]:
        return self._record.read_text().splitlines()


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Page:
    return Page(tmp_path)


def notices(messenger: Messenger) -> List[Dict[str, Any]]:
    return [
        {"name": "team", "url": messenger.url, "headers": {"Authorization": "Bearer " + TOKEN}},
        {"name": "nobody there", "url": "http://127.0.0.1:1/" + TOKEN, "events": ["opened", "failed"]},
        {"name": "broken program", "command": [sys.executable, "-c", "import sys; sys.exit(3)"], "events": ["closed"]},
    ]


HOOKS = [
    "deploy_before_prepare",
    "deploy_after_prepare",
    "deploy_before_gates",
    "deploy_after_gates",
    "deploy_before_backup",
    "deploy_after_backup",
    "deploy_before_downtime",
    "deploy_before_migrate",
    "deploy_after_migrate",
    "deploy_before_start",
    "deploy_after_start",
    "deploy_after_downtime",
]
#: Options of a deploy that no other run sets; each differs from its default.
OTHER_VALUES = {
    "application_command_timeout": 900,
    "application_smoke_headers": {"X-Trial": "yes"},
    "application_smoke_timeout": 20.0,
    "backstop_prisma_schema_path": "prisma/schema.prisma",
    "backstop_take_over": True,
    "backup_format": "directory",
    "backup_jobs": 2,
    "deploy_drift": "refuse",
    "deploy_fence_wait": 20.0,
    "deploy_lock_retries": 2,
    "deploy_lock_timeout": 4.0,
    "deploy_migration_timeout": 900.0,
    "deploy_notify_from": "runner",
    "deploy_safety_copy_seconds": 90.0,
}


def ok_tasks(output: str) -> int:
    return int(re.findall(r"\bok=(\d+)", output.rpartition("PLAY RECAP")[2])[0])


def test_without_a_terminal_and_without_consent_nothing_is_stopped(site: DemoSite, messenger: Messenger, page: Page):
    with site.unchanged():
        run = site.play(DEPLOY, deploy_confirm=True, deploy_notify=notices(messenger), **page.options, **PEOPLE)
    run.must_say("The downtime is not confirmed", "never stopped", "-e deploy_confirm_consent=yes")
    assert site.outcomes() == ["failed"]
    assert messenger.events == ["failed"], "the window was never opened"
    assert page.seen == []
    for words in ("Tariro, database administrator, +263 1 555", "call the administrator", "failed: nobody there."):
        assert words in run.text
    assert TOKEN not in run.output


def test_window_page_and_hooks(site: DemoSite, messenger: Messenger, page: Page) -> None:
    hooks = {name: page.hook(name[len("deploy_") :]) for name in HOOKS}
    run = site.play(
        DEPLOY,
        deploy_confirm=True,
        deploy_confirm_consent="yes",
        deploy_notify=notices(messenger),
        **page.options,
        **hooks,
        **OTHER_VALUES,
        deploy_post_backup=False,
    )
    assert run.status == 0, run.output
    (manifest,) = site.places.store.glob("pre-migration/*/manifest.json")
    archive = json.loads(manifest.read_text())["archive"]
    assert (archive["format"], archive["jobs"]) == ("directory", 2)
    assert messenger.events == ["opened", "closed"]
    header, body = messenger.told[0]
    assert header == "Bearer " + TOKEN
    assert body["operation"] == site.operations()[0]["id"]
    assert "failed: nobody there." in run.text and "failed: broken program." in run.text
    assert TOKEN not in run.output
    before = [
        "before_prepare",
        "after_prepare",
        "before_gates",
        "after_gates",
        "before_backup",
        "after_backup",
        "before_downtime",
    ]
    down = ["on", "before_migrate", "after_migrate", "before_start", "after_start"]
    assert page.seen == [word + " False" for word in before] + [word + " True" for word in down] + [
        "off False",
        "after_downtime False",
    ]
    (confirmed,) = [entry for entry in site.operations()[0]["journal"] if entry["step"] == "confirm"]
    assert confirmed["by"] == "deploy_confirm_consent"

    report = {
        "operation_report_operation": site.operations()[0]["id"],
        "operation_report_dest": str(page.file) + ".html",
    }
    shown = site.play("operation_report.yml", **report)
    assert shown.status == 0 and "Report: " + str(page.file) + ".html, " in shown.text, shown.output
    assert "What did the gates say?" in pathlib.Path(report["operation_report_dest"]).read_text()

    again = site.play(DEPLOY, deploy_notify=notices(messenger), **page.options)
    assert (again.status, again.changed) == (0, 0), again.output
    assert ok_tasks(again.output) <= MOST_IDLE_TASKS, again.output
    assert messenger.events == ["opened", "closed"], "an idle deploy opens no window"


def test_the_page_goes_on_the_way_back(site: DemoSite, messenger: Messenger, page: Page) -> None:
    """The release never becomes healthy; the former one was tested on the new schema, so only the code is reverted."""
    before, process = site.condition(), site.process()
    run = site.play(
        DEPLOY,
        deploy_revision="never-healthy",
        application_health_timeout=5,
        application_start_timeout=10,
        deploy_post_backup=False,
        deploy_notify=notices(messenger),
        **page.options,
        **PEOPLE,
    )
    run.must_say(
        "was rolled back",
        "runs again and is healthy",
        "run the deploy again",
        "did not become healthy in 5 seconds",
        "keeps the new schema",
    )
    assert messenger.events == ["opened", "closed", "failed"]
    assert page.seen == ["on True", "off False"]
    assert "tell the team leads" in run.text
    now = site.condition()
    assert now.applied == (FIRST, MIGRATION) and site.process() != process
    assert dataclasses.replace(now, contents=before.contents, applied=before.applied) == before
    assert site.outcomes() == ["rolled_back"]
    mended = site.play(DEPLOY, deploy_post_backup=False)
    assert mended.status == 0 and site.running() == site.commits["et-100"], mended.output


# One phase alone


@contextlib.contextmanager
def refused(site: DemoSite, *arguments: str, words: Tuple[str, ...] = ()) -> Iterator[None]:
    with site.unchanged():
        run = site.play(DEPLOY, *arguments)
    assert run.status != 0, run.output
    for word in words:
        assert word in run.text, run.output
    yield


def test_proved_by_day_and_changed_at_night(site: DemoSite) -> None:
    with site.unchanged():
        proved = site.play(DEPLOY, "--tags", "prove")
    assert proved.status == 0, proved.output
    assert "Nothing was stopped" in proved.text
    assert site.outcomes() == [None]
    changed = site.play(DEPLOY, "--tags", "change,finish", deploy_post_backup=False)
    assert changed.status == 0, changed.output
    assert site.running() == site.commits["et-100"]
    assert MIGRATION in site.applied()
    assert site.outcomes() == ["done"]
    assert "Back up" not in changed.tasks


def test_gates_cannot_be_left_out(site: DemoSite) -> None:
    left_out = ("has not done: gates, backup, drill, rehearsal", "never stopped")
    for arguments in (("--tags", "change,finish"), ("--skip-tags", "prove")):
        with refused(site, *arguments, words=left_out):
            assert site.outcomes()[-1] == "failed"
    with refused(site, "--tags", "finish", words=("has not done: started",)):
        assert site.outcomes()[-1] == "failed"
    with refused(site, "--start-at-task", "Deploy"):
        assert len(site.outcomes()) == 3
