# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making a backup: archive and digests from one snapshot, so that a restore can be verified.

Locks come first, then the snapshot: TRUNCATE and table rewrites are not MVCC-safe, so without the locks pg_dump could
write an empty table and still exit with status 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from ..base import encryption, sqlstates
from ..base.durable_files import (
    file_error,
    fsync_file,
    make_private_directory,
    publish_directory,
    read_tree,
    write_file,
    write_json,
)
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.processes import Running
from ..base.progress import timestamp
from ..base.sql_names import qualified
from ..base.tables import Digest, Table
from ..postgres import archive, catalog, copy_progress, definitions, digests, dumped_definitions, locks, server
from ..postgres.client_tools import ClientTools
from ..postgres.connection import Session
from ..postgres.damage import DamagedTable, is_damage
from ..postgres.database_properties import read_properties
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import ROLES, BackupPlace
from ..store.manifest import Manifest, NotCovered, TableEntry
from .options import ARCHIVES, PLAIN, PRISMA_SCHEMA, BackupOptions

#: How often the list of tables may change while they are being locked.
_LOCK_ATTEMPTS = 5
#: How often pg_dump may wait behind a queued lock request, and its lock timeout in seconds.
_DUMP_ATTEMPTS = 3
_DUMP_LOCK_SECONDS = 2


def make_backup(
    site: Site,
    kind: str,
    *,
    migrations: Optional[Mapping[str, bytes]] = None,
    commit: Optional[str] = None,
    form: Optional[BackupOptions] = None,
    prisma_schema: Optional[bytes] = None,
) -> BackupPlace:
    """Back up the live database to level ``readable`` and commit the result to the store.

    :param migrations: files of the running release's migrations folder by relative path, kept in the backup
    :param commit: the running release
    :param form: of single tables, the result is a partial backup, from which only these can be restored
    :param prisma_schema: SQL that creates the running release's Prisma schema, kept in the backup
    :raises BackstopError: only a partial directory is left, which the next backup removes
    """
    form = form or BackupOptions()
    form.require_possible(bool(site.recipients))
    encryption.require_recipients(site.recipients)
    site.store.prepare()
    backup_id = site.store.new_backup_id(site.database)
    final = site.store.backup_path(kind, backup_id)
    partial = site.store.partial_path(kind, backup_id)
    try:
        # Inside the try block: a signal may come as soon as the directory exists.
        with begun(site, kind, backup_id) as site:
            manifest, written = _fill(site, BackupPlace(kind, backup_id, partial), form)
            manifest = dataclasses.replace(manifest, commit=commit)
            for path, content in (migrations or {}).items():
                _write_below(partial, os.path.join("migrations", path), content)
            if prisma_schema is not None:
                _write_below(partial, PRISMA_SCHEMA, prisma_schema)
            _finish(site, partial, final, manifest, written)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    place = BackupPlace(kind, backup_id, final)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.file("lock"))
    return place


def make_again(site: Site, place: BackupPlace) -> BackupPlace:
    """Repeat a backup: the same kind and options, of the same release, with its migrations."""
    manifest = manifests.load(place)
    manifest.require_whole()
    migrations, schema = place.file("migrations"), None
    if os.path.isfile(place.file(PRISMA_SCHEMA)):
        with open(place.file(PRISMA_SCHEMA), "rb") as stream:
            schema = stream.read()
    return make_backup(
        site,
        place.kind,
        migrations=read_tree(migrations) if os.path.isdir(migrations) else None,
        commit=manifest.commit,
        form=BackupOptions.of(manifest),
        prisma_schema=schema,
    )


@dataclasses.dataclass(frozen=True)
class BackupSummary:
    """The facts of a backup for results and the journal."""

    backup: str
    scope: str
    directory: str
    #: path of the same backup as plain SQL
    plain: Optional[str]
    encrypted: bool
    #: of the archive, in bytes
    size: int
    tables: int
    rows: int
    #: duration of each phase
    seconds: Dict[str, float]
    level: Optional[str]

    @classmethod
    def of(cls, place: BackupPlace) -> "BackupSummary":
        manifest = manifests.load(place)
        plain = manifest.archive.plain
        return cls(
            backup=place.backup_id,
            scope=manifest.scope,
            directory=place.path,
            plain=place.file(plain) if plain else None,
            encrypted=manifest.is_encrypted,
            size=manifest.archive.size,
            tables=len(manifest.tables),
            rows=manifest.rows,
            seconds=manifest.seconds,
            level=manifests.level_of(place),
        )


