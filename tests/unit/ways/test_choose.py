# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way back is taken: a row for every case."""

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.choose import (
    ASKED,
    AUTOMATIC,
    PLAN,
    Situation,
    choose,
)

EVERY = (PLAN, ASKED, AUTOMATIC)
#: what is so; purposes; the method that a person named; the way
ROWS = [
    # One table is put right, whatever else is so.
    ({"table": True}, EVERY, None, "table"),
    ({"table": True, "unfinished": True}, EVERY, None, "table"),
    # A migration failed or was cut off: what it left goes, else all does.
    ({"unfinished": True}, EVERY, None, "leftovers"),
    ({"unfinished": True, "old_release_works": True, "down_proved": True}, EVERY, None, "leftovers"),
    ({"unfinished": True, "needs_restore": True}, EVERY, None, "restore"),
    ({"unfinished": True, "needs_restore": True, "in_place": True}, EVERY, None, "in_place"),
    ({"unfinished": True, "completely": True}, EVERY, None, "leftovers"),
    ({"unfinished": True}, (ASKED,), "drop", "leftovers"),
    # It succeeded, and the release before it was proved on the new schema: the database stays.
    ({"old_release_works": True}, EVERY, None, "code_only"),
    ({"old_release_works": True, "down_proved": True}, EVERY, None, "code_only"),
    ({"old_release_works": True, "only_added": True}, EVERY, None, "code_only"),
    # It was not: SQL that is proved to lead back, whether or not objects were only added.
    ({"down_proved": True}, EVERY, None, "drop"),
    ({"down_proved": True, "only_added": False}, EVERY, None, "drop"),
    # SQL that was tried and does not lead back.
    ({"down_proved": False}, EVERY, None, "restore"),
    ({"down_proved": False, "only_added": True}, EVERY, None, "restore"),
    ({"down_proved": False, "in_place": True}, EVERY, None, "in_place"),
    # Nobody tried it: a plan goes by the catalog, a rollback proves it first, a deploy takes only what is proved.
    ({"only_added": True}, (PLAN, ASKED), None, "drop"),
    ({"only_added": True}, (AUTOMATIC,), None, "restore"),
    ({}, (PLAN, AUTOMATIC), None, "restore"),
    ({}, (ASKED,), None, "drop"),
    # All is to go back.
    ({"completely": True}, EVERY, None, "restore"),
    ({"completely": True, "in_place": True}, EVERY, None, "in_place"),
    ({"completely": True, "old_release_works": True, "down_proved": True}, EVERY, None, "restore"),
    # Which is the release, where that is all that changed.
    ({"release_alone": True}, EVERY, None, "code_only"),
    ({"release_alone": True, "completely": True}, EVERY, None, "code_only"),
    ({"release_alone": True, "in_place": True}, EVERY, None, "code_only"),
    # A person named the method.
    ({"old_release_works": True}, (ASKED,), "code_only", "code_only"),
    ({"old_release_works": True}, (ASKED,), "drop", "drop"),
    ({"old_release_works": True}, (ASKED,), "restore", "restore"),
    ({"down_proved": False}, (ASKED,), "drop", "drop"),
    ({"in_place": True}, (ASKED,), "restore", "in_place"),
    # The release alone is refused where nobody proved it.
    ({}, (ASKED,), "code_only", None),
    ({"down_proved": True, "only_added": True}, (ASKED,), "code_only", None),
]


@pytest.mark.parametrize(
    ("given", "purpose", "method", "way"),
    [(given, purpose, method, way) for given, purposes, method, way in ROWS for purpose in purposes],
)
def test_the_way(given: Dict[str, Any], purpose: str, method: Optional[str], way: Optional[str]) -> None:
    if way is not None:
        assert choose(Situation(**given), purpose, method) == way
        return
    with pytest.raises(Refused, match="The old release was not proved on the new schema"):
        choose(Situation(**given), purpose, method)


def test_by_itself_only_what_loses_nothing_by_proof() -> None:
    """Down-SQL that nobody proved is never run by a deploy, whatever the catalog looks like."""
    for added in (True, False):
        assert choose(Situation(only_added=added, down_proved=None), AUTOMATIC) == "restore"
