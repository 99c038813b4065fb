# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rows of a table are repaired: the user's condition and keys, as one condition in SQL."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.remedies import Setting, remedy
from ..base.sql_names import quote_identifier, quote_literal
from ..base.tables import Table
from ..prisma.sql_text import SIGN, tokens


def selection(table: Table, where: Optional[str], keys: Sequence[Any]) -> Optional[str]:
    """The condition for the rows of a repair; None for all rows.

    :param where: a condition in SQL
    :param keys: keys of rows: values of the single key column, or mappings of key columns to values
    """
    conditions = [_condition(where)] if where else []
    if keys:
        conditions.append(_key_condition(table, keys))
    return " OR ".join("(%s\n)" % condition for condition in conditions) or None


@contextlib.contextmanager
def condition_errors(table: Table) -> Iterator[None]:
    """The server parses the user's condition; its errors can be about data, syntax and names."""
    try:
        yield
    except BackstopError as error:
        if error.sqlstate_class not in (
            sqlstates.DATA_EXCEPTION,
            sqlstates.SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        ):
            raise
        raise Refused(
            "The condition on the rows cannot be used",
            found=error.found,
            expected="what may follow WHERE, on %s" % ", ".join(map(quote_identifier, table.columns)),
            hint=remedy("nothing was changed. Correct %s or %s", Setting.WHERE, Setting.KEYS),
        ) from error


def _condition(where: str) -> str:
    signs = [token.text for token in tokens(where) if token.kind == SIGN]
    depth = 0
    for sign in signs:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            break
    if depth != 0 or ";" in signs or not where.strip():
        raise Refused(
            "The condition on the rows is not one condition",
            found=where[:200],
            expected="what may follow WHERE, nothing else",
        )
    return where


def _key_condition(table: Table, keys: Sequence[Any]) -> str:
    if not table.key:
        raise Refused(
            "Rows of table %s cannot be named by keys" % table.full_name,
            found="it has no primary key and no unique index over columns that are never NULL",
            hint="give a condition on the rows instead",
        )
    rows = ["(%s)" % ", ".join(map(_literal, _key_values(table.key, key))) for key in keys]
    return "(%s) IN (%s)" % (", ".join(map(quote_identifier, table.key)), ", ".join(rows))


def _key_values(key: Tuple[str, ...], given: Any) -> List[Any]:
    if not isinstance(given, dict) and len(key) == 1:
        given = {key[0]: given}
    if not isinstance(given, dict) or set(given) != set(key) or None in given.values():
        raise Refused(
            "This is not the key of a row",
            found=repr(given)[:200],
            expected="a value for each of " + ", ".join(key),
            hint="names keep their capitals",
        )
    return [given[column] for column in key]


def _literal(value: Any) -> str:
    # An untyped literal gets the type of the column.
    return quote_literal(str(value).lower() if isinstance(value, bool) else str(value)).strip()
