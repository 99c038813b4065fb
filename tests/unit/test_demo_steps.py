# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps that run in parallel: their order, their failures, their output."""

from __future__ import annotations

import threading
import time

import pytest
from demo.programs import DemoError
from demo.steps import Reporter, Steps, wait_until


def test_a_step_waits_for_what_it_needs_and_for_nothing_else() -> None:
    order: list[str] = []
    side_by_side = threading.Barrier(2, timeout=10)

    def act(name: str, meet: bool = False) -> str:
        if meet:
            side_by_side.wait()
        order.append(name)
        return ""

    steps = Steps(Reporter())
    steps.add("left", lambda: act("left", meet=True))
    steps.add("right", lambda: act("right", meet=True))
    steps.add("last", lambda: act("last"), after=["left", "right"])
    steps.run()
    assert sorted(order[:2]) == ["left", "right"]
    assert order[2] == "last"


def test_after_a_failure_nothing_new_begins_and_the_first_error_is_raised() -> None:
    done: list[str] = []

    def fail() -> str:
        raise DemoError("it broke")

    steps = Steps(Reporter())
    steps.add("broken", fail)
    steps.add("behind", lambda: done.append("behind") or "", after=["broken"])  # type: ignore[func-returns-value]
    with pytest.raises(DemoError, match="it broke"):
        steps.run()
    assert done == []


def test_what_runs_when_another_step_fails_is_waited_for_and_nothing_follows_it() -> None:
    done: list[str] = []
    failed = threading.Event()

    def fail() -> str:
        failed.set()
        raise DemoError("it broke")

    def slow() -> str:
        assert failed.wait(10)
        # The failure is noticed while this one runs.
        time.sleep(0.2)
        done.append("slow")
        return ""

    steps = Steps(Reporter())
    steps.add("slow", slow)
    steps.add("broken", fail)
    steps.add("behind", lambda: done.append("behind") or "", after=["slow"])  # type: ignore[func-returns-value]
    steps.add("behind the broken", lambda: done.append("too") or "", after=["broken"])  # type: ignore[func-returns-value]
    with pytest.raises(DemoError, match="it broke"):
        steps.run()
    assert done == ["slow"]


def test_each_step_tells_one_line_unless_it_has_nothing_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(Reporter())
    steps.add("silent", lambda: "")
    steps.add("telling", lambda: "something was done", after=["silent"])
    steps.run()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("s  something was done")


@pytest.mark.parametrize("after", [["nothing"], ["first", "nothing"]])
def test_a_step_cannot_wait_for_one_that_does_not_exist(after: list[str]) -> None:
    steps = Steps(Reporter())
    steps.add("first", lambda: "")
    with pytest.raises(ValueError, match="nothing"):
        steps.add("second", lambda: "", after=after)


def test_waiting_ends_with_the_error_when_the_time_is_over() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 10, lambda: DemoError("never"))
    with pytest.raises(DemoError, match="too late"):
        wait_until(lambda: False, 0, lambda: DemoError("too late"))
