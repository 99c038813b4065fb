# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standbys: which there are, how far they have come, and COMMITs that wait for one that is gone."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Dict, List, Optional

from ..base.errors import Refused
from .connection import Session

#: How long a COMMIT may wait for synchronous standbys before they count as gone.
CONFIRM_SECONDS = 5
#: What happens on a standby: measured, a RENAME conflicts with nothing there, a DROP ends the sessions at once.
SESSIONS_THERE = (
    "sessions that are open on a standby go on in the former database until they are ended there; new ones reach the"
    " new database when the standby has replayed the swap"
)


@dataclasses.dataclass(frozen=True)
class Standby:
    """One that streams from this server. A role without pg_monitor sees that there is one, not which or how far."""

    name: str
    address: str
    state: str
    sync_state: str
    #: bytes of WAL that it has not replayed; None when hidden, or not told yet
    lag: Optional[int]

    def __str__(self) -> str:
        behind = "lag hidden" if self.lag is None else "%d bytes behind" % self.lag
        return "%s at %s (%s, %s, %s)" % (self.name, self.address, self.state, self.sync_state, behind)

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)


def standbys(session: Session, position: Optional[str] = None) -> List[Standby]:
    """Those that stream; a logical receiver is told by its slot, see server.obstacles_to_rename().

    :param position: WAL position that the lag is told from; default is where the server is now
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
    """Wait until every standby has replayed all that was written so far, or time is up; how far each is then.

    The position is that of insertion: with synchronous_commit = off a COMMIT that has returned is not written yet.
    """
    position = str(session.value("SELECT pg_current_wal_insert_lsn()"))
    deadline = time.monotonic() + seconds
    while True:
        found = standbys(session, position)
        if not any(standby.lag for standby in found) or time.monotonic() > deadline:
            return found
        session.execute("SELECT pg_sleep(0.02)")


def summary(found: List[Standby], confirmed: bool) -> str:
    """What people must know of the standbys after a swap, in one line."""
    told = [] if confirmed else ["No synchronous standby has confirmed it: a failover now would lose it."]
    for standby in found:
        how = "has replayed it" if standby.lag == 0 else "is %s bytes behind" % standby.lag
        told.append("Standby %s %s." % (standby.name, "hides how far it is" if standby.lag is None else how))
    if found:
        told.append(SESSIONS_THERE[0].upper() + SESSIONS_THERE[1:] + ".")
    return " ".join(told)


def commit(session: Session) -> bool:
    """COMMIT; False when it is committed here but no synchronous standby has confirmed it in time.

    Without this it would wait, with all its locks, until one comes back. The server takes a cancel for the end of that
    wait and only warns: the transaction is committed all the same. Nothing else that takes long is ever cancelled.
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
        timer.join()  # a cancel that is under way must not hit the next statement
    return not given_up.is_set()


def _synchronous(session: Session) -> str:
    """The setting that makes a COMMIT of this session wait for standbys; empty when it does not."""
    return str(
        session.value(
            "SELECT CASE WHEN current_setting('synchronous_commit') NOT IN ('off', 'local')"
            " THEN current_setting('synchronous_standby_names') ELSE '' END"
        )
    )


def require_confirming(session: Session) -> None:
    """Refuse while a COMMIT would wait for synchronous standbys that are gone.

    Told by trying: whether one is there only some roles may see, and how many must be is a grammar of its own.
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
