# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Matches the tables and columns of the live database with those of the base, even after a rename.

A rename changes neither a table's oid nor a column's attnum, and a manifest records both for the database that it was
made from. If that is the live one, they decide. In all other cases, and for the remaining tables, names decide. (A
table that was dropped and created again is compared with the former table of that name.)
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Optional, Tuple

from ..base.tables import Table
from ..postgres import server
from ..postgres.connection import Session
from ..prisma import history
from ..store.manifest import Manifest

#: Schema and name of a table.
Name = Tuple[str, str]


def is_history(session: Session, table: Table) -> bool:
    """Whether this is Prisma's history in the configured schema: part of every revert, and compared by its effect
    elsewhere. The history of another Prisma application, in another schema, is a table like any other."""
    return (table.schema, table.name) == (session.settings.schema, history.TABLE)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A live table and the matching one of the base; one of them may be missing."""

    live: Optional[Table]
    base: Optional[Table]
    #: each live column that the base has, with the column's name there, in the live table's order
    columns: Dict[str, str] = dataclasses.field(default_factory=dict)
    #: where the base's rows are, if not in the table of that name
    staged: Optional[Table] = None

    @property
    def rows_in(self) -> Optional[Table]:
        return self.staged or self.base

    def there(self, columns: Iterable[str]) -> List[str]:
        """The base's names of these live columns."""
        return [self.columns[column] for column in columns]

    @property
    def shared(self) -> List[str]:
        """Live columns that the base has."""
        return list(self.columns)


def known_by_oid(live: Session, manifest: Manifest) -> Dict[int, Table]:
    """The tables of a manifest by their oids, if it was made from the live database; else empty."""
    same = (
        manifest.database.oid == server.database_oid(live, live.settings.database)
        and manifest.server.system_identifier == server.identity(live).system_identifier
    )
    return {entry.table.oid: entry.table for entry in manifest.tables} if same else {}


def pair_up(live: Iterable[Table], base: Iterable[Table], known: Optional[Dict[int, Table]] = None) -> List[Pair]:
    """Every table of both sides, once.

    :param known: the result of known_by_oid(); the base has the same names
    """
    left = {(table.schema, table.name): table for table in base}
    pairs: List[Pair] = []
    unknown: List[Table] = []
    for table in live:
        then = (known or {}).get(table.oid)
        other = left.pop((then.schema, then.name), None) if then is not None else None
        if then is None or other is None:
            unknown.append(table)
        else:
            pairs.append(Pair(table, other, _columns(table, other, then)))
    for table in unknown:
        other = left.pop((table.schema, table.name), None)
        pairs.append(Pair(table, other, {} if other is None else _columns(table, other, None)))
    pairs.sort(key=lambda pair: (pair.live.schema, pair.live.name) if pair.live else ("", ""))
    return pairs + [Pair(None, table) for table in left.values()]


def _columns(live: Table, base: Table, then: Optional[Table]) -> Dict[str, str]:
    numbered = dict(zip(then.numbers, then.columns)) if then is not None else {}
    same = {
        column: numbered[number]
        for number, column in zip(live.numbers, live.columns)
        if numbered.get(number) in base.columns
    }
    for column in live.columns:
        if column not in same and column in base.columns and column not in same.values():
            same[column] = column
    return {column: same[column] for column in live.columns if column in same}
