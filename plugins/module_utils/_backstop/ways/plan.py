# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans: what each rollback would do now, and whether anything is left to do. Reads only."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

from ..base.errors import BackstopError, Refused
from ..loss.lost_objects import LostObjects
from ..migrations.deploy import applied_since, backup_history
from ..migrations.leftovers import Left, leftovers
from ..migrations.replay import missing_objects
from ..postgres import collations, replication, server
from ..postgres.connection import Session
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation
from ..store.steps import IN_PLACE as IN_PLACE_STEP
from ..store.steps import SWAP, as_json
from .asked import AUTO, Asked
from .baseline import ReadFolder, backup_to_revert_to, last_deploy, old_release_proved, release_before
from .choose import ASKED, PLAN, RELEASE, Situation, choose
from .choose import SWAP as RESTORE
from .diagnosis import AMBIGUOUS, APPLICATION_ERRORS, COMPLETE, CORRUPTED_TABLE, FAILED_MIGRATION, NOTHING, judge
from .down_sql import rows_to_take_out
from .facts import Facts, compare_with_backup, gather
from .forecast import costs, losses_of_revert, objects_of_revert
from .in_force import SWAPPED, last_in_place, last_swap, newest
from .report import (
    evidence,
    loss_lines,
    next_step,
    nothing_to_do,
    release_alone_lines,
    report,
    shown_objects,
    undo_lines,
)
from .request import WAYS, is_open, request_of, require_carrying
from .swap import manifest_at_swap
from .table import plan as plan_table
from .table import plan_undo_of
from .undo import UNDO, plan_undo
from .way import Plan


def plan_of(site: Site, asked: Asked, *, runs: bool) -> Dict[str, Any]:
    """What would be done, what that would lose, and the request of the operation for it.

    :param runs: it is done now, so no next command is shown
    """
    if asked.scenario == AUTO:
        return _diagnosis(site, asked, {}, runs=False)
    plan = _chosen(site, asked)
    commit = asked.revision or plan.get("commit") or ""
    require_carrying(asked, plan)
    kind, wanted = request_of(site, asked, plan)
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
        found = plan_table(site, asked.table_request, asked.backup, again=asked.again)
        return {**as_json(found), "needed": found.changed, "only_reports": asked.table_request.only_reports}
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
        foreseen = loss_of_undo(site, plan, asked)
        return {**foreseen, "report": [*undo_lines(plan, commit), *foreseen.get("report", [])]}
    # If only the release changes in a migrated database, that method has its own facts.
    needed = plan["needed"] or plan.get("method") == RELEASE
    return _diagnosis(site, asked, plan, runs) if needed else {}


def _diagnosis(site: Site, asked: Asked, plan: Dict[str, Any], runs: bool) -> Dict[str, Any]:
    facts = gather(
        site,
        folder=asked.folder,
        healthy=asked.healthy,
        backup_id=plan.get("backup") or asked.backup,
    )
    return diagnose(site, asked.scenario, facts, plan, asked, runs=runs)


def plan_revert(site: Site, backup_id: Optional[str]) -> Dict[str, Any]:
    """What a complete revert would do now; reads only.

    ``needed`` is False if the last operation on this database was this revert and it is in force, or if the last deploy
    changed only the release, unless a backup is named.
    """
    former = None if backup_id else release_before(site)
    if former is not None:
        return {"needed": False, "backup": None, "commit": former, "history_differences": []}
    place = backup_to_revert_to(site, backup_id)
    manifest = manifests.load(place)
    with site.connect() as session:
        rows = history.read_rows(session.cursor(), site.connection.schema)
        size = server.database_size(session, site.database)
        oid = server.database_oid(session, site.database)
    differences = history.history_differences(backup_history(place), rows)
    swap = last_swap(site)
    # The journal shows it even after several undos, and after the retired database was pruned.
    built = newest(site, lambda one: one.kind != "undo" and one.result(SWAP).live_oid == oid)
    reverted = built is not None and built.result(SWAP).backup == place.backup_id
    here = last_in_place(site, oid, swap)
    if here is not None:
        reverted = here.result(IN_PLACE_STEP).backup == place.backup_id
    return {
        "needed": not (reverted and not differences),
        "backup": place.backup_id,
        "backup_created": manifest.created,
        "level": manifests.level_of(place),
        "recovery_seconds": manifests.drilled(place).recovery_seconds,
        "commit": manifest.commit,
        "history_differences": differences,
        "disk_needed": size,
        "last_swap": swap.id if swap else None,
    }


