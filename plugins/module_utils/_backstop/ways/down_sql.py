# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 2, ``drop``: an applied migration is reverted by SQL, the down-SQL.

Down-SQL must be proved: on a copy of the current database it must produce exactly the catalog of the backup from before
the migration, and keep every row of the remaining tables. Then it runs on the live database in one transaction, which
proves the same again before its COMMIT. It also deletes the migration from Prisma's history, so that a later deploy
applies it again. Rows and values that are lost with tables and columns are counted and kept as files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..backups.catalog_comparison import catalog_differences, compare_catalog
from ..backups.comparison import Comparison, compare_tables
from ..backups.restore import build_database
from ..base import sqlstates
from ..base.durable_files import file_error, known_fields, write_file
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Action, Given, Setting, Start, remedy
from ..base.sql_names import is_scratch, quote_identifier, scratch_name
from ..base.tables import Digest, Table
from ..loss.acceptance import Acceptance, Loss, LossPolicy, counted, snapshot
from ..loss.count import TableLoss, losses_of_dropping
from ..loss.lost_objects import lost_objects
from ..loss.migration_changes import mark
from ..loss.pairing import is_history
from ..migrations.closed_copy import closed_copy, refuse_openings
from ..migrations.deploy import applied_since, backup_history, take_out_of_history, wind_up_predecessor
from ..postgres import catalog, definitions, digests
from ..postgres.connection import PINNED_SETTINGS, Session
from ..postgres.database_properties import drop_scratch_database
from ..postgres.restarts import tried_again
from ..prisma import history
from ..prisma.cli import Prisma
from ..prisma.failures import PrismaError
from ..prisma.project import Project
from ..prisma.sql_text import cluster_statements, statements
from ..site import Run, Site, exclusive, journaled_step
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.manifest import Manifest
from ..store.operation import Operation
from ..store.steps import DOWN, DOWN_PROOF, EMERGENCY_BACKUP, DownSqlProved, LedBack, Lost, TakenOut, as_json
from .handover import fence_writers
from .in_force import done_before, settled

