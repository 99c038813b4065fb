# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts for a diagnosis. Reads only.

A fact that cannot be read is kept as unavailable and counts as unknown; it never stops the diagnosis.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable, List, Optional, TypeVar

from ..backups.catalog_comparison import catalog_differences
from ..base.errors import BackstopError
from ..base.sql_names import typed_name
from ..base.tables import Digest, Table
from ..loss.pairing import Pair, is_history, known_by_oid, pair_up
from ..migrations.deploy import applied_since, backup_history
from ..migrations.replay import missing_objects
from ..migrations.safety_copy import safety_copy_of
from ..postgres import catalog, definitions, digests, server
from ..postgres.connection import DRIVER_ERRORS, Session
from ..prisma import history
from ..prisma.sessions import running_backends
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation, operations_of
from .baseline import ReadFolder, backup_to_revert_to, last_deploy, release_before

_INVALID_INDEXES = (
    "SELECT n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT (i.indisvalid AND i.indisready) AND "
    + catalog.USER_SCHEMA
    + " ORDER BY 1"
)
Read = TypeVar("Read")


@dataclasses.dataclass
class TableFacts:
    """The current state of a table of the backup."""

    name: str
    rows_then: int
    #: the name in the syntax of options
    typed_name: str = ""
    #: the table's current name; None if it was dropped
    name_now: Optional[str] = None
    rows_now: Optional[int] = None
    #: None: could not be compared
    same: Optional[bool] = None
    #: rows written since, by their transaction ids, if these are usable
    written: Optional[int] = None

    @property
    def shown(self) -> str:
        return self.name_now or self.name

    @property
    def gone(self) -> bool:
        return self.rows_now is None and self.same is False


@dataclasses.dataclass
class Facts:
    """All facts for a diagnosis."""

    failed: List[str] = dataclasses.field(default_factory=list)
    applied_since: List[str] = dataclasses.field(default_factory=list)
    pending: List[str] = dataclasses.field(default_factory=list)
    unknown: List[str] = dataclasses.field(default_factory=list)
    history_differences: List[str] = dataclasses.field(default_factory=list)
    running: List[str] = dataclasses.field(default_factory=list)
    invalid_indexes: List[str] = dataclasses.field(default_factory=list)
    added: List[str] = dataclasses.field(default_factory=list)
    missing: List[str] = dataclasses.field(default_factory=list)
    changed: List[str] = dataclasses.field(default_factory=list)
    #: tables, columns and types that the applied migrations create but that are missing
    gone: List[str] = dataclasses.field(default_factory=list)
    tables: List[TableFacts] = dataclasses.field(default_factory=list)
    unreadable: List[str] = dataclasses.field(default_factory=list)
    place: Optional[BackupPlace] = None
    manifest: Optional[Manifest] = None
    #: the copy of the database that equals this backup, by its name, if the deploy made one
    safety_copy: Optional[str] = None
    open_operation: Optional[Operation] = None
    last_operation: Optional[Operation] = None
    deploy: Optional[Operation] = None
    healthy: Optional[bool] = None
    #: the former release, if the last deploy changed only the release
    release_before: Optional[str] = None
    #: facts that could not be read, with the reason
    unavailable: List[str] = dataclasses.field(default_factory=list)
    #: parts of the database could not be read, so missing facts prove nothing
    history_unreadable: bool = False

    @property
    def backup(self) -> str:
        return self.place.backup_id if self.place else "(none)"

    @property
    def shrunk(self) -> List[TableFacts]:
        return [table for table in self.tables if table.rows_now is not None and table.rows_now < table.rows_then]

    @property
    def without_trace(self) -> bool:
        """Only the history is ahead of the backup: the database has nothing of what was applied since."""
        differs = self.added or self.missing or self.changed or not all(table.same for table in self.tables)
        unknown = not set(self.applied_since) - set(self.unknown)
        return bool(self.applied_since) and not differs and (bool(self.gone) or unknown)

    @property
    def release_alone(self) -> bool:
        """A complete revert only has to change the release."""
        others = not self.applied_since and (self.missing or self.changed or self.history_differences)
        rows = self.shrunk or any(table.gone for table in self.tables)
        return self.release_before is not None and not (self.gone or rows or others)

    @property
    def only_added(self) -> bool:
        """The migrations since the backup only added objects, so dropping these restores the former state."""
        return not (self.missing or self.changed or any(table.gone for table in self.tables))


