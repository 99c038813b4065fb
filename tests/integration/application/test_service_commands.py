# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application that is run by commands: a real background process with no supervisor, as a platform would do it."""

from __future__ import annotations

import pathlib
from typing import Any, Iterator, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service_commands import (
    Commands,
    ServiceCommands,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import alive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import processes
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from support import service_script

ONE, TWO = "1" * 40, "2" * 40
PASSWORD = "s3cret-word"


class Platform:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.script = service_script.write(folder)
        for commit in (ONE, TWO):
            (folder / commit).mkdir()
            (folder / commit / ".env").write_text("DB_PASSWORD=%s\n" % PASSWORD)

    def command(self, *words: str) -> List[str]:
        return [str(self.script), *words]

    def service(self, commit: str, **commands: Any) -> ServiceCommands:
        given = {
            "status": self.command("status"),
            "start": self.command("run", "${commit}"),
            "stop": self.command("stop"),
            "log": self.command("log", "${since}"),
            **commands,
        }
        return ServiceCommands(str(self.folder / commit), Commands(**given))

    @property
    def pid(self) -> int:
        return service_script.pid(self.script)


@pytest.fixture
def platform(tmp_path: pathlib.Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    yield made
    made.service(ONE).stop()


def test_a_life(platform: Platform) -> None:
    one, two = platform.service(ONE), platform.service(TWO)
    assert one.stop() is False
    assert one.start() is True
    pid = platform.pid
    assert one.state().commits == [ONE]
    assert one.start() is False
    assert platform.pid == pid, "what runs as wanted is left alone"
    assert two.start() is True
    assert not alive(pid)
    assert two.runs_current()
    assert not one.runs_current()
    assert two.stop() is True
    assert not two.state().running


def test_an_application_that_keeps_the_pipes_of_its_start_open(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that starts a program in the background does this: the command must not wait for the program's end."""
    monkeypatch.setattr(processes, "_DRAIN_SECONDS", 0.1)
    assert platform.service(ONE, start=platform.command("noisy", "${commit}")).start() is True
    assert alive(platform.pid)


def test_a_status_without_a_commit_proves_no_release(platform: Platform) -> None:
    silent = platform.service(ONE, status=platform.command("silent"))
    assert silent.start() is True
    assert silent.state().running
    assert not silent.runs_current()
    assert silent.start() is True, "it cannot tell that this release runs"


def test_a_start_of_another_release(platform: Platform) -> None:
    with pytest.raises(BackstopError, match="Another release") as caught:
        platform.service(ONE, start=platform.command("run", TWO)).start()
    assert "${commit}" in str(caught.value)


def test_a_command_that_fails_hides_secrets(platform: Platform) -> None:
    with pytest.raises(BackstopError, match="starts the application failed") as caught:
        platform.service(ONE, start=platform.command("fail", PASSWORD)).start()
    assert "cannot connect with ********" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_stop_that_does_nothing(platform: Platform) -> None:
    platform.service(ONE).start()
    with pytest.raises(BackstopError, match="did not stop"):
        platform.service(ONE, stop=platform.command("silent")).stop(wait=0)


def test_the_log_since_the_start(platform: Platform) -> None:
    since = "2025-11-08T02:00:00.000Z"
    assert platform.service(ONE).log_since(since) == ["since " + since, "Error: no table"]
    assert platform.service(ONE, log=[]).log_since(since) == []
    with pytest.raises(BackstopError, match="log command failed"):
        platform.service(ONE, log=platform.command("fail", "x")).log_since(since)


def test_bad_commands_are_told_at_once(platform: Platform) -> None:
    with pytest.raises(Refused, match="unknown placeholder") as caught:
        platform.service(ONE, start=platform.command("run", "${comit}"))
    assert "${commit}, ${release}" in str(caught.value)
    with pytest.raises(Refused, match="no stop command"):
        platform.service(ONE).start()
        platform.service(ONE, stop=[]).stop()
