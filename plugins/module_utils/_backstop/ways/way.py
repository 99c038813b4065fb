# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way back is: it is planned, prepared while the application runs, applied behind the fence, found in force
after a kill, and undone. One file for each way, ``way_*.py``; request.py makes one of an operation's request, and
rollback.py carries it out.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Sequence, Union

from ..backups.options import BackupOptions
from ..base.errors import Refused
from ..loss.acceptance import LossPolicy
from ..loss.reapply import Reapply
from ..prisma.cli import Prisma
from ..site import Run
from ..store.operation import Operation
from .swap import undoes

#: How an operation stands, as it is found after a failure.
IN_FORCE, HALF_DONE, AS_BEFORE = "in_force", "half_done", "as_before"


@dataclasses.dataclass(frozen=True)
class Consent:
    """What the user accepts; without it a rollback that would do this is refused, and nothing is changed."""

    policy: LossPolicy = LossPolicy()
    #: foreign keys may delete or change rows of other tables
    cascade: bool = False
    #: what an earlier operation did already is done once more
    again: bool = False
    #: a restore in place of down-SQL that is not proved
    restore: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Consent":
        """By the names that options have."""
        policy = LossPolicy(
            given["accept_lost_rows"],
            given["accept_lost_objects"],
            given["accept_unreadable"],
            reapply=Reapply(given["reapply"], given["reapply_deletes"]),
        )
        return cls(policy, given["accept_cascade"], given["again"], given["accept_restore"])


def _no_prisma() -> Prisma:
    raise Refused("The release's project is needed for this way back", hint="give the directory of the release")


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a way back needs of the releases, and what was given for it."""

    #: makes the Prisma of the release whose migrations are in the database
    prisma: Callable[[], Prisma] = _no_prisma
    #: directory of the release from before them
    old_project: Optional[str] = None
    #: SQL that leads back, or the file with it
    down_sql: Optional[str] = None
    down_sql_file: Optional[str] = None
    #: the form of a backup of the database as it is
    backup: BackupOptions = dataclasses.field(default_factory=BackupOptions)
    #: seconds for sessions to end by themselves
    wait: float = 30
    #: back up the retired database that an undo brings back, so that the undo can be undone
    keep_retired: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any], prisma: Callable[[], Prisma]) -> "Programs":
        """By the names that options have."""
        return cls(
            prisma if given["project"] else _no_prisma,
            given["old_project"],
            given["down_sql"],
            given["down_sql_file"],
            BackupOptions(**given["dump"]),
            given["wait"],
            given["keep_retired"],
        )


@dataclasses.dataclass(frozen=True)
class Ready:
    """All is built and proved that can be while the application runs; and what would be lost now was accepted."""

    changed: bool
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: short lines for people
    story: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class TakeInstead:
    """Another way has to be taken, and why; nothing in the live database was changed."""

    way: "Way"
    why: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The database is what the way wants it to be, or, half done, on the way there."""

    changed: bool
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: short lines for people
    story: Sequence[str] = ()
    #: how the database stands now, as the end of a sentence
    database: str = "was not changed"
    #: IN_FORCE or HALF_DONE
    state: str = IN_FORCE


@dataclasses.dataclass(frozen=True)
class Settled:
    """How an operation stands after a run of it failed."""

    state: str = AS_BEFORE
    #: name of the way that is in force or half done
    way: Optional[str] = None
    changed: bool = False


@dataclasses.dataclass(frozen=True)
class Change:
    """An operation whose change is in force, and the name of the way by which it changed."""

    operation: Operation
    method: str

    @property
    def id(self) -> str:
        return self.operation.id

    @property
    def undoes(self) -> Optional[str]:
        """The operation that it undid; None when it is no undo."""
        return undoes(self.operation)

    @property
    def what(self) -> str:
        return "%s, %s" % ("undo of %s" % self.undoes if self.undoes else self.operation.kind, self.method)

    def __str__(self) -> str:
        return "%s (%s)" % (self.id, self.what)


#: Why a change cannot be undone by itself, and what to do.
Refusal = Refused


class Way(Protocol):
    """A way back, made of what an operation asks for."""

    #: one of the names in choose.py
    name: str
    stops_application: bool

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        """Build and prove while the application runs, and refuse a loss that is not accepted before anything stops."""

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        """Change the database, nobody else being at work in it. A second time it finds that it is done."""

    def settle(self, run: Run) -> Optional[Outcome]:
        """What the server says of a run that was killed; the journal is made to say it. None: nothing was changed."""

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union["Way", Refusal]:
        """Its undo."""


def facts_without_own(facts: Mapping[str, Any]) -> Dict[str, Any]:
    """The facts of a result, without what only says whether it was done now."""
    return {key: value for key, value in facts.items() if key != "changed"}
