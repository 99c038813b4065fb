# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 1: cleaning up after a migration that failed or was interrupted.

The result of a deploy's migrations is compared with its backup: history, definitions and rows. If they only added
objects, and no row of the existing tables differs, then these objects are dropped, and the migrations before the failed
one are deleted from the history. Both happen in one transaction that is proved before its COMMIT. Any other result is
left unchanged and reported: then a restore and a swap are needed.

The DROP statements are those of ``pg_restore --clean``. That they restore the backup's definitions is proved first on a
scratch copy of the live definitions, which pg_dump can read, and again after the COMMIT.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import List, Sequence, Tuple

from ..backups.catalog_comparison import catalog_differences, is_about, loaded, schema_of_database
from ..backups.comparison import compare_tables
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Action, Given, Setting, remedy
from ..base.sql_names import qualified
from ..loss.acceptance import LossPolicy, Refusal
from ..loss.count import losses_of_dropping
from ..loss.kept_rows import write_lost_rows
from ..loss.lost_objects import LostObjects, lost_objects
from ..loss.migration_changes import mark
from ..loss.pairing import is_history
from ..postgres import archive, catalog, definitions, dumped_definitions
from ..postgres.connection import Session
from ..postgres.definitions import is_beside
from ..postgres.dropping import drop_each
from ..postgres.restarts import tried_again
from ..postgres.sequences import sequences_behind
from ..prisma import history
from ..prisma.cli import Prisma
from ..site import Site, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.steps import CLEAN, RESOLVE, LeftoversDropped, Resolved
from .closed_copy import closed_copy
from .deploy import applied_since, backup_history, read_state, take_out_of_history, wind_up_predecessor

