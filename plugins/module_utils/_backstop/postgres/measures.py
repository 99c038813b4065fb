# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measuring a table: its row count, and a column's minimum, maximum and exact sum.

A sum of floats depends on the order of the rows, and one NaN makes it NaN. So each value is added as the decimal number
that PostgreSQL prints, and values that are not numbers are counted separately.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional

from ..base.errors import Refused
from ..base.sql_names import near_names, qualified, quote_identifier
from .catalog import TableFamily
from .connection import Session

_INTEGERS = ("smallint", "integer", "bigint")
_FLOATS = ("real", "double precision")
_NO_NUMBER = "('NaN', 'Infinity', '-Infinity')"


def source(family: TableFamily) -> str:
    """The FROM item for a table's rows: its own, or those of all partitions."""
    return qualified(family.schema, family.name) if family.partitioned else family.leaves[0].source


def count_rows(session: Session, family: TableFamily) -> int:
    return int(session.value("SELECT count(*) FROM %s r__" % source(family)))


def columns_of(family: TableFamily) -> Dict[str, str]:
    """Name and type of the columns; partitions of a partitioned table may have them in another order."""
    return dict(zip(family.leaves[0].columns, family.leaves[0].types)) if family.leaves else {}


def column_type(family: TableFamily, column: str) -> str:
    """:raises Refused: names similar columns"""
    known = columns_of(family)
    if column not in known:
        near = near_names(column, known)
        raise Refused(
            "Table %s has no column %s" % (family.full_name, column),
            found=", ".join(known) or "no columns",
            expected="perhaps " + ", ".join(near) if near else None,
        )
    return known[column]


@dataclasses.dataclass(frozen=True)
class Sum:
    """An exact sum of a column, without NULLs."""

    #: a decimal number
    sum: str
    not_a_number: int
    infinite: int

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


def sum_of(session: Session, family: TableFamily, column: str) -> Sum:
    """:raises Refused: the column is not numeric"""
    kind = column_type(family, column)
    name = "r__." + quote_identifier(column)
    if kind in _INTEGERS:
        number, text = name + "::numeric", "NULL::text"
    elif kind in _FLOATS or kind == "numeric" or kind.startswith("numeric("):
        # A direct cast of a float keeps only 15 digits.
        number, text = name + "::text::numeric", name + "::text"
    elif kind == "money":
        number, text = name + "::numeric", "NULL::text"
    else:
        raise Refused("Column %s of table %s holds no numbers" % (column, family.full_name), found=kind)
    row = session.one(
        "SELECT coalesce(trim_scale(sum({number}) FILTER (WHERE coalesce({text}, '') NOT IN {none})), 0)::text,"
        " count(*) FILTER (WHERE {text} = 'NaN'), count(*) FILTER (WHERE {text} IN ('Infinity', '-Infinity'))"
        " FROM {source} r__".format(number=number, text=text, none=_NO_NUMBER, source=source(family))
    )
    return Sum(str(row[0]), int(row[1]), int(row[2]))


def extreme(session: Session, family: TableFamily, column: str, which: str) -> Optional[str]:
    """The smallest (``min``) or largest (``max``) value of a column as text; None for an empty table."""
    column_type(family, column)
    value = session.value("SELECT %s(r__.%s)::text FROM %s r__" % (which, quote_identifier(column), source(family)))
    return None if value is None else str(value)


def is_same(session: Session, kind: str, one: str, other: str) -> bool:
    """Whether two texts represent the same value of a type."""
    return bool(session.value("SELECT CAST(%%s AS %s) = CAST(%%s AS %s)" % (kind, kind), (one, other)))
