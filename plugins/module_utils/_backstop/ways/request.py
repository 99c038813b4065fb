# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The request of a rollback or undo, made from its plan; and the rollback method, made from the request."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

from ..backups.options import BackupOptions
from ..base.errors import Refused
from ..base.remedies import Setting
from ..migrations.deploy import read_state
from ..migrations.safety_copy import safety_copy_of
from ..site import Run, Site
from ..store import manifest as manifests
from ..store.operation import Operation, open_operations
from ..store.steps import BACKUP, DOWN_PROOF, MIGRATE, OLD_RELEASE, REHEARSAL
from .asked import Asked
from .baseline import backup_to_revert_to
from .choose import AUTOMATIC, DOWN_SQL, IN_PLACE, LEFTOVERS, RELEASE, SWAP, TABLE, Situation, choose
from .diagnosis import APPLICATION_ERRORS, COMPLETE, CORRUPTED_TABLE, FAILED_MIGRATION
from .in_force import SWAPPED
from .table import TableRestoreRequest
from .undo import UNDO, change_to_undo
from .way import Programs, Way
from .way_down_sql import TakeOut
from .way_in_place import InPlace
from .way_leftovers import Leftovers
from .way_release import ReleaseOnly
from .way_swap import Swap
from .way_table import Table

#: Every method, by its name.
WAYS: Dict[str, Type[Way]] = {
    LEFTOVERS: Leftovers, RELEASE: ReleaseOnly, DOWN_SQL: TakeOut, SWAP: Swap, IN_PLACE: InPlace, TABLE: Table,
}  # fmt: skip


def request_of(site: Site, asked: Asked, plan: Mapping[str, Any]) -> Tuple[str, Dict[str, Any]]:
    """Kind and request of the operation that executes a plan. Equal requests of a kind are the same operation.

    If the database already has the state after the rollback, and no run that should change it was interrupted, only the
    release changes.
    """
    scenario = asked.scenario
    if scenario == UNDO:
        return "undo", {"undoes": plan["undoes"]}
    wanted: Dict[str, Any] = {"scenario": scenario}
    if scenario == CORRUPTED_TABLE:
        wanted.update(table=asked.table, backup=asked.backup, mode=asked.mode, where=asked.where, keys=list(asked.keys))
    if scenario == APPLICATION_ERRORS:
        wanted["method"] = plan["method"]
    if scenario in (APPLICATION_ERRORS, COMPLETE):
        wanted["backup"] = plan["backup"]
        wanted.update({"method": IN_PLACE} if scenario == COMPLETE and asked.in_place else {})
        if not plan["needed"] and not is_open(site, "rollback", wanted):
            wanted["method"] = RELEASE
    return "rollback", wanted


def require_carrying(asked: Asked, plan: Mapping[str, Any]) -> None:
    """:raises Refused: rows are to be carried over, but no other database takes over"""
    reapply = asked.reapply
    if reapply == "off":
        return
    if asked.scenario == COMPLETE and asked.in_place:
        raise Refused(
            "%s=%s needs %s=swap" % (Setting.REAPPLY, reapply, Setting.RESTORE_METHOD),
            found="in place there is no other database that rows could be carried over to",
            hint="set one of them. Lost rows are written to files, with the command that puts them back."
            " Nothing was changed",
        )
    if asked.scenario == UNDO and plan["method"] != SWAPPED:
        raise Refused(
            "%s=%s is not possible" % (Setting.REAPPLY, reapply),
            found="operation %s swapped no databases, and its undo does not either" % plan["undoes"],
            hint="set it to off. Lost rows are written to files, with the command that puts them back."
            " Nothing was changed",
        )


def is_open(site: Site, kind: str, request: Mapping[str, Any]) -> bool:
    """Whether a run with this request was interrupted."""
    known = open_operations(site.store, site.database)
    return any(one.kind == kind and one.request == request for one in known)


