# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was tried to lose data, how often, and what found it: recorded by tests, written as JSON and as a page.

A test that tries something has a mark, and says how often if it tries more than once::

    @pytest.mark.fault("archive", "one bit changed", by="sha256")
    def test_bit_flips(backup, tried):
        for _flip in range(times(20, 400)):
            ...
            tried()

`by` names what noticed the fault or carried the operation through it; ``tried(by=...)`` says it of one trial. This
file is a plugin of pytest (tests/conftest.py): with ``--fault-results FILE`` it writes the trials of all passed tests.
``python -m support.reliability FILE...`` makes docs/reliability.json and docs/reliability.md of such files.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
import os
import pathlib
from typing import Any, Callable, Counter, Dict, Iterator, List, Tuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
JSON, MARKDOWN = "reliability.json", "reliability.md"
#: The groups of the page, in its order.
GROUPS = {
    "backup": "While a backup is taken",
    "archive": "Damaged archives and manifests",
    "deploy": "Deploy and rollback",
    "walk": "Random sequences of operations",
    "secrets": "Secrets",
    "input": "Hostile input",
    "versions": "Versions",
    "peers": "Other collections",
    "databases": "Databases of others",
}
FULL = os.environ.get("BACKSTOP_FAULTS") == "full"
_TRIALS = pytest.StashKey[List[Tuple[int, str]]]()
_PASSED = pytest.StashKey[bool]()
_RESULTS = pytest.StashKey[List[Dict[str, Any]]]()
Results = List[Dict[str, Any]]


def times(few: int, many: int) -> int:
    """How often a test tries something: `many` times in the lane faults-full, else few."""
    return many if FULL else few


# Recording


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-results", type=pathlib.Path, help="write what the tests with a mark `fault` tried")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []


def _mark(item: pytest.Item) -> Any:
    """The mark's group, what was tried, and by what it is noticed."""

    def read(group: str, what: str, *, by: str) -> Tuple[str, str, str]:
        if group not in GROUPS:
            raise pytest.UsageError("%s: no group %r of the page; there are %s" % (item.nodeid, group, list(GROUPS)))
        return group, what, by

    mark = item.get_closest_marker("fault")
    return None if mark is None else read(*mark.args, **mark.kwargs)


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Called for each trial of a test: ``tried()``, ``tried(60)``, ``tried(by="sha256")``."""
    trials: List[Tuple[int, str]] = []
    request.node.stash[_TRIALS] = trials
    usual = _mark(request.node)[2]

    def record(number: int = 1, *, by: str = usual) -> None:
        trials.append((number, by))

    yield record
    if request.node.stash.get(_PASSED, False):
        assert trials, "the test has the mark `fault` and tried nothing"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    mark = _mark(item)
    if mark is not None and report.when == "call" and report.passed:
        group, what, by = mark
        item.stash[_PASSED] = True
        trials = item.stash.get(_TRIALS, [(1, by)])
        found = {"group": group, "what": what, "trials": [list(one) for one in trials], "test": _name(item)}
        # Reports of other processes (pytest-xdist) carry these to the one that writes.
        if trials:
            report.user_properties.append(("fault", found))
    return report


def _name(item: pytest.Item) -> str:
    return "%s::%s" % (item.path.relative_to(item.config.rootpath), getattr(item, "originalname", item.name))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-results")
    if path and not hasattr(session.config, "workerinput"):
        path.write_text(json.dumps(session.config.stash[_RESULTS]), "utf-8")


class _Collector:
    def __init__(self, found: List[Dict[str, Any]]) -> None:
        self._found = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._found += [value for name, value in report.user_properties if name == "fault" and report.when == "call"]


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_Collector(session.config.stash[_RESULTS]))


# Writing


def summed(trials: List[Dict[str, Any]]) -> Results:
    """One result for each group and kind of trial, in the order of the page."""
    rows: Dict[Tuple[str, str], Tuple[Counter[str], Dict[str, None]]] = {}
    for one in trials:
        by, tests = rows.setdefault((one["group"], one["what"]), (collections.Counter(), {}))
        tests[one["test"]] = None
        for number, found_by in one["trials"]:
            by[found_by] += number
    return [
        {
            "group": group,
            "what": what,
            "times": sum(by.values()),
            "by": dict(by),
            "rows_lost": 0,
            "tests": sorted(tests),
        }
        for (group, what), (by, tests) in sorted(
            rows.items(), key=lambda row: (list(GROUPS).index(row[0][0]), row[0][1])
        )
    ]


def load(folder: pathlib.Path) -> Results:
    path = folder / JSON
    return json.loads(path.read_text("utf-8"))["results"] if path.is_file() else []


def merged(old: Results, new: Results) -> Results:
    """Old results, with the new ones in the place of those of the same trials."""
    rows = {(one["group"], one["what"]): one for one in [*old, *new]}
    return sorted(rows.values(), key=lambda one: (list(GROUPS).index(one["group"]), one["what"]))


def write(folder: pathlib.Path, results: Results) -> None:
    (folder / JSON).write_text(
        json.dumps({"format": 1, "results": results}, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    (folder / MARKDOWN).write_text(markdown(results), "utf-8")


HEAD = """\
# Reliability

What was tried to lose data or to show a secret, how often, and what found it or carried the operation through it.
From what the tests recorded: `./test.sh faults-full` runs them all; runs of parts can be merged (`python -m
support.reliability --keep`). Only tests that passed are counted, and one that finds a lost row fails: that is why the
last column has one value only.

%s kinds of trials, %s trials. The tests of each are in [reliability.json](%s).
"""


def markdown(results: Results) -> str:
    """The page."""
    parts = [HEAD % (len(results), "{:,}".format(sum(one["times"] for one in results)), JSON)]
    for group, title in GROUPS.items():
        rows = [one for one in results if one["group"] == group]
        if rows:
            parts += [
                "## " + title,
                "",
                "| what was tried | times | found or survived by | rows lost |",
                "|---|---|---|---|",
            ]
            parts += ["| %s | %s | %s | %d |" % (_row(one)) for one in rows]
            parts.append("")
    return "\n".join(parts)


def _row(one: Dict[str, Any]) -> Tuple[str, str, str, int]:
    by = one["by"]
    shown = "; ".join(name if len(by) == 1 else "%s (%s)" % (name, "{:,}".format(by[name])) for name in sorted(by))
    return one["what"], "{:,}".format(one["times"]), shown, one["rows_lost"]


def marked(path: pathlib.Path) -> Dict[str, Tuple[str, str]]:
    """Group and kind of trial by the name of each test of a file that has the mark itself, not read by running it."""
    found = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
                    group, what = map(ast.literal_eval, decorator.args)
                    found[node.name] = group, what
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/reliability.json and docs/reliability.md.")
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="written by pytest --fault-results")
    parser.add_argument("--keep", action="store_true", help="keep the results of what these files do not have")
    arguments = parser.parse_args()
    results = summed([one for path in arguments.files for one in json.loads(path.read_text("utf-8"))])
    write(ROOT / "docs", merged(load(ROOT / "docs"), results) if arguments.keep else results)


if __name__ == "__main__":
    main()
