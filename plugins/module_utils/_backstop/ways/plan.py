# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choosing: which backup a complete revert goes to, whether there is anything left to do, what an undo would undo."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence

from ..base.errors import Refused
from ..migrations.deploy import applied_since, backup_history
from ..migrations.leftovers import leftovers
from ..migrations.old_release import OLD_RELEASE
from ..migrations.replay import missing_objects
from ..postgres import server
from ..postgres.connection import Session
from ..prisma import history
from ..site import Context
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation, operations
from ..store.steps import MIGRATE, SWAP
from .in_place import IN_PLACE, last_in_place
from .swap import built_by, last_swap

ReadFolder = Callable[[], List[history.MigrationFile]]


def last_deploy(context: Context) -> Optional[Operation]:
    """The newest deploy of this database that applied migrations."""
    found = [
        operation
        for operation in operations(context.store)
        if operation.kind == "deploy"
        and operation.header.get("database") == context.database
        and operation.last(MIGRATE)
    ]
    return found[-1] if found else None


def backup_to_revert_to(context: Context, backup_id: Optional[str]) -> BackupPlace:
    """The backup that was named, else the last one that was made before the last deploy migrated."""
    deploy = None if backup_id else last_deploy(context)
    done = deploy.done("backup") if deploy else None
    if done:
        backup_id = done["backup"]
    if backup_id:
        place = context.store.find_backup(backup_id)
        manifests.require_whole(manifests.load(place))
        return place
    known = manifests.readable(context.store.backups("pre-migration"))
    usable = [backup for backup in known if _is_of(context, backup.manifest)]
    if not usable:
        raise Refused(
            "There is no backup to revert to",
            found="no pre-migration backup of %s in %s" % (context.database, context.store.root),
            hint="name one with -e rollback_backup=ID; pg_backup_info lists all",
        )
    return max(usable, key=lambda backup: str(backup.manifest["created"])).place


def _is_of(context: Context, manifest: Dict[str, Any]) -> bool:
    return bool(manifest["database"]["name"] == context.database) and manifests.is_whole(manifest)


def plan_revert(context: Context, backup_id: Optional[str]) -> Dict[str, Any]:
    """What a complete revert would do now; reads only.

    ``needed`` is False when the last operation on this database was this very revert and it is in force, and when the
    last deploy changed the release only, unless a backup is named.
    """
    former = None if backup_id else release_before(context)
    if former is not None:
        return {"needed": False, "backup": None, "commit": former, "history_differences": []}
    place = backup_to_revert_to(context, backup_id)
    manifest = manifests.load(place)
    verified = manifests.verification(place) or {"levels": {}}
    restored = verified["levels"].get("restored", {})
    with context.connect() as session:
        rows = history.read_rows(session.cursor(), context.connection.schema)
        size = server.database_size(session, context.database)
        oid = server.database_oid(session, context.database)
    differences = history.history_differences(backup_history(place), rows)
    swap = last_swap(context)
    # The journal tells, also when undos went there and back, and when the retired database was pruned.
    built = built_by(context, oid)
    reverted = built is not None and (built.facts(SWAP) or {}).get("backup") == place.backup_id
    here = restored_in_place(context, oid, swap)
    if here is not None:
        reverted = (here.facts(IN_PLACE) or {}).get("backup") == place.backup_id
    return {
        "needed": not (reverted and not differences),
        "backup": place.backup_id,
        "backup_created": manifest["created"],
        "level": manifests.level_of(place),
        "recovery_seconds": restored.get("recovery_seconds"),
        "commit": manifest.get("release", {}).get("commit"),
        "history_differences": differences,
        "disk_needed": size,
        "last_swap": swap.id if swap else None,
    }


def release_before(context: Context) -> Optional[str]:
    """The release to go back to where the last change was a deploy without a migration, or its revert; else None."""
    done = [
        one
        for one in operations(context.store)
        if one.header.get("database") == context.database and one.outcome == "done"
    ]
    if not done:
        return None
    last = done[-1]
    if last.kind == "deploy" and last.last(MIGRATE) is None:
        return last.header.get("facts", {}).get("former_commit") or None
    request = last.header.get("request") or {}
    if last.kind == "rollback" and request.get("scenario") == "complete" and not request.get("backup"):
        return (last.facts(CODE) or {}).get("commit")
    return None


