# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rollback may lose: each number separately, and a refusal that reports everything above the limits."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy, Refusal
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.count import TableLoss
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.lost_objects import LostObjects

REFUSAL = Refusal(found=["User: 3 updated"], instead="Save them first", kept="a backup keeps them", details={"lost": 3})
TWO = LostObjects(["view public.report", "index public.by_name"])


@pytest.mark.parametrize(
    ("policy", "rows", "objects"),
    [
        (LossPolicy(), 0, None),
        (LossPolicy(3), 3, None),
        (LossPolicy(3, 2), 3, TWO),
        # It is unknown who made them: they are named, and need no consent.
        (LossPolicy(), 0, LostObjects(TWO.names, unknown=["20250101000000_first"])),
    ],
)
def test_accepted(policy, rows, objects):
    policy.require(rows, REFUSAL, objects)


@pytest.mark.parametrize(
    ("policy", "objects", "message", "found", "expected", "accepting"),
    [
        (LossPolicy(2), None, "3 rows would be lost, more than the accepted 2", "User: 3 updated", "at most 2 rows",
         ["accept_lost_rows=3"]),
        (LossPolicy(2, 2), TWO, "3 rows would be lost, more than the accepted 2", "User: 3 updated",
         "at most 2 rows, 2 objects", ["accept_lost_rows=3"]),
        (LossPolicy(3, 1), TWO, "2 objects that the migrations did not create would be lost, more than the accepted 1",
         "User: 3 updated; view public.report, index public.by_name", "at most 3 rows, 1 objects",
         ["accept_lost_objects=2"]),
        (LossPolicy(), TWO, ("3 rows would be lost, more than the accepted 0 and 2 objects that the migrations did not"
         " create would be lost, more than the accepted 0"),
         "User: 3 updated; view public.report, index public.by_name",
         "at most 0 rows, 0 objects", ["accept_lost_rows=3", "accept_lost_objects=2"]),
    ],
)  # fmt: skip
def test_refused(policy, objects, message, found, expected, accepting):
    with pytest.raises(Refused) as caught:
        policy.require(3, REFUSAL, objects)
    error = caught.value
    assert (error.message, error.found, error.expected) == (message, found, expected)
    assert error.details == {"lost": 3}
    hint = str(error.hint)
    assert hint.startswith("nothing was changed. Save them first, or accept their loss with ")
    assert hint.endswith("; a backup keeps them")
    assert [one for one in ("accept_lost_rows=3", "accept_lost_objects=2") if one in hint] == accepting


def test_what_counts():
    policy = LossPolicy(changes_in=["public.Meter"])
    user, meter = TableLoss("public", "User", updated=1), TableLoss("public", "Meter", updated=1)
    assert policy.counts(user) and not policy.counts(meter)
    user.by_migration = True
    assert not policy.counts(user)