@contextlib.contextmanager
def begun(site: Site, kind: str, backup_id: str) -> Iterator[Site]:
    """Create the directory, and hold the lock that distinguishes it from debris; child processes of the yielded site
    hold it too."""
    lock = site.store.begin_backup(kind, backup_id)
    try:
        yield site.under(lock)
    finally:
        lock.release()


def _write_below(folder: str, path: str, content: bytes) -> None:
    if os.path.isabs(path) or ".." in path.split("/"):
        raise Refused("A migration file has a path that leaves its folder", found=path)
    target = os.path.join(folder, path)
    make_private_directory(os.path.dirname(target))
    write_file(target, content)


@dataclasses.dataclass(frozen=True)
class _Work:
    """Where and how the database is dumped."""

    site: Site
    session: Session
    tools: ClientTools
    #: of the archive
    path: str
    compression: str
    form: BackupOptions


def _fill(site: Site, partial: BackupPlace, form: BackupOptions) -> Tuple[Manifest, Dict[str, str]]:
    """Dump and digest in one snapshot; the manifest with the archive alone in its list of files, and the sha256 of
    age's output."""
    started = time.monotonic()
    file_name = ARCHIVES[form.format] + (encryption.SUFFIX if site.recipients else "")
    path = partial.file(file_name)
    with site.connect() as session:
        if form.tables is None:
            locks.require_room(session, locks.to_read_everything(session), "to back the whole database up")
        tools = site.tools(session)
        compression = archive.choose_compression(tools)
        work = _Work(site, session, tools, path, compression, form)
        snapshot, read = _dump_with_locks(work)
        dumped = time.monotonic()
        major = server.major_version(session)
        identity = server.identity(session)
    reach("backup.dumped")
    files = _write_beside(work, read)
    manifest = Manifest(
        id=partial.backup_id,
        kind=partial.kind,
        scope=form.scope,
        created=snapshot.pop("at"),
        operation=site.operation.id if site.operation else None,
        server=manifests.Server(identity.system_identifier, major, read.version),
        database=read.database,
        archive=manifests.Archive(
            file=file_name,
            format=form.format,
            jobs=form.jobs,
            plain=PLAIN if form.plain else None,
            compression=compression,
            tool=tools.version,
            size=archive.size_of(path),
            recipients=tuple(site.recipients),
        ),
        files=files,
        snapshot=snapshot,
        seconds={"dump": round(dumped - started, 3), "decode": round(time.monotonic() - dumped, 3)},
        tables=read.tables,
        contents=read.contents,
        dumped=read.dumped,
        not_covered=read.not_covered,
    )
    return manifest, read.written


@dataclasses.dataclass
class _Read:
    """What was read from the database in the dump's snapshot."""

    database: manifests.Database
    #: of the server
    version: str
    tables: Tuple[TableEntry, ...]
    contents: manifests.Contents
    not_covered: Tuple[NotCovered, ...]
    #: rows of Prisma's history; None where there is no such table
    history: Optional[List[Dict[str, Any]]]
    dumped: Optional[dumped_definitions.Entries] = None
    #: sha256 of age's output, by file name
    written: Dict[str, str] = dataclasses.field(default_factory=dict)


def _write_beside(work: _Work, read: _Read) -> Dict[str, manifests.File]:
    """Decode the archive and sync it to disk, and write roles and history; describes the archive's files.

    With encryption the roles are encrypted too, because their settings may hold anything, and the history omits the
    logs of failed migrations, which may quote rows.
    """
    site, tools, path, rows, written = work.site, work.tools, work.path, read.history, read.written
    partial, decoding = os.path.dirname(path), None
    with ThreadPoolExecutor(2) as pool:
        settling = pool.submit(_settle, path)
        encrypted = bool(written)
        if not encrypted:
            target = os.path.join(partial, PLAIN) if work.form.plain else os.devnull
            decoding = pool.submit(archive.decode, tools, path, site.keep_open, target, site.progress)
        roles = archive.dump_roles(tools, site.connection, site.keep_open)
        if encrypted:
            secret = os.path.join(partial, ROLES + encryption.SUFFIX)
            written[os.path.basename(secret)] = encryption.encrypt(roles, secret, site.recipients, site.keep_open)
            rows = None if rows is None else [{**row, "logs": None} for row in rows]
        else:
            write_file(os.path.join(partial, ROLES), roles)
        write_json(os.path.join(partial, "history.json"), rows)
        if decoding is not None:
            decoding.result()
        return settling.result()


