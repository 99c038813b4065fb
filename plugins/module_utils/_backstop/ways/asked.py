# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's request for a rollback, and its plan, for Ansible and the command. Reads only."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Dict, Optional, Sequence

from ..loss.acceptance import LossPolicy
from ..loss.reapply import Reapply
from ..prisma.history import read_folder
from ..site import Site
from ..store.operation import Operation
from .baseline import ReadFolder
from .choose import DOWN_SQL, RELEASE
from .diagnosis import APPLICATION_ERRORS, CORRUPTED_TABLE, FAILED_MIGRATION
from .facts import gather
from .in_force import newest
from .plan import diagnose, plan_application_errors, plan_failed_migration, plan_revert
from .report import Options, nothing_to_do, release_alone_lines, undo_lines
from .request import is_open, request_of, require_carrying
from .table import TableRestoreRequest, plan_undo_of
from .table import plan as plan_table
from .undo import UNDO, loss_of_undo, plan_undo
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
    def options(self) -> Options:
        return Options(
            self.accept_lost_rows,
            self.accept_lost_objects,
            self.reapply,
            self.reapply_deletes,
            self.backup,
            self.revision,
            None if self.method == "auto" else self.method,
            self.restore_method == "in_place",
        )

    @property
    def consent(self) -> Consent:
        policy = LossPolicy(
            self.accept_lost_rows,
            self.accept_lost_objects,
            self.accept_unreadable,
            reapply=Reapply(self.reapply, self.reapply_deletes),
        )
        # A user who requests down-SQL by name does not want a restore instead.
        return Consent(policy, self.accept_cascade, self.again, self.method != DOWN_SQL)

    @property
    def policy_of_table(self) -> LossPolicy:
        return LossPolicy(self.accept_lost_rows, unreadable=self.accept_unreadable)

    @property
    def table_request(self) -> TableRestoreRequest:
        return TableRestoreRequest(
            str(self.table), self.mode, self.where, self.keys, self.policy_of_table, self.accept_cascade
        )


def plan_of(site: Site, asked: Asked, *, runs: bool) -> Dict[str, Any]:
    """What would be done, what that would lose, and the request of the operation for it.

    :param runs: it is done now, so no next command is shown
    """
    if asked.scenario == AUTO:
        return _diagnosis(site, asked, {}, runs=False)
    plan = _chosen(site, asked)
    commit = asked.revision or plan.get("commit") or ""
    table = {"table": asked.table, "backup": asked.backup, "mode": asked.mode, "where": asked.where}
    in_place = asked.restore_method == "in_place"
    require_carrying(asked.scenario, plan, asked.reapply, in_place)
    kind, wanted = request_of(site, asked.scenario, plan, in_place=in_place, table={**table, "keys": list(asked.keys)})
    return {
        "report": release_alone_lines(commit),
        **plan,
        **_foreseen(site, asked, plan, commit, runs),
        "commit": commit,
        "kind": kind,
        "request": wanted,
        "interrupted": is_open(site, kind, wanted),
        "nothing_to_do": nothing_to_do(asked.scenario, {**plan, **wanted}, commit),
    }


def _chosen(site: Site, asked: Asked) -> Dict[str, Any]:
    """Whether the database must change, by which method and from which backup."""
    if asked.scenario == UNDO:
        return plan_undo(site, asked.undo)
    if asked.scenario == CORRUPTED_TABLE:
        plan = plan_table(site, asked.table_request, asked.backup, again=asked.again)
        return {**plan, "needed": plan["changed"], "only_reports": asked.table_request.only_reports}
    if asked.scenario == FAILED_MIGRATION:
        return {**plan_failed_migration(site, asked.backup, asked.folder), "commit": asked.running}
    if asked.scenario == APPLICATION_ERRORS:
        return plan_application_errors(site, asked.method, asked.backup)
    return plan_revert(site, asked.backup)


def _foreseen(site: Site, asked: Asked, plan: Dict[str, Any], commit: str, runs: bool) -> Dict[str, Any]:
    """The expected loss and cost, also as lines for users."""
    if asked.scenario == CORRUPTED_TABLE:
        return {}
    if asked.scenario == UNDO:
        foreseen = _loss_of_undo(site, asked, plan)
        return {**foreseen, "report": [*undo_lines(plan, commit), *foreseen.get("report", [])]}
    # If only the release changes in a migrated database, that method has its own facts.
    needed = plan["needed"] or plan.get("method") == RELEASE
    return _diagnosis(site, asked, plan, runs) if needed else {}


def _loss_of_undo(site: Site, asked: Asked, plan: Dict[str, Any]) -> Dict[str, Any]:
    if not plan["table"]:
        return loss_of_undo(site, plan, asked.options)
    if not plan["needed"]:
        return {}
    undone = Operation.load(site.store, plan["undoes"])
    found = plan_undo_of(site, undone, asked.policy_of_table, asked.accept_cascade)
    return {key: found[key] for key in ("report", "total", "lost_rows", "effects", "differences")}


def _diagnosis(site: Site, asked: Asked, plan: Dict[str, Any], runs: bool) -> Dict[str, Any]:
    facts = gather(
        site,
        folder=asked.folder,
        healthy=asked.healthy,
        backup_id=plan.get("backup") or asked.backup,
    )
    return diagnose(site, asked.scenario, facts, plan, asked.options, runs=runs)


def release_of(site: Site) -> Optional[str]:
    """The release that belongs to the last change of the database, from the journals; None if unknown."""

    def release(operation: Operation) -> Optional[str]:
        return (operation.request if operation.kind == "deploy" else operation.first_facts).get("commit")

    last = newest(site, lambda operation: operation.outcome == "done" and bool(release(operation)))
    return release(last) if last else None
