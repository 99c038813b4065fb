# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables, columns, keys and sequences of a database, and what digests do not cover."""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Optional, Sequence, Set, Tuple

from ..base.errors import Refused
from ..base.sql_names import near_names, parse_table_name
from ..base.tables import Table
from .connection import Session

#: Conditions on alias n (pg_namespace) and on any object: not the system's schemas, not a member of an extension.
USER_SCHEMA = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
NOT_OF_EXTENSION = (
    "NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = '%s'::regclass AND e.objid = %s AND e.deptype = 'e')"
)
#: Condition on alias c (pg_class): pg_dump dumps its data. Of an extension's members these are the tables and
#: sequences that it registered with pg_extension_config_dump(), in any schema.
CARRIED = "(%s AND %s OR EXISTS (SELECT 1 FROM pg_extension x WHERE c.oid = ANY (x.extconfig)))" % (
    USER_SCHEMA,
    NOT_OF_EXTENSION % ("pg_class", "c.oid"),
)


_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid), 0)::bigint, c.relpersistence = 'u',
  coalesce((SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{{}}'),
  coalesce((SELECT array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{{}}'),
  coalesce((SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''), '{{}}'),
  coalesce((SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i,
              unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place), pg_attribute a
            WHERE i.indexrelid = best.indexrelid AND k.place <= i.indnkeyatts
              AND a.attrelid = c.oid AND a.attnum = k.number), '{{}}'),
  pg_total_relation_size(c.oid),
  (SELECT x.extcondition[array_position(x.extconfig, c.oid)] FROM pg_extension x WHERE c.oid = ANY (x.extconfig)),
  coalesce((SELECT array_agg(a.attnum::integer ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{{}}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT i.indexrelid FROM pg_index i
  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    AND (i.indisprimary OR NOT EXISTS (
      SELECT 1 FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
      WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull))
  ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) best ON true
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {carried}
ORDER BY n.nspname, c.relname
""".format(carried=CARRIED)


def tables(session: Session) -> List[Table]:
    """Every table whose rows a dump contains, partitions included (partitioned parents hold no rows)."""
    rows = session.rows(_TABLES)
    return [
        Table(
            int(oid),
            schema,
            name,
            int(filenode),
            bool(unlogged),
            tuple(columns),
            tuple(types),
            tuple(generated),
            tuple(key),
            int(size),
            kept,
            tuple(numbers),
        )
        for oid, schema, name, filenode, unlogged, columns, types, generated, key, size, kept, numbers in rows
    ]


def analyze(session: Session) -> None:
    """Update the statistics without connecting to another server, as ANALYZE does for parents of foreign tables."""
    left = session.rows(
        "WITH RECURSIVE reaching(oid) AS (SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE c.relkind = 'f' UNION SELECT i.inhparent FROM pg_inherits i JOIN reaching r ON r.oid = i.inhrelid)"
        " SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'"
        " AND EXISTS (SELECT 1 FROM reaching) AND c.oid NOT IN (SELECT oid FROM reaching)"
    )
    session.execute("ANALYZE " + ", ".join(str(name) for (name,) in left))


def locked_by_dump(session: Session) -> "List[Relation]":
    """Schema, name and oid of what pg_dump locks: tables and partitioned tables."""
    found = session.rows(
        "SELECT n.nspname, c.relname, c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND %s ORDER BY 1, 2" % CARRIED
    )
    return [(str(schema), str(name), int(oid)) for schema, name, oid in found]


def find_table(
    session: Session, text: str, default_schema: str = "public", known: Optional[Sequence[Table]] = None
) -> Table:
    """The table with this name.

    :param known: the latest result of tables()
    :raises Refused: lists similar names when there is none
    """
    schema, name = parse_table_name(text)
    known = tables(session) if known is None else known
    for table in known:
        if table.name == name and table.schema == (schema or default_schema):
            return table
    raise _no_such_table(text, schema or default_schema, name, [(table.schema, table.name) for table in known])


def _no_such_table(text: str, schema: str, name: str, known: Sequence[Tuple[str, str]]) -> Refused:
    elsewhere = ["%s.%s" % pair for pair in known if pair[1] == name]
    near = elsewhere or near_names(name, [pair[1] for pair in known])
    return Refused(
        "There is no table %s" % text,
        found="%d tables, none of that name in schema %s" % (len(known), schema),
        expected="perhaps " + ", ".join(near) if near else None,
        hint="names keep their capitals here: write ReceiptData, not receiptdata or receipt_data",
    )


#: Schema, name and oid of a relation.
Relation = Tuple[str, str, int]


@dataclasses.dataclass(frozen=True)
class TableFamily:
    """A table, or all partitions of a partitioned table, by its name."""

    schema: str
    name: str
    oid: int
    #: the tables that hold the rows
    leaves: Tuple[Table, ...]
    #: all relations: the leaves and, for a partitioned table, those above them
    relations: Tuple[Relation, ...]

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name

    @property
    def partitioned(self) -> bool:
        return [table.oid for table in self.leaves] != [self.oid]


def find_family(session: Session, text: str, default_schema: str = "public") -> TableFamily:
    """The table with this name; for a partitioned one all partitions.

    :raises Refused: lists similar names when there is none
    """
    wanted_schema, name = parse_table_name(text)
    schema = wanted_schema or default_schema
    known = locked_by_dump(session)
    oid = next((oid for one_schema, one_name, oid in known if (one_schema, one_name) == (schema, name)), None)
    if oid is None:
        raise _no_such_table(text, schema, name, [relation[:2] for relation in known])
    members = {oid} | {
        int(member)
        for (member,) in session.rows("SELECT relid::oid::bigint FROM pg_partition_tree(%s::oid::regclass)", (oid,))
    }
    leaves = tuple(table for table in tables(session) if table.oid in members)
    return TableFamily(schema, name, oid, leaves, tuple(relation for relation in known if relation[2] in members))


@dataclasses.dataclass(frozen=True)
class OwnedSequence:
    """A sequence that belongs to a column: serial or identity."""

    schema: str
    name: str
    table_oid: int
    column: str
    increment: int
    last_value: Optional[int]

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name


def owned_sequences(session: Session, oids: Iterable[int]) -> List[OwnedSequence]:
    """The sequences that belong to columns of these tables."""
    found = session.rows(
        "SELECT n.nspname, c.relname, d.refobjid::bigint, a.attname, s.seqincrement, pg_sequence_last_value(c.oid)"
        " FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid JOIN pg_class c ON c.oid = s.seqrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
        " WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
        " AND d.refobjsubid > 0 AND d.refobjid = ANY(%s::bigint[]::oid[]) ORDER BY 1, 2",
        (list(oids),),
    )
    return [
        OwnedSequence(schema, name, int(oid), column, int(increment), None if last is None else int(last))
        for schema, name, oid, column, increment, last in found
    ]


_SEQUENCES = (
    "SELECT n.nspname || '.' || c.relname, pg_sequence_last_value(c.oid), s.seqincrement < 0 FROM pg_sequence s"
    " JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'"
    " AND %s ORDER BY 1" % CARRIED
)


def sequences(session: Session) -> Dict[str, Optional[int]]:
    """Last value of each sequence, None for an unused one. Sequences are not transactional."""
    return {str(name): None if value is None else int(value) for name, value, _down in session.rows(_SEQUENCES)}


def descending_sequences(session: Session) -> Set[str]:
    """The descending sequences."""
    return {str(name) for name, _value, down in session.rows(_SEQUENCES) if down}


def extensions(session: Session) -> Dict[str, str]:
    return dict(session.rows("SELECT extname::text, extversion FROM pg_extension ORDER BY 1"))


#: System objects whose changed privileges pg_dump does not write: the built-in languages and information_schema. For
#: pg_catalog it writes them (both seen with 15).
SYSTEM_PRIVILEGES = """
WITH objects(classid, objid, part, acl, usual) AS (
  SELECT 'pg_language'::regclass, oid, 0, lanacl, acldefault('l', lanowner) FROM pg_language WHERE NOT lanispl
  UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, nspacl,
    acldefault('n', nspowner) || makeaclitem(0, nspowner, 'USAGE', false) FROM pg_namespace
    WHERE nspname = 'information_schema'
  UNION ALL SELECT 'pg_class'::regclass, oid, 0, relacl,
    acldefault('r', relowner) || makeaclitem(0, relowner, 'SELECT', false) FROM pg_class
    WHERE relnamespace = 'information_schema'::regnamespace
  UNION ALL SELECT 'pg_class'::regclass, c.oid, a.attnum, a.attacl, acldefault('c', c.relowner) FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'information_schema'::regnamespace
  UNION ALL SELECT 'pg_proc'::regclass, oid, 0, proacl, acldefault('f', proowner) FROM pg_proc
    WHERE pronamespace = 'information_schema'::regnamespace
  UNION ALL SELECT 'pg_type'::regclass, oid, 0, typacl, acldefault('T', typowner) FROM pg_type
    WHERE typnamespace = 'information_schema'::regnamespace)
SELECT i.type || ' ' || i.identity, array_to_string(ARRAY(SELECT a::text FROM unnest(o.acl) a ORDER BY 1), ', ')
FROM objects o, LATERAL pg_identify_object(o.classid, o.objid, o.part) i
WHERE NOT (o.acl @> o.usual AND o.acl <@ o.usual)
ORDER BY 1
"""


def not_covered(session: Session) -> List[Dict[str, str]]:
    """What the archive or the database contains but digests do not cover, each with the reason."""
    found: List[Dict[str, str]] = []

    def note(kind: str, reason: str, sql: str) -> None:
        found.extend({"kind": kind, "name": str(row[0]), "reason": reason} for row in session.rows(sql))

    relation = (
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
        + USER_SCHEMA
        + " AND %s ORDER BY 1"
    )
    note("materialized view", "is refreshed at restore, not copied", relation % "c.relkind = 'm'")
    note("foreign table", "its rows live on another server", relation % "c.relkind = 'f'")
    note("sequence", "its value is not part of a snapshot", relation % "c.relkind = 'S'")
    note(
        "table of an extension",
        "its rows are not dumped, they come with the extension",
        relation
        % (
            "c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass"
            " AND e.objid = c.oid AND e.deptype = 'e') AND NOT " + CARRIED
        ),
    )
    for table in tables(session):
        if table.extension_filter:
            reason = "only rows selected by %s are dumped, the others come with the extension" % table.extension_filter
            found.append({"kind": "other rows of an extension", "name": table.full_name, "reason": reason})
    note(
        "subscription",
        "is never brought back by a restore: it would take over the slot of the live one; only a superuser can compare"
        " what it is",
        "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname ="
        " current_database())",
    )
    note(
        "user mapping",
        "options that this role may not see are not in the archive, and a restore does not bring them back",
        # The view shows options to superusers and to their owners; to other roles it shows NULL, as if there were none.
        "SELECT usename || ' on server ' || srvname FROM pg_user_mappings WHERE umoptions IS NULL AND NOT (SELECT"
        " rolsuper FROM pg_roles WHERE rolname = current_user) ORDER BY 1",
    )
    note(
        "replication slot",
        "stays with the database that it was made in",
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()",
    )
    note(
        "privileges on",
        "pg_dump does not write them: a restored database has those of a new one; grant and revoke again",
        SYSTEM_PRIVILEGES,
    )
    return found
