# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an undo reverts. Only the newest change of the database and the release can be undone, and the newest restore
of each table. An undo is a change like any other, so it can be undone too, by its id.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, cast

from ..base.errors import Refused
from ..base.remedies import Action, Given, Setting, Start, remedy
from ..base.sql_names import retired_name
from ..site import Site
from ..store.operation import Operation, operations_of
from ..store.steps import CODE, DOWN, RESTORE_TABLE, RETIRED_PRUNED, SWAP
from ..store.steps import IN_PLACE as IN_PLACE_STEP
from .choose import DOWN_SQL, RELEASE, TABLE
from .down_sql import not_by_itself
from .in_force import SWAPPED, Change, change_of, newest_change
from .restored_tables import plan_table_undo, undoable_table_operations

#: The scenario of an undo.
UNDO = "undo"


def change_to_undo(site: Site, operation: Operation) -> Change:
    """:raises Refused: it changed neither the database nor the release"""
    change = change_of(site, operation)
    if change is None:
        raise _changed_nothing(site, operation)
    return change


def plan_undo(site: Site, operation_id: Optional[str]) -> Dict[str, Any]:
    """Which operation an undo would revert, and how.

    :param operation_id: the operation; default is the newest change, unless that is an undo
    :returns: ``needed`` is False if it was undone already, then ``undone_by`` names the undo. ``method`` is ``swap``,
        ``in_place``, after a rollback of the code alone ``code_only``, or ``table``: then ``table`` names it
    :raises Refused: it cannot be undone; names what can be
    """
    named = _load(site, operation_id) if operation_id else None
    newest = newest_change(site)
    if named is None or named.facts(RESTORE_TABLE):
        since = None if newest is None else newest.operation.began
        table = plan_table_undo(site, operation_id, since=since)
        if table is not None:
            return {**table, "method": TABLE, "commit": None, "retired": None}
    source = _source(site, named, newest)
    if source.method == DOWN_SQL:
        raise not_by_itself(source.operation)
    _require_no_deploy_since(site, source)
    undone = newest is not None and newest.undoes == source.id
    return {
        # For the release alone, the hosts show whether it must change.
        "needed": not undone and source.method != RELEASE,
        "method": source.method,
        "undoes": source.id,
        "undone_by": newest.id if newest is not None and undone else None,
        "table": None,
        "commit": source.operation.former_commit,
        "retired": retired_name(source.id, site.database) if source.method == SWAPPED else None,
    }


def _load(site: Site, operation_id: str) -> Operation:
    if operation_id not in site.store.operation_ids():
        raise Refused(
            "There is no operation %s" % operation_id,
            found="none of that id in " + site.store.root,
            hint=what_can_be_undone(site),
        )
    operation = Operation.load(site.store, operation_id)
    if operation.database != site.database:
        raise Refused(
            "Operation %s was about another database" % operation_id,
            found=str(operation.database),
            expected=site.database,
            hint=what_can_be_undone(site),
        )
    return operation


def _source(site: Site, named: Optional[Operation], newest: Optional[Change]) -> Change:
    """The change to undo.

    :raises Refused: it is not in force, or there was another one since
    """
    if named is None and newest is None:
        raise Refused(
            "There is nothing to undo",
            found="no retired database of %s, and no restored table" % site.database,
            hint="an undo gives the live name back to the database that a revert retired, or a table what it held",
        )
    if newest is not None:
        wanted = named.id if named is not None else newest.undoes or newest.id
        if wanted == newest.id:
            return newest
        if wanted == newest.undoes:
            return Change(Operation.load(site.store, wanted), newest.method)
    raise _not_in_force(site, cast(Operation, named), newest)


def _not_in_force(site: Site, named: Operation, newest: Optional[Change]) -> Refused:
    """Why an operation that is not the newest change cannot be undone."""
    hint = what_can_be_undone(site)
    if named.facts(DOWN):
        return not_by_itself(named, hint)
    changed = [step for step in (SWAP, IN_PLACE_STEP, CODE) if named.facts(step) is not None]
    if not changed:
        return _changed_nothing(site, named)
    pruned = named.result(RETIRED_PRUNED)
    if pruned.dropped:
        return Refused(
            "Operation %s cannot be undone any more: the database that it retired was dropped" % named.id,
            found="%s, of which backup %s holds all" % (pruned.dropped, pruned.dump),
            hint=remedy(
                "to go back to it: %s. %s", Start(Action.COMPLETE, (Given(Setting.BACKUP, pruned.dump),)), hint
            ),
        )
    if newest is not None and newest.operation.began > named.began:
        return Refused(
            "Only the newest change can be undone",
            found="operation %s came after %s" % (newest, named.id),
            hint=hint,
        )
    return Refused(
        "Operation %s cannot be undone any more" % named.id,
        found="no database %s" % retired_name(named.id, site.database),
        hint=hint,
    )


def _changed_nothing(site: Site, named: Operation) -> Refused:
    return Refused(
        "Operation %s changed nothing that an undo could take back" % named.id,
        found="a %s that ended: %s" % (named.kind, named.outcome or "not yet"),
        hint=what_can_be_undone(site),
    )


def _require_no_deploy_since(site: Site, source: Change) -> None:
    """A later successful deploy must not be lost: undoing an earlier change would revert it too."""
    later = [
        operation.id
        for operation in operations_of(site.store, site.database)
        if operation.kind == "deploy" and operation.outcome == "done" and operation.began > source.operation.began
    ]
    if later:
        raise Refused(
            "There is nothing to undo",
            found="deploy %s came after %s" % (later[-1], source.id),
            hint=remedy("to go back to before that deploy: %s shows how", Action.PLAN),
        )


def what_can_be_undone(site: Site) -> str:
    """Everything that can be undone now, as a sentence for users."""
    newest = newest_change(site)
    found = [] if newest is None or newest.method == DOWN_SQL else [newest]
    found += [Change(operation, TABLE) for operation in undoable_table_operations(site)]
    if not found:
        return "nothing can be undone now"
    return "what can be undone now: " + "; ".join(map(_described, found))


def _described(change: Change) -> str:
    return "%s (%s)" % (Given(Setting.OPERATION, change.id), change.what)
