# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running pg_dump's DROP statements for objects in a transaction."""

from __future__ import annotations

from typing import List, Sequence

from ..base import sqlstates
from ..base.errors import BackstopError
from .connection import Session

#: It was dropped with another object.
_GONE = (
    sqlstates.UNDEFINED_TABLE, sqlstates.UNDEFINED_OBJECT, sqlstates.UNDEFINED_FUNCTION, sqlstates.INVALID_SCHEMA_NAME,
    sqlstates.UNDEFINED_COLUMN,
)  # fmt: skip


def drop_each(session: Session, statements: Sequence[str]) -> List[str]:
    """Run each statement, and again after the others if another object still depends on what it drops.

    :returns: the statements that dropped something; objects that cannot be dropped are left
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
        state = error.sqlstate
        if state != sqlstates.DEPENDENT_OBJECTS_STILL_EXIST and state not in _GONE:
            raise
        session.execute("ROLLBACK TO SAVEPOINT one")
        return state in _GONE
    session.execute("RELEASE SAVEPOINT one")
    dropped.append(statement)
    return True
