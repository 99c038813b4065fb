# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Smoke tests as data: requests to the application, and the expected answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set

from ..base.errors import Refused
from ..base.sql_names import near_names

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
KEYS = ("name", "method", "path", "headers", "body", "status", "expect", "save", "cleanup")
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Step:
    """One request and the expected answer."""

    name: str
    path: str
    method: str = "GET"
    headers: Dict[str, str] = field(default_factory=dict)
    body: Any = None
    statuses: List[int] = field(default_factory=lambda: [200])
    expect: Any = None
    save: Dict[str, str] = field(default_factory=dict)
    cleanup: bool = False

    def wants(self) -> Set[str]:
        """Names of the saved values that the step uses."""
        return set(_placeholders([self.path, self.headers, self.body, self.expect]))


def parse(steps: Any) -> List[Step]:
    """Read smoke tests from plain data.

    :raises Refused: names the step and the wrong key
    """
    if not isinstance(steps, list):
        raise Refused("Smoke tests are a list of steps", found=type(steps).__name__)
    parsed = [_parse_step(number, step) for number, step in enumerate(steps, 1)]
    known: Set[str] = set()
    for step in parsed:
        missing = sorted(step.wants() - known)
        if missing:
            raise _wrong(
                step.name,
                "no earlier step saves ${%s}" % missing[0],
                near_names(missing[0], sorted(known)),
            )
        known.update(step.save)
    return parsed


def _wrong(step: str, found: str, near: Sequence[str] = (), expected: Optional[str] = None) -> Refused:
    return Refused(
        "Invalid smoke test",
        found="%s: %s" % (step, found),
        expected=expected,
        hint="did you mean %s?" % " or ".join(near) if near else None,
        details={"near": list(near)},
    )


def _parse_step(number: int, step: Any) -> Step:
    label = "step %d" % number
    if not isinstance(step, dict):
        raise _wrong(label, "%s instead of a dictionary" % type(step).__name__)
    given = {key: value for key, value in step.items() if value is not None}
    name = given.get("name")
    if isinstance(name, str) and name:
        label = "step %d (%s)" % (number, name)
    for key in given:
        if key not in KEYS:
            raise _wrong(label, "unknown key %r" % key, near_names(str(key), KEYS), "only " + ", ".join(KEYS))
    if not isinstance(name, str) or not name:
        raise _wrong(label, "no name", expected="a name, a text")
    path = given.get("path")
    if not isinstance(path, str) or not path.startswith("/") or re.search(r"[\x00-\x20]", path):
        raise _wrong(label, "path %r" % (path,), expected="a path that starts with /, without spaces")
    method = given.get("method", "GET")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise _wrong(label, "method %r" % (method,), near_names(str(method), METHODS), "one of " + ", ".join(METHODS))
    return Step(
        name=name,
        path=path,
        method=method.upper(),
        headers=_texts(label, "headers", given.get("headers", {})),
        body=given.get("body"),
        statuses=_statuses(label, given.get("status", 200)),
        expect=given.get("expect"),
        save=_saves(label, given.get("save", {})),
        cleanup=_flag(label, given.get("cleanup", False)),
    )


def _texts(label: str, key: str, value: Any) -> Dict[str, str]:
    if not isinstance(value, dict) or any(isinstance(item, (dict, list)) for item in value.values()):
        raise _wrong(label, "%s %r" % (key, type(value).__name__), expected="%s: a dictionary of texts" % key)
    return {str(name): str(item) for name, item in value.items()}


def _saves(label: str, value: Any) -> Dict[str, str]:
    saves = _texts(label, "save", value)
    for name in saves:
        if not _VARIABLE.fullmatch(name):
            raise _wrong(label, "save to %r" % name, expected="a name of letters, digits and underscores")
    return saves


def _statuses(label: str, value: Any) -> List[int]:
    statuses = value if isinstance(value, list) else [value]
    if not statuses or any(isinstance(one, bool) or not isinstance(one, int) for one in statuses):
        raise _wrong(label, "status %r" % (value,), expected="a number such as 200, or a list of such")
    if any(not 100 <= one <= 599 for one in statuses):
        raise _wrong(label, "status %r" % (value,), expected="numbers from 100 to 599")
    return list(statuses)


def _flag(label: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(label, "cleanup %r" % (value,), expected="true or false")
    return value


def _placeholders(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield from PLACEHOLDER.findall(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _placeholders(key)
            yield from _placeholders(item)
    elif isinstance(value, list):
        for item in value:
            yield from _placeholders(item)


def fill(value: Any, saved: Mapping[str, Any]) -> Any:
    """Substitute saved values for ``${name}``; a text that is only that gets the value's own type."""
    if isinstance(value, str):
        exclusive = PLACEHOLDER.fullmatch(value)
        if exclusive:
            return saved[exclusive.group(1)]
        return PLACEHOLDER.sub(lambda match: str(saved[match.group(1)]), value)
    if isinstance(value, dict):
        return {fill(key, saved): fill(item, saved) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, saved) for item in value]
    return value
