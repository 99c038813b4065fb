# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario 1: putting a database back after a migration that failed, or was cut off.

What the migrations of a deploy left is compared with its backup: history, definitions and rows together. If they only
added objects, and no row of the tables that were there differs, these objects are dropped, and the migrations before
the failed one are taken out of the history with them, in one transaction that is proved before its COMMIT. Anything
else is left alone and reported: then the answer is a restore and a swap.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ...base.errors import BackstopError, Refused
from ...base.failpoints import reach
from ...base.sql_names import qualified, quote_identifier
from ...postgres import catalog, definitions
from ...postgres.catalog import Table
from ...postgres.connection import Session
from ...prisma import history
from ...prisma.cli import Prisma
from ...store import manifest as manifests
from ...store.layout import BackupPlace
from ..comparison import compare_tables
from ..context import Context, acting
from ..loss.loss import HISTORY_TABLE, losses_of_dropping
from ..loss.lost_rows import write_lost_rows
from ..loss.own_work import mark
from ..restarts import tried_again
from ..sequences import sequences_behind
from .migration import applied_since, backup_history, read_state, take_out_of_history, wind_up_predecessor

CLEAN = "clean"
RESOLVE = "resolve"
#: Drops that find their object still needed by another one are tried again after it.
_DEPENDENT = ("2BP01",)


@tried_again
def clean_failed_migration(context: Context, place: BackupPlace, prisma: Prisma) -> Dict[str, Any]:
    """Drop what the migrations since a backup added, take the applied ones out of the history, and mark the failed ones
    as rolled back.

    :returns: ``outcome``: ``clean`` (nothing was left), ``dropped``, or ``restore_needed`` with the reasons and nothing
        changed
    """
    with context.connect() as session:
        wind_up_predecessor(context, session)
        found = leftovers(context, session, place)
        failed = read_state(session, prisma, context.connection.schema).failed
    if found["reasons"]:
        return {"changed": False, "outcome": "restore_needed", **found, "resolved": []}
    left, kept = bool(found["added"] or found["applied"]), 0
    if left:
        with acting(context, CLEAN) as facts, context.connect() as session:
            facts["dropped"], kept = _drop_added(context, session, place)
            facts.update(kept_rows=kept, taken_out=found["applied"])
    if left or failed:
        with acting(context, RESOLVE) as facts, context.connect() as session:
            facts["resolved"] = _resolve(context, session, prisma, failed)
            _prove(context, session, place)
    done = {"dropped": found["added"], "taken_out": found["applied"], "kept_rows": kept, "resolved": failed}
    return {"changed": left or bool(failed), "outcome": "dropped" if left else "clean", **done, "reasons": []}


def leftovers(context: Context, session: Session, place: BackupPlace) -> Dict[str, List[str]]:
    """What the migrations since a backup left.

    :returns: objects that they ``added``, migrations that are ``applied`` since, and the ``reasons`` why taking these
        out would not do
    :raises Refused: the backup was made after the migration had failed
    """
    manifest = manifests.load(place)
    applied, reasons = _history_since(context, session, place)
    added, wrong = _objects_since(context, session, manifest)
    reasons += wrong + ["%s cannot be dropped safely" % key for key in added if not _droppable(session, key, added)]
    # New columns are among the added objects; what they hold came from the migration.
    tables = compare_tables(session, manifest, besides=[_history_table(context)], new_columns=True).tables
    reasons += [sentence for sentence in tables if not sentence.endswith(" was not there")]
    reasons += ["sequence " + sentence for sentence in sequences_behind(session, manifest)]
    if applied and added and not reasons:
        reasons = _written_since(context, session, place, manifest)
    return {"added": added, "applied": [row.migration_name for row in applied], "reasons": reasons}


def _history_table(context: Context) -> str:
    return "%s.%s" % (context.connection.schema, history.TABLE)


def _history_since(
    context: Context, session: Session, place: BackupPlace
) -> Tuple[List[history.HistoryRow], List[str]]:
    """The rows of migrations that were applied since, and how the history would differ without them and those that
    failed."""
    before = backup_history(place)
    failed = history.compare([], before).failed
    if failed:
        raise Refused(
            "The backup was made after the migration had failed",
            found="%s is marked as failed in backup %s" % (", ".join(failed), place.backup_id),
            hint="name an earlier one with -e rollback_backup=ID",
        )
    rows = history.read_rows(session.cursor(), context.connection.schema)
    applied = applied_since(place, rows)
    going = {row.id for row in applied}
    staying = [row for row in rows or () if row.id not in going and row.state != history.FAILED]
    differences = history.history_differences(before, staying)
    return applied, ["in the history of migrations " + sentence for sentence in differences]


