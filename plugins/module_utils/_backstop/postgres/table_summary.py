# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A summary by which a user can check a table: row count, earliest and latest dates, exact sums."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ..base.sql_names import quote_identifier
from .connection import Session
from .references import Column

_MOMENTS = ("date", "timestamp", "timestamptz")
_FLOATS = ("float4", "float8")
_NUMBERS = ("int2", "int4", "int8", "numeric") + _FLOATS


def _expressions(column: Column) -> List[str]:
    name = "r__." + quote_identifier(column.name)
    if column.type in _MOMENTS:
        return ["min(%s)::text" % name, "max(%s)::text" % name]
    # By their text: the sum of floating point numbers depends on the order of the rows.
    finite = " FILTER (WHERE %s::text !~ '[Nf]')" % name
    return ["sum(%s::text::numeric)%s::text" % (name, finite)]


def summary(session: Session, source: str, columns: Sequence[Column]) -> Dict[str, Any]:
    """Number of rows, minimum and maximum of each date or time, sum of each number (of the finite ones) of a table.

    :param source: the FROM item, without an alias
    """
    shown = [column for column in columns if column.type in _MOMENTS + _NUMBERS]
    expressions = [expression for column in shown for expression in _expressions(column)]
    row = list(session.one("SELECT %s FROM %s r__" % (", ".join(["count(*)", *expressions]), source)))
    found: Dict[str, Any] = {"rows": int(row.pop(0)), "earliest": {}, "latest": {}, "sums": {}}
    for column in shown:
        if column.type in _MOMENTS:
            found["earliest"][column.name] = row.pop(0)
            found["latest"][column.name] = row.pop(0)
        else:
            found["sums"][column.name] = row.pop(0)
    return found


def sentence(found: Dict[str, Any]) -> str:
    """A summary() with the name of its ``table``, for users."""
    moments = ["%s from %s to %s" % (name, first, found["latest"][name]) for name, first in found["earliest"].items()]
    sums = ["sum of %s %s" % (name, total) for name, total in found["sums"].items()]
    return "; ".join(["%s: %d rows" % (found["table"], found["rows"]), *moments, *sums])