def _settle(path: str) -> Dict[str, manifests.File]:
    """Sync an archive, which pg_dump left to us, and compute its sha256: while another core decodes it."""
    try:
        paths = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
        for one in paths:
            fsync_file(one)
        folder = os.path.dirname(path)
        return manifests.describe_files(folder, [os.path.relpath(one, folder) for one in paths])
    except OSError as error:
        raise file_error("The archive could not be written to disk", path, error) from error


def _dump_with_locks(work: _Work) -> Tuple[Dict[str, str], _Read]:
    """Dump and digest in one snapshot; repeated when pg_dump could not get its locks. The snapshot and what was read.

    We hold our locks already, but pg_dump queues behind any session that waits for them (a TRUNCATE), which waits for
    us. Only releasing our locks resolves this deadlock.
    """
    attempts = _DUMP_ATTEMPTS
    while True:
        attempts -= 1
        try:
            with _snapshot(work.site, work.session, work.form.tables) as (facts, relations):
                reach("backup.snapshot")
                return facts, _dump(work, facts["exported"], None if work.form.tables is None else relations)
        except _LockTaken as error:
            # pg_dump refuses a directory that is not empty.
            shutil.rmtree(work.path, ignore_errors=True)
            if not attempts:
                raise Refused(error.message, found=error.found, expected=error.expected, hint=error.hint) from None


class _LockTaken(Refused):
    """pg_dump waited for a lock."""


def _dump(work: _Work, snapshot: str, chosen: Optional[List[catalog.Relation]]) -> _Read:
    """:param chosen: the relations of a partial backup"""
    site, session, tools, form = work.site, work.session, work.tools, work.form
    # Before pg_dump reads them: the values in the dump may then be higher, never lower.
    sequences = catalog.sequences(session)
    # Not during the dump, because each holds a lock for every table; not after it, when other sessions may wait.
    dumped = None if chosen is not None else _definitions(work, snapshot)
    tables = _tables(session, form, chosen)
    reading = copy_progress.Reading(copy_progress.table_sizes(session, tables))
    options = archive.DumpOptions(
        snapshot=snapshot,
        compression=work.compression,
        schema_only=form.schema_only,
        jobs=form.jobs if form.format == "directory" else 0,
        relations=None if chosen is None else [relation[:2] for relation in chosen],
        lock_wait_seconds=_DUMP_LOCK_SECONDS,
    )
    path = None if site.recipients else work.path
    with contextlib.ExitStack() as stack:
        dump = stack.enter_context(archive.start_dump(tools, site.connection, path, options, site.keep_open))
        stack.enter_context(_followed_dump(site, form, dump, tables, reading))
        secret = None
        if site.recipients:
            secret = stack.enter_context(archive.EncryptedDump(tools, dump, work.path, site.recipients, site.keep_open))
        read = _read_contents(session, site, form, chosen, _digests(session, tables, reading))
        reach("backup.dumping")
        if secret is not None:
            secret.wait_for_target()
        if dump.wait() != 0 and waits_for_lock(dump.stderr_text):
            raise locked_table(session, dump.stderr_text, _LockTaken)
        dump.check("pg_dump could not write the archive", hint="see pg_dump's message; nothing was kept of this backup")
        entries = None
        if secret is not None:
            read.written[os.path.basename(work.path)], entries = secret.finish()
    read.dumped = dumped
    if form.schema_only:
        sequences = {}
    elif chosen is not None:
        entries = archive.contents(tools, work.path) if entries is None else entries
        for entry in read.tables:
            archive.rows_of(entries, entry.table.oid, entry.schema, entry.name)
        owned = catalog.owned_sequences(session, [relation[2] for relation in chosen])
        sequences = {one.full_name: sequences[one.full_name] for one in owned}
    read.contents = dataclasses.replace(read.contents, sequences=sequences)
    return read


