# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans: what each rollback would do now, and whether anything is left to do. Reads only."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..base.errors import Refused
from ..base.remedies import Action, remedy
from ..loss.lost_objects import LostObjects
from ..migrations.deploy import applied_since, backup_history
from ..migrations.leftovers import leftovers
from ..migrations.replay import missing_objects
from ..postgres import collations, replication, server
from ..postgres.connection import Session
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.steps import IN_PLACE, SWAP
from .baseline import ReadFolder, backup_to_revert_to, last_deploy, old_release_proved, release_before
from .choose import ASKED, DOWN_SQL, PLAN, RELEASE, Situation, choose
from .choose import SWAP as RESTORE
from .diagnosis import APPLICATION_ERRORS, COMPLETE, FAILED_MIGRATION, judge
from .facts import Facts, compare_with_backup
from .forecast import costs, losses_of_drop, losses_of_revert, objects_of_revert
from .in_force import last_in_place, last_swap, newest
from .report import DEFAULTS, Options, evidence, next_step, report, shown_objects, steps_of, told_losses


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
        reverted = here.result(IN_PLACE).backup == place.backup_id
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
        "restore backup %s into a new database and swap: %s" % (place.backup_id, "; ".join(found["reasons"][:5]))
        if found["reasons"]
        else "drop in one transaction: " + (", ".join(shown_objects(found["added"])) or "nothing is left of it")
    )
    out = ["take out of the history, so that the next deploy applies them: " + ", ".join(found["applied"])]
    steps = ["stop the application", how, *(out if found["applied"] and not found["reasons"] else [])]
    steps += ["mark as rolled back: " + ", ".join(failed)] if failed else []
    steps += ["start the application"]
    return {"needed": True, "failed_migrations": failed, "backup": place.backup_id, "steps": steps, **found}


def _last_backup(site: Site, backup_id: Optional[str]) -> Optional[BackupPlace]:
    """Like backup_to_revert_to(); None if there is none, because then nothing has failed either."""
    try:
        return backup_to_revert_to(site, backup_id)
    except Refused:
        return None


def _without_trace(site: Site, session: Session, found: Dict[str, List[str]], folder: Optional[ReadFolder]) -> bool:
    """Whether only the history is ahead of the backup, with migrations that the release does not know or whose objects
    are missing. A known one may have had nothing to do."""
    if not found["applied"] or found["added"] or found["reasons"] or folder is None:
        return False
    files = folder()
    known = {file.name for file in files}
    return not known & set(found["applied"]) or bool(missing_objects(site, session, files))


def plan_application_errors(site: Site, method: str, backup_id: Optional[str]) -> Dict[str, Any]:
    """How to make the application healthy again after a migration that succeeded; reads only.

    :param method: one of choose.METHODS, or ``auto``
    """
    deploy = last_deploy(site)
    situation = Situation(old_release_works=old_release_proved(deploy))
    chosen = choose(situation, ASKED, None if method == "auto" else method)
    place = backup_to_revert_to(site, backup_id)
    with site.connect() as session:
        rows = history.read_rows(session.cursor(), site.connection.schema)
    failed = history.compare([], rows).failed
    if failed:
        raise Refused(
            "A migration is marked as failed",
            found=", ".join(failed),
            hint=remedy("run %s, which puts that right", Action.FAILED_MIGRATION),
        )
    facts = {
        "method": chosen,
        "backup": place.backup_id,
        "migrations": [row.migration_name for row in applied_since(place, rows)],
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
    options: Options = DEFAULTS,
    *,
    runs: bool = False,
) -> Dict[str, Any]:
    """The plan for a scenario, or with ``auto`` for the one that the facts indicate, with a report for users.

    :param chosen: the decisions of that scenario's entry point (method, backup, steps)
    :param runs: this scenario runs now, so no next command is shown
    """
    verdict = judge(facts)
    wanted = verdict.scenario if scenario == "auto" else scenario
    details = chosen or {}
    method = details.get("method") or choose(_situation(facts), PLAN)
    found = {
        "scenario": wanted,
        "found_scenario": verdict.scenario,
        "candidates": verdict.candidates,
        "evidence": [verdict.why] * bool(verdict.why) + evidence(facts),
        "steps": (details.get("steps") if wanted == FAILED_MIGRATION else None)
        or steps_of(wanted, method, facts, options),
        "next": next_step(wanted, verdict, facts, scenario == "auto", options),
        "losses": [],
        "objects": None,
        "notes": notes(site, wanted),
        **costs(site, wanted, method, facts),
    }
    if wanted == APPLICATION_ERRORS:
        found["method"] = method
    if wanted == COMPLETE and not facts.release_alone or wanted == APPLICATION_ERRORS and method == RESTORE:
        found["losses"] = losses_of_revert(site, facts)
        found["objects"] = objects_of_revert(site, facts.place, facts)
    elif wanted == APPLICATION_ERRORS and method == DOWN_SQL:
        found["losses"] = losses_of_drop(site, facts)
    elif wanted == FAILED_MIGRATION:
        found["objects"] = objects_of_revert(site, facts.place, facts)
    found["report"] = report(found, options, runs)
    objects = found.pop("objects") or LostObjects()
    return {**found, **objects.to_json()}


def _situation(facts: Facts) -> Situation:
    """The situation after a migration that succeeded, from the facts of a diagnosis."""
    return Situation(old_release_works=old_release_proved(facts.deploy), only_added=facts.only_added)


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


def losses_since(site: Site, manifest: Manifest, place: BackupPlace, options: Options) -> Dict[str, Any]:
    """What was written since the live database had the contents of a manifest: ``losses`` and ``report`` as in a plan.

    :param place: the backup of that manifest
    """
    facts = Facts(manifest=manifest)
    with site.connect() as session:
        compare_with_backup(site, session, facts, manifest)
    losses = losses_of_revert(site, facts)
    objects = objects_of_revert(site, place, facts)
    lines = ["Loss: " + text for text in told_losses(losses, objects, options)]
    lines += ["Note: not known: " + text for text in facts.unavailable]
    return {"losses": losses, **(objects or LostObjects()).to_json(), "report": lines}
