# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on the environment: other operations, the application's health, standbys."""

from __future__ import annotations

from collections import Counter
from typing import Any, List, Mapping

from ...base.errors import CouldNotVerify, Refused
from ...base.remedies import Action, Given, Setting, Start, remedy
from ...postgres import collations as collation_versions
from ...postgres import replication, server
from ...postgres.connection import Session
from ...prisma import history
from ...site import Site, lock_holder
from ...store.lifecycle import is_alive, to_continue
from ...store.operation import Operation, open_operations
from ...store.steps import STOP
from .inputs import GateInputs


def other_operations(site: Site, session: Session, _question: GateInputs) -> str:
    """An interrupted deploy of the same database does not count: it is continued or closed."""
    others = _open_operations(site)
    for operation in others:
        alive = is_alive(operation.header.get("controller") or {})
        if alive is False and operation.kind == "deploy":
            continue
        how = {True: "is running", None: "may be running", False: "was interrupted"}[alive]
        raise Refused(
            "Another operation of this database is open",
            found="the %s %s %s" % (operation.kind, operation.id, how),
            hint=remedy("%s", to_continue(operation)) if alive is False else "wait for it to end",
        )
    holder = lock_holder(session, site.database)
    if holder:
        raise Refused(
            "Another operation is changing this database", found=holder, hint="wait for it to end, then run this again"
        )
    return "none" if not others else "none but the interrupted deploy " + ", ".join(one.id for one in others)


def _open_operations(site: Site) -> List[Operation]:
    """Open operations of this database, except our own."""
    own = site.operation.id if site.operation else None
    return [operation for operation in open_operations(site.store, site.database) if operation.id != own]


def application(site: Site, session: Session, question: GateInputs) -> str:
    """Checked before a migration, to know later whether it caused a problem. A deploy without one may be the fix."""
    if question.applications is None:
        raise CouldNotVerify(
            "The health of the application was not checked",
            hint="give the state of every application host, or waive the gate with a reason",
        )
    if not history.compare(question.files, history.read_rows(session.cursor(), site.connection.schema)).pending:
        return "no migration is pending: the deploy may fix it"
    ours = ([site.operation] if site.operation else []) + _open_operations(site)
    if any(operation.last(STOP) for operation in ours if operation.kind == "deploy"):
        return "it was stopped by this deploy"
    elsewhere = [
        "%s runs in %s" % (host, ", ".join(state["elsewhere"]))
        for host, state in sorted(question.applications.items())
        if state.get("elsewhere")
    ]
    if elsewhere:
        raise Refused(
            "The running application is not a release, so a failed deploy could not bring it back",
            found="; ".join(elsewhere),
            hint=remedy(
                "deploy the revision that runs now first (%s): with it no migration is pending, it only becomes a"
                " release. Then run this again. Or waive the gate application with a reason",
                Start(Action.DEPLOY, (Given(Setting.REVISION_TO_DEPLOY, "REVISION"),)),
            ),
        )
    sick = [
        "%s %s" % (host, _sick(state))
        for host, state in sorted(question.applications.items())
        if state.get("commit") and not (state.get("running") and state.get("healthy"))
    ]
    if sick:
        raise Refused(
            "The application is not healthy before the deploy",
            found="; ".join(sick),
            hint="fix it first, or waive the gate application with a reason: today's errors must not be mistaken for"
            " an effect of the migration",
        )
    installed = [host for host, state in sorted(question.applications.items()) if state.get("commit")]
    return "healthy on " + ", ".join(installed) if installed else "no release runs yet"


def _sick(state: Mapping[str, Any]) -> str:
    if not state.get("running"):
        return "does not run"
    return "runs but is not healthy" + (" (%s)" % state["health"] if state.get("health") else "")


def other_programs(site: Site, session: Session, question: GateInputs) -> str:
    """For information only: applications that a deploy does not restart keep their release.

    A session that is in the database when the application has stopped is ended, or waited for.
    """
    programs = [
        "%s: %s" % (host, name)
        for host, state in sorted((question.applications or {}).items())
        for name in state.get("others") or []
    ]
    sessions = Counter(
        "%s%s from %s" % (other.user, " (%s)" % other.application if other.application else "", other.address)
        for other in server.other_sessions(session, site.database)
        if not other.application.startswith("backstop")
    )
    lines = ["not restarted by a deploy: " + ", ".join(programs)] if programs else []
    if sessions:
        lines.append("in the database now: " + ", ".join("%s: %d" % pair for pair in sorted(sessions.items())))
    return "; ".join(lines) or "none"


def standbys(site: Site, _session: Session, _question: GateInputs) -> str:
    """For information: a standby replays all of this, and its sessions survive a swap. Fails where a COMMIT would wait
    for an unreachable standby."""
    with site.administer() as admin:
        replication.require_confirming(admin)
        found = [str(standby) for standby in replication.standbys(admin)]
        unused = ["unused slot " + name for name in replication.unused_slots(admin)]
    after = ["after a rollback by swap " + replication.SESSIONS_THERE] if found else []
    return "; ".join([*found, *unused, *after]) or "none"


def collations(_site: Site, session: Session, _question: GateInputs) -> str:
    """For information only: the drill proves that a backup can be restored with today's versions."""
    found = collation_versions.mismatches(session)
    if not found:
        return "of the versions that the system has"
    return "%s; indexes may be corrupt: %s" % ("; ".join(found), collation_versions.ADVICE)
