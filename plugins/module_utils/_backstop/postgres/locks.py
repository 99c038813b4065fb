# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server's lock table: its size, and the locks that work on a whole database needs.

It holds a lock for each object that a transaction uses, until it ends. With the default settings it is too small for a
database of some thousand tables.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Mapping

from ..base.errors import Refused
from .connection import Session
from .server import settings

#: Allowance for locks of other sessions, and of the catalogs that a dump reads.
_OTHERS = 200
#: Settings of the number of processes that can take locks: clients, and the server's own processes.
_SESSIONS = (
    "max_connections",
    "max_prepared_transactions",
    "autovacuum_max_workers",
    "max_worker_processes",
    "max_wal_senders",
)


@dataclasses.dataclass(frozen=True)
class LockTable:
    """The size of the lock table."""

    per_transaction: int
    sessions: int

    @property
    def size(self) -> int:
        return self.per_transaction * self.sessions

    def holds(self, needed: int) -> bool:
        return needed + _OTHERS <= self.size

    def setting_for(self, needed: int) -> int:
        """The max_locks_per_transaction that would be enough."""
        return (needed + _OTHERS) // self.sessions + 1


def lock_table(session: Session) -> LockTable:
    found = settings(session, ["max_locks_per_transaction", *_SESSIONS])
    return LockTable(int(found["max_locks_per_transaction"]), 1 + sum(int(found[name]) for name in _SESSIONS))


_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"


def to_read_everything(session: Session) -> int:
    """Locks of one transaction that locks and reads every table: a backup, and the count behind the fence of a swap.

    Planning a query locks the indexes of its tables too.
    """
    return int(
        session.value(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'f', 'm', 'i', 'I', 'S') AND " + _OURS
        )
    )


def to_drop_everything(session: Session) -> int:
    """Locks of one transaction that drops everything: each object with dependencies or dependents."""
    return int(
        session.value(
            "SELECT (SELECT count(*) FROM (SELECT classid, objid FROM pg_depend WHERE objid >= 16384"
            " UNION SELECT refclassid, refobjid FROM pg_depend WHERE refobjid >= 16384) objects)"
            " + (SELECT count(*) FROM pg_largeobject_metadata)"
        )
    )


def require_room(session: Session, needed: int, what: str, otherwise: str = "") -> None:
    """Refuse an action for which the lock table is too small.

    :param what: the action, such as "to back the database up"
    :param otherwise: an alternative for the hint
    """
    table = lock_table(session)
    if not table.holds(needed):
        raise Refused(
            "The server's lock table is too small " + what,
            found="room for %d locks (max_locks_per_transaction = %d)" % (table.size, table.per_transaction),
            expected="room for %d" % (needed + _OTHERS),
            hint="nothing was changed. Set max_locks_per_transaction to %d and restart the server%s"
            % (table.setting_for(needed), otherwise),
        )


#: From the weakest to the strongest.
MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
#: Modes that block writes.
BLOCKING = MODES[4:]


def held_locks(session: Session, relations: Mapping[int, str]) -> Dict[str, str]:
    """The strongest lock above ACCESS SHARE that this session's transaction holds on each of some relations."""
    found = session.rows(
        "SELECT relation::bigint, mode FROM pg_locks WHERE locktype = 'relation' AND granted AND pid = pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    held: Dict[str, str] = {}
    for oid, mode in found:
        if int(oid) in relations and mode in MODES[1:]:
            note_lock(held, relations[int(oid)], str(mode))
    return held


def note_lock(held: Dict[str, str], name: str, mode: str) -> None:
    """Keep the stronger lock."""
    held[name] = max(held.get(name, MODES[0]), mode, key=MODES.index)
