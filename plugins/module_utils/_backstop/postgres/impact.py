# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a DELETE from a table affects others, read from the live catalog: the runbook's impact table."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import DefaultDict, Dict, List, Sequence, Set, Tuple

from ..base.short_lines import packed
from ..base.tables import Table
from .connection import Session

_FOREIGN_KEYS = """
SELECT DISTINCT k.confrelid::bigint, k.conrelid::bigint, n.nspname || '.' || c.relname, k.confdeltype::text
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f'
"""
_CASCADE = "c"
_ACTIONS = {
    "a": "refuses",
    "r": "refuses",
    _CASCADE: "deletes rows",
    "n": "sets columns to NULL",
    "d": "sets columns to their default",
}
#: Each effect in front of the tables that it is on.
_PHRASES = {
    "refuses": "refused by rows of",
    "deletes rows": "deletes rows of",
    "sets columns to NULL": "sets columns to NULL in",
    "sets columns to their default": "sets columns to their default in",
    "emptied": "empties",
}


class ForeignKeyGraph:
    """Which tables refer to which, read at once, because one query per table is slow with many tables."""

    def __init__(self, session: Session) -> None:
        self._children: DefaultDict[int, List[Tuple[int, str, str]]] = defaultdict(list)
        self._parents: DefaultDict[int, List[int]] = defaultdict(list)
        for parent, child, name, action in session.rows(_FOREIGN_KEYS):
            self._children[int(parent)].append((int(child), str(name), str(action)))
            self._parents[int(child)].append(int(parent))

    def reached_by_delete(self, table: Table) -> List[Dict[str, str]]:
        """How a DELETE of rows affects other tables through ON DELETE actions, directly or indirectly."""
        found = {(name, action) for _child, name, action in self._reached(table.oid, only_cascading=True)}
        return [{"table": name, "effect": _ACTIONS[action]} for name, action in sorted(found)]

    def reached_by_truncate(self, table: Table) -> List[str]:
        """Tables that TRUNCATE ... CASCADE empties too: all that refer to this one, whatever their ON DELETE action."""
        return sorted({name for _child, name, _action in self._reached(table.oid, only_cascading=False)})

    def _reached(self, start: int, only_cascading: bool) -> Set[Tuple[int, str, str]]:
        found: Set[Tuple[int, str, str]] = set()
        followed, left = {start}, [start]
        while left:
            edges = self._children.get(left.pop(), [])
            found.update(edges)
            further = {child for child, _name, action in edges if action == _CASCADE or not only_cascading} - followed
            followed |= further
            left += further
        return found

    def with_referenced(self, oids: Sequence[int]) -> Set[int]:
        """These tables and all that they refer to, directly or indirectly."""
        found, left = set(oids), list(oids)
        while left:
            further = set(self._parents.get(left.pop(), [])) - found
            found |= further
            left += further
        return found


@dataclasses.dataclass(frozen=True)
class Impact:
    #: DELETE or TRUNCATE CASCADE
    action: str
    table: str
    #: on it and on every table that the action reaches
    effects: Dict[str, str]


def impact_of(graph: ForeignKeyGraph, tables: Sequence[Table]) -> List[Impact]:
    """For each table, how DELETE of its rows and TRUNCATE ... CASCADE affect it and every table that they reach."""
    found: List[Impact] = []
    for table in tables:
        effects: Dict[str, str] = {}
        for reached in graph.reached_by_delete(table):
            known = effects.get(reached["table"])
            effects[reached["table"]] = known + ", " + reached["effect"] if known else reached["effect"]
        own = effects.pop(table.full_name, None)
        effects = {table.full_name: "rows deleted" + (", " + own if own else ""), **effects}
        found.append(Impact("DELETE", table.full_name, effects))
        emptied = dict.fromkeys([table.full_name, *graph.reached_by_truncate(table)], "emptied")
        found.append(Impact("TRUNCATE CASCADE", table.full_name, emptied))
    return found


def story(impact: Sequence[Impact], default_schema: str = "public") -> List[str]:
    """Short lines for users, one for each effect; names in the default schema without it."""

    def short(name: str) -> str:
        return name[len(default_schema) + 1 :] if name.startswith(default_schema + ".") else name

    lines: List[str] = []
    alone: List[str] = []
    for row in impact:
        names: Dict[str, List[str]] = {}
        for name, effect in row.effects.items():
            # Of the table itself, only what happens to further rows that refer to the deleted ones.
            for one in effect.split(", ")[name == row.table :]:
                names.setdefault(one, []).append(short(name))
        action = "%s %s:" % (row.action, short(row.table))
        for effect, found in names.items():
            lines += packed("%s %s" % (action, _PHRASES[effect]), found)
        if not names:
            alone.append(short(row.table))
    return (
        lines + packed("DELETE and TRUNCATE CASCADE reach no other table from:", dict.fromkeys(alone))
        if alone
        else lines
    )