#: Kinds of entries in a dump that our queries do not cover.
_NOT_ASKED = (
    "ACCESS METHOD", "FOREIGN DATA WRAPPER", "PROCEDURAL LANGUAGE", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM", "USER MAPPING",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Left:
    """What the migrations since a backup left."""

    #: objects
    added: List[str]
    #: migrations
    applied: List[str]
    #: what drops the objects
    statements: List[str]
    #: why that would not be enough
    reasons: List[str]

    @property
    def nothing(self) -> bool:
        return not (self.added or self.applied or self.statements or self.reasons)


@dataclasses.dataclass(frozen=True)
class Cleaned(LeftoversDropped, Resolved):
    #: ``clean`` (nothing was left), ``dropped``, or ``restore_needed``, without changes, for these reasons
    outcome: str = "clean"
    reasons: List[str] = dataclasses.field(default_factory=list)
    changed: bool = False


@tried_again
def clean_failed_migration(site: Site, place: BackupPlace, prisma: Prisma, policy: LossPolicy) -> Cleaned:
    """Drop what the migrations since a backup added, delete the applied ones from the history, and mark the failed ones
    as rolled back.

    :raises Refused: objects that the migrations did not create would be dropped, more than accepted
    """
    with site.connect() as session:
        wind_up_predecessor(site, session)
        found = leftovers(site, session, place)
        failed = read_state(session, prisma, site.connection.schema).failed
        if not found.reasons:
            objects = require_accepted(site, session, place, policy) if found.added else LostObjects()
    if found.reasons:
        return Cleaned(outcome="restore_needed", reasons=found.reasons)
    left = bool(found.statements or found.applied)
    dropped = LeftoversDropped(found.added, found.applied, **objects.to_json())
    if left:
        with journaled_step(site, CLEAN) as facts, site.connect() as session:
            names, kept = _drop_added(site, session, place, found.statements)
            dropped = dataclasses.replace(dropped, kept_rows=kept)
            facts.update(dataclasses.asdict(dropped), dropped=names)
    if left or failed:
        with journaled_step(site, RESOLVE) as facts, site.connect() as session:
            facts["resolved"] = _resolve(site, session, prisma, failed)
            _prove(site, session, place)
    return Cleaned(failed, **vars(dropped), outcome="dropped" if left else "clean", changed=left or bool(failed))


def require_accepted(site: Site, session: Session, place: BackupPlace, policy: LossPolicy) -> LostObjects:
    """Objects that were made since a backup, but not by the migrations.

    :raises Refused: there are more than accepted
    """
    objects = lost_objects(site, session, place)
    kept = "the rows of tables are kept in files, definitions are not"
    policy.require(0, Refusal((), "Save them first", kept, objects.to_json()), objects)
    return objects


def leftovers(site: Site, session: Session, place: BackupPlace) -> Left:
    """What the migrations since a backup left.

    :raises Refused: the backup was made after the migration had failed
    """
    manifest = manifests.load(place)
    manifest.require_whole()
    applied, reasons = _history_since(site, session, place)
    added, statements, wrong = _objects_since(site, session, manifest)
    # New columns are among the added objects; their values came from the migration.
    reasons += wrong + _rows_since(site, session, manifest)
    if applied and added and not reasons:
        reasons = _written_since(site, session, place, manifest)
    return Left(added, [row.migration_name for row in applied], statements, reasons)


def _rows_since(site: Site, session: Session, manifest: Manifest) -> List[str]:
    """How existing rows and sequences differ."""
    tables = compare_tables(session, manifest, besides=[_history_table(site)], new_columns=True).tables
    found = [sentence for sentence in tables if not sentence.endswith(" was not there")]
    return found + ["sequence " + sentence for sentence in sequences_behind(session, manifest.sequences)]


def _history_table(site: Site) -> str:
    return "%s.%s" % (site.connection.schema, history.TABLE)


def _history_since(site: Site, session: Session, place: BackupPlace) -> Tuple[List[history.HistoryRow], List[str]]:
    """The history rows of migrations that were applied since, and how the history would differ without them and the
    failed ones."""
    before = backup_history(place)
    failed = history.compare([], before).failed
    if failed:
        raise Refused(
            "The backup was made after the migration had failed",
            found="%s is marked as failed in backup %s" % (", ".join(failed), place.backup_id),
            hint=remedy("name an earlier one: %s", Given(Setting.BACKUP, "ID")),
        )
    rows = history.read_rows(session.cursor(), site.connection.schema)
    applied = applied_since(place, rows)
    going = {row.id for row in applied}
    staying = [row for row in rows or () if row.id not in going and row.state != history.FAILED]
    differences = history.history_differences(before, staying)
    return applied, ["in the history of migrations " + sentence for sentence in differences]


def _objects_since(site: Site, session: Session, manifest: Manifest) -> Tuple[List[str], List[str], List[str]]:
    """Objects that were added since, the statements that drop them, and what would differ then."""
    history_table = _history_table(site)
    found = catalog_differences(site, manifest, settle=False, ignore=[history_table])
    own = found.own["added"]
    added = own + [key for key in found.dumped["added"] if dumped_definitions.kind_of(key) in _NOT_ASKED]
    if found.equal and not added:
        return [], [], []
    with schema_of_database(site, site.database) as source:
        drops = dumped_definitions.drops(source, site.keep_open)
        statements = [drop.statement for drop in drops if drop.key in found.dumped["added"]]
        statements += _drops_of_our_own(session, own)
        try:
            left = _left_on_copy(site, source, manifest, statements)
        except BackstopError as error:
            left = ["whether it can be dropped could not be proved on a copy: %s" % error]
    left += ["%s cannot be dropped in a transaction" % key for key in found.dumped["added"] if _is_subscription(key)]
    # What pg_dump does not carry is not on the copy.
    beside = ["%s is %s" % (key, how) for how in ("missing", "changed") for key in found.own[how] if is_beside(key)]
    beside += ["%s are added" % key for key in own if key.startswith("privileges on ")]
    added = [definitions.shown(key, found.live) for key in added]
    return added, statements, left + [one for one in beside if one not in left]


def _is_subscription(key: str) -> bool:
    return key.startswith("SUBSCRIPTION ")


def _left_on_copy(site: Site, source: archive.Source, manifest: Manifest, statements: Sequence[str]) -> List[str]:
    """How the live definitions would differ from the backup's after these statements."""
    with loaded(site, source, manifest.properties, "leftovers") as copy:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(site.connect(copy))
            if scratch.value("SELECT EXISTS (SELECT FROM pg_event_trigger)"):
                # Their functions run at each DROP and may reach other servers.
                stack.enter_context(closed_copy(site, copy))
            stack.enter_context(scratch.transaction())
            drop_each(scratch, statements)
        found = catalog_differences(site, manifest, copy, ignore=[_history_table(site)])
    return [sentence for sentence in found.objects if sentence not in found.beside]


def _written_since(site: Site, session: Session, place: BackupPlace, manifest: Manifest) -> List[str]:
    """New tables and columns that hold more than the migrations put there: the application used them.

    The swap counts what would be lost with them, and asks for consent.
    """
    known = {entry.full_name: entry.table for entry in manifest.tables}
    losses = losses_of_dropping(session, known, to_be_put_back=False)
    mark(session, losses, site.store, place)
    return [
        "%s, written since an applied migration added their columns" % loss for loss in losses if not loss.by_migration
    ]


def _prove(site: Site, session: Session, place: BackupPlace) -> None:
    found = leftovers(site, session, place)
    left = ["%s is left" % key for key in found.added] + ["%s is applied" % name for name in found.applied]
    _require_none(found.reasons + left)


def _prove_inside(site: Site, session: Session, place: BackupPlace, manifest: Manifest) -> None:
    """The same within a transaction, which pg_dump cannot see, by our own queries."""
    applied, wrong = _history_since(site, session, place)
    live = definitions.definitions(session)
    found = definitions.compare(manifest.definitions, live)
    wrong += ["%s is applied" % row.migration_name for row in applied]
    ours = _history_table(site)
    wrong += [
        "%s is %s" % (definitions.shown(key, live, manifest.definitions), how)
        for how, keys in found.items()
        for key in keys
        if not is_about(key, ours)
    ]
    _require_none(wrong + _rows_since(site, session, manifest))


def _require_none(wrong: Sequence[str]) -> None:
    if wrong:
        raise BackstopError(
            "The database is not as it was before the migration",
            found="; ".join(wrong[:10]),
            hint=remedy("revert completely: %s", Action.COMPLETE),
        )


def _drop_added(site: Site, session: Session, place: BackupPlace, statements: Sequence[str]) -> Tuple[List[str], int]:
    """Run these DROP statements in one transaction, and delete the applied migrations from the history.

    :returns: the statements that dropped something, and how many rows were dropped with it and kept in files
    """
    manifest = manifests.load(place)
    with session.transaction():
        session.execute("SET LOCAL lock_timeout = '5s'")
        kept = _keep_rows(site, session, manifest)
        dropped = drop_each(session, statements)
        take_out_of_history(session, site.connection.schema, _history_since(site, session, place)[0])
        _prove_inside(site, session, place, manifest)
        reach("clean.before-commit")
    reach("clean.committed")
    return dropped, kept


def _keep_rows(site: Site, session: Session, manifest: Manifest) -> int:
    """Write the contents of new tables and columns to files, under locks, so that nothing is added any more."""
    known = {entry.full_name: entry.table for entry in manifest.tables}
    going = [
        qualified(table.schema, table.name)
        for table in catalog.tables(session)
        if not is_history(session, table)
        and (table.full_name not in known or not set(table.columns) <= set(known[table.full_name].columns))
    ]
    if going:
        listed = ", ".join("ONLY " + name for name in going)
        session.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % listed)
    losses = losses_of_dropping(session, known, to_be_put_back=False)
    if losses and site.operation is not None:
        write_lost_rows(session, losses, site.operation.file("lost-rows"))
        reach("clean.kept")
    return sum(loss.total for loss in losses)


