# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on the effects of pending migrations: what they destroy and lock, and who may use what they create."""

from __future__ import annotations

from typing import Union

from ...base.errors import BackstopError, Refused
from ...postgres import role_rights
from ...postgres.connection import Session
from ...prisma import history
from ...site import Site
from ..foresight import Foresight, describe_locks, foresee, note_foresight
from .inputs import GateInputs


def look_ahead(site: Site, live: Session, question: GateInputs, scratch: str) -> Union[Foresight, str]:
    """Run the pending migrations in a scratch database with the live one's definitions; or the reason why not."""
    foresight: Union[Foresight, str]
    try:
        rows = history.read_rows(live.cursor(), site.connection.schema)
        pending = history.compare(question.files, rows).pending
        files = [file for file in question.files if file.name in pending]
        foresight = foresee(site, scratch, files, question.release_users(), live)
    except BackstopError as error:
        foresight = error.message + (" (%s)" % error.found if error.found else "")
    if site.operation is not None:
        known = None if isinstance(foresight, str) else foresight
        note_foresight(site.operation, question.release_users(), known)
    return foresight


def destruction(_site: Site, _session: Session, question: GateInputs) -> str:
    """For information only, never fails: destroying may be the purpose of a migration."""
    foresight = question.foresight
    if isinstance(foresight, str):
        return "not known before the rehearsal: " + foresight
    if not foresight.migrations:
        return "no migration is pending"
    lines = foresight.destroys or ["drops nothing"]
    return "; ".join([*lines, describe_locks(foresight.locks, foresight.own_transactions, True)])


def application_rights(site: Site, session: Session, question: GateInputs) -> str:
    """The role that creates a table owns it; if that is not the application's role, the application has no access."""
    foresight = question.foresight
    users = question.release_users()
    if not users:
        return "the release's user is not known here: see the gate release_connection"
    owners = sorted({one.owner for user in users for one in role_rights.rights_of(session, user).values()})
    who = "tables belong to %s, migrations run as %s, the release connects as %s" % (
        ", ".join(owners) or "no role yet",
        site.connection.user,
        " and ".join(users),
    )
    if isinstance(foresight, str):
        return "%s; what is new is tried in the rehearsal (%s)" % (who, foresight)
    if foresight.lacking:
        raise Refused(
            "The release's user could not use what the migrations create",
            found="; ".join(["%s would lack %s" % each for each in sorted(foresight.lacking.items())] + [who]),
            hint=foresight.remedy + "; or waive the gate application_rights with a reason",
        )
    return who + (": it may use all that is new" if foresight.migrations else "")
