# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows that a database must hold, kept in Python alone, and what a rollback must lose or carry over."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Dict, List, Optional, Set, Tuple

Row = Tuple[Optional[str], ...]


@dataclasses.dataclass
class Table:
    """A table with the key ``id``, or without any key."""

    columns: List[str]
    keyed: bool = True
    #: by key
    rows: Dict[int, Row] = dataclasses.field(default_factory=dict)
    #: of a table without key, with the number of each
    bag: "Counter[Row]" = dataclasses.field(default_factory=Counter)
    #: referred to by ``parent``, a column that follows the key
    parent: Optional[str] = None

    @property
    def count(self) -> int:
        return len(self.rows) if self.keyed else sum(self.bag.values())

    def seen_by(self, columns: List[str]) -> "Table":
        """The same rows in these columns only."""
        places = [self.columns.index(column) for column in columns]
        rows = {key: tuple(row[place] for place in places) for key, row in self.rows.items()}
        return dataclasses.replace(self, columns=columns, rows=rows, bag=Counter(self.bag))


@dataclasses.dataclass
class State:
    """A database: its tables, and the migrations that are applied."""

    tables: Dict[str, Table] = dataclasses.field(default_factory=dict)
    migrations: List[str] = dataclasses.field(default_factory=list)
    #: tables that only the application made
    made_by_hand: Set[str] = dataclasses.field(default_factory=set)

    def copy(self) -> "State":
        return copy.deepcopy(self)


@dataclasses.dataclass
class Difference:
    inserted: Dict[int, Row]
    updated: Dict[int, Row]
    deleted: Set[int]
    more: "Counter[Row]"
    less: "Counter[Row]"

    @property
    def total(self) -> int:
        keyed = len(self.inserted) + len(self.updated) + len(self.deleted)
        return keyed + sum(self.more.values()) + sum(self.less.values())


def shared(one: Table, other: Table) -> List[str]:
    return [column for column in one.columns if column in other.columns]


def difference(live: Table, base: Table) -> Difference:
    """What was written since, in the columns that both have."""
    columns = shared(live, base)
    here, there = live.seen_by(columns), base.seen_by(columns)
    return Difference(
        {key: row for key, row in here.rows.items() if key not in there.rows},
        {key: row for key, row in here.rows.items() if key in there.rows and there.rows[key] != row},
        set(there.rows) - set(here.rows),
        here.bag - there.bag,
        there.bag - here.bag,
    )


def lost(live: State, base: State) -> Tuple[int, bool]:
    """How many rows a rollback to the base loses, and whether that is all: values of new columns come on top."""
    total, exact = 0, True
    for name, table in live.tables.items():
        if name not in base.tables:
            total += table.count
            continue
        total += difference(table, base.tables[name]).total
        exact = exact and set(table.columns) <= set(base.tables[name].columns)
    total += sum(table.count for name, table in base.tables.items() if name not in live.tables)
    return total, exact


def carry(live: State, base: State, target: State, deletes: bool = True) -> State:
    """The target with everything that was written to the live database since it was the base."""
    found = target.copy()
    for name, table in live.tables.items():
        if name in base.tables and name in found.tables:
            _carry_table(
                difference(table, base.tables[name]), shared(table, base.tables[name]), found.tables[name], deletes
            )
    return found


def _carry_table(changes: Difference, columns: List[str], target: Table, deletes: bool) -> None:
    for key, row in {**changes.inserted, **changes.updated}.items():
        former = target.rows.get(key, (None,) * len(target.columns))
        given = dict(zip(columns, row))
        target.rows[key] = tuple(given.get(column, old) for column, old in zip(target.columns, former))
    target.bag.update(changes.more)
    if deletes:
        for key in changes.deleted:
            target.rows.pop(key, None)
        target.bag = target.bag - changes.less
