# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chooses the rollback method, from facts alone: nothing is read here, and it is decided nowhere else.

The diagnosis says what is wrong; this says what to do about it. A plan, ``rollback_method=auto`` and the automatic
rollback of a deploy all use it, and differ only in what they may still find out.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional

from ..base.errors import Refused
from ..base.remedies import Given, Setting, remedy

#: The methods, by their names in a rollback's request and its journal.
LEFTOVERS, RELEASE, DOWN_SQL, SWAP, IN_PLACE, TABLE = "leftovers", "code_only", "drop", "restore", "in_place", "table"
#: Methods that a user may choose after a migration that succeeded.
METHODS = (RELEASE, DOWN_SQL, SWAP)

#: Nothing is tried: the most likely method is shown.
PLAN = "plan"
#: A user runs it and can accept a loss; down-SQL is proved before it is used.
ASKED = "asked"
#: No user is asked: only what is proved already, and without any loss.
AUTOMATIC = "automatic"


@dataclasses.dataclass(frozen=True)
class Situation:
    """The facts for the choice."""

    #: a migration failed, was interrupted, or is only in the history
    unfinished: bool = False
    #: its leftovers cannot be dropped: it did more than add objects
    needs_restore: bool = False
    #: the deploy's rehearsal proved that the former release works with the new schema
    old_release_works: bool = False
    #: whether the down-SQL is proved; None if not tried
    down_proved: Optional[bool] = None
    #: the database was copied right before the migration, so nothing has to be restored
    safety_copy: bool = False
    #: the only differences from the backup are added objects
    only_added: bool = False
    #: only the release changed, or must change
    release_alone: bool = False
    #: one table is to be restored
    table: bool = False
    #: no second database may be created, or none is wanted
    in_place: bool = False
    #: everything must go back to the backup, even if less would do
    completely: bool = False


def choose(situation: Situation, purpose: str, method: Optional[str] = None) -> str:
    """The rollback method; one of the names above.

    :param purpose: PLAN, ASKED or AUTOMATIC
    :param method: one of METHODS, if a user chose it
    :raises Refused: the chosen method is not possible
    """
    whole = IN_PLACE if situation.in_place else SWAP
    if situation.table:
        return TABLE
    if situation.unfinished:
        return whole if situation.needs_restore or situation.safety_copy else LEFTOVERS
    if method is not None:
        return _named(situation, method, whole)
    if situation.release_alone:
        return RELEASE
    if situation.completely:
        return whole
    if situation.old_release_works:
        return RELEASE
    if situation.safety_copy:
        return whole
    return DOWN_SQL if _can_be_taken_out(situation, purpose) else whole


def _named(situation: Situation, method: str, whole: str) -> str:
    if method == RELEASE and not situation.old_release_works:
        raise Refused(
            "The old release was not proved on the new schema, so the code alone cannot go back",
            found="no deploy whose rehearsal tried it with success",
            hint=remedy("use %s, or restore", Given(Setting.METHOD, "drop")),
        )
    return whole if method == SWAP else method


def _can_be_taken_out(situation: Situation, purpose: str) -> bool:
    """Whether to use down-SQL: by its proof; without one, by what this purpose allows."""
    if situation.down_proved is not None:
        return situation.down_proved
    untried: Dict[str, bool] = {PLAN: situation.only_added, ASKED: True, AUTOMATIC: False}
    return untried[purpose]
