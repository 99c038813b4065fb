# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Earlier restores of tables, from the journals: whether one is done already, and which one an undo reverts."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..base.errors import Refused
from ..base.remedies import Given, Setting, remedy
from ..postgres import server
from ..postgres.connection import Session
from ..site import Site
from ..store.operation import Operation, operations_of
from ..store.steps import RESTORE_TABLE, TableRestored


def table_operations(site: Site) -> List[Operation]:
    """Operations that changed a table of this database, oldest first."""
    return [
        operation for operation in operations_of(site.store, site.database) if operation.result(RESTORE_TABLE).changed
    ]


def restored_before(site: Site, session: Session, wanted: TableRestored) -> Optional[Operation]:
    """The operation that did exactly the same to this table, if the table was not restored again since, nor the restore
    undone."""
    found = [
        operation
        for operation in table_operations(site)
        if operation.result(RESTORE_TABLE).table == wanted.table
        and (site.operation is None or operation.id != site.operation.id)
    ]
    if not found or found[-1].kind == "undo":
        return None
    done = found[-1].result(RESTORE_TABLE)
    same = all(getattr(done, key) == getattr(wanted, key) for key in ("backup", "mode", "where", "keys"))
    here = done.database_oid == server.database_oid(session, site.database)
    return found[-1] if same and here else None


def undoable_table_operations(site: Site) -> List[Operation]:
    """The newest restore of each table of the live database, if a backup of the table before was made."""
    with site.connect() as session:
        oid = server.database_oid(session, site.database)
    newest = {operation.result(RESTORE_TABLE).table: operation for operation in table_operations(site)}
    return [
        operation
        for operation in newest.values()
        if operation.result(RESTORE_TABLE).database_oid == oid and operation.result(RESTORE_TABLE).emergency
    ]


def plan_table_undo(site: Site, operation_id: Optional[str], since: Optional[str] = None) -> Optional[Dict[str, Any]]:
    """The restore of a table that an undo would revert; None if it would revert another change.

    :param operation_id: default is the newest, unless that is an undo; of each table only the newest can be undone
    :param since: without an id, only operations that began after this time count
    """
    done = table_operations(site)
    if operation_id:
        found = [operation for operation in done if operation.id == operation_id]
    else:
        found = [operation for operation in done[-1:] if since is None or operation.began > since]
    if not found:
        return None
    named = found[-1]
    facts = named.result(RESTORE_TABLE)
    with site.connect() as session:
        if facts.database_oid != server.database_oid(session, site.database):
            raise Refused(
                "Operation %s was about a database that is no longer live" % named.id,
                found="another database has the name %s" % site.database,
                hint="undo what made it live first",
            )
    newest = [operation for operation in done if operation.result(RESTORE_TABLE).table == facts.table][-1]
    undoes = str(newest.request["undoes"]) if newest.kind == "undo" else None
    if not operation_id and undoes:
        named = next(operation for operation in done if operation.id == undoes)
    if named.id not in (newest.id, undoes):
        raise Refused(
            "Only the newest restore of table %s can be undone" % facts.table,
            found="operation %s came after %s" % (newest.id, named.id),
            hint=remedy("undo that one: %s", Given(Setting.OPERATION, newest.id)),
        )
    return {
        "needed": named is newest,
        "undoes": named.id,
        "undone_by": None if named is newest else newest.id,
        "table": facts.table,
        "backup": named.result(RESTORE_TABLE).emergency,
    }