def way_of(run: Run, programs: Programs) -> Way:
    """The method that the operation of this run requests.

    :raises Refused: it requests none
    """
    operation = run.operation
    request = operation.request
    if operation.kind == "deploy":
        return _of_deploy(run, operation, programs)
    if operation.kind == "undo":
        return _reverse(run, str(request["undoes"]), programs)
    facts = operation.first_facts
    if request.get("scenario") == CORRUPTED_TABLE:
        return _of_table(request, facts)
    if request.get("scenario") == FAILED_MIGRATION:
        place = backup_to_revert_to(run, request.get("backup") or facts.get("backup") or None)
        return Leftovers(place, programs)
    return _made(run, request.get("method"), request.get("backup"), facts.get("commit"), programs)


def _made(run: Run, method: Optional[str], backup: Optional[str], commit: Optional[str], programs: Programs) -> Way:
    if method == RELEASE:
        return ReleaseOnly(commit)
    if not backup:
        raise Refused("The operation names no backup to go back to", hint="begin it with the request of the plan")
    place = run.store.find_backup(backup)
    if method == IN_PLACE:
        return InPlace(place)
    return TakeOut(place, programs) if method == DOWN_SQL else Swap(place)


def _of_table(request: Mapping[str, Any], facts: Mapping[str, Any]) -> Way:
    wanted = TableRestoreRequest(
        str(request["table"]),
        request.get("mode") or "replace",
        request.get("where") or None,
        request.get("keys") or (),
    )
    # The plan's choice is kept, even if a newer backup was made since.
    return Table(wanted, backup=request.get("backup") or facts.get("backup") or None)


def _reverse(run: Run, undone_id: str, programs: Programs) -> Way:
    change = change_to_undo(run, Operation.load(run.store, undone_id))
    reverse = WAYS[SWAP if change.method == SWAPPED else change.method].reverse(change, programs)
    if isinstance(reverse, Refused):
        raise reverse
    return reverse


def _of_deploy(run: Run, operation: Operation, programs: Programs) -> Way:
    """The automatic rollback of a failed deploy: the first method that is proved to lose nothing."""
    situation = _after_deploy(run, operation, programs)
    name = choose(situation, AUTOMATIC)
    if name == RELEASE:
        proved = "keeps the new schema, on which the former release was proved in the rehearsal"
        return ReleaseOnly(database="was not changed" if situation.release_alone else proved)
    operation.require([BACKUP], "The database cannot be put back: the deploy made no backup", once=True)
    place = run.store.find_backup(operation.result(BACKUP).backup)
    if name == LEFTOVERS:
        return Leftovers(place, programs, _rehearsed_tables(operation))
    if name == DOWN_SQL:
        # The emergency backup has the format of the deploy's own backup.
        return TakeOut(place, dataclasses.replace(programs, backup=BackupOptions.of(manifests.load(place))))
    return Swap(place, changes_in=_rehearsed_tables(operation) if situation.unfinished else ())


def _after_deploy(run: Run, operation: Operation, programs: Programs) -> Situation:
    if operation.last(MIGRATE) is None:
        return Situation(release_alone=True)
    with run.connect() as session:
        state = read_state(session, programs.prisma(), run.connection.schema)
    proof = operation.recorded(DOWN_PROOF)
    place = run.store.find_backup(operation.result(BACKUP).backup)
    with run.administer() as admin:
        copied = safety_copy_of(run, admin, place) is not None
    return Situation(
        # Not all were applied: one failed, or the run was interrupted before, between or after them.
        unfinished=bool(state.failed or state.pending),
        old_release_works=bool((operation.last(OLD_RELEASE) or {}).get("works")),
        down_proved=bool(proof.proved) if proof else None,
        safety_copy=copied,
    )


def _rehearsed_tables(operation: Operation) -> List[str]:
    """Tables that the rehearsed migration changes. After its failure their differences are its own, because no other
    session could write."""
    rehearsal = operation.facts(REHEARSAL) or {}
    return [name for key in ("added_tables", "changed_rows", "changed_columns") for name in rehearsal.get(key, [])]
