# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which method a rollback uses: a row for every case."""

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
#: the situation; purposes; the method that the user named; the way
ROWS = [
    # One table is restored, whatever else applies.
    ({"table": True}, EVERY, None, "table"),
    ({"table": True, "unfinished": True}, EVERY, None, "table"),
    # A migration failed or was interrupted: its leftovers are removed, else everything is restored.
    ({"unfinished": True}, EVERY, None, "leftovers"),
    ({"unfinished": True, "old_release_works": True, "down_proved": True}, EVERY, None, "leftovers"),
    ({"unfinished": True, "needs_restore": True}, EVERY, None, "restore"),
    ({"unfinished": True, "needs_restore": True, "in_place": True}, EVERY, None, "in_place"),
    ({"unfinished": True, "completely": True}, EVERY, None, "leftovers"),
    ({"unfinished": True}, (ASKED,), "drop", "leftovers"),
    # It succeeded, and the former release was proved on the new schema: the database stays.
    ({"old_release_works": True}, EVERY, None, "code_only"),
    ({"old_release_works": True, "down_proved": True}, EVERY, None, "code_only"),
    ({"old_release_works": True, "only_added": True}, EVERY, None, "code_only"),
    # It was not: SQL that is proved to revert the migration, whether or not it only added objects.
    ({"down_proved": True}, EVERY, None, "drop"),
    ({"down_proved": True, "only_added": False}, EVERY, None, "drop"),
    # SQL that was tried and does not revert the migration.
    ({"down_proved": False}, EVERY, None, "restore"),
    ({"down_proved": False, "only_added": True}, EVERY, None, "restore"),
    ({"down_proved": False, "in_place": True}, EVERY, None, "in_place"),
    # SQL that was not tried: a plan uses the catalog, a rollback proves it first, a deploy uses only what is proved.
    ({"only_added": True}, (PLAN, ASKED), None, "drop"),
    ({"only_added": True}, (AUTOMATIC,), None, "restore"),
    ({}, (PLAN, AUTOMATIC), None, "restore"),
    ({}, (ASKED,), None, "drop"),
    # A safety copy needs no restore; a release that was proved needs no change of the database at all.
    ({"safety_copy": True}, EVERY, None, "restore"),
    ({"safety_copy": True, "down_proved": True}, EVERY, None, "restore"),
    ({"safety_copy": True, "unfinished": True}, EVERY, None, "restore"),
    ({"safety_copy": True, "old_release_works": True}, EVERY, None, "code_only"),
    ({"safety_copy": True}, (ASKED,), "drop", "drop"),
    # Everything is reverted.
    ({"completely": True}, EVERY, None, "restore"),
    ({"completely": True, "in_place": True}, EVERY, None, "in_place"),
    ({"completely": True, "old_release_works": True, "down_proved": True}, EVERY, None, "restore"),
    # Only the release is reverted, if nothing else changed.
    ({"release_alone": True}, EVERY, None, "code_only"),
    ({"release_alone": True, "completely": True}, EVERY, None, "code_only"),
    ({"release_alone": True, "in_place": True}, EVERY, None, "code_only"),
    # The user named the method.
    ({"old_release_works": True}, (ASKED,), "code_only", "code_only"),
    ({"old_release_works": True}, (ASKED,), "drop", "drop"),
    ({"old_release_works": True}, (ASKED,), "restore", "restore"),
    ({"down_proved": False}, (ASKED,), "drop", "drop"),
    ({"in_place": True}, (ASKED,), "restore", "in_place"),
    # The release alone is refused if it was not proved.
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
    """A deploy never runs down-SQL that was not proved, whatever the catalog contains."""
    for added in (True, False):
        assert choose(Situation(only_added=added, down_proved=None), AUTOMATIC) == "restore"
