# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making a live table equal to staged rows: only differing rows are changed, and no rows of other tables.

Two rows that swapped a unique value cannot be updated one after the other. A row to which no other refers is deleted
and inserted again. A row with references first gets another free value instead, because deleting it would trigger ON
DELETE actions. Foreign keys on such a value are deferred meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from typing import Dict, Iterator, List, Sequence, Set

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Action, remedy
from ..base.sql_names import qualified, quote_identifier, quote_literal
from ..postgres import digests, references
from ..postgres.catalog import OwnedSequence
from ..postgres.connection import Session
from .table_comparison import Pair


def apply(session: Session, pair: Pair) -> None:
    """Delete, update and insert according to the pair's ``difference``; the users' triggers do not fire.

    The caller holds the locks, and proves the result.
    """
    with _constraint_errors():
        plan = _plan(session, pair)
        with references.triggers_off(session, pair.table), _deferred(session, pair, plan.deferred):
            _change(session, pair, plan)


def _change(session: Session, pair: Pair, plan: _Plan) -> None:
    if plan.parked:
        _park(session, pair, plan)
    _update(session, pair, "d__.live = l__.ctid AND d__.kind = 'changed' AND d__.how = 'update'")
    reach("table.updated")
    session.execute(
        "DELETE FROM %s l__ USING %s d__ WHERE l__.ctid = d__.live"
        " AND (d__.kind = 'newer' OR d__.how = 'replace')" % (pair.target, pair.difference),
    )
    reach("table.deleted")
    if plan.parked:
        _update(session, pair, "d__.how = 'park' AND " + pair.same_key(session, "l__", "s__"))
    _insert(session, pair)
    reach("table.inserted")
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")


@dataclasses.dataclass
class _Plan:
    #: columns with unique values that could collide during the update, with a free value for each
    parked: Dict[str, str]
    #: foreign keys to be checked at the end
    deferred: List[references.ForeignKey]


def _plan(session: Session, pair: Pair) -> _Plan:
    """Separate the rows that can be updated directly from the others."""
    columns = {column.name: column for column in references.columns(session, pair.table.oid)}
    indexes = [
        index
        for index in references.unique_indexes(session, pair.table.oid)
        if not set(index.columns) <= set(pair.table.key)
    ]
    fixed = [name for name in pair.writable if columns[name].always_identity]
    watched = sorted({name for index in indexes for name in index.columns} | set(fixed))
    own_keys = references.foreign_keys_of(session, pair.table.oid)
    # A row may refer to one of this table that is inserted later.
    deferred = [key for key in own_keys if key.target == pair.table.oid and not key.deferrable]
    parked: Dict[str, str] = {}
    if watched and _mark_moving(session, pair, watched):
        for index in indexes:
            free = [name for name in index.columns if name in parked]
            if not free:
                parked.update(_free_value(pair, index, columns, own_keys))
        _refuse_fixed(session, pair, fixed)
    names = {key.name for key in deferred}
    deferred += [
        key for key in own_keys if set(key.columns) & set(parked) and not key.deferrable and key.name not in names
    ]
    return _Plan(parked, deferred)


def _mark_moving(session: Session, pair: Pair, watched: Sequence[str]) -> bool:
    """Mark changed rows whose watched values differ: ``replace``, or ``park`` if others refer to them; True if any is
    parked."""
    source = "%s l__, %s s__" % (pair.live, pair.stage)
    session.execute(
        "UPDATE %s d__ SET how = 'replace' FROM %s WHERE d__.kind = 'changed' AND l__.ctid = d__.live"
        " AND s__.ctid = d__.staged AND %s IS DISTINCT FROM %s"
        % (pair.difference, source, digests.row_expression(watched, "l__"), digests.row_expression(watched, "s__")),
    )
    for key in references.foreign_keys_to(session, pair.table.oid):
        # Staged rows of the table itself may refer to it too.
        sources = [key.source] + [pair.stage] * (key.oid == pair.table.oid)
        for source in sources:
            session.execute(
                "UPDATE %s d__ SET how = 'park' FROM %s l__ WHERE d__.how = 'replace'"
                " AND l__.ctid = d__.live AND EXISTS (SELECT FROM %s c__ WHERE %s)"
                % (pair.difference, pair.live, source, key.matches("l__", "c__")),
            )
    return bool(session.value("SELECT EXISTS (SELECT FROM %s WHERE how = 'park')" % pair.difference))


def _free_value(
    pair: Pair,
    index: references.UniqueIndex,
    columns: Dict[str, references.Column],
    own_keys: Sequence[references.ForeignKey],
) -> Dict[str, str]:
    """A column of an index, and an expression over ``n__`` for values that no row has."""
    referring: Set[str] = {name for key in own_keys for name in key.columns}
    candidates = [
        columns[name]
        for name in index.columns
        if name not in pair.table.key and name in pair.writable and not columns[name].always_identity
    ]
    for column in candidates:
        if not column.not_null and index.nulls_distinct:
            return {column.name: "NULL"}
    for column in sorted(candidates, key=lambda column: column.name in referring):
        value = _value_beside(pair, column)
        if value:
            return {column.name: value}
    raise Refused(
        "Rows of table %s exchanged unique values, and other rows refer to them" % pair.table.full_name,
        found="index %s over %s has no column that can take another value meanwhile"
        % (index.name, ", ".join(index.columns)),
        hint=remedy("nothing was changed. Revert completely: %s", Action.COMPLETE),
    )


