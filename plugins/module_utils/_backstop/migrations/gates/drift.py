# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate on drift: whether the live schema equals the result of the applied migrations."""

from __future__ import annotations

from typing import Sequence

from ...base.errors import BackstopError, Refused
from ...base.remedies import Action, remedy
from ...postgres.connection import Session
from ...prisma import history
from ...site import Site
from ..replay import compare, missing_since_backup
from .inputs import GateInputs

_HINT = (
    "put what is in the database only into a migration and mark it as applied, or take it back; or waive the gate drift"
    " with a reason"
)


def drift(site: Site, session: Session, question: GateInputs) -> str:
    """Reports drift; fails only if that was requested, or if an object of an applied migration is missing."""
    try:
        differences, gone = compare(site, session, question.files)
    except BackstopError as error:
        _refuse_missing(missing_since_backup(site, session, question.files))
        if question.refuse_drift:
            raise
        return "not compared: " + error.message
    _refuse_missing(gone)
    if differences and question.refuse_drift:
        raise Refused("The live schema is not the one of its migrations", found="; ".join(differences[:10]), hint=_HINT)
    more = "; and %d more" % (len(differences) - 10) if len(differences) > 10 else ""
    return "; ".join(differences[:10]) + more if differences else "the live schema is that of the migrations in force"


def _refuse_missing(gone: Sequence[str]) -> None:
    if gone:
        raise Refused(
            "The history lists migrations as applied, but what they created is missing",
            found=", ".join(gone),
            hint=remedy(
                "run %s, which shows the way back; or take the migration out of %s, so that the next deploy applies it"
                " again",
                Action.PLAN,
                history.TABLE,
            ),
        )
