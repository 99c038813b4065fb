# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Foreign keys, unique indexes and triggers of a table, which affect a change of its rows."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Dict, Iterator, List, Tuple

from ..base.sql_names import qualified, quote_identifier
from ..base.tables import Table
from .connection import Session


@dataclasses.dataclass(frozen=True)
class ForeignKey:
    """A foreign key between two tables that hold rows (for partitioned tables those between their partitions)."""

    name: str
    #: the referencing table
    oid: int
    schema: str
    table: str
    columns: Tuple[str, ...]
    #: the referenced table
    target: int
    target_columns: Tuple[str, ...]
    #: for each pair of columns the operator that compares them, target on the left
    operators: Tuple[str, ...]
    #: action letters of pg_constraint
    on_delete: str
    on_update: str
    deferrable: bool

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.table

    @property
    def source(self) -> str:
        return "ONLY " + qualified(self.schema, self.table)

    def matches(self, target: str, child: str) -> str:
        """Condition that a row of the child refers to a row of the target; both are aliases."""
        return " AND ".join(
            "%s.%s %s %s.%s" % (target, quote_identifier(one), operator, child, quote_identifier(other))
            for one, operator, other in zip(self.target_columns, self.operators, self.columns)
        )


_FOREIGN_KEYS = """
SELECT k.conname, k.conrelid::bigint, n.nspname, c.relname,
  (SELECT array_agg(a.attname::text ORDER BY x.place) FROM unnest(k.conkey) WITH ORDINALITY x(number, place)
   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.number),
  k.confrelid::bigint,
  (SELECT array_agg(a.attname::text ORDER BY x.place) FROM unnest(k.confkey) WITH ORDINALITY x(number, place)
   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.number),
  (SELECT array_agg(format('OPERATOR(%%I.%%s)', s.nspname, o.oprname) ORDER BY x.place)
   FROM unnest(k.conpfeqop) WITH ORDINALITY x(operator, place) JOIN pg_operator o ON o.oid = x.operator
   JOIN pg_namespace s ON s.oid = o.oprnamespace),
  k.confdeltype::text, k.confupdtype::text, k.condeferrable
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND c.relkind = 'r' AND {which} = %s::oid ORDER BY 3, 4, 1
"""


def foreign_keys_to(session: Session, oid: int) -> List[ForeignKey]:
    """Foreign keys that refer to a table, including those of the table itself."""
    return _foreign_keys(session, "k.confrelid", oid)


def foreign_keys_of(session: Session, oid: int) -> List[ForeignKey]:
    """Foreign keys by which a table refers to others."""
    return _foreign_keys(session, "k.conrelid", oid)


def _foreign_keys(session: Session, which: str, oid: int) -> List[ForeignKey]:
    rows = session.rows(_FOREIGN_KEYS.format(which=which), (oid,))
    return [
        ForeignKey(
            name,
            int(child),
            schema,
            table,
            tuple(columns),
            int(target),
            tuple(referred),
            tuple(operators),
            on_delete,
            on_update,
            bool(deferrable),
        )
        for name, child, schema, table, columns, target, referred, operators, on_delete, on_update, deferrable in rows
    ]


@dataclasses.dataclass(frozen=True)
class UniqueIndex:
    """An index that allows no two rows with the same values, checked row by row."""

    name: str
    #: every column that it depends on, in keys, expressions and predicate
    columns: Tuple[str, ...]
    #: several rows may have NULL
    nulls_distinct: bool


def unique_indexes(session: Session, oid: int) -> List[UniqueIndex]:
    """The unique and exclusion indexes of a table, without deferrable ones."""
    found = session.rows(
        "SELECT c.relname, array_agg(DISTINCT a.attname::text), NOT coalesce((to_jsonb(i) ->>"
        " 'indnullsnotdistinct')::boolean, false)"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p',"
        " 'u', 'x')"
        # An index depends on its columns directly, or through its constraint.
        " JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0"
        " AND ((d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid)"
        " OR (d.classid = 'pg_constraint'::regclass AND d.objid = k.oid))"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid"
        " WHERE i.indrelid = %s::oid AND (i.indisunique OR i.indisexclusion) AND i.indimmediate"
        " GROUP BY 1, 3 ORDER BY 1",
        (oid,),
    )
    return [UniqueIndex(name, tuple(columns), bool(distinct)) for name, columns, distinct in found]


@dataclasses.dataclass(frozen=True)
class Column:
    """How a column can be written."""

    name: str
    #: name of the type; for a domain its base type
    type: str
    category: str
    not_null: bool
    #: GENERATED ALWAYS AS IDENTITY: may be inserted, never updated
    always_identity: bool


def columns(session: Session, oid: int) -> List[Column]:
    found = session.rows(
        "SELECT a.attname, coalesce(b.typname, t.typname), t.typcategory::text, a.attnotnull OR t.typnotnull,"
        " a.attidentity = 'a' FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " LEFT JOIN pg_type b ON b.oid = nullif(t.typbasetype, 0)"
        " WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        (oid,),
    )
    return [Column(name, kind, category, bool(full), bool(always)) for name, kind, category, full, always in found]


def always_identity(session: Session, oid: int) -> List[str]:
    """The columns that UPDATE cannot set."""
    return [column.name for column in columns(session, oid) if column.always_identity]


def equality_operators(session: Session, oid: int, key: Tuple[str, ...]) -> List[str]:
    """For each column of a table's key, the equality operator of its unique index."""
    found = session.rows(
        "SELECT a.attname, format('OPERATOR(%%I.%%s)', n.nspname, o.oprname) FROM pg_index i"
        " CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) x(number, class)"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.number"
        " JOIN pg_opclass c ON c.oid = x.class"
        " JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 AND m.amoplefttype = c.opcintype"
        " AND m.amoprighttype = c.opcintype JOIN pg_operator o ON o.oid = m.amopopr"
        " JOIN pg_namespace n ON n.oid = o.oprnamespace"
        " WHERE i.indrelid = %s::oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL"
        " ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid",
        (oid,),
    )
    first: Dict[str, str] = {}
    for name, operator in found:
        first.setdefault(name, operator)
    return [str(first[name]) for name in key]


@contextlib.contextmanager
def triggers_off(session: Session, table: Table) -> Iterator[None]:
    """Disable the users' triggers; then restore each one's state, because ENABLE TRIGGER USER would enable all."""
    found = session.rows(
        "SELECT tgname::text, tgenabled::text FROM pg_trigger WHERE tgrelid = %s::oid AND NOT tgisinternal"
        " AND tgenabled IN ('O', 'A') ORDER BY 1",
        (table.oid,),
    )
    alter = "ALTER TABLE ONLY %s " % qualified(table.schema, table.name)
    for name, _how in found:
        session.execute(alter + "DISABLE TRIGGER " + quote_identifier(name))
    yield
    for name, how in found:
        session.execute(alter + ("ENABLE ALWAYS" if how == "A" else "ENABLE") + " TRIGGER " + quote_identifier(name))