def _definitions(work: _Work, snapshot: str) -> dumped_definitions.Entries:
    """The definitions as pg_dump writes them, in the same snapshot; they cannot be read from an encrypted archive."""
    site = work.site
    site.progress.phase("dumping the definitions", database=site.database)
    try:
        found = dumped_definitions.of_database(
            work.tools,
            site.connection,
            snapshot=snapshot,
            lock_wait_seconds=_DUMP_LOCK_SECONDS,
            keep_open=site.keep_open,
        )
    except BackstopError as error:
        if waits_for_lock(str(error.found)):
            raise locked_table(work.session, str(error.found), _LockTaken) from None
        raise
    return dumped_definitions.to_json(found)


def _finish(site: Site, partial: str, final: str, manifest: Manifest, written: Mapping[str, str]) -> None:
    """Describe the other files, write the manifest last, sync and rename.

    :param written: sha256 of files that cannot be decrypted here, computed while they were written
    """
    names: List[str] = []
    for folder, _folders, found in os.walk(partial):
        names += [os.path.relpath(os.path.join(folder, name), partial) for name in found if name != "lock"]
    try:
        for name in names:
            os.chmod(os.path.join(partial, name), 0o600)
        files = {**manifest.files, **manifests.describe_files(partial, sorted(set(names) - set(manifest.files)))}
        differing = [name for name, digest in written.items() if files[name].sha256 != digest]
        if differing:
            raise BackstopError("A file on disk is not what was written", found=os.path.join(partial, differing[0]))
        manifest = dataclasses.replace(manifest, files=files, finished=timestamp())
        reach("backup.before-manifest")
        write_json(os.path.join(partial, "manifest.json"), manifest.to_json())
        # Before the rename: a disk that is full now must not leave a backup whose level is unknown.
        method = "the whole archive was decoded" + (" while it was encrypted" if site.recipients else "")
        facts = {"passed": True, "method": method, "seconds": manifest.seconds["decode"]}
        manifests.record_verification(BackupPlace(manifest.kind, manifest.id, partial), "readable", facts)
        reach("backup.before-rename")
        publish_directory(partial, final)
    except OSError as error:
        raise file_error("The backup could not be committed", partial, error) from error
    reach("backup.committed")
    site.progress.phase("backed up", backup=manifest.id)


@contextlib.contextmanager
def _snapshot(
    site: Site, session: Session, names: Optional[Sequence[str]]
) -> Iterator[Tuple[Dict[str, Any], List[catalog.Relation]]]:
    """A read-only snapshot in which no table can be truncated or rewritten; its facts, and the locked relations."""
    for _attempt in range(_LOCK_ATTEMPTS):
        before = _to_be_dumped(site, session, names)
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            if _lock_tables(session, before):
                row = session.one(
                    "SELECT pg_export_snapshot(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
                    " ELSE pg_current_wal_lsn() END::text, pg_current_snapshot()::text, now()"
                )
                if before == _to_be_dumped(site, session, names):
                    yield {"exported": row[0], "lsn": row[1], "transactions": row[2], "at": timestamp(row[3])}, before
                    return
        finally:
            with contextlib.suppress(BackstopError):
                session.execute("ROLLBACK")
    raise BackstopError(
        "The tables of %s keep changing" % site.database,
        found="%d attempts to lock them all" % _LOCK_ATTEMPTS,
        hint="wait until nobody creates or drops tables, then run this again",
    )


def _to_be_dumped(site: Site, session: Session, names: Optional[Sequence[str]]) -> List[catalog.Relation]:
    """All tables, or the named ones, each once; a partitioned table with all its partitions.

    :raises Refused: a table does not exist
    """
    if names is None:
        return catalog.locked_by_dump(session)
    if not names:
        raise Refused("No table is named", expected="at least one table, or none of this option for a full backup")
    families = [catalog.find_family(session, name, site.connection.schema) for name in names]
    return sorted({relation for family in families for relation in family.relations})


def _lock_tables(session: Session, names: Sequence[Tuple[str, str, int]]) -> bool:
    """False when a table was dropped meanwhile."""
    if not names:
        return True
    listed = ", ".join("ONLY " + qualified(schema, name) for schema, name, _oid in names)
    try:
        session.execute("LOCK TABLE %s IN ACCESS SHARE MODE" % listed)
    except BackstopError as error:
        if error.sqlstate == sqlstates.UNDEFINED_TABLE:
            return False
        if error.sqlstate == sqlstates.LOCK_NOT_AVAILABLE:
            session.execute("ROLLBACK")
            raise locked_table(session, str(error.found)) from None
        raise
    return True


def waits_for_lock(said: str) -> bool:
    """Whether pg_dump failed because of another session's lock, and not because the lock table is full."""
    return "Query was: LOCK TABLE" in said and "out of shared memory" not in said


