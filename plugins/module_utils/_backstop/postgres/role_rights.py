# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The privileges of a role on the tables and sequences of a database, and those that a migration revoked or omitted.

The role that creates a table owns it. If migrations run as another role than the application's, the application has no
access to a new table without a GRANT.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, FrozenSet, List

from ..base.sql_names import quote_identifier
from .catalog import NOT_OF_EXTENSION, USER_SCHEMA
from .connection import Session

_ON_TABLES = ("SELECT", "INSERT", "UPDATE", "DELETE")
_RIGHTS = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner),
  has_schema_privilege(r.oid, n.oid, 'USAGE'),
  CASE WHEN c.relkind = 'S' THEN
    CASE WHEN has_sequence_privilege(r.oid, c.oid, 'USAGE') THEN ARRAY['USAGE'] ELSE '{{}}' END
  ELSE ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
             WHERE has_table_privilege(r.oid, c.oid, p)) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r
WHERE r.rolname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {schema} AND {own}
  -- The sequence of an identity column asks for no privilege.
  AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_class'::regclass AND i.objid = c.oid
                  AND i.deptype = 'i' AND c.relkind = 'S')
""".format(schema=USER_SCHEMA, own=NOT_OF_EXTENSION % ("pg_class", "c.oid"))


@dataclasses.dataclass(frozen=True)
class RelationRights:
    """The privileges of a role on one relation."""

    schema: str
    name: str
    kind: str
    owner: str
    schema_usage: bool
    privileges: FrozenSet[str]

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name


#: By oid of the relation.
Rights = Dict[int, RelationRights]


def rights_of(session: Session, role: str) -> Rights:
    """Empty for a role that does not exist."""
    return {
        int(row[0]): RelationRights(str(row[1]), str(row[2]), str(row[3]), str(row[4]), bool(row[5]), frozenset(row[6]))
        for row in session.rows(_RIGHTS, (role,))
    }


@dataclasses.dataclass(frozen=True)
class Lacking:
    """Privileges that a role lacks after a migration but had before on this relation, or has on the other tables."""

    relation: RelationRights
    privileges: List[str]
    #: whether the relation is new
    new: bool

    def __str__(self) -> str:
        return "%s on %s (owner %s)" % (", ".join(self.privileges), self.relation.full_name, self.relation.owner)


def lacking(before: Rights, after: Rights, besides: str) -> List[Lacking]:
    """The privileges missing on new relations, and those revoked on existing ones.

    On new ones a role should have what it has on most others; without others, all that an application
    needs.

    :param besides: name of a table that the application does not use: Prisma's history
    """
    usual = _usual([found for found in before.values() if found.kind in ("r", "p") and found.name != besides])
    lacking_rights = []
    for oid, found in after.items():
        if found.name == besides:
            continue
        known = before.get(oid)
        if known is not None:
            wanted = known.privileges
            usage = known.schema_usage
        else:
            wanted = _wanted(found.kind, usual)
            usage = bool(wanted)
        missing = [name for name in (*_ON_TABLES, "USAGE") if name in wanted - found.privileges]
        if usage and not found.schema_usage:
            missing.append("USAGE on schema " + found.schema)
        if missing:
            lacking_rights.append(Lacking(found, missing, known is None))
    return lacking_rights


def _usual(tables: List[RelationRights]) -> FrozenSet[str]:
    if not tables:
        return frozenset(_ON_TABLES)
    return frozenset(
        name for name in _ON_TABLES if 2 * sum(name in table.privileges for table in tables) >= len(tables)
    )


def _wanted(kind: str, usual: FrozenSet[str]) -> FrozenSet[str]:
    if kind == "S":
        return frozenset(["USAGE"] if "INSERT" in usual else [])
    return usual & {"SELECT"} if kind in ("v", "m") else usual


def remedy(role: str, found: List[Lacking], owners: List[str]) -> str:
    """How to grant them.

    :param owners: of the existing tables
    """
    makers = sorted({one.relation.owner for one in found if one.new})
    ways = []
    if makers and len(owners) == 1 and owners != makers:
        ways.append("run the migrations as %s, to whom the other tables belong" % owners[0])
    ways.append("let a migration GRANT it to %s" % quote_identifier(role))
    schemas = sorted({one.relation.schema for one in found if one.new})
    if makers and schemas:
        ways.append(
            "as %s: ALTER DEFAULT PRIVILEGES IN SCHEMA %s GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %s; the"
            " same with GRANT USAGE ON SEQUENCES"
            % (makers[0], ", ".join(map(quote_identifier, schemas)), quote_identifier(role))
        )
    return ", or ".join(ways)