def plan_failed_migration(site: Site, backup_id: Optional[str], folder: Optional[ReadFolder] = None) -> Dict[str, Any]:
    """What to do about migrations that are marked as failed, or as applied although nothing of them exists;
    reads only.

    :param folder: reads the migrations of the running release
    """
    with site.connect() as session:
        rows = history.read_rows(session.cursor(), site.connection.schema)
        failed = history.compare([], rows).failed
        place = backup_to_revert_to(site, backup_id) if failed else _last_backup(site, backup_id)
        found = leftovers(site, session, place) if place and (failed or applied_since(place, rows)) else None
        if place is None or found is None or not (failed or _without_trace(site, session, found, folder)):
            return {"needed": False, "failed_migrations": [], "backup": None, "steps": []}
    how = (
        "restore backup %s into a new database and swap: %s" % (place.backup_id, "; ".join(found.reasons[:5]))
        if found.reasons
        else "drop in one transaction: " + (", ".join(shown_objects(found.added)) or "nothing is left of it")
    )
    out = ["take out of the history, so that the next deploy applies them: " + ", ".join(found.applied)]
    steps = ["stop the application", how, *(out if found.applied and not found.reasons else [])]
    steps += ["mark as rolled back: " + ", ".join(failed)] if failed else []
    steps += ["start the application"]
    return {
        "needed": True,
        "failed_migrations": failed,
        "backup": place.backup_id,
        "steps": steps,
        **dataclasses.asdict(found),
    }


def _last_backup(site: Site, backup_id: Optional[str]) -> Optional[BackupPlace]:
    """Like backup_to_revert_to(); None if there is none, because then nothing has failed either."""
    try:
        return backup_to_revert_to(site, backup_id)
    except Refused:
        return None


def _without_trace(site: Site, session: Session, found: Left, folder: Optional[ReadFolder]) -> bool:
    """Whether only the history is ahead of the backup, with migrations that the release does not know or whose objects
    are missing. A known one may have had nothing to do."""
    if not found.applied or found.added or found.reasons or folder is None:
        return False
    files = folder()
    known = {file.name for file in files}
    return not known & set(found.applied) or bool(missing_objects(site, session, files))


def plan_application_errors(site: Site, method: str, backup_id: Optional[str]) -> Dict[str, Any]:
    """How to make the application healthy again after a migration that succeeded; reads only.

    :param method: one of choose.METHODS, or ``auto``
    """
    deploy = last_deploy(site)
    situation = Situation(old_release_works=old_release_proved(deploy))
    chosen = choose(situation, ASKED, None if method == "auto" else method)
    place = backup_to_revert_to(site, backup_id)
    with site.connect() as session:
        applied = rows_to_take_out(session, place)
        rows = history.read_rows(session.cursor(), site.connection.schema)
    facts = {
        "method": chosen,
        "backup": place.backup_id,
        "migrations": [row.migration_name for row in applied],
        "deployed_commit": deploy.request.get("commit") if deploy else None,
        "commit": manifests.load(place).commit,
    }
    if chosen == RELEASE and deploy is not None:
        return {**facts, "needed": False, "commit": deploy.former_commit}
    if chosen == RESTORE:
        return {**facts, "needed": plan_revert(site, place.backup_id)["needed"]}
    return {**facts, "needed": bool(history.history_differences(backup_history(place), rows))}


def diagnose(
    site: Site,
    scenario: str,
    facts: Facts,
    chosen: Optional[Dict[str, Any]] = None,
    asked: Optional[Asked] = None,
    *,
    runs: bool = False,
) -> Dict[str, Any]:
    """The plan for a scenario, or with ``auto`` for the one that the facts indicate, with a report for users.

    :param chosen: the decisions of that scenario's entry point (method, backup, steps)
    :param runs: this scenario runs now, so no next command is shown
    """
    asked, details, verdict = asked or Asked(), chosen or {}, judge(facts)
    wanted = verdict.scenario if scenario == AUTO else scenario
    known = [verdict.why] * bool(verdict.why) + evidence(facts)
    plan, method = Plan(), None
    if wanted not in (NOTHING, AMBIGUOUS):
        method = choose(_situation(wanted, facts, asked), PLAN, details.get("method"))
        plan = WAYS[method].plan(site, facts, _release(wanted, method, facts, asked))
    found = {
        "scenario": wanted,
        "found_scenario": verdict.scenario,
        "candidates": verdict.candidates,
        "evidence": known,
        "steps": (details.get("steps") if wanted == FAILED_MIGRATION else None) or list(plan.steps),
        "next": next_step(wanted, verdict, facts, scenario == AUTO, asked),
        "notes": notes(site, wanted),
        **costs(site, facts, copies=plan.copies, keeps=plan.keeps),
        **_lost(plan),
        **({"method": method} if wanted == APPLICATION_ERRORS else {}),
    }
    return {**found, "report": report(found, plan, asked, runs)}


