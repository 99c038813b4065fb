# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standbys: which exist, how far they are behind, and COMMITs that wait for an unreachable one."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Dict, List, Optional

from ..base.errors import Refused
from .connection import Session

#: How long a COMMIT may wait for synchronous standbys before they count as unreachable.
CONFIRM_SECONDS = 5
#: Effects on a standby, as measured: a RENAME conflicts with nothing there, a DROP ends the sessions at once.
SESSIONS_THERE = (
    "sessions that are open on a standby stay in the former database until they are ended there; new ones reach the"
    " new database when the standby has replayed the swap"
)


@dataclasses.dataclass(frozen=True)
class Standby:
    """A streaming standby. A role without pg_monitor sees that it exists, but not its name or lag."""

    name: str
    address: str
    state: str
    sync_state: str
    #: bytes of WAL that it has not replayed; None when hidden, or not reported yet
    lag: Optional[int]

    def __str__(self) -> str:
        behind = "lag hidden" if self.lag is None else "%d bytes behind" % self.lag
        return "%s at %s (%s, %s, %s)" % (self.name, self.address, self.state, self.sync_state, behind)

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


def standbys(session: Session, position: Optional[str] = None) -> List[Standby]:
    """The streaming standbys. Logical receivers are found by their slots, see server.obstacles_to_rename().

    :param position: WAL position from which the lag is measured; default is the server's current one
    """
    found = session.rows(
        "SELECT coalesce(nullif(r.application_name, ''), 'hidden from this role'), coalesce(host(r.client_addr),"
        " 'the socket or hidden'), coalesce(r.state, 'state hidden'), coalesce(r.sync_state, 'hidden'),"
        " CASE WHEN r.replay_lsn IS NOT NULL THEN"
        " greatest(pg_wal_lsn_diff(coalesce(%s::pg_lsn, pg_current_wal_insert_lsn()), r.replay_lsn), 0)::bigint END"
        " FROM pg_stat_replication r WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots s WHERE s.active_pid = r.pid"
        " AND s.slot_type = 'logical') ORDER BY 1, 2",
        (position,),
    )
    return [Standby(*row) for row in found]


def unused_slots(session: Session) -> List[str]:
    """Physical slots that no standby uses: the server keeps WAL for each."""
    found = session.rows(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active ORDER BY 1"
    )
    return [str(name) for (name,) in found]


def follow(session: Session, seconds: float) -> List[Standby]:
    """Wait until every standby has replayed all current WAL, or until the timeout; returns their lag then.

    Uses the insert position: with synchronous_commit = off the WAL of a finished COMMIT may not be written yet.
    """
    position = str(session.value("SELECT pg_current_wal_insert_lsn()"))
    deadline = time.monotonic() + seconds
    while True:
        found = standbys(session, position)
        if not any(standby.lag for standby in found) or time.monotonic() > deadline:
            return found
        session.execute("SELECT pg_sleep(0.02)")


def summary(found: List[Standby], confirmed: bool) -> str:
    """What a user must know of the standbys after a swap, in one line."""
    lines = [] if confirmed else ["No synchronous standby has confirmed it: a failover now would lose it."]
    for standby in found:
        how = "has replayed it" if standby.lag == 0 else "is %s bytes behind" % standby.lag
        lines.append("Standby %s %s." % (standby.name, "hides how far it is" if standby.lag is None else how))
    if found:
        lines.append(SESSIONS_THERE[0].upper() + SESSIONS_THERE[1:] + ".")
    return " ".join(lines)


def commit(session: Session) -> bool:
    """COMMIT; False when it is committed here but no synchronous standby has confirmed it in time.

    Otherwise it would wait, with all its locks, until a standby is back. A cancel request ends that wait with a
    warning; the transaction is committed nevertheless. No other long statement is ever cancelled.
    """
    if not _synchronous(session):
        session.execute("COMMIT")
        return True
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        session.raw.cancel()

    timer = threading.Timer(CONFIRM_SECONDS, give_up)
    timer.start()
    try:
        session.execute("COMMIT")
    finally:
        timer.cancel()
        timer.join()  # a late cancel request must not hit the next statement
    return not given_up.is_set()


def _synchronous(session: Session) -> str:
    """The setting that makes a COMMIT of this session wait for standbys; empty when it does not wait."""
    return str(
        session.value(
            "SELECT CASE WHEN current_setting('synchronous_commit') NOT IN ('off', 'local')"
            " THEN current_setting('synchronous_standby_names') ELSE '' END"
        )
    )


def require_confirming(session: Session) -> None:
    """Refuse while a COMMIT would wait for unreachable synchronous standbys.

    Tested by a COMMIT: only some roles see the standbys, and the required number has a complex syntax.
    """
    wanted = _synchronous(session)
    if not wanted:
        return
    session.execute("BEGIN")
    session.execute("SELECT pg_logical_emit_message(true, 'backstop', '')")  # a COMMIT that writes nothing never waits
    if commit(session):
        return
    raise Refused(
        "The synchronous standbys do not answer: every COMMIT waits for them",
        found="none confirmed a transaction within %g seconds (synchronous_standby_names = %s)"
        % (CONFIRM_SECONDS, wanted),
        expected="a synchronous standby that streams",
        hint="nothing was changed. Bring it back, or take it out of synchronous_standby_names and reload the server",
    )
