# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every object of a database by its oid, to distinguish drops by a migration from renames and recreated objects.

Two inventories of the same database are compared. An oid that no longer exists was dropped; one that still exists,
under any name, was not. An object recreated under its old name is not lost either, but a table's rows are.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, FrozenSet, List, Tuple

from .catalog import USER_SCHEMA
from .connection import Session

#: Catalog and oid of an object.
Address = Tuple[int, int]

#: Catalogs whose objects may be missing in pg_depend, because they depend on nothing but their owner.
_ALONE = (
    "pg_namespace",
    "pg_publication",
    "pg_language",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_extension",
    "pg_event_trigger",
    "pg_cast",
    "pg_am",
)
_OBJECTS = """
WITH objects(classid, objid) AS (
  SELECT classid, objid FROM pg_depend WHERE objid >= 16384
  UNION {alone})
SELECT o.classid::bigint, o.objid::bigint, i.type, coalesce(i.schema, ''), coalesce(i.name, ''), i.identity
FROM objects o, LATERAL pg_identify_object(o.classid, o.objid, 0) i
WHERE i.identity IS NOT NULL AND i.type <> 'default value' AND coalesce(i.schema, '') !~ '^pg_(toast|temp)'
  -- What comes and goes with another object: row types, indexes of constraints, triggers of foreign keys.
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.objsubid = 0
                  AND d.deptype = 'i')
""".format(
    alone=" UNION ".join(
        "SELECT '%s'::regclass, oid FROM %s WHERE oid >= 16384" % (catalog, catalog) for catalog in _ALONE
    )
)
#: What an object is a part of: the table of an index, the extension of a function, the parent of a partition.
_PARTS = (
    "SELECT classid::bigint, objid::bigint, refclassid::bigint, refobjid::bigint FROM pg_depend"
    " WHERE objid >= 16384 AND objsubid = 0 AND deptype IN ('a', 'e', 'P', 'S')"
)
_COLUMNS = (
    "SELECT c.oid::bigint, a.attnum, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),"
    " a.atttypid::bigint, a.atttypmod, c.relkind::text, a.attgenerated <> '' FROM pg_attribute a"
    " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    # An inherited column is dropped with that of its parent.
    " WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0 AND c.relkind IN ('r', 'p', 'f', 'c')"
    " AND c.relpersistence <> 't' AND " + USER_SCHEMA
)
_LABELS = (
    "SELECT e.oid::bigint, n.nspname, t.typname, e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid"
    " JOIN pg_namespace n ON n.oid = t.typnamespace ORDER BY t.oid, e.enumsortorder"
)
#: Schema, type and label of an enum value.
Label = Tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Object:
    kind: str
    schema: str
    name: str
    #: as PostgreSQL writes it, such as ``"User_fkey" on public."Meter"``
    identity: str

    def shown(self, default_schema: str) -> str:
        if not self.name or self.kind in ("function", "procedure", "aggregate"):
            return self.identity
        return self.name if self.schema in ("", default_schema) else self.schema + "." + self.name


@dataclasses.dataclass(frozen=True)
class Column:
    table_oid: int
    schema: str
    table: str
    name: str
    type: str
    type_oid: int
    type_modifier: int
    #: relkind of its relation
    relation_kind: str
    generated: bool

    @property
    def path(self) -> Tuple[str, str, str]:
        return self.schema, self.table, self.name

    @property
    def holds_rows(self) -> bool:
        """False for attributes of composite types and for columns of foreign tables."""
        return self.relation_kind in ("r", "p")

    def shown(self, default_schema: str) -> str:
        table = self.table if self.schema == default_schema else self.schema + "." + self.table
        return table + "." + self.name

    def same_type(self, other: "Column") -> bool:
        return (self.type_oid, self.type_modifier) == (other.type_oid, other.type_modifier)


@dataclasses.dataclass(frozen=True)
class Inventory:
    objects: Dict[Address, Object]
    parts_of: Dict[Address, FrozenSet[Address]]
    #: by oid of the table and number of the column
    columns: Dict[Tuple[int, int], Column]
    #: enum values, by their oid
    labels: Dict[int, Label]
    large_objects: int


def take(session: Session) -> Inventory:
    parts: Dict[Address, List[Address]] = {}
    for classid, oid, owner_class, owner in session.rows(_PARTS):
        parts.setdefault((int(classid), int(oid)), []).append((int(owner_class), int(owner)))
    return Inventory(
        {(int(row[0]), int(row[1])): _object(*map(str, row[2:])) for row in session.rows(_OBJECTS)},
        {address: frozenset(owners) for address, owners in parts.items()},
        {(int(row[0]), int(row[1])): Column(int(row[0]), *row[2:]) for row in session.rows(_COLUMNS)},
        {int(oid): (str(schema), str(name), str(label)) for oid, schema, name, label in session.rows(_LABELS)},
        int(session.value("SELECT count(*) FROM pg_largeobject_metadata")),
    )


def _object(kind: str, schema: str, name: str, identity: str) -> Object:
    """PostgreSQL returns names quoted where SQL requires that."""
    return Object(kind, _plain(schema), _plain(name), identity)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


@dataclasses.dataclass(frozen=True)
class Gone:
    """What the second of two inventories lacks."""

    #: without parts of another dropped object
    objects: Dict[Address, Object]
    columns: List[Column]
    #: before and after
    retyped: List[Tuple[Column, Column]]
    #: enum values
    labels: List[Label]
    large_objects: int

    @property
    def tables(self) -> Dict[int, Object]:
        return {oid: found for (_class, oid), found in self.objects.items() if found.kind == "table"}


def compare(before: Inventory, after: Inventory) -> Gone:
    missing = set(before.objects) - set(after.objects)
    again = {(found.kind, found.identity) for address, found in after.objects.items() if address not in before.objects}
    lost = {
        address: found
        for address, found in before.objects.items()
        if address in missing
        and not before.parts_of.get(address, frozenset()) & missing
        and (found.kind == "table" or (found.kind, found.identity) not in again)
    }
    again_labels = set(after.labels.values())
    enums = {label[:2] for label in again_labels}
    still = {oid for _class, oid in after.objects} | {oid for oid, _number in after.columns}
    kept = [(key, column) for key, column in before.columns.items() if column.table_oid in still]
    return Gone(
        lost,
        [column for key, column in kept if key not in after.columns],
        [
            (column, after.columns[key])
            for key, column in kept
            if key in after.columns and not column.same_type(after.columns[key])
        ],
        # A renamed value keeps its oid; a recreated type keeps its values' names.
        [
            label
            for oid, label in before.labels.items()
            if oid not in after.labels and label not in again_labels and label[:2] in enums
        ],
        max(0, before.large_objects - after.large_objects),
    )


def relations(inventory: Inventory) -> Dict[int, str]:
    """Full name of every relation with rows or a query, by oid."""
    kinds = ("table", "view", "materialized view", "foreign table")
    return {
        oid: found.schema + "." + found.name
        for (_class, oid), found in inventory.objects.items()
        if found.kind in kinds
    }