def plan_failed_migration(
    context: Context, backup_id: Optional[str], folder: Optional[ReadFolder] = None
) -> Dict[str, Any]:
    """What is to be done about migrations that are marked as failed, or as applied though nothing of them is there;
    reads only.

    :param folder: reads the migrations of the release that runs
    """
    with context.connect() as session:
        rows = history.read_rows(session.cursor(), context.connection.schema)
        failed = history.compare([], rows).failed
        place = backup_to_revert_to(context, backup_id) if failed else _last_backup(context, backup_id)
        found = leftovers(context, session, place) if place and (failed or applied_since(place, rows)) else None
        if place is None or found is None or not (failed or _without_trace(context, session, found, folder)):
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


def _last_backup(context: Context, backup_id: Optional[str]) -> Optional[BackupPlace]:
    """As backup_to_revert_to(); None where there is none that fits, for nothing has failed either."""
    try:
        return backup_to_revert_to(context, backup_id)
    except Refused:
        return None


def _without_trace(
    context: Context, session: Session, found: Dict[str, List[str]], folder: Optional[ReadFolder]
) -> bool:
    """Whether the history alone is ahead of the backup, with migrations that the release does not know or whose objects
    are missing. One that is known may have had nothing to do."""
    if not found["applied"] or found["added"] or found["reasons"] or folder is None:
        return False
    files = folder()
    known = {file.name for file in files}
    return not known & set(found["applied"]) or bool(missing_objects(context, session, files))


def shown_objects(keys: Sequence[str]) -> List[str]:
    """Keys of definitions for people: without the columns and constraints of relations that are listed themselves."""
    relations = tuple(key[len("relation ") :] + "." for key in keys if key.startswith("relation "))
    parts = ("column ", "constraint ", "trigger ")
    return [key for key in keys if not (key.startswith(parts) and key.split(" ", 1)[1].startswith(relations))]


METHODS = ("code_only", "drop", "restore")
#: Step of a rollback that its role notes: the release was changed and the database left alone.
CODE = "code"


def old_release_proved(deploy: Optional[Operation]) -> bool:
    """Whether the rehearsal of a deploy proved the release before it on the new schema."""
    return old_release_answer(deploy) == "works on the new schema"


def old_release_answer(deploy: Optional[Operation]) -> str:
    """What the rehearsal of a deploy found out about the release before it, to be said behind its name."""
    tried = (deploy.last(OLD_RELEASE) if deploy else None) or {}
    if tried.get("works"):
        return "works on the new schema"
    reason = ("" if tried.get("tried") else "not tried: ") + tried["reason"] if tried.get("reason") else ""
    return "was not proved on the new schema" + (": " + reason if reason else "")


def plan_application_errors(context: Context, method: str, backup_id: Optional[str]) -> Dict[str, Any]:
    """How the application gets well again after a migration that succeeded; reads only.

    :param method: one of METHODS, or ``auto``: the first of them that loses nothing by what is proved
    """
    deploy = last_deploy(context)
    proved = old_release_proved(deploy)
    if method == "code_only" and not proved:
        raise Refused(
            "The old release was not proved on the new schema, so the code alone cannot go back",
            found="no deploy in %s whose rehearsal tried it with success" % context.store.root,
            hint="use rollback_method=drop or restore",
        )
    place = backup_to_revert_to(context, backup_id)
    with context.connect() as session:
        rows = history.read_rows(session.cursor(), context.connection.schema)
    failed = history.compare([], rows).failed
    if failed:
        raise Refused(
            "A migration is marked as failed",
            found=", ".join(failed),
            hint="run rollback_failed_migration.yml, which puts that right",
        )
    chosen = method if method != "auto" else "code_only" if proved else "drop"
    facts = {
        "method": chosen,
        "backup": place.backup_id,
        "migrations": [row.migration_name for row in applied_since(place, rows)],
        "deployed_commit": deploy.header.get("request", {}).get("commit") if deploy else None,
        "commit": manifests.load(place).get("release", {}).get("commit"),
    }
    if chosen == "code_only" and deploy is not None:
        return {**facts, "needed": False, "commit": deploy.header.get("facts", {}).get("former_commit")}
    if chosen == "restore":
        return {**facts, "needed": plan_revert(context, place.backup_id)["needed"]}
    return {**facts, "needed": bool(history.history_differences(backup_history(place), rows))}


def restored_in_place(context: Context, oid: Optional[int], swap: Optional[Operation]) -> Optional[Operation]:
    """The operation that restored the live database in place; None when a swap came after it."""
    here = last_in_place(context, oid)
    if here is None or swap is None:
        return here
    return here if (str(here.header["began"]), here.id) > (str(swap.header["began"]), swap.id) else None
