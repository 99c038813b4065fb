# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gates of a deploy say: a compact table, and in check mode what the deploy would do."""

from __future__ import annotations

import dataclasses
from typing import List, Mapping, Sequence

from ...base.errors import Refused
from ...base.remedies import Action
from ...base.short_lines import packed
from .evaluation import Gate
from .safety_copy import NOT_REQUESTED

#: Gates whose findings differ from deploy to deploy; of the others, only that they are open.
TELLING = (
    "migrations",
    "destruction",
    "drift",
    "application",
    "other_programs",
    "store",
    "database_disk",
    "safety_copy",
)


def table(gates: Sequence[Gate]) -> List[str]:
    """Every gate: closed and waived ones first, then open ones that tell something, then the names of the rest."""
    closed = [(gate.name, gate.found) for gate in gates if not gate.passed]
    waived = [(gate.name, "%s; found: %s" % (gate.waived, gate.found)) for gate in gates if gate.waived is not None]
    by_name = {gate.name: gate for gate in gates if gate.holds}
    named = [name for name in TELLING if name in by_name and by_name[name].found != NOT_REQUESTED]
    telling = [(name, by_name.pop(name).found) for name in named]
    shown = (
        [("CLOSED", row) for row in closed] + [("waived", row) for row in waived] + [("open", row) for row in telling]
    )
    width = max((len(name) for _state, (name, _found) in shown), default=0)
    lines = ["%-6s  %s  %s" % (state, name.ljust(width), found) for state, (name, found) in shown]
    return lines + (packed("open   ", by_name, indent=" " * 8) if by_name else [])


def sentences(gates: Sequence[Gate]) -> List[str]:
    """What was found, expected and what to do, for each closed gate."""
    return [
        str(Refused("%s: %s" % (gate.name, gate.found), expected=gate.expected, hint=gate.hint))
        for gate in gates
        if not gate.passed
    ]


def refusal(gates: Sequence[Gate]) -> str:
    """Empty if no gate is closed."""
    closed = sentences(gates)
    verb = "gate is" if len(closed) == 1 else "gates are"
    return " ".join(["%d of %d %s closed." % (len(closed), len(gates), verb), *closed]) if closed else ""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a deploy would do besides what its gates found."""

    commit: str
    #: the release that runs; empty where there is none
    former: str
    pending: Sequence[str]
    hosts: Sequence[str]
    #: the operator is asked before anything is stopped
    confirm: bool


def would_do(gates: Sequence[Gate], rollback: str, forecast: Mapping[str, str], wanted: Wanted) -> List[str]:
    """The plan of a deploy. Its gates are open or waived."""
    found = {gate.name: gate.found for gate in gates}
    waived = ["%s: %s" % (gate.name, gate.waived) for gate in gates if gate.waived is not None]
    stop = "would ask first, then stop" if wanted.confirm else "would stop"
    return [
        "would prepare release %s" % wanted.commit,
        "beside %s" % (wanted.former or "none"),
        "would back up %s," % found["connection"].split(",")[0],
        "restore the backup into a scratch database and compare it",
        *packed("would rehearse and then apply:", wanted.pending or ["no migration"]),
        *packed("what that does:", found["destruction"].split("; "), "; "),
        *packed("%s, migrate, start and check the application on:" % stop, wanted.hosts),
        "other programs: %s" % found["other_programs"],
        "disk: the store has %s" % found["store"],
        "the database server has %s" % found["database_disk"],
        "size: %s" % forecast["size"],
        *packed("times:", forecast["times"].split("; "), "; "),
        "schema: %s" % found["drift"],
        *(packed("gates waived:", waived, "; ") if waived else []),
        "a complete rollback would be: %s" % rollback,
        "when it fails it goes back by itself",
        "to go back later: %s" % Action.COMPLETE,
    ]
