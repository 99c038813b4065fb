# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The swap: another database takes the live name, in one transaction, and nothing is written in between.

Writers are fenced out, and the live name is never missing and never refuses connections permanently:

1. A session in the live database locks every table against writing; the loss is counted and kept.
2. A second session begins the transaction with ``ALTER DATABASE live RENAME``. It takes the lock on the database, so
   new connections are blocked. Then it waits for the sessions inside to end (at most 5 seconds: CountOtherDBBackends).
3. A third session terminates those inside, the first session last: its table locks are held until no other is left.
4. The second session renames the successor, sets who may connect, and commits.

If it is killed before the COMMIT, nothing has changed; afterwards the swap is done.
"""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.sql_names import qualified, quote_identifier
from ..postgres import catalog, digests, replication, server
from ..postgres.connection import DRIVER_ERRORS, Session
from ..site import Site
from ..store.steps import Renamed

#: Attempts, each with a new count: if a session does not end within 5 seconds, PostgreSQL cancels the rename.
_ATTEMPTS = 3
#: PostgreSQL cancels the rename after 5 seconds, so large objects that take longer than this are not read twice.
_QUICK_SECONDS = 1
#: How long the fence waits for the table locks, at each attempt.
_LOCK_SECONDS = (2, 5, 10)


def attempts(site: Site, admin: Session, successor: str, retire_as: str) -> Iterator[Fence]:
    """Attempts to give the live database's name to the successor, until one has renamed; the former database keeps its
    contents under the name ``retire_as``.

    Use each as ``with attempt as fence``: count and keep the loss from ``fence.live``, ``shut_out()``, do the last,
    quick work, ``rename()``. The ``with`` block ends without an error if another attempt may succeed.

    :param admin: session in the maintenance database, which holds the operation's locks
    """
    _require_swappable(admin, site.database, successor)
    replication.require_confirming(admin)
    last = BackstopError("")
    for number in range(1, _ATTEMPTS + 1):
        attempt = Fence(site, successor, retire_as, number)
        yield attempt
        if attempt.failure is None:
            return
        last = attempt.failure
    raise _given_up(admin, site.database, last)


def _given_up(admin: Session, database: str, last: BackstopError) -> BackstopError:
    if isinstance(last, _Uncounted):
        return BackstopError(
            "The loss could not be counted: another session keeps writing",
            found=last.message,
            hint="stop that program and run this again; nothing was changed",
        )
    others = "; ".join(str(other) for other in server.other_sessions(admin, database))
    return BackstopError(
        "The database could not be renamed: sessions in it did not end",
        found=others or last.found,
        hint="end them (pg_terminate_backend) and run this again; nothing was changed",
    )


def _require_swappable(admin: Session, live: str, successor: str) -> None:
    for name in (live, successor):
        if server.database_oid(admin, name) is None:
            raise Refused("There is no database %s" % name, hint="nothing was changed")
    obstacles = server.obstacles_to_rename(admin, live)
    if obstacles:
        raise Refused(
            "The database cannot be swapped",
            found=", ".join(obstacles),
            expected="no subscription, replication slot or prepared transaction in " + live,
            hint="these would stay with the former database: move or drop them first",
        )


class Fence:
    """Nothing is written to the live database, and after shut_out() no other session is in it. If it is left before
    rename() commits, nothing has changed."""

    #: session in the live database
    live: Session

    def __init__(self, site: Site, successor: str, retire_as: str, number: int) -> None:
        self._site, self._successor, self._retire_as, self._number = site, successor, retire_as, number
        #: why it did not rename, if another attempt may succeed
        self.failure: Optional[BackstopError] = None

    def __enter__(self) -> Fence:
        with contextlib.ExitStack() as stack:
            self._renaming = stack.enter_context(self._site.administer())
            self._ending = stack.enter_context(self._site.administer())
            self.live = stack.enter_context(self._site.connect())
            self._ended = fence_writers(self.live, self._ending, self._site.database)
            reach("swap.fenced")
            begun = time.monotonic()
            self._before = _beyond_locks(self.live, contents=True)
            self._quick = time.monotonic() - begun < _QUICK_SECONDS
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> bool:
        self._stack.__exit__(kind, error, traceback)
        if isinstance(error, BackstopError):
            again = isinstance(error, _Uncounted) or error.sqlstate == sqlstates.OBJECT_IN_USE
            self.failure = error if again else None
        return self.failure is not None

    def shut_out(self) -> None:
        """Terminate all other sessions, while the rename blocks new connections.

        :raises _Uncounted: something was written nevertheless
        """
        reach("swap.counted")
        database = self._site.database
        self._closed = time.monotonic()
        self._rename = _Rename(self._renaming, database, self._retire_as)
        self._stack.callback(self._rename.abandon)
        self._rename.wait_for_lock(self._ending, database)
        reach("swap.renaming")
        self._ended += _end_sessions(self._ending, [database, self._successor], besides=self.live.backend)
        now = _beyond_locks(self.live, contents=self._quick)
        if now != (self._before if self._quick else self._before[:2]):
            raise _Uncounted("Tables or large objects were made or changed after the count")

    def rename(self, connection_limit: int) -> Renamed:
        """Give the live name to the successor, and commit.

        :param connection_limit: of the successor from now on
        """
        self.live.close()
        self._rename.finish()
        successor, retired = quote_identifier(self._successor), quote_identifier(self._retire_as)
        for statement in (
            "ALTER DATABASE %s ALLOW_CONNECTIONS true" % successor,
            "ALTER DATABASE %s CONNECTION LIMIT %d" % (successor, connection_limit),
            "ALTER DATABASE %s RENAME TO %s" % (successor, quote_identifier(self._site.database)),
            "ALTER DATABASE %s ALLOW_CONNECTIONS false" % retired,
        ):
            self._renaming.execute(statement)
        reach("swap.before-commit")
        confirmed = replication.commit(self._renaming)
        seconds = time.monotonic() - self._closed
        reach("swap.committed")
        return Renamed(
            ended_sessions=self._ended,
            seconds_closed=round(seconds, 3),
            attempts=self._number,
            confirmed=confirmed,
        )


class _Uncounted(BackstopError):
    """Something was written behind the fence."""


def _beyond_locks(inside: Session, contents: bool) -> Tuple[Any, ...]:
    """What can be written in spite of table locks: new tables, and large objects.

    :param contents: read the contents of large objects too; else only their oids
    """
    found = (
        [table.oid for table in catalog.tables(inside)],
        inside.rows("SELECT oid::bigint FROM pg_largeobject_metadata ORDER BY 1"),
    )
    return (*found, digests.large_objects_digest(inside)) if contents else found


def fence_writers(inside: Session, ending: Session, database: str) -> List[str]:
    """Lock every table against writing, in an open transaction of the session. Reading stays possible.

    If a session holds a conflicting lock, all others are terminated, because the holder may change meanwhile. The
    server rolls their transactions back.

    :returns: the sessions that were ended
    """
    names = [qualified(table.schema, table.name) for table in catalog.tables(inside)]
    ended: List[str] = []
    inside.execute("BEGIN")
    if not names:
        return ended
    statement = "LOCK TABLE %s IN SHARE MODE" % ", ".join("ONLY " + name for name in names)
    for left, seconds in zip(reversed(range(len(_LOCK_SECONDS))), _LOCK_SECONDS):
        inside.execute("SAVEPOINT unlocked")
        inside.execute("SET LOCAL lock_timeout = '%ds'" % seconds)
        try:
            inside.execute(statement)
            break
        except BackstopError as error:
            # A lock timeout, or a deadlock with a session that locks in another order.
            if not left or error.sqlstate not in (sqlstates.LOCK_NOT_AVAILABLE, sqlstates.DEADLOCK_DETECTED):
                raise
        inside.execute("ROLLBACK TO SAVEPOINT unlocked")
        others = server.other_sessions(ending, database, besides=(inside.backend,))
        server.terminate(ending, others)
        ended += [str(other) for other in others]
    return ended


class _Rename:
    """``ALTER DATABASE ... RENAME`` in a thread: it waits for sessions that others must terminate meanwhile."""

    def __init__(self, session: Session, old: str, new: str) -> None:
        self._session = session
        self._error: Optional[BaseException] = None
        session.execute("BEGIN")
        session.execute("SET LOCAL lock_timeout = '10s'")
        statement = "ALTER DATABASE %s RENAME TO %s" % (quote_identifier(old), quote_identifier(new))
        self._thread = threading.Thread(target=self._run, args=(statement,), daemon=True)
        self._thread.start()

    def _run(self, statement: str) -> None:
        try:
            self._session.execute(statement)
        except BaseException as error:  # passed to finish(), which raises it in the caller's thread
            self._error = error

    def wait_for_lock(self, observer: Session, database: str) -> None:
        """Return when the rename blocks new connections to the database."""
        oid = server.database_oid(observer, database)
        while self._thread.is_alive():
            held = observer.value(
                "SELECT 1 FROM pg_locks WHERE pid = %s AND locktype = 'object' AND classid = 'pg_database'::regclass"
                " AND objid = %s::oid AND mode = 'AccessExclusiveLock' AND granted",
                (self._session.backend, oid),
            )
            if held:
                return
            self._thread.join(0.01)
        self.finish()

    def finish(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Cancel a rename that still waits, so that the session can be closed."""
        if self._thread.is_alive():
            with contextlib.suppress(*DRIVER_ERRORS):  # the connection may have broken meanwhile
                self._session.raw.cancel()
            self._thread.join(10)


def _end_sessions(ending: Session, databases: List[str], besides: int) -> List[str]:
    """Terminate the clients in these databases; returns when they have ended."""
    ended: Dict[int, str] = {}
    deadline = time.monotonic() + 4.5
    while True:
        others = [
            other for database in databases for other in server.other_sessions(ending, database, besides=(besides,))
        ]
        if not others or time.monotonic() > deadline:
            return list(ended.values())
        new = [other for other in others if other.pid not in ended]
        server.terminate(ending, new)
        ended.update({other.pid: str(other) for other in new})
        ending.execute("SELECT pg_sleep(0.01)")
