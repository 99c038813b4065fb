# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploy, revert and undo, each first with --check, which changes nothing; none of them shows the password."""

from __future__ import annotations

import threading
from typing import List, Set

import pytest
from support.broken_releases import MIGRATION
from support.demo_site import MARK, DemoSite, Run, processes
from support.secret_forms import as_base64


class Listener:
    """Reads the arguments of every process in a loop, and remembers those that contain a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.heard: Set[str] = set()
        self.programs: Set[str] = set()

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stop.wait(0.02):
            for _pid, command in processes():
                self.programs.add(command.split(" ")[0].rpartition("/")[2])
                if self._text in command:
                    self.heard.add(command)


def checked(site: DemoSite, playbook: str, *words: str) -> None:
    """Check mode shows what would happen and changes nothing, not even a time stamp."""
    before, process, files = site.condition(), site.process(), site.files()
    run = site.play(playbook, "--check")
    assert run.status == 0, run.output
    for word in words:
        assert word in run.text, run.output
    assert run.changed > 0, run.output
    assert site.files() == files
    assert site.condition() == before
    assert site.process() == process


def heard(site: DemoSite, playbook: str, *needed: str) -> Run:
    """Run with -vvv, the highest verbosity in common use; the password is in no output and in no process list."""
    with Listener(MARK) as listener:
        run = site.play(playbook, "-vvv")
    assert run.status == 0, run.output
    assert MARK not in run.output, [line for line in run.output.splitlines() if MARK in line]
    assert listener.heard == set()
    # The listener would have seen it: it saw the programs that receive the password.
    assert set(needed) <= listener.programs, listener.programs
    return run


def files_with(site: DemoSite, text: str) -> List[str]:
    """Files of the store and of pm2 that contain a text."""
    found = []
    for root in (site.places.store, site.places.pm2_home, site.places.ansible_home):
        for path in root.rglob("*"):
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found


@pytest.mark.fault(
    "secrets",
    "playbooks of deploy, revert and undo with -vvv: output, processes, files",
    by="searched for the password and its base64: not there",
)
def test_deploy_revert_and_undo(site: DemoSite) -> None:
    before = site.condition()
    checked(site, "deploy_receiptdata.yml", "would rehearse and then apply: " + MIGRATION)
    heard(site, "deploy_receiptdata.yml", "pg_dump", "pg_restore", "node")
    deployed = site.condition()

    checked(site, "rollback_complete.yml", "give the live name to the new database")
    heard(site, "rollback_complete.yml", "pg_restore")
    assert (site.contents(), site.applied(), site.running()) == (before.contents, before.applied, before.running)

    checked(site, "undo_rollback.yml", "gets the live name back", "Loss: none")
    heard(site, "undo_rollback.yml")
    assert (site.contents(), site.applied(), site.running()) == (deployed.contents, deployed.applied, deployed.running)

    assert site.outcomes() == ["done", "done", "done"]
    assert [files_with(site, secret) for secret in (MARK, *as_base64(MARK))] == [[]] * 4
    pages = sorted(path.name for path in site.places.store.glob("operations/*/report.*"))
    assert pages == sorted(["report.html", "report.json", "report.xml"] * 3)
    for playbook in ("undo_rollback.yml", "deploy_receiptdata.yml"):
        again = site.play(playbook)
        assert (again.status, again.changed) == (0, 0), again.output
