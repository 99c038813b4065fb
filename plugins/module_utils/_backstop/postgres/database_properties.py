# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The properties of a database apart from its contents, and creating another database with the same ones.

pg_dump keeps them in the archive, but pg_restore restores them only with --create, under the old name.
"""

from __future__ import annotations

import re
from typing import List

from ..base import sqlstates
from ..base.databases import DatabaseProperties, DatabaseSetting
from ..base.errors import BackstopError, Refused
from ..base.sql_names import belongs_to, is_scratch, quote_identifier, quote_literal
from .connection import Session
from .replication import require_confirming
from .server import major_version, other_sessions, terminate

#: Settings that hold a list of identifiers: each element is quoted already in the stored text
#: (GUC_LIST_QUOTE; the list is that of src/bin/pg_dump/dumputils.c in version 18).
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}


def read_properties(session: Session, name: str) -> DatabaseProperties:
    """All of pg_database, the settings for the database and for roles in it, privileges and comment."""
    major = major_version(session)
    provider = "d.datlocprovider::text" if major >= 15 else "'c'"
    locale = "d.datlocale" if major >= 17 else "d.daticulocale" if major >= 15 else "NULL"
    rules = "d.daticurules" if major >= 16 else "NULL"
    version = "d.datcollversion" if major >= 15 else "NULL"
    row = session.row(
        "SELECT pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, %s, %s, %s, %s,"
        " (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace), d.datconnlimit, d.datallowconn,"
        " shobj_description(d.oid, 'pg_database'), d.datacl IS NULL,"
        " coalesce((SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.datacl) a), '{}'), d.oid::bigint"
        " FROM pg_database d WHERE d.datname = %%s" % (provider, locale, rules, version),
        (name,),
    )
    if row is None:
        raise Refused("There is no database %s" % name)
    found = session.rows(
        "SELECT CASE WHEN s.setrole = 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, c FROM pg_db_role_setting s,"
        " unnest(s.setconfig) c WHERE s.setdatabase = %s ORDER BY 1 NULLS FIRST, 2",
        (row[-1],),
    )
    fields = [*row[:-1], [DatabaseSetting(*one) for one in found]]
    return DatabaseProperties(*fields)


def create_database(session: Session, name: str, properties: DatabaseProperties) -> None:
    """Create an empty database from template0 with the properties that can only be set at creation."""
    if not is_scratch(name):
        raise AssertionError("a new database must have a scratch name")
    require_confirming(session)
    parts = [
        "CREATE DATABASE %s TEMPLATE template0" % quote_identifier(name),
        "OWNER " + quote_identifier(properties.owner),
        "ENCODING " + quote_literal(properties.encoding),
        "LC_COLLATE " + quote_literal(properties.collate),
        "LC_CTYPE " + quote_literal(properties.ctype),
    ]
    if properties.tablespace != "pg_default":
        parts.append("TABLESPACE " + quote_identifier(properties.tablespace))
    if properties.locale_provider == "i":
        parts.append("LOCALE_PROVIDER icu ICU_LOCALE " + quote_literal(properties.locale or ""))
        if properties.icu_rules:
            parts.append("ICU_RULES " + quote_literal(properties.icu_rules))
    elif properties.locale_provider == "b":
        parts.append("LOCALE_PROVIDER builtin BUILTIN_LOCALE " + quote_literal(properties.locale or ""))
    session.execute(" ".join(parts))


def copy_properties(session: Session, source: DatabaseProperties, name: str) -> List[str]:
    """Give a database the settings, comment and privileges of the source.

    The swap sets the connection limit and ALLOW_CONNECTIONS.

    :returns: the statements that were run
    """
    quoted = quote_identifier(name)
    present = read_properties(session, name)
    statements: List[str] = []
    if source.comment != present.comment:
        text = quote_literal(source.comment) if source.comment is not None else "NULL"
        statements.append("COMMENT ON DATABASE %s IS %s" % (quoted, text))
    for entry in source.settings:
        if entry not in present.settings:
            statements.append(_setting_statement(quoted, entry))
    statements += _privilege_statements(quoted, source, present)
    for statement in statements:
        session.execute(statement)
    return statements


def _setting_statement(quoted: str, entry: DatabaseSetting) -> str:
    name, value = entry.setting.split("=", 1)
    if name.lower() in _LISTS:
        elements = [part or '""' for part in re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', value) for part in part if part]
        text = ", ".join(quote_literal(element.replace('""', '"')) for element in elements) or "''"
    else:
        text = quote_literal(value)
    target = "DATABASE " + quoted
    if entry.role is not None:
        target = "ROLE %s IN DATABASE %s" % (quote_identifier(entry.role), quoted)
    return "ALTER %s SET %s TO %s" % (target, ".".join(quote_identifier(part) for part in name.split(".")), text)


_PRIVILEGES = {"C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}


def _privilege_statements(quoted: str, source: DatabaseProperties, present: DatabaseProperties) -> List[str]:
    if source.default_privileges:
        return []
    if not present.default_privileges and present.privileges == source.privileges:
        return []
    statements = [
        "REVOKE ALL ON DATABASE %s FROM PUBLIC" % quoted,
        "REVOKE ALL ON DATABASE %s FROM %s" % (quoted, quote_identifier(source.owner)),
    ]
    for item in source.privileges:
        grantee, letters = _read_acl_item(item)
        who = quote_identifier(grantee) if grantee else "PUBLIC"
        for letter, option in re.findall(r"([CTc])(\*?)", letters):
            tail = " WITH GRANT OPTION" if option else ""
            statements.append("GRANT %s ON DATABASE %s TO %s%s" % (_PRIVILEGES[letter], quoted, who, tail))
    return statements


def _read_acl_item(item: str) -> "tuple[str, str]":
    """Grantee (empty for PUBLIC) and privilege letters of an aclitem such as ``"odd name"=Tc/owner``."""
    match = re.match(r'(?:"((?:[^"]|"")*)"|([^="]*))=([A-Za-z*]*)/', item)
    if match is None:
        raise Refused("A privilege of the database cannot be read", found=item)
    grantee = match.group(1).replace('""', '"') if match.group(1) is not None else match.group(2)
    return grantee, match.group(3)


def drop_scratch_database(session: Session, name: str) -> bool:
    """Drop a scratch database and end its sessions; True if it existed.

    :raises Refused: for any other name
    """
    if not is_scratch(name):
        raise Refused(
            "Only scratch databases are ever dropped here", found=name, expected="a name starting backstop_scratch_"
        )
    if session.value("SELECT 1 FROM pg_database WHERE datname = %s", (name,)) is None:
        return False
    statement = "DROP DATABASE IF EXISTS " + quote_identifier(name)
    try:
        session.execute(statement + " WITH (FORCE)")
    except BackstopError as error:
        if error.sqlstate != sqlstates.INSUFFICIENT_PRIVILEGE:
            raise
        # FORCE needs the right to end autovacuum workers too, which only superusers have (seen with version 15).
        # Without it the server ends those by itself, and we end the clients.
        terminate(session, other_sessions(session, name))
        session.execute(statement)
    return True


def scratch_databases(session: Session, operation_id: str) -> List[str]:
    """The scratch databases that an operation created."""
    names = [str(name) for (name,) in session.rows("SELECT datname FROM pg_database ORDER BY 1")]
    return [name for name in names if is_scratch(name) and belongs_to(name, operation_id)]
