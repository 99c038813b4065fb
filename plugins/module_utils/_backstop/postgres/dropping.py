# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the DROP statements that pg_dump wrote for objects, in a transaction."""

from __future__ import annotations

from typing import List, Sequence

from ..base.errors import BackstopError
from .connection import Session

_NEEDED_BY_ANOTHER = "2BP01"
#: Undefined table, object, function, schema or column: it went with another.
_GONE = ("42P01", "42704", "42883", "3F000", "42703")


def drop_each(session: Session, statements: Sequence[str]) -> List[str]:
    """Run each statement, and once more after the others while another object still needs what it drops.

    :returns: those that dropped something; what never could be dropped is left
    """
    dropped: List[str] = []
    remaining = list(statements)
    while remaining:
        left = [statement for statement in remaining if not _is_gone(session, statement, dropped)]
        if len(left) == len(remaining):
            break
        remaining = left
    return dropped


def _is_gone(session: Session, statement: str, dropped: List[str]) -> bool:
    session.execute("SAVEPOINT one")
    try:
        session.execute(statement)
    except BackstopError as error:
        state = error.details.get("sqlstate")
        if state != _NEEDED_BY_ANOTHER and state not in _GONE:
            raise
        session.execute("ROLLBACK TO SAVEPOINT one")
        return state in _GONE
    session.execute("RELEASE SAVEPOINT one")
    dropped.append(statement)
    return True