def _objects_since(context: Context, session: Session, manifest: Dict[str, Any]) -> Tuple[List[str], List[str]]:
    """Objects that were added since, and how others differ."""
    found = definitions.compare(manifest["definitions"], definitions.definitions(session))
    wrong = ["%s is missing" % key for key in found["missing"]] + ["%s was changed" % key for key in found["changed"]]
    return [key for key in found["added"] if not _is_of_history(context, key)], wrong


def _is_of_history(context: Context, key: str) -> bool:
    """Whether a definition is of Prisma's table, which a failed first migration makes; it stays."""
    name = _history_table(context)
    identity = _split(key)[1]
    return identity == name or identity.startswith(name + ".") or identity == name + "_pkey"


def _written_since(
    context: Context, session: Session, place: BackupPlace, manifest: Dict[str, Any]
) -> List[str]:
    """Which new tables and columns hold more than the migrations put there: somebody worked with those that succeeded.

    What would be lost with them is counted, and consented to, by the swap.
    """
    known = {table.full_name: table for table in map(Table.from_json, manifest["tables"])}
    losses = losses_of_dropping(session, known, to_be_put_back=False)
    mark(session, losses, context.store, place)
    return ["%s, since an applied migration made room for them" % loss for loss in losses if not loss.by_migration]


def _prove(context: Context, session: Session, place: BackupPlace) -> None:
    found = leftovers(context, session, place)
    left = ["%s is left" % key for key in found["added"]] + ["%s is applied" % name for name in found["applied"]]
    if left or found["reasons"]:
        raise BackstopError(
            "The database is not as it was before the migration",
            found="; ".join((found["reasons"] + left)[:10]),
            hint="revert completely: rollback_complete.yml",
        )


def _drop_added(context: Context, session: Session, place: BackupPlace) -> Tuple[List[str], int]:
    """Drop in one transaction, without CASCADE, each object once nothing needs it any more; the applied migrations go
    from the history.

    :returns: the statements, and how many rows went with it and are kept in files
    """
    manifest = manifests.load(place)
    dropped: List[str] = []
    with session.transaction():
        session.execute("SET LOCAL lock_timeout = '5s'")
        kept = _keep_rows(context, session, manifest)
        remaining = _objects_since(context, session, manifest)[0]
        while remaining:
            progress = False
            for key in remaining:
                progress = _try_drop(session, key, remaining, dropped) or progress
            if not progress:
                # Tables that refer to each other: without these constraints, each can go.
                for key in [key for key in remaining if key.startswith("constraint ")]:
                    progress = _try_drop(session, key, [], dropped) or progress
            remaining = _objects_since(context, session, manifest)[0]
            if not progress and remaining:
                raise Refused(
                    "What the migration left cannot be dropped",
                    found=", ".join(remaining[:10]),
                    hint="revert completely: rollback_complete.yml",
                )
        take_out_of_history(session, context.connection.schema, _history_since(context, session, place)[0])
        _prove(context, session, place)
        reach("clean.before-commit")
    reach("clean.committed")
    return dropped, kept


def _keep_rows(context: Context, session: Session, manifest: Dict[str, Any]) -> int:
    """Write what goes with new tables and columns into files, behind locks: nobody adds to it from here on."""
    known = {table.full_name: table for table in map(Table.from_json, manifest["tables"])}
    going = [
        qualified(table.schema, table.name)
        for table in catalog.tables(session)
        if table.name != HISTORY_TABLE
        and (table.full_name not in known or not set(table.columns) <= set(known[table.full_name].columns))
    ]
    if going:
        listed = ", ".join("ONLY " + name for name in going)
        session.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % listed)
    losses = losses_of_dropping(session, known, to_be_put_back=False)
    if losses and context.operation is not None:
        write_lost_rows(session, losses, context.operation.file("lost-rows"))
        reach("clean.kept")
    return sum(loss.total for loss in losses)


def _try_drop(session: Session, key: str, added: Sequence[str], dropped: List[str]) -> bool:
    statement = _drop_statement(session, key, added)
    if not statement:
        return False
    session.execute("SAVEPOINT one")
    try:
        session.execute(statement)
    except BackstopError as error:
        if error.details.get("sqlstate") not in _DEPENDENT:
            raise
        session.execute("ROLLBACK TO SAVEPOINT one")
        return False
    session.execute("RELEASE SAVEPOINT one")
    dropped.append(statement)
    return True


def _resolve(context: Context, session: Session, prisma: Prisma, failed: Sequence[str]) -> List[str]:
    for name in failed:
        prisma.migrate_resolve(context.connection.url(), cursor=session.cursor(), rolled_back=name)
        reach("resolve.one")
    left = history.compare([], history.read_rows(session.cursor(), context.connection.schema)).failed
    if left:
        raise BackstopError("Migrations are still marked as failed", found=", ".join(left))
    return list(failed)


