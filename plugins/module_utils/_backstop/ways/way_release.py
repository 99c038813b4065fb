# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback of the release alone, without the database. The hosts show whether it changed."""

from __future__ import annotations

import dataclasses
from typing import Optional, Union

from ..base.errors import Refused
from ..site import Run, Site
from ..store.steps import CODE, Done
from .choose import RELEASE
from .facts import Facts
from .in_force import Change
from .way import Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, Way, then_start


@dataclasses.dataclass(frozen=True)
class ReleaseOnly:
    """The former release on the current schema."""

    #: the release that is to run; None if its step is not recorded, as in a deploy
    commit: Optional[str] = None
    #: the state of the database
    database: str = "was not changed"

    name = RELEASE
    stops_application = True

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        return Plan(["stop the application", then_start(release)])

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        return Ready(False)

    def apply(self, run: Run, consent: Consent) -> Applied:
        if self.commit is not None:
            run.operation.write(CODE, "done", commit=self.commit)
        return Outcome(self.commit is not None, Done(), ["Nothing in the database was changed."], self.database)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        return None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return ReleaseOnly(change.operation.former_commit)