def gather(
    site: Site,
    *,
    folder: Optional[ReadFolder] = None,
    healthy: Optional[bool] = None,
    backup_id: Optional[str] = None,
) -> Facts:
    """Read all facts.

    :param folder: reads the migrations folder of the running release
    :param healthy: whether the application is; None if not checked
    """
    facts = Facts(healthy=healthy)
    of_this = operations_of(site.store, site.database)
    facts.last_operation = of_this[-1] if of_this else None
    facts.open_operation = next((one for one in reversed(of_this) if one.is_open), None)
    facts.deploy = last_deploy(site)
    facts.release_before = None if backup_id else release_before(site)
    try:
        facts.place = backup_to_revert_to(site, backup_id)
        facts.manifest = manifests.load(facts.place)
        place = facts.place
        facts.safety_copy = ask_for(facts, "the safety copies", lambda: _safety_copy(site, place))
    except BackstopError as error:
        facts.place = None
        facts.unavailable.append(str(error))
    with site.connect() as session:
        files = ask_for(facts, "the migrations folder", folder) if folder is not None else None
        _read_history(site, session, facts, files)
        facts.running = ask_for(facts, "running migrations", lambda: _running(session)) or []
        found = ask_for(facts, "invalid indexes", lambda: session.rows(_INVALID_INDEXES)) or []
        facts.invalid_indexes = [str(name) for (name,) in found]
        if facts.manifest is not None:
            compare_with_backup(site, session, facts, facts.manifest)
        if files is not None and (facts.applied_since or facts.missing) and not (facts.failed or facts.unknown):
            look = functools.partial(missing_objects, site, session, files)
            facts.gone = ask_for(facts, "whether what the applied migrations made is there", look) or []
    return facts


def _safety_copy(site: Site, place: BackupPlace) -> Optional[str]:
    with site.administer() as admin:
        made = safety_copy_of(site, admin, place)
    return made.copy if made else None


def ask_for(facts: Facts, what: str, read: Callable[[], Read]) -> Optional[Read]:
    try:
        return read()
    except BackstopError as error:
        facts.unavailable.append("%s could not be read: %s" % (what, error))
        return None


def _running(session: Session) -> List[str]:
    return [
        "backend %d (%s, %s) %s"
        % (
            backend.pid,
            backend.application_name or "no name",
            backend.user,
            "holds Prisma's lock" if backend.holds_lock else "waits for Prisma's lock",
        )
        for backend in running_backends(session.cursor())
    ] + [
        "%s works on a migration that an interrupted run left" % other
        for other in server.other_sessions(session, session.settings.database)
        if other.application.startswith("prisma of backstop ") and not other.idle
    ]


def _read_history(
    site: Site,
    session: Session,
    facts: Facts,
    files: Optional[List[history.MigrationFile]],
) -> None:
    try:
        rows = history.read_rows(session.cursor(), site.connection.schema)
    except DRIVER_ERRORS as error:
        facts.history_unreadable = True
        facts.unavailable.append("the history of migrations could not be read: %s" % " ".join(str(error).split()))
        return
    facts.failed = history.compare([], rows).failed
    if facts.place is not None:
        facts.applied_since = [row.migration_name for row in applied_since(facts.place, rows)]
        facts.history_differences = history.history_differences(backup_history(facts.place), rows)
    if files is not None:
        state = history.compare(files, rows)
        facts.pending, facts.unknown = state.pending, [name for name in state.unknown if name not in state.failed]


