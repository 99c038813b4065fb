# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/reliability.md shows what docs/reliability.json has, and every test that it counts exists."""

from __future__ import annotations

import json

import pytest
from support import reliability
from support.collection_files import ROOT

RESULTS = reliability.load(ROOT / "docs")


def test_the_page_is_what_the_results_are() -> None:
    assert RESULTS
    assert (ROOT / "docs" / reliability.MARKDOWN).read_text("utf-8") == reliability.markdown(RESULTS)
    assert reliability.merged([], RESULTS) == RESULTS
    assert all(one["times"] == sum(one["by"].values()) and one["rows_lost"] == 0 for one in RESULTS)


@pytest.mark.parametrize("one", RESULTS, ids=lambda one: one["what"])
def test_its_tests_exist(one: dict) -> None:
    assert one["tests"]
    for name in one["tests"]:
        file, _colons, test = name.partition("::")
        assert reliability.marked(ROOT / file).get(test) == (one["group"], one["what"]), name


TRIALS = """
import pytest

@pytest.mark.fault("archive", "cut", by="size")
@pytest.mark.parametrize("at", [1, 2])
def test_cut(at):
    pass

@pytest.mark.fault("archive", "flipped", by="sha256")
def test_flipped(tried):
    tried(3)
    tried(by="pg_restore")

@pytest.mark.fault("archive", "not noticed", by="nothing")
def test_fails(tried):
    tried()
    assert False

@pytest.mark.fault("archive", "never tried", by="nothing")
def test_nothing(tried):
    pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_trials_are_counted_of_tests_that_passed(pytester: pytest.Pytester, workers: list) -> None:
    pytester.makepyfile(
        conftest="import sys; sys.path[:0] = [%r]; pytest_plugins = ['support.reliability']" % str(ROOT / "tests")
    )
    pytester.makeini("[pytest]\nmarkers = fault: a fault\naddopts = --import-mode=importlib")
    path = pytester.makepyfile(TRIALS)
    written = pytester.path / "trials.json"
    pytester.runpytest_subprocess("--fault-results", str(written), *workers).assert_outcomes(
        passed=4, failed=1, errors=1
    )
    found = reliability.summed(json.loads(written.read_text("utf-8")))
    name = path.name + "::"
    assert [(one["what"], one["times"], one["by"]) for one in found] == [
        ("cut", 2, {"size": 2}),
        ("flipped", 4, {"sha256": 3, "pg_restore": 1}),
    ]
    assert [one["tests"] for one in found] == [[name + "test_cut"], [name + "test_flipped"]]
    assert reliability.marked(path)["test_flipped"] == ("archive", "flipped")
    again = reliability.merged(found, [{**found[0], "times": 5}])
    assert [one["times"] for one in again] == [5, 4] and "| cut | 5 | size | 0 |" in reliability.markdown(again)


def test_a_group_that_the_page_lacks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        conftest="import sys; sys.path[:0] = [%r]; pytest_plugins = ['support.reliability']" % str(ROOT / "tests")
    )
    pytester.makeini("[pytest]\nmarkers = fault: a fault")
    pytester.makepyfile("import pytest\n@pytest.mark.fault('odd', 'x', by='y')\ndef test_x(): pass")
    assert "no group 'odd' of the page" in pytester.runpytest_subprocess().stderr.str()
