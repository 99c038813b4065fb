# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choosing: which backup a complete revert goes to, whether there is anything left to do, what an undo would undo."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from ...base.errors import Refused
from ...postgres import server
from ...prisma import history
from ...store import manifest as manifests
from ...store.layout import BackupPlace
from ...store.operation import Operation, operations
from ..context import Context
from ..migrations.leftovers import leftovers
from ..migrations.migration import MIGRATE, backup_history
from ..reverts.down import DOWN, applied_since, how_to_undo
from ..reverts.in_place import IN_PLACE, last_in_place
from ..reverts.revert import SWAP, last_swap, made_live
from ..tables.table_restore import plan_table_undo


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

    ``needed`` is False when the last operation on this database was this very revert and it is in force.
    """
    place = backup_to_revert_to(context, backup_id)
    manifest = manifests.load(place)
    verified = manifests.verification(place) or {"levels": {}}
    restored = verified["levels"].get("restored", {})
    with context.connect() as session:
        rows = history.read_rows(session.cursor(), context.connection.schema)
        size = server.database_size(session, context.database)
        oid = server.database_oid(session, context.database)
    differences = history.history_differences(backup_history(place), rows)
    # Once its retired database was pruned, only the journal tells.
    swap = last_swap(context) or made_live(context, oid)
    in_force = swap is not None and (swap.done(SWAP) or {}).get("live_oid") == oid
    reverted = in_force and swap is not None and (swap.done(SWAP) or {}).get("backup") == place.backup_id
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
        "steps": [
            "build a database from backup %s beside the live one and compare it with its manifest" % place.backup_id,
            "stop the application",
            "fence writers out, count what would be lost, refuse above the accepted number",
            "give the live name to the new database; the former one is kept",
            "start release %s and check its health" % (manifest.get("release", {}).get("commit") or "(not recorded)"),
        ],
    }


def plan_failed_migration(context: Context, backup_id: Optional[str]) -> Dict[str, Any]:
    """What is to be done about migrations that are marked as failed; reads only."""
    with context.connect() as session:
        rows = history.read_rows(session.cursor(), context.connection.schema)
        failed = history.compare([], rows).failed
        if not failed:
            return {"needed": False, "failed_migrations": [], "backup": None, "steps": []}
        place = backup_to_revert_to(context, backup_id)
        found = leftovers(context, session, manifests.load(place))
    how = (
        "restore backup %s into a new database and swap: %s" % (place.backup_id, "; ".join(found["reasons"][:5]))
        if found["reasons"]
        else "drop in one transaction: " + (", ".join(found["added"]) or "nothing is left of it")
    )
    steps = ["stop the application", how, "mark as rolled back: " + ", ".join(failed), "start the application"]
    return {"needed": True, "failed_migrations": failed, "backup": place.backup_id, "steps": steps, **found}


METHODS = ("code_only", "drop", "restore")
#: Steps of a deploy and of a rollback that the roles note: the old release was tried on the new schema; the release was
#: changed and the database left alone.
OLD_RELEASE = "old_release"
CODE = "code"


def old_release_proved(deploy: Optional[Operation]) -> bool:
    """Whether the rehearsal of a deploy proved the release before it on the new schema."""
    tried = deploy.last(OLD_RELEASE) if deploy else None
    return bool(tried and tried.get("works"))


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


def last_code_change(context: Context) -> Optional[Operation]:
    """The newest rollback or undo that changed the release and left the database alone."""
    found = [
        operation
        for operation in operations(context.store)
        if operation.header.get("database") == context.database
        and operation.kind != "deploy"
        and operation.done(CODE)
        and operation.outcome in (None, "done")
    ]
    return found[-1] if found else None


def _newest(candidates: Sequence[Optional[Operation]]) -> Optional[Operation]:
    found = [operation for operation in candidates if operation is not None]
    return max(found, key=lambda operation: (str(operation.header["began"]), operation.id)) if found else None


def _refuse_drop(operation: Operation) -> None:
    facts = operation.facts(DOWN)
    if facts:
        raise Refused(
            "Operation %s cannot be undone by itself: it took a migration out of the live database" % operation.id,
            hint=" ".join(how_to_undo(facts)),
        )


def plan_undo(context: Context, operation_id: Optional[str]) -> Dict[str, Any]:
    """Which operation an undo would undo; ``needed`` is False when the last change was an undo already.

    ``method`` is ``swap``, ``in_place``, after a rollback of the code alone ``code_only``, or ``table``: then ``table``
    names it.
    """
    named = Operation.load(context.store, operation_id) if operation_id else None
    code, here = last_code_change(context), _in_place_now(context)
    newest = _newest([last_swap(context), code, _last_drop(context), here])
    table = plan_table_undo(context, operation_id, since=None if newest is None else str(newest.header["began"]))
    if table is not None:
        return {**table, "method": "table", "commit": None, "retired": None}
    if here is not None and (named is not None or newest is here):
        in_place = _undo_in_place(context, here, operation_id)
        if in_place is not None:
            return in_place
    last = named or newest
    if last is not None:
        _refuse_drop(last)
        if last.done(CODE):
            return {"table": None, **_undo_of_code(last, code)}
    swap = last
    if swap is None:
        raise Refused(
            "There is nothing to undo",
            found="no retired database of %s, and no restored table" % context.database,
            hint="an undo gives the live name back to the database that a revert retired, or a table what it held",
        )
    needed = swap.kind != "undo"
    if operation_id and needed:
        newest = last_swap(context)
        undone = [
            op
            for op in operations(context.store)
            if op.kind == "undo" and op.header.get("request", {}).get("undoes") == swap.id
        ]
        needed = not any(op.outcome == "done" for op in undone)
        if needed and (newest is None or newest.id != swap.id):
            raise Refused(
                "Only the newest swap can be undone",
                found="operation %s came after %s" % (newest.id if newest else "none", swap.id),
                hint="undo that one first",
            )
    undoes = swap.header.get("request", {}).get("undoes") if swap.kind == "undo" else swap.id
    source = Operation.load(context.store, undoes) if undoes else swap
    return {
        "needed": needed,
        "method": "swap",
        "undoes": undoes,
        "table": None,
        "commit": source.header.get("facts", {}).get("former_commit"),
        "retired": (source.done(SWAP) or {}).get("retired"),
    }


def _last_drop(context: Context) -> Optional[Operation]:
    found = [
        operation
        for operation in operations(context.store)
        if operation.header.get("database") == context.database and operation.facts(DOWN)
    ]
    return found[-1] if found else None


def _undo_of_code(last: Operation, newest: Optional[Operation]) -> Dict[str, Any]:
    if newest is not None and newest.id != last.id and newest.header.get("request", {}).get("undoes") != last.id:
        raise Refused(
            "Only the newest change can be undone", found="operation %s came after %s" % (newest.id, last.id)
        )
    later = [
        operation.id
        for operation in operations(last.store)
        if operation.kind == "deploy"
        and operation.outcome == "done"
        and operation.header.get("database") == last.header.get("database")
        and operation.header["began"] > last.header["began"]
    ]
    if later:
        raise Refused("There is nothing to undo", found="deploy %s came after %s" % (later[-1], last.id))
    undone = newest if newest is not None and newest.kind == "undo" else None
    source = last if undone is None else Operation.load(last.store, undone.header["request"]["undoes"])
    return {
        "needed": False,  # the database stays; whether the release must change is seen on the hosts
        "method": "code_only",
        "undoes": source.id,
        "commit": source.header.get("facts", {}).get("former_commit"),
        "retired": None,
    }


def restored_in_place(context: Context, oid: Optional[int], swap: Optional[Operation]) -> Optional[Operation]:
    """The operation that restored the live database in place; None when a swap came after it."""
    here = last_in_place(context, oid)
    if here is None or swap is None:
        return here
    return here if (str(here.header["began"]), here.id) > (str(swap.header["began"]), swap.id) else None


def _in_place_now(context: Context) -> Optional[Operation]:
    with context.connect() as session:
        oid = server.database_oid(session, context.database)
    return restored_in_place(context, oid, last_swap(context))


def _undo_in_place(context: Context, here: Operation, operation_id: Optional[str]) -> Optional[Dict[str, Any]]:
    """What an undo of a restore in place would undo; None when another operation was meant.

    :param here: the restore that the live database comes from
    """
    if operation_id and here.id != operation_id and here.kind != "undo":
        return None
    undoes = here.header.get("request", {}).get("undoes") if here.kind == "undo" else here.id
    if operation_id and operation_id != undoes:
        return None
    source = Operation.load(context.store, undoes)
    return {
        "needed": here.kind != "undo",
        "undoes": undoes,
        "method": "in_place",
        "table": None,
        "commit": source.header.get("facts", {}).get("former_commit"),
        "retired": None,
    }
