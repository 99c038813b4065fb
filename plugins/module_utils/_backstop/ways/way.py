# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The common interface of rollback methods: planned, prepared while the application runs, applied behind the fence,
recognised after a kill, and undone. One file for each, ``way_*.py``; request.py creates one from an operation's
request, and rollback.py executes it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Sequence, Union

from ..backups.options import BackupOptions
from ..base.errors import Refused
from ..loss.acceptance import LossPolicy
from ..loss.lost_objects import LostObjects
from ..loss.reapply import Reapply
from ..migrations.leftovers import Cleaned
from ..prisma.cli import Prisma
from ..site import Run, Site
from ..store.steps import Done, Lost, as_json
from .facts import Facts
from .forecast import ForeseenLoss
from .in_force import Change

#: The state of an operation after a failure.
IN_FORCE, HALF_DONE, AS_BEFORE = "in_force", "half_done", "as_before"


@dataclasses.dataclass(frozen=True)
class Consent:
    """What the user accepts; a rollback that would do more is refused, and nothing is changed."""

    policy: LossPolicy = LossPolicy()
    #: foreign keys may delete or change rows of other tables
    cascade: bool = False
    #: repeat what an earlier operation did already
    again: bool = False
    #: a restore instead of down-SQL that is not proved
    restore: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Consent":
        """From the options, by their names."""
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
    """What a rollback needs of the releases, and the user's settings for it."""

    #: creates the Prisma CLI of the release whose migrations are in the database
    prisma: Callable[[], Prisma] = _no_prisma
    #: directory of the release before them
    old_project: Optional[str] = None
    #: down-SQL, or its file
    down_sql: Optional[str] = None
    down_sql_file: Optional[str] = None
    #: the format of a backup of the current database
    backup: BackupOptions = dataclasses.field(default_factory=BackupOptions)
    #: how long to wait for sessions to end by themselves, in seconds
    wait: float = 30
    #: back up the retired database before an undo makes it live again, so that the undo can be undone
    keep_retired: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any], prisma: Callable[[], Prisma]) -> "Programs":
        """From the options, by their names."""
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
    """Everything possible was built and proved while the application runs; the current loss was accepted."""

    changed: bool
    #: what would be lost now
    facts: Done = Done()


@dataclasses.dataclass(frozen=True)
class TakeInstead:
    """Another method must be used, and why; nothing in the live database was changed."""

    way: "Way"
    why: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The method changed the database completely or, if half done, in part."""

    changed: bool
    facts: Union[Done, Cleaned] = Done()
    #: short lines for users
    story: Sequence[str] = ()
    #: the state of the database, as the end of a sentence
    database: str = "was not changed"
    #: IN_FORCE or HALF_DONE
    state: str = IN_FORCE

    @classmethod
    def of(cls, found: Union[Done, Cleaned], story: Sequence[str], database: str) -> "Outcome":
        """From the facts of a step, and whether it was done now."""
        return cls(bool(found.changed), found, story, database)

    @property
    def losses(self) -> Sequence[Any]:
        """The lost rows, by table."""
        return self.facts.losses if isinstance(self.facts, Lost) else ()

    def to_json(self) -> Dict[str, Any]:
        return {**as_json(self.facts), "changed": self.changed, "database": self.database}


@dataclasses.dataclass(frozen=True)
class Settled:
    """The state of an operation after a failed run."""

    state: str = AS_BEFORE
    #: name of the method that is in force or half done
    way: Optional[str] = None
    changed: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a method would do, lose and cost. The rollback itself counts its loss exactly, behind the fence."""

    steps: Sequence[str] = ()
    losses: Sequence[ForeseenLoss] = ()
    #: what is lost besides rows; None if unknown
    objects: Optional[LostObjects] = None
    #: a database is restored from the backup
    copies: bool = False
    #: an emergency backup is made
    keeps: bool = False


def then_start(release: str) -> str:
    """The last step of most methods."""
    return "start release %s and check its health" % release


Prepared = Union[Ready, TakeInstead]
Applied = Union[Outcome, TakeInstead]


class Way(Protocol):
    """A rollback method with the parameters of an operation."""

    #: one of the names in choose.py
    name: str
    stops_application: bool

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        """What it would do now; reads only.

        :param release: the one that is to run afterwards
        """

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        """Build and prove while the application runs; refuse a loss that is not accepted before anything stops."""

    def apply(self, run: Run, consent: Consent) -> Applied:
        """Change the database while no other session works in it. A second call finds that it is done."""

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        """What the operation did by this method, by the server's state, after its process has ended; completes the
        journal. None: nothing was changed."""

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union["Way", Refused]:
        """Its undo; or why a change cannot be undone automatically, and what to do."""
