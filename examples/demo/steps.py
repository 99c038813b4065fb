# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps that run in parallel where they can; each reports in one line what it did and how long it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .programs import DemoError

#: What a step does; it returns the line to show, or an empty text to show nothing.
Action = Callable[[], str]
WORKERS = 6


class Reporter:
    """Prints lines with times; names steps that take longer than expected while they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def step(self, seconds: float, line: str) -> None:
        with self._lock:
            print(f"{seconds:6.1f} s  {line}", flush=True)

    def say(self, line: str) -> None:
        with self._lock:
            print(line, flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


class Steps:
    """Named steps, each with the names of the steps that must be done before it."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._steps: dict[str, tuple[Sequence[str], Action]] = {}

    def add(self, name: str, action: Action, after: Sequence[str] = ()) -> None:
        unknown = [need for need in after if need not in self._steps]
        if unknown or name in self._steps:
            raise ValueError(f"step {name}: {unknown or 'given twice'}")
        self._steps[name] = (after, action)

    def run(self) -> None:
        """Run all steps. After a failure no step is started, running steps are awaited, the first error is raised."""
        waiting = dict(self._steps)
        running: dict[Future[None], str] = {}
        done: set[str] = set()
        failure: BaseException | None = None
        with ThreadPoolExecutor(WORKERS) as pool:
            while running or (waiting and not failure):
                if not failure:
                    for name in [name for name, (after, _work) in waiting.items() if done.issuperset(after)]:
                        running[pool.submit(self._run_one, waiting.pop(name)[1])] = name
                finished, _running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    done.add(running.pop(future))
                    failure = failure or future.exception()
        if failure:
            raise failure

    def _run_one(self, action: Action) -> None:
        started = time.monotonic()
        line = action()
        if line:
            self._reporter.step(time.monotonic() - started, line)


def wait_until(check: Callable[[], bool], seconds: float, error: Callable[[], DemoError]) -> None:
    """Poll until the answer is true; raise the error after this many seconds."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise error()
        time.sleep(0.1)
