# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way back to take. The one place that decides it, by facts alone: nothing is read here.

The diagnosis tells what is wrong; this tells what to do about it. A plan, ``rollback_method=auto`` and a deploy that
goes back by itself ask the same question, and differ only in what they may still find out.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional

from ..base.errors import Refused
from ..base.remedies import Given, Setting, remedy

#: The ways, by which a rollback's request and its journal know them.
LEFTOVERS, RELEASE, DOWN_SQL, SWAP, IN_PLACE, TABLE = "leftovers", "code_only", "drop", "restore", "in_place", "table"
#: What a person may name after a migration that succeeded.
METHODS = (RELEASE, DOWN_SQL, SWAP)

#: Nothing is tried: what would most likely be done is shown.
PLAN = "plan"
#: A person runs it, and is there to accept a loss; down-SQL is proved before it is used.
ASKED = "asked"
#: Nobody is asked: only what is proved already, and nothing may be lost.
AUTOMATIC = "automatic"


@dataclasses.dataclass(frozen=True)
class Situation:
    """What the choice depends on."""

    #: a migration failed, was cut off, or is in the history alone
    unfinished: bool = False
    #: what it left cannot be taken out by itself: it did more than add objects
    needs_restore: bool = False
    #: the rehearsal of the deploy proved the release before it on the new schema
    old_release_works: bool = False
    #: whether SQL is proved to lead back; None while nobody tried
    down_proved: Optional[bool] = None
    #: all that differs from the backup are objects that were added
    only_added: bool = False
    #: the release is all that changed, or has to
    release_alone: bool = False
    #: one table is to be put right
    table: bool = False
    #: no second database may be made, or none is wanted
    in_place: bool = False
    #: all has to go back to the backup, whatever else would do
    completely: bool = False


def choose(situation: Situation, purpose: str, method: Optional[str] = None) -> str:
    """The way back; one of the names above.

    :param purpose: PLAN, ASKED or AUTOMATIC
    :param method: one of METHODS, where a person named it
    :raises Refused: what was named is not possible
    """
    whole = IN_PLACE if situation.in_place else SWAP
    if situation.table:
        return TABLE
    if situation.unfinished:
        return whole if situation.needs_restore else LEFTOVERS
    if method is not None:
        return _named(situation, method, whole)
    if situation.release_alone:
        return RELEASE
    if situation.completely:
        return whole
    if situation.old_release_works:
        return RELEASE
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
    """Whether down-SQL is worth taking: by its proof, else by what this purpose may still do about that."""
    if situation.down_proved is not None:
        return situation.down_proved
    untried: Dict[str, bool] = {PLAN: situation.only_added, ASKED: True, AUTOMATIC: False}
    return untried[purpose]
