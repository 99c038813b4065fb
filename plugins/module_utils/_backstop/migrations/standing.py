# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a deploy came, from its journal: what its roles decide by and show, so that they need not parse steps."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence

from ..base.short_lines import packed
from ..store import manifest as manifests
from ..store.layout import Store
from ..store.operation import Operation, operations
from ..store.steps import (
    BACKUP,
    FENCE,
    GATES,
    MIGRATE,
    PROOFS,
    REHEARSAL,
    STARTED,
    STOP,
)

#: States of the application with regard to this operation.
UNTOUCHED, STOPPED, SERVING = "untouched", "stopped", "serving"


@dataclasses.dataclass(frozen=True)
class DeployStanding:
    """How far a deploy came."""

    #: one of the states above
    application: str
    #: whether there were migrations to apply when it began
    migrates: bool
    #: its backup was restored and its migrations rehearsed
    proved: bool
    #: it began to migrate, so the database may have changed
    migration_began: bool
    #: all migrations were applied, according to the journal
    migrated: bool
    #: the exact backup, once the fence is done
    backup: Optional[str]
    #: tables that the migrations create, as a user types them
    new_tables: List[str]
    #: their effects on the copy, in a sentence
    rehearsed: str
    applied: List[str]
    ended_sessions: List[str]
    #: gates that were waived, with the reason
    waived: Dict[str, str]
    #: how a complete rollback would be done, according to the gates
    rollback: str

    @property
    def story(self) -> List[str]:
        """Summary of a finished deploy, for users."""
        waived = "; ".join("%s: %s" % gate for gate in sorted(self.waived.items())) or "none"
        lines = ["Migrations applied: %s." % (", ".join(self.applied) or "none")]
        if self.rehearsed:
            lines += packed("What they did, as rehearsed:", (self.rehearsed + ".").split("; "), "; ")
        lines.append("Gates waived: %s. A complete rollback would be: %s." % (waived, self.rollback or "not known"))
        if self.ended_sessions:
            lines += packed("Sessions that were ended:", ("; ".join(self.ended_sessions) + ".").split("; "), "; ")
        return lines


def standing_of(deploy: Operation) -> DeployStanding:
    """How far a deploy came."""
    done = {entry["step"]: entry for entry in deploy.journal() if entry["event"] == "done"}
    rehearsal, gates = done.get(REHEARSAL, {}), done.get(GATES, {})
    windows = [entry["step"] for entry in deploy.journal() if entry["step"] in (STOP, STARTED)]
    return DeployStanding(
        application={STOP: STOPPED, STARTED: SERVING}[windows[-1]] if windows else UNTOUCHED,
        migrates=bool((deploy.header.get("facts") or {}).get("pending")),
        proved=REHEARSAL in done,
        migration_began=any(entry["step"] == MIGRATE and entry["event"] == "began" for entry in deploy.journal()),
        migrated=MIGRATE in done,
        backup=done.get(BACKUP, {}).get("backup"),
        new_tables=rehearsal.get("new_tables", []),
        rehearsed=rehearsal.get("summary", ""),
        applied=done.get(MIGRATE, {}).get("applied", []),
        ended_sessions=done.get(FENCE, {}).get("ended_sessions", []),
        waived=gates.get("waived", {}),
        rollback=gates.get("rollback", ""),
    )


def require_before(deploy: Operation, state: str) -> None:
    """Check what must be done before a deploy stops the application, starts the new release, or ends as done.

    :raises Refused: a step was skipped; nothing was changed
    """
    migrates = standing_of(deploy).migrates
    needed: Dict[str, Sequence[str]] = {
        STOP: PROOFS["deploy"] if migrates else (GATES,),
        STARTED: (STOP, MIGRATE) if migrates else (STOP,),
        "done": (STARTED,),
    }
    deploy.require(list(needed[state]), "This was not done: an earlier step was left out", once=True)


def forecast(store: Store) -> Dict[str, str]:
    """Estimates for the next deploy: size of the newest backup, durations of the last drill, rehearsal and downtime."""
    known = sorted(manifests.readable(store.backups()), key=lambda one: str(one.manifest.created))
    drills = [levels["restored"] for levels in map(_levels, known) if "recovery_seconds" in levels.get("restored", {})]
    done = operations(store)
    rehearsals = [found["seconds"] for found in (one.facts(REHEARSAL) for one in done) if found]
    finished = [one for one in done if one.kind == "deploy" and one.outcome == "done" and one.last(STOP)]
    size = "there is no backup yet"
    if known:
        manifest = known[-1].manifest
        size = "the newest backup has %.1f MB, %d rows" % (manifest.archive.size / 1e6, manifest.rows)
    times = [
        "the newest drill restored in %s s" % drills[-1]["recovery_seconds"] if drills else "no drill was measured yet",
        "the newest rehearsal ran %s s" % rehearsals[-1] if rehearsals else "no rehearsal was measured yet",
        "the last deploy stopped the application for %s s" % finished[-1].downtime()
        if finished
        else "no downtime was measured yet",
    ]
    return {"size": size, "times": "; ".join(times)}


def _levels(backup: manifests.Readable) -> Dict[str, Any]:
    return dict((manifests.verification(backup.place) or {}).get("levels", {}))
