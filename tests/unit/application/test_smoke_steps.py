# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading smoke tests from data: errors are named, with the probably intended spelling."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.smoke_steps import fill, parse
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.web import difference
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from hypothesis import given
from hypothesis import strategies as st

GOOD: Dict[str, Any] = {"name": "health", "path": "/api/health"}


def test_defaults() -> None:
    (step,) = parse([GOOD])
    assert (step.method, step.statuses, step.headers, step.cleanup, step.body) == ("GET", [200], {}, False, None)


def test_null_means_not_given() -> None:
    (step,) = parse([{**GOOD, "method": None, "status": None, "save": None}])
    assert (step.method, step.statuses, step.save) == ("GET", [200], {})


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("text", "list of steps"),
        (["text"], "step 1: str instead of a dictionary"),
        ([{"path": "/"}], "step 1: no name"),
        ([GOOD, {"name": "x"}], "step 2 (x): path None"),
        ([{**GOOD, "path": "api"}], "starts with /"),
        ([{**GOOD, "path": "/a b"}], "without spaces"),
        ([{**GOOD, "expects": {}}], "did you mean expect"),
        ([{**GOOD, "clean_up": True}], "did you mean cleanup"),
        ([{**GOOD, "method": "PSOT"}], "did you mean POST"),
        ([{**GOOD, "status": "200"}], "status '200'"),
        ([{**GOOD, "status": True}], "status True"),
        ([{**GOOD, "status": []}], "status []"),
        ([{**GOOD, "status": 20}], "from 100 to 599"),
        ([{**GOOD, "headers": ["a"]}], "a dictionary of texts"),
        ([{**GOOD, "headers": {"a": {}}}], "a dictionary of texts"),
        ([{**GOOD, "save": {"a b": "id"}}], "letters, digits and underscores"),
        ([{**GOOD, "cleanup": "yes"}], "true or false"),
        ([{**GOOD, "path": "/${id}"}], "no earlier step saves ${id}"),
        ([{**GOOD, "save": {"item": "id"}}, {**GOOD, "body": {"a": ["${itme}"]}}], "did you mean item"),
    ],
)
def test_what_is_wrong_is_named(steps: Any, message: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(steps)
    assert message in str(caught.value)


def test_a_value_keeps_its_type_when_it_stands_alone() -> None:
    saved = {"id": 7, "name": "x", "list": [1]}
    assert fill({"a": "${id}", "b": "n ${id} ${name}", "c": ["${list}", 3], "${name}": None}, saved) == {
        "a": 7,
        "b": "n 7 x",
        "c": [[1], 3],
        "x": None,
    }


@pytest.mark.parametrize(
    ("expected", "found", "wrong"),
    [
        ({}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 2, not 1"),
        ({"a": {"b": 1}}, {"a": 1}, "a is 1, not an object"),
        ({"a": None}, {}, "a is missing"),
        ([1], [3, 2, 1], None),
        ([{"a": 1}], [{"a": 2}], 'the answer has no item {"a": 1}'),
        ([1], {}, "the answer is {}, not a list"),
        (1, True, "the answer is true, not 1"),
        (1, 1.0, None),
        ("1", 1, 'the answer is 1, not "1"'),
    ],
)
def test_the_first_difference(expected: Any, found: Any, wrong: Any) -> None:
    assert difference(expected, found) == wrong


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_everything_contains_itself(value: Any) -> None:
    assert difference(value, value) is None


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4), st.data())
def test_what_lacks_a_key_is_noticed(value: Dict[str, Any], data: st.DataObject) -> None:
    key: str = data.draw(st.sampled_from(sorted(value)))
    lacking = {name: item for name, item in value.items() if name != key}
    assert difference(lacking, value) is None
    assert difference(value, lacking) is not None


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=3) | JSON)
def test_any_data_is_read_or_refused(steps: Any) -> None:
    """Whatever the user writes, there is no bare traceback."""
    try:
        parsed: List[Any] = parse(steps)
    except Refused:
        return
    assert len(parsed) == len(steps)