def _resolve(site: Site, session: Session, prisma: Prisma, failed: Sequence[str]) -> List[str]:
    for name in failed:
        prisma.migrate_resolve(site.connection.url(), cursor=session.cursor(), rolled_back=name)
        reach("resolve.one")
    left = history.compare([], history.read_rows(session.cursor(), site.connection.schema)).failed
    if left:
        raise BackstopError("Migrations are still marked as failed", found=", ".join(left))
    return list(failed)


def _drops_of_our_own(session: Session, keys: Sequence[str]) -> List[str]:
    """Statements for objects without a separate entry in a dump: new columns and CHECK constraints of existing tables
    (an inherited one is dropped with the parent's), and invalid indexes that CREATE INDEX CONCURRENTLY left."""
    rows = session.rows(
        "SELECT format('ALTER TABLE %%I.%%I DROP COLUMN %%I', n.nspname, c.relname, a.attname) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind <> 'c'"
        " AND a.attislocal AND 'column ' || n.nspname || '.' || c.relname || '.' || a.attname = ANY(%s)"
        " AND 'relation ' || n.nspname || '.' || c.relname <> ALL(%s)"
        " UNION ALL SELECT format('ALTER TABLE %%I.%%I DROP CONSTRAINT %%I', n.nspname, c.relname, k.conname)"
        " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE k.contype = 'c' AND k.conislocal"
        " AND 'constraint ' || n.nspname || '.' || c.relname || '.' || k.conname = ANY(%s)"
        " AND 'relation ' || n.nspname || '.' || c.relname <> ALL(%s)"
        " UNION ALL SELECT format('DROP INDEX %%I.%%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c"
        " ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid"
        " AND 'index ' || n.nspname || '.' || c.relname = ANY(%s)",
        (list(keys),) * 5,
    )
    return [str(statement) for (statement,) in rows]
