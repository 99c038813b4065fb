# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The context of all work: connections, store and locks; and how an operation works: exclusively, journaled, locked."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

from .base import sqlstates
from .base.durable_files import FileLock
from .base.encryption import Encrypted, require_identity
from .base.errors import BackstopError, CouldNotVerify, Locked, Refused
from .base.progress import Progress
from .base.remedies import Setting, remedy
from .postgres import server
from .postgres.archive import Source
from .postgres.client_tools import ClientTools, find_client_tools
from .postgres.connection import Session, Settings, connect
from .postgres.pgbouncer import Pooler
from .store.layout import BackupPlace, Store
from .store.lifecycle import PREDECESSOR_SECONDS, holder_of, require_held, work_on
from .store.manifest import Manifest
from .store.operation import Operation, operations_of
from .store.steps import FENCE

#: First key of our advisory locks: "back" in ASCII. The second is a checksum of the live database's name, which, unlike
#: its oid, does not change in a swap.
_ADVISORY_CLASS = 0x6261636B

_Site = TypeVar("_Site", bound="Site")


def _no_operation() -> Operation:
    raise TypeError("a run needs an operation")


@dataclasses.dataclass(frozen=True)
class Site:
    """A database, its server and its store. That is enough to read."""

    connection: Settings
    administration: Settings
    store: Store
    client_bin_dir: Optional[str] = None
    #: poolers that the application's clients use
    poolers: Sequence[Pooler] = ()
    #: also receives the progress; without an operation only this does
    watched_by: Optional[Progress] = None
    #: public keys for which every backup is encrypted; empty means without encryption
    recipients: Tuple[str, ...] = ()
    #: file of the private key that decrypts backups
    identity: Optional[str] = None
    #: locks under which work here runs; see keep_open
    locks: Tuple[FileLock, ...] = ()

    # Only a Run has one. It is not a field, so that only a Run can have an operation.
    operation = None  # type: Optional[Operation]

    def run(self, operation: Operation, controller: Optional[Dict[str, Any]] = None) -> "Run":
        """A Run of an operation on this site.

        :param controller: the process that runs the playbook; by default the operation's current one
        """
        operation.progress.also(self.watched_by)
        run = Run(**{**self._fields(), "locks": (*self.locks, operation.lock)}, operation=operation)
        return dataclasses.replace(run, controller=controller or holder_of(operation))

    def apart(self) -> "Site":
        """The same site without an operation and its locks, for work outside of the operation."""
        return Site(**{**self._fields(), "locks": ()})

    def _fields(self) -> Dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Site)}

    def under(self: _Site, lock: FileLock) -> _Site:
        """The same site, for work under one more lock."""
        return dataclasses.replace(self, locks=(*self.locks, lock))

    @property
    def keep_open(self) -> List[int]:
        """Descriptors of the locks that are held now. Child processes keep them open, so that a lock is free only when
        the last process that works under it has ended."""
        return [lock.descriptor for lock in self.locks if lock.descriptor is not None]

    @property
    def database(self) -> str:
        return self.connection.database

    @property
    def progress(self) -> Progress:
        return self.operation.progress if self.operation else self.watched_by or Progress()

    def connect(self, database: Optional[str] = None, *, pinned: bool = True) -> Session:
        """A session in the live database, or in another one of the server."""
        settings = self.connection if database is None else self.connection.with_database(database)
        try:
            return connect(settings, pinned=pinned, name=self.session_name)
        except BackstopError:
            reopened = False
            # If this cannot be found out either, the first error says why.
            with contextlib.suppress(BackstopError):
                reopened = settings.database == self.database and self._reopened()
            if not reopened:
                raise
            return connect(settings, pinned=pinned, name=self.session_name)

    def _reopened(self) -> bool:
        """Let connections in again, if a deploy was killed while it had closed the live database to copy it."""
        fenced = [one for one in operations_of(self.store, self.database) if one.last(FENCE) is not None]
        if not fenced or (fenced[-1].last(FENCE) or {})["event"] == "done":
            return False
        own = self.operation is not None and self.operation.id == fenced[-1].id
        if not own and not FileLock.is_free(fenced[-1].lock.path):
            return False
        with self.administer() as admin:
            closed = admin.value("SELECT NOT datallowconn FROM pg_database WHERE datname = %s", (self.database,))
            if closed:
                server.allow_connections(admin, self.database, True)
        return bool(closed)

    def administer(self) -> Session:
        """A session in the maintenance database."""
        return connect(self.administration, name=self.session_name)

    @property
    def session_name(self) -> str:
        """application_name of our sessions, by which users and later runs recognise them."""
        return "backstop " + self.operation.id if self.operation else "backstop"

    def tools(self, session: Session) -> ClientTools:
        return find_client_tools(server.major_version(session), self.client_bin_dir)

    def archive(self, place: BackupPlace, manifest: Manifest) -> Source:
        """The archive of a backup, as input for pg_restore.

        :raises CouldNotVerify: it is encrypted, and there is no identity here
        """
        return self.source_of(place, manifest, manifest.archive.file)

    def source_of(self, place: BackupPlace, manifest: Manifest, name: str) -> Source:
        """A file of a backup; see archive()."""
        if not manifest.is_encrypted:
            return place.file(name)
        if self.identity is None:
            raise CouldNotVerify(
                "Backup %s is encrypted and cannot be read here" % place.backup_id,
                found="no identity; it is for " + ", ".join(manifest.archive.recipients),
                expected="the identity of one of them",
                hint=remedy("give the file with that private key as %s", Setting.IDENTITY),
            )
        return Encrypted(place.file(name), require_identity(self.identity))