def locked_table(session: Session, said: str, kind: Type[Refused] = Refused) -> Refused:
    """An error that names the locked table and the session that holds, or waits for, the lock."""
    row = session.row(
        "SELECT n.nspname || '.' || c.relname, CASE WHEN l.granted THEN 'locked' ELSE 'wanted' END, l.pid,"
        " coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),"
        " coalesce(left(a.query, 100), '')"
        " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p')"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY l.granted DESC, a.xact_start LIMIT 1"
    )
    found = "table %s is %s by backend %d (%s %s, %s: %s)" % row if row else "it is free now"
    return kind(
        "A table is locked by another session",
        found="%s; PostgreSQL reported: %s" % (found, " ".join(said.split())),
        expected="all tables readable within %d seconds" % archive.LOCK_WAIT_SECONDS,
        hint="let that session finish or end it with pg_terminate_backend, then run this again",
    )


def _tables(session: Session, form: BackupOptions, chosen: Optional[List[catalog.Relation]]) -> List[Table]:
    """The tables whose rows are dumped."""
    if form.schema_only:
        return []
    oids = None if chosen is None else {relation[2] for relation in chosen}
    return [table for table in catalog.tables(session) if oids is None or table.oid in oids]


@contextlib.contextmanager
def _followed_dump(
    site: Site, form: BackupOptions, dump: Running, tables: List[Table], reading: copy_progress.Reading
) -> Iterator[None]:
    """Report the progress of the slower one of pg_dump and the digests, which read the same tables."""
    site.progress.phase("dumping", database=site.database, bytes_total=reading.total, tables_total=len(tables))
    dumping = copy_progress.Dumping(tables, reading.sizes, form.jobs if form.format == "directory" else 1)

    def report(session: Session) -> None:
        done = [reading.done()]
        if dump.process.poll() is None and copy_progress.shows_copies(session):
            done.append(dumping.poll(session))
        site.progress.done(*min(done, key=lambda one: one[2]))

    with copy_progress.followed_by(site.connect, report):
        yield


def _digests(session: Session, tables: List[Table], reading: copy_progress.Reading) -> Tuple[TableEntry, ...]:
    entries = []
    for table in tables:
        try:
            with reading.table(table.oid):
                digest = digests.table_digest(session, table.source, table.columns)
        except BackstopError as error:
            if is_damage(error):
                raise DamagedTable(table.full_name, error, "a table of which a backup can be made") from error
            raise
        entries.append(TableEntry(table, digest))
    return tuple(entries)


def _read_contents(
    session: Session,
    site: Site,
    form: BackupOptions,
    chosen: Optional[List[catalog.Relation]],
    tables: Tuple[TableEntry, ...],
) -> _Read:
    """The manifest's facts of the database, read in the open snapshot while pg_dump runs.

    :param chosen: the relations of a partial backup
    """
    rows = history.read_rows(session.cursor(), site.connection.schema)
    oid = server.database_oid(session, site.database)
    size, properties = server.database_size(session, site.database), read_properties(session, site.database)
    contents, not_covered = _beside_the_tables(session, form, chosen)
    return _Read(
        database=manifests.Database(site.database, oid or 0, size, properties),
        version=server.version_text(session),
        tables=tables,
        contents=contents,
        not_covered=not_covered,
        history=None if rows is None else [row.to_json() for row in rows],
    )


def _beside_the_tables(
    session: Session, form: BackupOptions, chosen: Optional[List[catalog.Relation]]
) -> Tuple[manifests.Contents, Tuple[NotCovered, ...]]:
    """Without the sequences, which were read before."""
    if chosen is not None:
        contents = manifests.Contents(
            definitions=definitions.of_relations(session, chosen), large_objects=Digest(0, "0"), extensions={}
        )
        reason = "this backup is of single tables; types and functions that they use are not in it"
        return contents, (NotCovered("database", "everything but the tables that are named", reason),)
    contents = manifests.Contents(
        definitions=definitions.definitions(session),
        large_objects=Digest(0, "0") if form.schema_only else digests.large_objects_digest(session),
        extensions=catalog.extensions(session),
    )
    if form.schema_only:
        return contents, (NotCovered("database", "every row", "this backup is of the schema alone"),)
    return contents, tuple(NotCovered(**one) for one in catalog.not_covered(session))
