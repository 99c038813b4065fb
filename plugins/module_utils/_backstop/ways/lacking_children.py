# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that were deleted with the rows of a restored table, and that the restore does not bring back.

When a row is deleted, foreign keys delete the rows that refer to it, or set their columns to NULL. A restore brings
back the row, but not these. Here every table that lacks such rows of the backup is found, directly or indirectly, with
the command that repairs it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..base.errors import BackstopError, Refused
from ..base.remedies import Action, Given, Setting, Start
from ..base.sql_names import qualified, quote_identifier, typed_name
from ..base.tables import Table
from ..loss.kept_rows import referenced_first
from ..postgres import catalog, digests, references
from ..postgres.connection import Session
from ..postgres.damage import is_damage
from .archived_rows import ArchivedRows
from .table_comparison import Pair, staged_alone

#: Maximum number of foreign key values in a command; above it, the command selects all rows with existing parents.
_MOST_VALUES = 200
_RESTORED, _LACKING = "d__.kind = 'missing'", "d__.kind = 'missing' AND d__.how = 'lacking'"


@dataclasses.dataclass
class _Child:
    """A table that refers to restored rows; its own rows that were lost with them are marked in its difference."""

    pair: Pair
    #: foreign keys by which rows are marked, with the referenced table of each
    keys: Dict[str, Tuple[references.ForeignKey, "_Parent"]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Parent:
    pair: Pair
    #: which of its differences are restored
    condition: str

    def rows(self) -> str:
        """SQL for the backup's rows that are restored."""
        return "(SELECT s__.* FROM %s d__ JOIN %s s__ ON s__.ctid = d__.staged WHERE %s)" % (
            self.pair.difference,
            self.pair.stage,
            self.condition,
        )


def lacking_children(archived: ArchivedRows, restored: Sequence[Pair]) -> List[Dict[str, Any]]:
    """For each table that lacks rows of the backup which refer to restored rows: how many, and how to restore them.

    :param archived: its session is in a transaction in which the pairs are staged and compared; staging tables made
        here remain in it
    """
    search = _Search(archived, restored)
    waiting = [_Parent(pair, _RESTORED) for pair in restored if _any(archived.session, pair, _RESTORED)]
    while waiting:
        waiting += search.children_of(waiting.pop())
    return search.result()


def _any(session: Session, pair: Pair, condition: str) -> bool:
    return bool(session.value("SELECT EXISTS (SELECT FROM %s d__ WHERE %s)" % (pair.difference, condition)))


class _Search:
    def __init__(self, archived: ArchivedRows, restored: Sequence[Pair]) -> None:
        self._archived, self._session = archived, archived.session
        self._tables = {table.oid: table for table in catalog.tables(archived.session)}
        self._restored = {pair.table.oid: pair for pair in restored}
        self._children: Dict[int, _Child] = {}
        #: tables for which it is unknown, with the reason
        self._unknown: Dict[str, str] = {}

    def children_of(self, parent: _Parent) -> List[_Parent]:
        """Mark the rows that were lost with the parent's; returns the tables in which more rows are marked now."""
        more = []
        for key in references.foreign_keys_to(self._session, parent.pair.table.oid):
            child = self._child(key.oid)
            if child is not None and self._mark(child, key, parent):
                child.keys[key.name] = (key, parent)
                if _any(self._session, child.pair, _LACKING):
                    more.append(_Parent(child.pair, _LACKING))
        return more

    def _child(self, oid: int) -> Optional[_Child]:
        table = self._tables.get(oid)
        if table is None or table.full_name in self._unknown:
            return None
        if oid not in self._children:
            try:
                with self._session.savepoint():
                    self._children[oid] = _Child(self._staged(table))
            except Refused as error:
                self._unknown[table.full_name] = str(error.found or error.message)
            except BackstopError as error:
                if not is_damage(error):
                    raise
                self._unknown[table.full_name] = "it is damaged: %s" % error.found
        return self._children.get(oid)

    def _staged(self, table: Table) -> Pair:
        pair = staged_alone(self._archived, table, "lacking%d_" % len(self._children))
        own = self._restored.get(table.oid)
        if own is not None:
            # In a table that refers to itself, restored rows are not lacking.
            self._session.execute(
                "DELETE FROM %s d__ USING %s s__ WHERE s__.ctid = d__.staged AND %s IN (SELECT %s FROM %s r__)"
                % (
                    pair.difference,
                    pair.stage,
                    digests.row_expression(pair.columns, "s__"),
                    digests.row_expression(pair.columns),
                    _Parent(own, "true").rows(),
                )
            )
        return pair

    def _mark(self, child: _Child, key: references.ForeignKey, parent: _Parent) -> int:
        """Mark the backup's rows that refer to restored rows, and are now missing or do not refer to them."""
        columns = list(key.columns)
        return self._session.execute(
            "UPDATE {d} d__ SET how = 'lacking' FROM {s} c__ WHERE c__.ctid = d__.staged AND d__.how <> 'lacking'"
            " AND EXISTS (SELECT FROM {p} p__ WHERE {same}) AND (d__.kind = 'missing' OR d__.kind = 'changed'"
            " AND EXISTS (SELECT FROM {l} l__ WHERE l__.ctid = d__.live AND {there} IS DISTINCT FROM {here}))".format(
                d=child.pair.difference,
                s=child.pair.stage,
                p=parent.rows(),
                l=child.pair.live,
                same=key.matches("p__", "c__"),
                there=digests.row_expression(columns, "c__"),
                here=digests.row_expression(columns, "l__"),
            )
        )

    # Results

    def result(self) -> List[Dict[str, Any]]:
        """Parents first, the order in which the commands must be run."""
        known = {table.full_name: table for table in self._tables.values()}
        order = referenced_first(self._session, known)
        lacking = [child for child in self._children.values() if child.keys]
        lacking.sort(key=lambda child: order.index(child.pair.table.full_name))
        return [self._described(child) for child in lacking] + [
            {
                "table": name,
                "missing": None,
                "emptied": None,
                "command": "",
                "message": "%s refers to restored rows; what it lacks is not known: %s" % (name, why),
            }
            for name, why in sorted(self._unknown.items())
        ]

    def _described(self, child: _Child) -> Dict[str, Any]:
        counts = dict(
            self._session.rows("SELECT kind, count(*) FROM %s WHERE how = 'lacking' GROUP BY 1" % child.pair.difference)
        )
        where = " OR ".join(self._condition(child, *one) for one in child.keys.values())
        table = child.pair.table
        given = {
            Setting.TABLE: typed_name(table.schema, table.name),
            Setting.BACKUP: self._archived.place.backup_id,
            Setting.MODE: "repair",
            Setting.WHERE: where,
        }
        command = str(Start(Action.CORRUPTED_TABLE, tuple(Given(*one) for one in given.items())))
        missing, emptied = int(counts.get("missing", 0)), int(counts.get("changed", 0))
        what = ["%d rows are missing" % missing] * bool(missing)
        what += ["%d rows no longer refer to them" % emptied] * bool(emptied)
        text = "%s refers to restored rows: %s. Bring them back with: %s" % (table.full_name, ", ".join(what), command)
        return {"table": table.full_name, "missing": missing, "emptied": emptied, "command": command, "message": text}

    def _condition(self, child: _Child, key: references.ForeignKey, parent: _Parent) -> str:
        """Condition for rows of the child: they refer to one of the restored rows."""
        columns = "(%s)" % ", ".join(map(quote_identifier, key.columns))
        values = ", ".join("quote_literal(format('%%s', c__.%s))" % quote_identifier(one) for one in key.columns)
        found = self._session.rows(
            "SELECT DISTINCT concat_ws(', ', %s) FROM %s d__ JOIN %s c__ ON c__.ctid = d__.staged"
            " WHERE d__.how = 'lacking' AND EXISTS (SELECT FROM %s p__ WHERE %s) ORDER BY 1 LIMIT %d"
            % (
                values,
                child.pair.difference,
                child.pair.stage,
                parent.rows(),
                key.matches("p__", "c__"),
                _MOST_VALUES + 1,
            )
        )
        if len(found) <= _MOST_VALUES:
            return "%s IN (%s)" % (columns, ", ".join("(%s)" % value for (value,) in found))
        target = parent.pair.table
        referred = ", ".join(map(quote_identifier, key.target_columns))
        return "%s IN (SELECT %s FROM %s)" % (columns, referred, qualified(target.schema, target.name))
