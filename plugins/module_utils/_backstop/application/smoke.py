# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running smoke tests against an application. What they created is always cleaned up."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence
from urllib.parse import quote

from ..base.environment_file import secrets_by_name
from ..base.errors import BackstopError
from ..base.processes import redact
from .smoke_steps import PLACEHOLDER, Step, fill
from .web import Answer, NoAnswer, check_url, difference, request


@dataclass
class Result:
    """The result of a step; a skipped step has not passed."""

    name: str
    passed: bool
    skipped: bool
    cleanup: bool
    status: Optional[int]
    expected: str
    found: str
    milliseconds: int


@dataclass
class Report:
    """The results of all steps, and the values that they saved."""

    results: List[Result]
    saved: Dict[str, Any]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def failed(self) -> List[Result]:
        """The steps that ran and failed."""
        return [result for result in self.results if not result.passed and not result.skipped]

    def facts(self) -> List[Dict[str, Any]]:
        return [asdict(result) for result in self.results]

    def require_passed(self) -> Dict[str, Any]:
        """All steps as facts: ``passed``, ``results``, ``seconds``.

        :raises BackstopError: a step failed
        """
        if not self.passed:
            raise BackstopError(
                "%d of %d smoke tests failed" % (len(self.failed), len(self.results)),
                found=self.summary(),
                details={"passed": False, "results": self.facts()},
            )
        return {"passed": True, "results": self.facts(), "seconds": round(self.seconds, 3)}

    def summary(self) -> str:
        return "; ".join("%s: %s, expected %s" % (one.name, one.found, one.expected) for one in self.failed)


class _Runner:
    def __init__(self, base_url: str, timeout: float, headers: Mapping[str, str], secrets: Iterable[str]) -> None:
        self.base_url = check_url(base_url)
        self.timeout = timeout
        self.headers = dict(headers)
        self.secrets = [*secrets, *secrets_by_name(self.headers)]
        self.saved: Dict[str, Any] = {}
        self.results: List[Result] = []

    def skip(self, step: Step, why: str) -> None:
        self._note(step, None, why, passed=False, skipped=True, seconds=0.0)

    def _note(
        self, step: Step, status: Optional[int], found: str, *, passed: bool, skipped: bool, seconds: float
    ) -> None:
        self.results.append(
            Result(
                name=step.name,
                passed=passed,
                skipped=skipped,
                cleanup=step.cleanup,
                status=status,
                expected=_expectation(step),
                found=redact(found, self.secrets),
                milliseconds=round(seconds * 1000),
            )
        )

    def run(self, step: Step) -> bool:
        missing = sorted(step.wants() - set(self.saved))
        if missing:  # a cleanup step for something that was never created
            self.skip(step, "not run: nothing was saved as %s" % ", ".join(missing))
            return step.cleanup
        started = time.monotonic()
        try:
            answer = self._ask(step)
        except NoAnswer as error:
            self._note(
                step,
                None,
                error.found or str(error),
                passed=False,
                skipped=False,
                seconds=round(time.monotonic() - started, 3),
            )
            return False
        wrong = self._judge(step, answer)
        self._note(
            step,
            answer.status,
            wrong or "status %d" % answer.status,
            passed=not wrong,
            skipped=False,
            seconds=answer.seconds,
        )
        return not wrong

    def _ask(self, step: Step) -> Answer:
        # A saved value is one path segment, whatever characters it holds.
        path = PLACEHOLDER.sub(lambda match: quote(str(self.saved[match.group(1)]), safe=""), step.path)
        headers = {**self.headers, **{name: str(fill(text, self.saved)) for name, text in step.headers.items()}}
        return request(
            self.base_url + path,
            step.method,
            headers=headers,
            body=fill(step.body, self.saved),
            timeout=self.timeout,
        )

    def _judge(self, step: Step, answer: Answer) -> Optional[str]:
        """The error in an answer; the values to save are taken from a good answer."""
        if answer.status not in step.statuses:
            return answer.short()
        if step.expect is None and not step.save:
            return None
        if not answer.whole:
            return "status %d, a response that is too long to be read" % answer.status
        try:
            content = answer.json
        except ValueError:
            return "not JSON, " + answer.short()
        # Save values first: what was created must be cleaned up even if another part of the answer is wrong.
        lacking = [path for name, path in step.save.items() if not self._save(name, path, content)]
        if step.expect is not None:
            wrong = difference(fill(step.expect, self.saved), content)
            if wrong:
                return wrong
        return "%s is missing in the answer" % lacking[0] if lacking else None

    def _save(self, name: str, path: str, content: Any) -> bool:
        for part in path.split("."):
            if isinstance(content, dict) and part in content:
                content = content[part]
            elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
                content = content[int(part)]
            else:
                return False
        self.saved[name] = content
        return True


def _expectation(step: Step) -> str:
    text = "status " + " or ".join(str(status) for status in step.statuses)
    if step.expect is not None:
        text += " and the expected content"
    return text


def run(
    base_url: str,
    steps: Sequence[Step],
    *,
    timeout: float = 10,
    headers: Optional[Mapping[str, str]] = None,
    secrets: Iterable[str] = (),
) -> Report:
    """Run smoke tests in order. After the first failure only the remaining cleanup steps run.

    :param timeout: seconds for each request
    :param headers: sent with every request; values of headers with a secret's name are kept out of the report
    :param secrets: further texts to keep out of the report
    """
    runner = _Runner(base_url, timeout, headers or {}, secrets)
    for step in steps:
        runner.secrets += secrets_by_name(step.headers)
    started = time.monotonic()
    waiting = list(steps)
    going_on = True
    try:
        while waiting:
            step = waiting[0]
            if step.cleanup:
                runner.run(step)  # its failure is in the report; the following steps run
            elif going_on:
                going_on = runner.run(step)
            else:
                runner.skip(step, "not run: an earlier step failed")
            del waiting[0]
    except BaseException:
        # Interrupted: rows that the steps created must not stay.
        for step in waiting:
            if step.cleanup:
                runner.run(step)
        raise
    return Report(runner.results, runner.saved, time.monotonic() - started)
