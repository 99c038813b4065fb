# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choosing: which backup a complete revert goes to, whether there is anything left to do, what an undo would undo."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..base.durable_files import read_json
from ..base.errors import Refused
from ..postgres import server
from ..prisma import history
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation, operations
from .context import Context
from .in_place import IN_PLACE, last_in_place
from .leftovers import leftovers
from .migration import MIGRATE
from .revert import SWAP, last_swap, made_live


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
    if backup_id:
        return context.store.find_backup(backup_id)
    deploy = last_deploy(context)
    done = deploy.done("backup") if deploy else None
    if done:
        return context.store.find_backup(done["backup"])
    usable = [place for place in context.store.backups("pre-migration") if _is_of(context, place)]
    if not usable:
        raise Refused(
            "There is no backup to revert to",
            found="no pre-migration backup of %s in %s" % (context.database, context.store.root),
            hint="name one with -e rollback_backup=ID; pg_backup_info lists all",
        )
    return max(usable, key=lambda place: str(manifests.load(place)["created"]))


def _is_of(context: Context, place: BackupPlace) -> bool:
    return bool(manifests.load(place)["database"]["name"] == context.database)


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


def backup_history(place: BackupPlace) -> Optional[List[history.HistoryRow]]:
    rows = read_json(place.file("history.json"), "history of backup " + place.backup_id)
    return None if rows is None else [history.HistoryRow.from_json(row) for row in rows]


def plan_undo(context: Context, operation_id: Optional[str]) -> Dict[str, Any]:
    """Which operation an undo would undo; ``needed`` is False when the last swap was an undo already."""
    in_place = _undo_in_place(context, operation_id)
    if in_place is not None:
        return in_place
    swap = Operation.load(context.store, operation_id) if operation_id else last_swap(context)
    if swap is None:
        raise Refused(
            "There is nothing to undo",
            found="no retired database of %s" % context.database,
            hint="an undo gives the live name back to the database that a revert retired",
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
        "undoes": undoes,
        "method": "swap",
        "commit": source.header.get("facts", {}).get("former_commit"),
        "retired": (source.done(SWAP) or {}).get("retired"),
    }


def restored_in_place(context: Context, oid: Optional[int], swap: Optional[Operation]) -> Optional[Operation]:
    """The operation that restored the live database in place; None when a swap came after it."""
    here = last_in_place(context, oid)
    if here is None or swap is None:
        return here
    return here if (str(here.header["began"]), here.id) > (str(swap.header["began"]), swap.id) else None


def _undo_in_place(context: Context, operation_id: Optional[str]) -> Optional[Dict[str, Any]]:
    """What an undo of a restore in place would undo; None when the last change was a swap."""
    with context.connect() as session:
        oid = server.database_oid(session, context.database)
    here = restored_in_place(context, oid, last_swap(context))
    if here is None or (operation_id and here.id != operation_id and here.kind != "undo"):
        return None
    undoes = here.header.get("request", {}).get("undoes") if here.kind == "undo" else here.id
    if operation_id and operation_id != undoes:
        return None
    source = Operation.load(context.store, undoes)
    return {
        "needed": here.kind != "undo",
        "undoes": undoes,
        "method": "in_place",
        "commit": source.header.get("facts", {}).get("former_commit"),
        "retired": None,
    }