#: The file with down-SQL next to a migration.sql, and the file of an operation with the proved SQL.
DOWN_FILE = "down.sql"
_LOCK_TIMEOUT = "5s"
#: Classes of errors that the SQL did not cause; a foreign server is unreachable on a copy.
_NOT_BY_THE_SQL = (
    sqlstates.CONNECTION_EXCEPTION, sqlstates.INSUFFICIENT_RESOURCES, sqlstates.OPERATOR_INTERVENTION,
)  # fmt: skip
_FOREIGN_SERVER = sqlstates.SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
#: First words of statements that would end the transaction, or need one of their own.
_NOT_IN_A_TRANSACTION = (
    "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "VACUUM", "CLUSTER",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DownSql:
    """Down-SQL, and its source."""

    text: str = dataclasses.field(repr=False)
    source: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


# Finding it


def find_down_sql(
    migrations: Sequence[str],
    *,
    given: Optional[str] = None,
    file: Optional[str] = None,
    prisma: Optional[Prisma] = None,
    old_release: Optional[str] = None,
    url: str = "",
) -> DownSql:
    """The down-SQL for these migrations: given, else from the file of each, else from a diff of both releases' schemas.

    :param migrations: names in order of application
    :param prisma: of the release that applied them
    :param old_release: directory of the release before it
    """
    if given:
        return DownSql(given, "given")
    if file:
        return DownSql(_read(file), file)
    if prisma is None:
        raise Refused("There is no down-SQL", hint=remedy("give it as %s", Setting.DOWN_SQL))
    paths = [os.path.join(prisma.project.migrations(), name, DOWN_FILE) for name in reversed(migrations)]
    there = [path for path in paths if os.path.isfile(path)]
    if there:
        if there != paths:
            raise Refused(
                "Not every migration has down-SQL",
                found="no " + ", ".join(sorted(set(paths) - set(there))),
                hint=remedy("write the missing files, or give all of the SQL as %s", Setting.DOWN_SQL),
            )
        return DownSql("\n".join(_read(path) for path in paths), ", ".join(paths))
    if old_release is None:
        raise Refused("There is no down-SQL", hint=remedy("give it as %s", Setting.DOWN_SQL))
    old = Project(old_release, node_bin_dir=os.path.dirname(prisma.node))
    return DownSql(prisma.migrate_diff(url, old.schema()), "prisma migrate diff")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise file_error("The down-SQL cannot be read", path, error) from error
        raise Refused("The down-SQL is not UTF-8", found=path) from None


def refuse_unfit(sql: DownSql) -> None:
    """Refuse SQL that would affect more than one transaction or one database."""
    for statement in statements(sql.text):
        words = [token.word for token in statement]
        if words[0] in _NOT_IN_A_TRANSACTION or "CONCURRENTLY" in words:
            line = sql.text.count("\n", 0, statement[0].position) + 1
            raise Refused(
                "The down-SQL cannot run in one transaction",
                found="line %d: %s" % (line, " ".join(token.text for token in statement)[:100]),
                hint="remove that statement: all of the SQL runs in one transaction, which is begun and ended here",
            )
    reaching = ["line %d: %s (%s)" % (one.line, one.text, one.why) for one in cluster_statements(sql.text)]
    if reaching:
        raise Refused("The down-SQL changes the whole server", found="; ".join(reaching[:5]))


def rehearse_down(
    run: Run,
    before: BackupPlace,
    now: Optional[BackupPlace] = None,
    *,
    scratch: Optional[str] = None,
    **sources: Any,
) -> DownSqlProved:
    """Find the down-SQL for what was applied since the backup ``before`` and prove it on a copy.

    :param now: backup of the current database, from which the copy is made
    :param scratch: the copy, if a rehearsal left one with the migration applied
    :param sources: arguments of find_down_sql()
    :returns: also if it is not proved, which is not an error
    """
    operation = run.operation
    with run.connect(scratch) as session:
        rows = rows_to_take_out(session, before)
    with journaled_step(run, DOWN_PROOF) as facts:
        found = DownSqlProved(proved=False, before=before.backup_id, source="none")
        try:
            sql = find_down_sql([row.migration_name for row in rows], url=run.connection.url(scratch), **sources)
            found = dataclasses.replace(found, source=sql.source, sha256=sql.sha256)
            write_file(operation.file(DOWN_FILE), sql.text.encode())
            refuse_unfit(sql)
            led = _prove_on(run, scratch, sql, before) if scratch else _prove_on_copy(run, sql, before, now)
            found = dataclasses.replace(found, **{**vars(led), "proved": True})
        except _NotProved as error:
            found = dataclasses.replace(found, reasons=error.reasons)
        except (Refused, PrismaError) as error:
            found = dataclasses.replace(found, reasons=[str(error)])
        facts.update(as_json(found))
    return dataclasses.replace(found, changed=True)


# Proving it


def _prove_on_copy(run: Run, sql: DownSql, before: BackupPlace, now: Optional[BackupPlace]) -> LedBack:
    if now is None:
        raise AssertionError("give a backup or a scratch database")
    name = scratch_name(run.operation.id, "down")
    try:
        build_database(run, now, name)
        return _prove_on(run, name, sql, before)
    finally:
        with run.administer() as admin:
            drop_scratch_database(admin, name)


class _NotProved(BackstopError):
    """The down-SQL does not have the required effect."""

    def __init__(self, reasons: List[str]) -> None:
        super().__init__(
            "The down-SQL does not restore the former state", found="; ".join(reasons[:10]), hint="nothing was changed"
        )
        self.reasons = reasons


def _prove_on(site: Site, scratch: str, sql: DownSql, before: BackupPlace) -> LedBack:
    """Run the down-SQL on a scratch database that has the migration applied, and compare the result.

    :raises _NotProved: it does not revert the migration
    """
    if not is_scratch(scratch):
        raise Refused("Down-SQL is proved on a scratch database only", found=scratch)
    manifest = manifests.load(before)
    refuse_openings([(sql.source, sql.text)])
    with site.connect(scratch) as session:
        with closed_copy(site, scratch):
            session.execute("BEGIN")
            led = _lead_back(site, session, sql, _removal(site, session, before, manifest))
            session.execute("COMMIT")
        reach("down.proved")
        result = Comparison([], [])
        compare_catalog(site, session, manifest, result)
        if not result.equal:
            raise _NotProved(result.tables + result.objects)
    return led


# Common parts


@dataclasses.dataclass(frozen=True)
class _Removal:
    """What down-SQL must remove from a database."""

    #: the backup from before the migrations
    place: BackupPlace
    #: of the migration history
    rows: List[history.HistoryRow]
    #: the current tables, and the remaining ones, by their names
    there: Mapping[str, Table]
    remaining: Mapping[str, Table]
    #: what is lost with tables and columns
    losses: List[TableLoss]


def _removal(site: Site, session: Session, place: BackupPlace, manifest: Manifest) -> _Removal:
    """:raises Refused: no SQL could revert it"""
    rows = rows_to_take_out(session, place)
    remaining = _tables_of(manifest)
    there = {table.full_name: table for table in catalog.tables(session)}
    _refuse_what_only_the_backup_has(there, manifest)
    return _Removal(place, rows, there, remaining, losses_of_dropping(session, remaining))


def _tables_of(manifest: Manifest) -> Dict[str, Table]:
    return {entry.full_name: entry.table for entry in manifest.tables}


def _lead_back(site: Site, session: Session, sql: DownSql, removal: _Removal) -> LedBack:
    """Within the open transaction: run it, delete the migrations from the history, and prove that the rest is
    unchanged.

    :raises _NotProved: it does not revert the migration
    """
    reach("down.counted")
    schema, rows, there, remaining = site.connection.schema, removal.rows, removal.there, removal.remaining
    staying = _staying(session, there, remaining)
    contents = _contents(session, staying)
    _run(session, sql, schema)
    reach("down.ran")
    take_out_of_history(session, schema, rows)
    reasons = [
        "the rows of table %s would change" % name
        for name, digest in _contents(session, staying, catalog.tables(session)).items()
        if digest != contents[name]
    ]
    reasons += _wrong_columns(session, remaining)
    reasons += history.history_differences(backup_history(removal.place), history.read_rows(session.cursor(), schema))
    if reasons:
        raise _NotProved(reasons)
    return LedBack(
        migrations=[row.migration_name for row in rows],
        dropped_tables=sorted(set(there) - set(remaining)),
        dropped_columns=[
            "%s.%s" % (name, column)
            for name, table in sorted(there.items())
            for column in table.columns
            if name in remaining and column not in remaining[name].columns
        ],
    )


def rows_to_take_out(session: Session, place: BackupPlace) -> List[history.HistoryRow]:
    """The migrations that were applied since a backup.

    :raises Refused: one of all is marked as failed
    """
    rows = history.read_rows(session.cursor(), session.settings.schema)
    failed = history.compare([], rows).failed
    if failed:
        raise Refused(
            "A migration is marked as failed",
            found=", ".join(failed),
            hint=remedy("run %s, which repairs that", Action.FAILED_MIGRATION),
        )
    return applied_since(place, rows)


def _refuse_what_only_the_backup_has(there: Mapping[str, Table], manifest: Manifest) -> None:
    """Down-SQL can create a table or column again, but not its contents. A rename looks alike: names are compared."""
    lost, renamed = [], False
    for entry in manifest.tables:
        name, columns = entry.full_name, entry.table.columns
        table = there.get(name)
        gone = [column for column in columns if table is None or column not in table.columns]
        if gone and entry.digest.rows:
            lost.append("table " + name if table is None else "columns of %s: %s" % (name, ", ".join(gone)))
            new = set(there) - set(manifest.table_names) if table is None else set(table.columns) - set(columns)
            renamed |= bool(new)
    if lost:
        raise Refused(
            "The migration removed%s something that only the backup has" % (" or renamed" if renamed else ""),
            found="; ".join(lost),
            hint=remedy(
                "%s: restore instead (%s)",
                "renames cannot be distinguished from drop and create" if renamed else "no SQL brings that back",
                Given(Setting.METHOD, "restore"),
            ),
        )


def _staying(session: Session, there: Mapping[str, Table], remaining: Mapping[str, Table]) -> Dict[str, List[str]]:
    """For each remaining table its remaining columns. The history is compared by its effect."""
    return {
        name: [column for column in table.columns if column in remaining[name].columns]
        for name, table in there.items()
        if name in remaining and not is_history(session, table)
    }


def _contents(
    session: Session, staying: Mapping[str, Sequence[str]], present: Optional[Sequence[Table]] = None
) -> Dict[str, Optional[Digest]]:
    """Digest of the remaining columns of each table, and of the large objects; None for a missing table."""
    known = {table.full_name: table for table in (catalog.tables(session) if present is None else present)}
    found: Dict[str, Optional[Digest]] = {"of large objects": digests.large_objects_digest(session)}
    for name, columns in staying.items():
        table = known.get(name)
        whole = table is not None and set(columns) <= set(table.columns)
        found[name] = digests.table_digest(session, table.source, columns) if table and whole else None
    return found


def _run(session: Session, sql: DownSql, schema: str) -> None:
    """Run the SQL as Prisma would: unqualified names are in Prisma's schema. Afterwards the session is pinned again."""
    session.execute("SET LOCAL lock_timeout = '%s'" % _LOCK_TIMEOUT)
    session.execute("SET LOCAL search_path TO %s" % quote_identifier(schema))
    ours = session.value("SELECT pg_catalog.txid_current()")
    if statements(sql.text):
        try:
            session.execute(sql.text)
            session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except BackstopError as error:
            state = error.sqlstate
            if state is None or (error.sqlstate_class in _NOT_BY_THE_SQL and state != _FOREIGN_SERVER):
                raise
            locked = state == sqlstates.LOCK_NOT_AVAILABLE
            hint = "another session holds a lock: end it, then run this again" if locked else None
            raise Refused("The down-SQL failed", found=error.found, hint=hint, details={"sqlstate": state}) from error
    if session.value("SELECT pg_catalog.txid_current()") != ours:
        raise Refused("The down-SQL ended the transaction that it ran in", hint="remove COMMIT and ROLLBACK from it")
    for name, value in PINNED_SETTINGS:
        session.execute("SET LOCAL %s = '%s'" % (name, value))


def _wrong_columns(session: Session, remaining: Mapping[str, Table]) -> List[str]:
    now = {table.full_name: table.columns for table in catalog.tables(session)}
    return (
        ["table %s would be left" % name for name in sorted(set(now) - set(remaining))]
        + ["table %s would be missing" % name for name in sorted(set(remaining) - set(now))]
        + [
            "table %s would have the columns %s" % (name, ", ".join(now[name]))
            for name in sorted(set(now) & set(remaining))
            if set(now[name]) != set(remaining[name].columns)
        ]
    )


# On the live database


@tried_again
def take_out(run: Run, policy: LossPolicy) -> TakenOut:
    """Run the operation's proved down-SQL on the live database, in one transaction.

    :raises Refused: more rows would be lost than accepted, or something differs from the proof; nothing was changed
    """
    before = _proved(run)
    with exclusive(run) as run:
        return done_before(run, DOWN, in_force) or _take_out(run, before, policy)


def _proved(run: Run) -> BackupPlace:
    """The backup of which the down-SQL was proved to give back the catalog."""
    proof = run.operation.result(DOWN_PROOF)
    if not proof.proved:
        raise Refused("The down-SQL was not proved", hint=remedy("%s", Action.ALL_STEPS))
    return run.store.find_backup(proof.before)


def _take_out(run: Run, before: BackupPlace, policy: LossPolicy) -> TakenOut:
    operation, proof = run.operation, run.operation.result(DOWN_PROOF)
    with journaled_step(run, DOWN) as facts:
        sql = DownSql(_read(operation.file(DOWN_FILE)), proof.source)
        if sql.sha256 != proof.sha256:
            raise Refused("The down-SQL is not the one that was proved", found=operation.file(DOWN_FILE))
        found = _run_on_live(run, sql, before, policy)
        facts.update(as_json(found))
    return dataclasses.replace(found, changed=True)


def count_ahead(run: Run, policy: LossPolicy) -> Lost:
    """What take_out() would lose at this moment, while the application runs; changes nothing.

    :raises Refused: it exceeds what was accepted
    """
    before = _proved(run)
    acceptance = Acceptance(run, policy, only_count=True)
    if not is_out(run, before):
        with snapshot(run) as session:
            losses = losses_of_dropping(session, _tables_of(manifests.load(before)))
            mark(session, losses, run.store, before)
            acceptance.accept(session, Loss(losses, lost_objects(run, session, before)))
    return dataclasses.replace(acceptance.facts, changed=False)


def is_out(site: Site, before: BackupPlace) -> bool:
    """Whether the history equals the backup's. The database alone decides: one COMMIT changed both."""
    with site.connect() as session:
        rows = history.read_rows(session.cursor(), site.connection.schema)
    return not history.history_differences(backup_history(before), rows)


def in_force(run: Run, _admin: Session) -> Optional[TakenOut]:
    operation, proof = run.operation, run.operation.result(DOWN_PROOF)
    before = run.store.find_backup(proof.before)
    if not is_out(run, before):
        return None
    return operation.recorded(DOWN) or TakenOut(
        **{**known_fields(LedBack, vars(proof)), **vars(counted(operation))},
        backup=operation.result(EMERGENCY_BACKUP).backup or None,
        differences=_unlike_before(run, manifests.load(before)),
        finished_after_interruption=True,
    )


@tried_again
def settle(run: Run) -> Optional[TakenOut]:
    """The facts of this operation's down-SQL if it was committed, after its process has ended."""
    began = run.operation.last(DOWN) is not None and run.operation.result(DOWN_PROOF).before
    return settled(run, DOWN, in_force) if began else None


def _run_on_live(run: Run, sql: DownSql, before: BackupPlace, policy: LossPolicy) -> TakenOut:
    manifest = manifests.load(before)
    with run.administer() as ending, run.connect() as session:
        wind_up_predecessor(run, session)
        ended = fence_writers(session, ending, run.database)
        reach("down.fenced")
        emergency = _require_current_backup(run, session)
        removal = _removal(run, session, before, manifest)
        mark(session, removal.losses, run.store, before)
        # A DROP ... CASCADE takes objects along that the migration did not create, and the proof expects them gone.
        objects = lost_objects(run, session, before)
        losses = Acceptance(run, policy).accept(session, Loss(removal.losses, objects))
        led = _lead_back(run, session, sql, removal)
        reasons = definitions.differences(manifest.definitions, definitions.definitions(session), "would be")
        if reasons:
            raise _NotProved(reasons)
        reach("down.before-commit")
        session.execute("COMMIT")
        reach("down.committed")
        differences = _unlike_before(run, manifest)
    return TakenOut(
        **{**vars(led), **objects.to_json()},
        losses=[loss.to_json() for loss in losses],
        lost_rows=sum(loss.total for loss in losses),
        ended_sessions=ended,
        backup=emergency,
        differences=differences,
    )


def _unlike_before(site: Site, manifest: Manifest) -> List[str]:
    """Differences from before in pg_dump's output, which cannot be read before the COMMIT.

    The down-SQL was proved on a copy, so these changes are unrelated to the migration: they are reported, nothing is
    lost.
    """
    try:
        ignore = ["%s.%s" % (site.connection.schema, history.TABLE)]
        return catalog_differences(site, manifest, ignore=ignore).objects
    except BackstopError as error:
        return ["unknown, they could not be compared: %s" % error]


def _require_current_backup(run: Run, session: Session) -> str:
    """The operation's last emergency backup, which must equal the current database."""
    backup = run.operation.result(EMERGENCY_BACKUP).backup
    if not backup:
        raise Refused("There is no backup of the database as it is", hint=remedy("%s", Action.ALL_STEPS))
    place = run.store.find_backup(backup)
    differences = compare_tables(session, manifests.load(place)).tables
    if differences:
        raise Refused(
            "Rows were written since the emergency backup",
            found="; ".join(differences[:5]),
            hint="run this again: it makes a new one",
        )
    return backup


def not_by_itself(operation: Operation, more: str = "") -> Refused:
    """Why a drop has no undo, and what to do instead."""
    facts = operation.result(DOWN)
    lost = "Then put the lost rows back with the commands in lost-rows/README.txt of the operation."
    start = Start(Action.COMPLETE, (Given(Setting.BACKUP, str(facts.backup)),))
    steps = [
        "Deploy the fixed release: it applies the migration again.",
        *([lost] if facts.losses else []),
        "Or, to have the database exactly as it was: %s" % start,
    ]
    return Refused(
        "Operation %s cannot be undone by itself: it took a migration out of the live database" % operation.id,
        hint=" ".join([*steps, more]).strip(),
    )
