# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's request for a rollback, or for its plan, from Ansible and the command."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Dict, List, Optional, Sequence

from ..base.remedies import Given, Setting
from ..prisma.history import read_folder
from .baseline import ReadFolder
from .choose import DOWN_SQL
from .diagnosis import APPLICATION_ERRORS, COMPLETE
from .forecast import ForeseenLoss
from .table import TableRestoreRequest
from .way import Consent

#: The scenario that the facts point to.
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The request, by the names of the options."""

    #: AUTO, UNDO or one of the scenarios in diagnosis.py
    scenario: str = AUTO
    backup: Optional[str] = None
    #: id of the operation to undo
    undo: Optional[str] = None
    method: str = "auto"
    revision: Optional[str] = None
    restore_method: str = "swap"
    accept_lost_rows: int = 0
    accept_lost_objects: int = 0
    accept_cascade: bool = False
    accept_unreadable: bool = False
    reapply: str = "off"
    reapply_deletes: bool = False
    table: Optional[str] = None
    mode: str = "replace"
    where: Optional[str] = None
    keys: Sequence[Any] = ()
    again: bool = False
    #: the running release, and whether the application is healthy, if known
    running: Optional[str] = None
    healthy: Optional[bool] = None
    #: the migrations of the running release
    migrations_path: Optional[str] = None

    @property
    def folder(self) -> Optional[ReadFolder]:
        return functools.partial(read_folder, self.migrations_path) if self.migrations_path else None

    @property
    def chosen_method(self) -> Optional[str]:
        return None if self.method == "auto" else self.method

    @property
    def in_place(self) -> bool:
        return self.restore_method == "in_place"

    @property
    def consent(self) -> Consent:
        # A user who requests down-SQL by name does not want a restore instead.
        return Consent.of({**vars(self), "accept_restore": self.method != DOWN_SQL})

    @property
    def table_request(self) -> TableRestoreRequest:
        consent = self.consent
        return TableRestoreRequest(str(self.table), self.mode, self.where, self.keys, consent.policy, consent.cascade)

    def given(self, scenario: str) -> List[Given]:
        """The settings that differ from the defaults."""
        given: Dict[Setting, Any] = {
            Setting.BACKUP: self.backup,
            Setting.RELEASE: self.revision,
            Setting.ACCEPT_LOST_ROWS: self.accept_lost_rows,
            Setting.ACCEPT_LOST_OBJECTS: self.accept_lost_objects,
        }
        if scenario == COMPLETE and self.reapply != "off":
            given.update({Setting.REAPPLY: self.reapply, Setting.REAPPLY_DELETES: self.reapply_deletes})
        if scenario == COMPLETE and self.in_place:
            given[Setting.RESTORE_METHOD] = self.restore_method
        if scenario == APPLICATION_ERRORS:
            given[Setting.METHOD] = self.chosen_method
        return [Given(setting, value) for setting, value in given.items() if value]

    def carried(self, loss: ForeseenLoss) -> int:
        """How many rows of a loss would be carried over to the database that takes over, before that is proved."""
        if self.reapply == "off" or not loss.in_backup:
            return 0
        return loss.inserted + loss.updated + (loss.deleted if self.reapply_deletes else 0)