def _lost(plan: Plan) -> Dict[str, Any]:
    return {"losses": list(map(dataclasses.asdict, plan.losses)), **(plan.objects or LostObjects()).to_json()}


def _situation(scenario: str, facts: Facts, asked: Asked) -> Situation:
    complete = scenario == COMPLETE
    return Situation(
        table=scenario == CORRUPTED_TABLE,
        unfinished=scenario == FAILED_MIGRATION,
        release_alone=complete and facts.release_alone,
        completely=complete,
        in_place=complete and asked.in_place,
        # After a migration that succeeded:
        old_release_works=old_release_proved(facts.deploy),
        only_added=facts.only_added,
    )


def _release(scenario: str, method: str, facts: Facts, asked: Asked) -> str:
    """The release that is to run afterwards, as the end of a sentence."""
    if scenario == COMPLETE and method == RELEASE:
        return asked.revision or str(facts.release_before)
    recorded = facts.manifest.commit if facts.manifest is not None else None
    before = facts.deploy.former_commit if facts.deploy and method == RELEASE else None
    commit = asked.revision or before or recorded or "(not recorded)"
    return commit + (" on the new schema" if method == RELEASE else "")


def notes(site: Site, scenario: str) -> List[str]:
    """Further notes on the server for the user."""
    with site.connect() as session:
        found = [text + "; indexes may be corrupt: " + collations.ADVICE for text in collations.mismatches(session)]
        there = replication.standbys(session)
    if there:
        found.append("standbys: " + ", ".join(map(str, there)))
        if scenario == COMPLETE:
            found.append("after the swap " + replication.SESSIONS_THERE)
    return found


def losses_since(site: Site, manifest: Manifest, place: BackupPlace, asked: Asked) -> Dict[str, Any]:
    """What was written since the live database had the contents of a manifest: ``losses`` and ``report`` as in a plan.

    :param place: the backup of that manifest
    """
    facts = Facts(manifest=manifest)
    with site.connect() as session:
        compare_with_backup(site, session, facts, manifest)
    plan = Plan(losses=losses_of_revert(site, facts), objects=objects_of_revert(site, place, facts))
    lines = ["Loss: " + text for text in loss_lines(plan, asked)]
    lines += ["Note: not known: " + text for text in facts.unavailable]
    return {**_lost(plan), "report": lines}


def loss_of_undo(site: Site, plan: Dict[str, Any], asked: Asked) -> Dict[str, Any]:
    """What an undo would lose now: ``losses`` and ``report`` as in a plan. The undo itself counts exactly.

    :param plan: of plan_undo()
    """
    if not plan["needed"]:
        return {} if plan["table"] else {"losses": [], "report": []}
    undone = Operation.load(site.store, plan["undoes"])
    if plan["table"]:
        found = as_json(plan_undo_of(site, undone, asked.consent.policy, asked.accept_cascade))
        return {key: found.get(key) for key in ("report", "total", "lost_rows", "effects", "differences")}
    backup_id = undone.result(SWAP).backup if plan["method"] == SWAPPED else undone.result(IN_PLACE_STEP).backup
    if not backup_id:
        return _not_known("operation %s has no backup to compare with" % undone.id)
    try:
        place = site.store.find_backup(backup_id)
        manifest = manifest_at_swap(undone, place)
    except BackstopError as error:
        return _not_known(str(error))
    return losses_since(site, manifest, place, asked)


def _not_known(why: str) -> Dict[str, Any]:
    return {"losses": [], "report": ["Note: what was written since is not known: " + why]}


def release_of(site: Site) -> Optional[str]:
    """The release that belongs to the last change of the database, from the journals; None if unknown."""

    def release(operation: Operation) -> Optional[str]:
        return (operation.request if operation.kind == "deploy" else operation.first_facts).get("commit")

    last = newest(site, lambda operation: operation.outcome == "done" and bool(release(operation)))
    return release(last) if last else None