# Statements

_RELATION_KINDS = {
    "r": "TABLE",
    "p": "TABLE",
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
    "S": "SEQUENCE",
    "f": "FOREIGN TABLE",
}


def _relation(session: Session, key: str, _added: Sequence[str]) -> Optional[str]:
    row = session.row(
        "SELECT c.relkind::text, format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid ="
        " c.relnamespace WHERE n.nspname || '.' || c.relname = %s",
        (key,),
    )
    return "DROP %s %s" % (_RELATION_KINDS[row[0]], row[1]) if row else None


def _part_of_relation(catalog_sql: str, statement: str) -> Callable[[Session, str, Sequence[str]], Optional[str]]:
    """A dropper for parts of a relation; they go with their relation (or composite type) when that was added too."""

    def drop(session: Session, key: str, added: Sequence[str]) -> Optional[str]:
        row = session.row(catalog_sql, (key,))
        if row is None or "relation " + row[0] in added or "type " + row[0] in added:
            return None
        return statement.format(relation=row[1], name=quote_identifier(row[2]))

    return drop


_ON_RELATION = (
    "SELECT n.nspname || '.' || c.relname, format('%%%%I.%%%%I', n.nspname, c.relname), x.%s FROM %s x JOIN pg_class"
    " c ON c.oid = x.%s"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname || '.' || x.%s = %%s"
)


def _on_relation(name: str, table: str, relation: str) -> str:
    return _ON_RELATION % (name, table, relation, name)


def _named(sql: str) -> Callable[[Session, str, Sequence[str]], Optional[str]]:
    def drop(session: Session, key: str, _added: Sequence[str]) -> Optional[str]:
        value = session.value(sql, (key,))
        return None if value is None else str(value)

    return drop


_DROPPERS: Dict[str, Callable[[Session, str, Sequence[str]], Optional[str]]] = {
    "relation": _relation,
    "column": _part_of_relation(
        _on_relation("attname", "pg_attribute", "attrelid") + " AND c.relkind <> 'c'",
        "ALTER TABLE {relation} DROP COLUMN {name}",
    ),
    "constraint": _part_of_relation(
        _on_relation("conname", "pg_constraint", "conrelid"), "ALTER TABLE {relation} DROP CONSTRAINT {name}"
    ),
    "trigger": _part_of_relation(_on_relation("tgname", "pg_trigger", "tgrelid"), "DROP TRIGGER {name} ON {relation}"),
    "policy": _part_of_relation(_on_relation("polname", "pg_policy", "polrelid"), "DROP POLICY {name} ON {relation}"),
    "rule": _part_of_relation(_on_relation("rulename", "pg_rewrite", "ev_class"), "DROP RULE {name} ON {relation}"),
    "index": _named(
        "SELECT format('DROP INDEX %%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid ="
        " c.relnamespace"
        " WHERE c.relkind IN ('i', 'I') AND n.nspname || '.' || c.relname = %s"
        " AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid)"
    ),
    "schema": _named("SELECT format('DROP SCHEMA %%I', nspname) FROM pg_namespace WHERE nspname = %s"),
    "extension": _named("SELECT format('DROP EXTENSION %%I', extname) FROM pg_extension WHERE extname = %s"),
    "function": _named(
        "SELECT 'DROP ROUTINE ' || p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' = %s"
    ),
    "type": _named(
        "SELECT format('DROP TYPE %%I.%%I', n.nspname, t.typname) FROM pg_type t JOIN pg_namespace n ON n.oid ="
        " t.typnamespace"
        " WHERE n.nspname || '.' || t.typname = %s AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.reltype = t.oid"
        " AND c.relkind <> 'c')"
    ),
    "statistics": _named(
        "SELECT format('DROP STATISTICS %%I.%%I', n.nspname, s.stxname) FROM pg_statistic_ext s JOIN pg_namespace n"
        " ON n.oid = s.stxnamespace WHERE n.nspname || '.' || s.stxname = %s"
    ),
}


def _split(key: str) -> "tuple[str, str]":
    kind = definitions.kind_of(key)
    return kind, key[len(kind) + 1 :]


def _drop_statement(session: Session, key: str, added: Sequence[str]) -> Optional[str]:
    kind, identity = _split(key)
    dropper = _DROPPERS.get(kind)
    return dropper(session, identity, added) if dropper else None


def _droppable(session: Session, key: str, added: Sequence[str]) -> bool:
    """Whether there is a statement for an object, or it goes with one that there is."""
    kind, identity = _split(key)
    if kind in _DROPPERS or kind == "sequence":
        return True
    # A comment goes with its object, which must itself be new.
    return kind == "comment" and any(
        _split(other)[1].replace('"', "") in identity.replace('"', "") for other in added if other != key
    )