@dataclasses.dataclass(frozen=True)
class Run(Site):
    """One operation on a site."""

    operation: Operation = dataclasses.field(default_factory=_no_operation)
    #: the process that runs the playbook
    controller: Dict[str, Any] = dataclasses.field(default_factory=dict)
    #: holds the database's advisory lock, where this run holds its locks
    guard: Optional[Session] = None

    def require_current(self) -> None:
        """Refuse further work of a process that outlived its run.

        :raises Refused: the operation is closed
        :raises Locked: another run adopted it
        """
        if not self.operation.is_open:
            raise Refused(
                "Operation %s is closed" % self.operation.id,
                found="it ended as %s" % self.operation.outcome,
                hint="nothing was changed; begin another one",
            )
        require_held(self.operation, self.controller)


def _advisory_key(database: str) -> int:
    key = zlib.crc32(database.encode())
    return key - (1 << 32) if key >= 1 << 31 else key


def lock_holder(session: Session, database: str) -> Optional[str]:
    """The holder of the advisory lock for a live database's name; None without one."""
    row = session.row(
        "SELECT coalesce(a.application_name, ''), l.pid, coalesce(host(a.client_addr), 'the socket') FROM pg_locks l"
        " LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid ="
        " %s::bigint AND l.granted",
        (_ADVISORY_CLASS, _advisory_key(database) % (1 << 32)),
    )
    return "%s, backend %d, from %s" % row if row else None


@contextlib.contextmanager
def database_lock(site: Site, wait_seconds: float = PREDECESSOR_SECONDS) -> Iterator[Session]:
    """Hold the advisory lock for the live database's name; yields the session in the maintenance database.

    :raises Locked: names the holder
    """
    key = _advisory_key(site.database)
    with site.administer() as session:
        session.execute("SET lock_timeout = '%dms'" % int(wait_seconds * 1000))
        try:
            session.execute("SELECT pg_advisory_lock(%s, %s)", (_ADVISORY_CLASS, key))
        except BackstopError as error:
            if error.sqlstate != sqlstates.LOCK_NOT_AVAILABLE:
                raise
            raise Locked(
                "Another operation is changing database %s" % site.database,
                found=lock_holder(session, site.database) or "a session that just left",
                hint="wait for it to end, then run this again",
            ) from None
        session.execute("SET lock_timeout = '10s'")
        yield session


@contextlib.contextmanager
def exclusive(run: Run) -> Iterator[Run]:
    """Wait for an earlier run of this operation to end, then hold the locks.

    A module that changes something holds them from start to end, with the yielded run; within it, no lock is taken
    twice.
    """
    with contextlib.ExitStack() as stack:
        if run.operation.lock.descriptor is None:
            stack.enter_context(run.operation.lock.held(PREDECESSOR_SECONDS))
            work_on(run.operation)
        # The server releases the lock when it restarts, or when the session is terminated.
        if run.guard is None or not run.guard.answers():
            run = dataclasses.replace(run, guard=stack.enter_context(database_lock(run)))
        yield run


@contextlib.contextmanager
def journaled_step(site: Site, step: str) -> Iterator[Dict[str, Any]]:
    """Run one step of an operation exclusively, and journal its start and end. The journal keeps what the body puts
    into the yielded dict.

    Without an operation nothing is journaled or locked.

    :raises Refused: the operation is closed
    :raises Locked: another run adopted it
    """
    if not isinstance(site, Run):
        yield {}
        return
    with exclusive(site) as run:
        run.require_current()
        with run.operation.step(step) as facts:
            yield facts
