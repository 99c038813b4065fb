# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conclusions from systemd's answers."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import systemd
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.systemd import Unit
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import Finished
from support.systemd_answers import HERE, Answers

PASSWORD = "s3cret-word"


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without systemd lacks these programs; none of them is run here."""
    monkeypatch.setattr(systemd, "find_program", lambda name, folders=(): "/usr/bin/" + name)


def unit(answers: Answers, scope: str = "system") -> Unit:
    return Unit("tokens", scope, run=answers.run)


def test_a_unit_that_runs_in_the_release_is_left_alone() -> None:
    answers = Answers()
    assert unit(answers).start(os.getcwd(), stable=0.1) is False
    assert answers.actions == []


def test_an_active_unit_in_another_release_is_restarted(tmp_path: pathlib.Path) -> None:
    """Active is not enough: the unit resolved the link when it started."""
    answers = Answers()
    assert not unit(answers).runs_in(str(tmp_path))
    with pytest.raises(BackstopError, match="in another directory") as caught:
        unit(answers).start(str(tmp_path), wait=1, stable=0)
    assert answers.actions == ["restart"]
    assert "WorkingDirectory=" in str(caught.value)


def test_a_unit_that_crashes_again_and_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".env").write_text("DB_PASSWORD=%s\n" % PASSWORD)
    answers = Answers(ActiveState="failed", MainPID=0, Result="exit-code", NRestarts=5)
    answers.log = "starting\nfatal: wrong %s\n" % PASSWORD
    with pytest.raises(BackstopError, match="does not stay up") as caught:
        unit(answers).start(str(tmp_path), wait=1)
    assert answers.actions == ["reset-failed", "restart"]
    assert "failed (running, exit-code) after 5 restarts" in str(caught.value)
    assert "fatal: wrong ********" in str(caught.value)
    assert PASSWORD not in str(caught.value) + repr(caught.value.details)


def test_a_restart_while_it_must_be_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(ActiveState="inactive", MainPID=0)
    answers.after_restart = {
        "ActiveState": "active",
        "MainPID": HERE,
        "ActiveEnterTimestampMonotonic": int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6) + 10**9,
    }

    def crash_meanwhile(_seconds: float) -> None:
        answers.properties["NRestarts"] = 1

    monkeypatch.setattr(systemd.time, "sleep", crash_meanwhile)
    with pytest.raises(BackstopError, match="after 1 restarts"):
        unit(answers).start(os.getcwd(), wait=5, stable=60)


def test_a_missing_unit() -> None:
    answers = Answers(LoadState="not-found", ActiveState="inactive", MainPID=0)
    assert unit(answers).state().status == "absent"
    assert unit(answers).stop() is False
    with pytest.raises(Refused, match="knows no such unit") as caught:
        unit(answers).start("/")
    assert "systemd unit" in str(caught.value)


def test_a_masked_unit() -> None:
    with pytest.raises(Refused, match="cannot use the unit"):
        unit(Answers(LoadState="masked")).state()


def test_stopping_waits_without_believing_the_exit_status() -> None:
    answers = Answers()
    assert unit(answers).stop() is True
    assert answers.actions == ["stop"]
    assert unit(answers).stop() is False


def test_a_stop_that_hangs_is_told_and_does_not_wait_for_ever() -> None:
    answers = Answers()

    def stuck(argv: List[str], **keywords: Any) -> Finished:
        finished = answers.run(argv, **keywords)
        answers.properties.update(ActiveState="deactivating", MainPID=HERE)
        return finished

    with pytest.raises(BackstopError, match="did not stop") as caught:
        Unit("tokens", run=stuck).stop(wait=0)
    assert "tokens.service is deactivating" in str(caught.value)


def test_a_socket_that_would_start_it_again() -> None:
    answers = Answers(TriggeredBy="tokens.socket tokens.timer")
    answers.triggers = "active\ninactive\n"
    with pytest.raises(Refused, match="started again by another unit") as caught:
        unit(answers).stop()
    assert "tokens.socket" in str(caught.value)
    assert "tokens.timer" not in str(caught.value)
    assert "stop" not in answers.actions


def test_the_log_since_the_start_alone() -> None:
    answers = Answers()
    cursor = unit(answers).log_cursor()
    assert cursor == "s=1;i=2"
    answers.log = "listening\nError: no table\n"
    assert unit(answers).log_since(cursor, "/nowhere") == ["listening", "Error: no table"]
    assert "--after-cursor=" + cursor in answers.called[-1]


def test_what_systemd_hands_to_the_application_is_hidden_in_its_log(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop env").write_text("PW='hunter22' \"and more\"\n", "utf-8")
    (tmp_path / ".env").write_text("NOTE='first line\nsecond line'\n", "utf-8")
    answers = Answers(EnvironmentFiles="%s (ignore_errors=no)" % (tmp_path / "shop env"))
    answers.log = "Error: hunter22and more\nError: second line\n"
    assert unit(answers).log_since("", str(tmp_path)) == ["Error: ********"] * 2


def test_the_manager_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """become leaves XDG_RUNTIME_DIR unset, without which systemctl --user finds nothing."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    given: List[Any] = []

    def run(argv: List[str], **keywords: Any) -> Finished:
        given.append((argv, keywords["environment"]))
        return Answers().run(argv)

    Unit("tokens", "user", run=run).state()
    assert "--user" in given[0][0]
    assert given[0][1] == {"XDG_RUNTIME_DIR": "/run/user/%d" % os.geteuid()}


@pytest.mark.parametrize("name", ["", "a b", "--force", "../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refused, match="name of a service unit"):
        Unit(name)