def compare_with_backup(site: Site, session: Session, facts: Facts, manifest: Manifest) -> None:
    now = ask_for(facts, "the catalog", lambda: definitions.definitions(session))
    if now is not None:
        found = definitions.compare(manifest.definitions, now)
        ours = site.connection.schema + "." + history.TABLE
        before = manifest.definitions
        found["changed"] = [
            key for key in found["changed"] if not definitions.only_moved_up(key, before[key], now[key])
        ]
        facts.added, facts.missing, facts.changed = (
            [definitions.shown(key, now, before) for key in found[how] if ours not in key]
            for how in ("added", "missing", "changed")
        )
        _correct_by_dump(site, facts, manifest)
    contents = {(entry.schema, entry.name): entry.digest for entry in manifest.tables}
    first = _first_transaction_after(session, manifest)
    known = known_by_oid(session, manifest)
    for pair in pair_up(catalog.tables(session), [entry.table for entry in manifest.tables], known):
        then = pair.base
        if then is not None and not is_history(session, then):
            facts.tables.append(_table(session, facts, then, pair, contents[then.schema, then.name], first))
    facts.tables.sort(key=lambda table: table.name)


def _correct_by_dump(site: Site, facts: Facts, manifest: Manifest) -> None:
    """Our queries show what differs; pg_dump decides whether anything does."""
    ours = "%s.%s" % (site.connection.schema, history.TABLE)
    look = functools.partial(catalog_differences, site, manifest, settle=False, ignore=[ours])
    found = ask_for(facts, "what pg_dump writes of the catalog", look)
    if found is not None and found.equal:
        facts.added, facts.missing, facts.changed = [], [], []
    elif found is not None and not (facts.added or facts.missing or facts.changed):
        facts.changed = found.objects


def _table(session: Session, facts: Facts, then: Table, pair: Pair, wanted: Digest, first: Optional[int]) -> TableFacts:
    now = pair.live
    table = TableFacts(then.full_name, wanted.rows, typed_name(then.schema, then.name))
    table.name_now = now.full_name if now is not None else None
    here = {there: column for column, there in pair.columns.items()}
    if now is None or not set(then.columns) <= set(here):
        table.same = False
        table.rows_now = None if now is None else ask_for(facts, then.full_name, lambda: _count(session, now))
        return table
    try:
        found = digests.table_digest(session, now.source, [here[column] for column in then.columns])
    except BackstopError as error:
        facts.unreadable.append(table.typed_name)
        facts.unavailable.append("table %s: %s" % (then.full_name, error.found))
        return table
    table.rows_now, table.same = found.rows, found == wanted
    rewritten = (now.oid, now.filenode) != (then.oid, then.filenode)
    if not table.same and first is not None and not rewritten:
        table.written = ask_for(facts, then.full_name, lambda: _written_since(session, now, first))
    return table


def _count(session: Session, table: Table) -> int:
    return int(session.value("SELECT count(*) FROM %s r__" % table.source))


def _first_transaction_after(session: Session, manifest: Manifest) -> Optional[int]:
    """The first transaction id after the backup, if row versions can be dated by theirs.

    They store only 32 bits: after the first 2^32 transactions of a server an old row may look like a new one.
    """
    known = manifest.snapshot.get("transactions", "")
    last = int(session.value("SELECT txid_snapshot_xmax(txid_current_snapshot())"))
    same = server.database_oid(session, session.settings.database) == manifest.database.oid
    identity = server.identity(session).system_identifier == manifest.server.system_identifier
    parts = known.split(":")
    return int(parts[1]) if same and identity and len(parts) == 3 and last < 1 << 32 else None


def _written_since(session: Session, table: Table, first: int) -> int:
    sql = "SELECT count(*) FROM %s r__ WHERE r__.xmin::text::bigint >= %d"
    return int(session.value(sql % (table.source, first)))
