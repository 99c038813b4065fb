# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which table and column of the live database is which of the base, whatever it is called now.

A rename changes neither a table's oid nor a column's attnum, and a manifest has both as they were in the database that
it was made from. Where that is the live one, they tell; names only tell what is left then, and everything elsewhere (a
table that was dropped and made again under its name is compared with the one that had the name).
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
    """Whether this is the table of migrations of the configured schema: part of every revert, compared by its effective
    state elsewhere. That of another Prisma application, in a schema of its own, is a table like all others."""
    return (table.schema, table.name) == (session.settings.schema, history.TABLE)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A live table and the one of the base that it was; one of them may be missing."""

    live: Optional[Table]
    base: Optional[Table]
    #: name of each live column that the base has, and its name there, in the live table's order
    columns: Dict[str, str] = dataclasses.field(default_factory=dict)
    #: where the base's rows are, when that is not under its name
    staged: Optional[Table] = None

    @property
    def rows_in(self) -> Optional[Table]:
        return self.staged or self.base

    def there(self, columns: Iterable[str]) -> List[str]:
        """What the base calls these live columns."""
        return [self.columns[column] for column in columns]

    @property
    def shared(self) -> List[str]:
        """Live columns that the base has."""
        return list(self.columns)


def known_by_oid(live: Session, manifest: Manifest) -> Dict[int, Table]:
    """The tables of a manifest by their oids, if the live database is the one that it was made from; else none."""
    same = (
        manifest.database.oid == server.database_oid(live, live.settings.database)
        and manifest.server.system_identifier == server.identity(live).system_identifier
    )
    return {entry.table.oid: entry.table for entry in manifest.tables} if same else {}


def pair_up(live: Iterable[Table], base: Iterable[Table], known: Optional[Dict[int, Table]] = None) -> List[Pair]:
    """Every table of both sides, once.

    :param known: of known_by_oid(); the base's tables are called as there
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
