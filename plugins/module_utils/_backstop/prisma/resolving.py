# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Marking a migration as rolled back or as applied: checked before, verified afterwards."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Optional, Sequence

from ..base.errors import Locked, Refused
from ..base.remedies import Action, remedy
from ..base.sql_names import near_names
from .cli import Prisma
from .history import APPLIED, FAILED, ROLLED_BACK, HistoryRow, MigrationFile, read_folder, read_rows
from .sessions import lock_holders
from .urls import schema_of


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What was, or would be, done to the rows of one name."""

    changed: bool
    #: States of the name's rows, oldest first.
    before: List[str]
    after: List[str]


def resolve(prisma: Prisma, url: str, cursor: Any, name: str, state: str, *, act: bool = True) -> Resolved:
    """Give a migration the state ``rolled_back`` or ``applied`` in the history; its SQL is neither run nor undone.

    :param act: False only returns what would be done
    :raises Refused: Prisma would refuse it (P3008, P3011, P3012, P3017), or it would be wrong
    :raises Locked: a migration is running
    """
    rows = read_rows(cursor, schema_of(url))
    before = _states(rows, name)
    after = _foretell(before, state)
    if state == ROLLED_BACK:
        _require_failed(name, before, rows or [])
    else:
        _require_file(name, read_folder(prisma.project.migrations()))
    if after == before:
        return Resolved(False, before, before)
    _require_nobody(cursor)
    if act:
        if state == ROLLED_BACK:
            prisma.migrate_resolve(url, cursor=cursor, rolled_back=name)
        else:
            prisma.migrate_resolve(url, cursor=cursor, applied=name)
        after = _states(read_rows(cursor, schema_of(url)), name)
    return Resolved(True, before, after)


def _states(rows: Optional[Sequence[HistoryRow]], name: str) -> List[str]:
    return [row.state for row in rows or () if row.migration_name == name]


def _foretell(before: Sequence[str], state: str) -> List[str]:
    """The states that Prisma will leave."""
    after = [ROLLED_BACK if one == FAILED else one for one in before]
    return after + [APPLIED] if state == APPLIED and APPLIED not in after else after


def _require_failed(name: str, states: Sequence[str], rows: Sequence[HistoryRow]) -> None:
    if not states:
        near = near_names(name, {row.migration_name for row in rows})
        raise Refused(
            "The migration was never applied to this database, so it cannot be rolled back (Prisma calls this P3011)",
            found="no row of %s in the history" % name,
            hint="check the name and the database" + (" (there is: %s)" % ", ".join(near) if near else ""),
        )
    if FAILED not in states and APPLIED in states:
        raise Refused(
            "The migration succeeded; only a failed one can be marked as rolled back (Prisma calls this P3012)",
            found="%s is applied" % name,
            hint=remedy("to revert it run %s: it restores tables and history together", Action.APPLICATION_ERRORS),
        )


def _require_file(name: str, folder: Sequence[MigrationFile]) -> None:
    names = [file.name for file in folder]
    if name not in names:
        near = near_names(name, names)
        raise Refused(
            "The migration is not in the release's migrations folder (Prisma calls this P3017)",
            found="no folder " + name,
            hint="check the name and the release" + (" (there is: %s)" % ", ".join(near) if near else ""),
        )


def _require_nobody(cursor: Any) -> None:
    """Refuse while a migration runs: its row looks like one of a failed migration."""
    holders = lock_holders(cursor)
    if holders:
        raise Locked(
            "A migration is running; what looks failed may still succeed",
            found="backend %d (%s, %s) holds Prisma's lock"
            % (holders[0].pid, holders[0].application_name or "no name", holders[0].user),
            hint="wait for it to end, then run this again",
        )