def _value_beside(pair: Pair, column: references.Column) -> str:
    """SQL for a value that neither the live nor the staged rows have."""
    name = quote_identifier(column.name)
    if column.category == "S":
        return quote_literal("~" + secrets.token_hex(3)).strip() + " || d__.n__"
    if column.type == "uuid":
        return "gen_random_uuid()"
    steps = {
        "date": "d__.n__::integer",
        "timestamp": "d__.n__ * interval '1 second'",
        "timestamptz": "d__.n__ * interval '1 second'",
    }
    if column.category != "N" and column.type not in steps:
        return ""
    most = "(SELECT max(m__) FROM (SELECT %s FROM %s r__ UNION ALL SELECT %s FROM %s) x__(m__))" % (
        name,
        pair.live,
        name,
        pair.stage,
    )
    return "%s + %s" % (most, steps.get(column.type, "d__.n__"))


def _refuse_fixed(session: Session, pair: Pair, fixed: Sequence[str]) -> None:
    """Refuse parked rows with changes in a column GENERATED ALWAYS AS IDENTITY, which cannot be updated."""
    if fixed and session.value(
        "SELECT EXISTS (SELECT FROM %s d__ JOIN %s l__ ON l__.ctid = d__.live JOIN %s s__ ON s__.ctid = d__.staged"
        " WHERE d__.how = 'park' AND %s IS DISTINCT FROM %s)"
        % (
            pair.difference,
            pair.live,
            pair.stage,
            digests.row_expression(fixed, "l__"),
            digests.row_expression(fixed, "s__"),
        )
    ):
        raise Refused(
            "Table %s has other values in a column that cannot be updated" % pair.table.full_name,
            found="%s is GENERATED ALWAYS AS IDENTITY, and others refer to rows that differ in it" % ", ".join(fixed),
            hint=remedy("nothing was changed. Revert completely: %s", Action.COMPLETE),
        )


# Statements


@contextlib.contextmanager
def _constraint_errors() -> Iterator[None]:
    """Constraint errors get a hint for this case."""
    try:
        yield
    except BackstopError as error:
        hints = {
            sqlstates.FOREIGN_KEY_VIOLATION: "a row of the backup refers to one that is not there any more, or the"
            " other way round: bring that back first, or repair only the rows that have all they need",
            sqlstates.UNIQUE_VIOLATION: "a row that is not to be repaired has a value that is needed: repair that row"
            " too",
            sqlstates.INSUFFICIENT_PRIVILEGE: "the table must belong to this role: use its owner, or a superuser",
        }
        state = error.sqlstate or ""
        if state not in hints:
            raise
        raise Refused(
            "The table cannot be repaired; nothing was changed",
            found=error.found,
            hint=hints[state],
            details=error.details,
        ) from error


def _park(session: Session, pair: Pair, plan: _Plan) -> None:
    assignments = ", ".join("%s = %s" % (quote_identifier(name), value) for name, value in plan.parked.items())
    session.execute(
        "UPDATE %s l__ SET %s FROM (SELECT live, row_number() OVER () AS n__ FROM %s WHERE how = 'park')"
        " d__ WHERE l__.ctid = d__.live" % (pair.target, assignments, pair.difference),
    )
    reach("table.parked")


def _update(session: Session, pair: Pair, condition: str) -> None:
    fixed = references.always_identity(session, pair.table.oid)
    columns = [quote_identifier(name) for name in pair.writable if name not in fixed]
    if columns and pair.table.key:
        session.execute(
            "UPDATE %s l__ SET (%s) = ROW(%s) FROM %s d__ JOIN %s s__ ON s__.ctid = d__.staged WHERE %s"
            % (
                pair.target,
                ", ".join(columns),
                ", ".join("s__." + column for column in columns),
                pair.difference,
                pair.stage,
                condition,
            ),
        )


def _insert(session: Session, pair: Pair) -> None:
    columns = [quote_identifier(name) for name in pair.writable]
    session.execute(
        "INSERT INTO %s%s OVERRIDING SYSTEM VALUE SELECT %s FROM %s d__ JOIN %s s__"
        " ON s__.ctid = d__.staged WHERE d__.kind = 'missing' OR d__.how = 'replace'"
        % (
            qualified(pair.table.schema, pair.table.name),
            " (%s)" % ", ".join(columns) if columns else "",
            ", ".join("s__." + column for column in columns),
            pair.difference,
            pair.stage,
        ),
    )


@contextlib.contextmanager
def _deferred(session: Session, pair: Pair, keys: Sequence[references.ForeignKey]) -> Iterator[None]:
    """Defer the foreign keys to the end; those that are not deferrable are altered meanwhile (which blocks readers)."""
    table = "ALTER TABLE ONLY %s ALTER CONSTRAINT %%s " % qualified(pair.table.schema, pair.table.name)
    for key in keys:
        session.execute(table % quote_identifier(key.name) + "DEFERRABLE")
    session.execute("SET CONSTRAINTS ALL DEFERRED")
    yield
    for key in keys:
        session.execute(table % quote_identifier(key.name) + "NOT DEFERRABLE")


def advance_sequences(session: Session, pairs: Sequence[Pair], sequences: Sequence[OwnedSequence]) -> List[str]:
    """Advance each sequence to at least its column's values, so that none is returned again; the advanced ones."""
    advanced = []
    for sequence in sequences:
        furthest = "max" if sequence.increment > 0 else "min"
        column = quote_identifier(sequence.column)
        found = [
            session.value("SELECT %s(%s)::numeric FROM %s r__" % (furthest, column, pair.live))
            for pair in pairs
            if sequence.column in pair.columns
        ]
        values = [int(value) for value in found if value is not None]
        if not values:
            continue
        value = max(values) if sequence.increment > 0 else min(values)
        last = sequence.last_value
        if last is None or (last < value if sequence.increment > 0 else last > value):
            name = quote_literal(qualified(sequence.schema, sequence.name)).strip()
            session.execute("SELECT setval(%s::regclass, %d)" % (name, value))
            advanced.append(sequence.full_name)
    return advanced
