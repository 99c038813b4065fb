# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping what a rollback loses: for each table a file with the rows, and a script that restores them.

The file has every column of the live table. The script loads it into a temporary table, updates the rows whose key
exists, and inserts the others. Columns that the database does not have stay in the file.
"""

from __future__ import annotations

import os
import shlex
from typing import Dict, List

from ..base.durable_files import fsync_directory, make_private_directory, private_file, write_file
from ..base.sql_names import qualified, quote_identifier, quote_literal
from ..base.tables import Table
from ..postgres import catalog, references
from ..postgres.connection import Session
from .count import LARGE_OBJECTS, TableLoss
from .differences import hash_among, key_hash

_README = """\
Rows that the live database held and the one that took over does not, or holds otherwise. For each table a file of
COPY and a script that puts its rows back, in one transaction. Tables that others refer to come first:

%s

The scripts run in psql, as the owner of the tables; give host, port and user by PGHOST, PGPORT and PGUSER. A table or a
column that a migration made must be there for that: apply the migration first, else its values stay in the file and in
the former database. Of a table or a column that a migration renamed, a script uses the name that it had before: run it
before that migration is applied again. Triggers fire. Rows that were deleted in the former database are not deleted
again.
"""
_LARGE_OBJECTS = """\
SELECT lo_from_bytea(id, '') FROM backstop_lost WHERE NOT EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = id);
SELECT lo_truncate64(lo_open(id, 131072), 0), lo_put(id, 0, content) FROM backstop_lost;
"""


def write_lost_rows(live: Session, losses: List[TableLoss], folder: str) -> None:
    """Write the rows that the base lacks or that differ there, and scripts that restore them.

    :param live: a session whose tables do not change meanwhile
    """
    make_private_directory(folder)
    known = {table.full_name: table for table in catalog.tables(live)}
    kept = {loss.full_name: loss for loss in losses if loss.whole_table or loss.keys}
    commands: List[str] = []
    for name in [".".join(LARGE_OBJECTS), *referenced_first(live, known)]:
        loss = kept.get(name)
        if loss is None:
            continue
        stem = os.path.join(folder, name.replace("/", "%2F"))
        loss.file = stem + ".copy"
        if name in known:
            _copy(live, _rows_query(loss, known[name]), loss.file)
            script = _script(live, loss, known[name])
        else:
            _copy(live, _large_objects_query(loss), loss.file)
            script = _in_transaction("id oid, content bytea", loss.file, _LARGE_OBJECTS)
        write_file(stem + ".sql", script.encode())
        commands.append("psql -X -d %s -f %s" % (shlex.quote(live.settings.database), shlex.quote(stem + ".sql")))
    write_file(os.path.join(folder, "README.txt"), (_README % "\n".join(commands)).encode())
    fsync_directory(folder)


def referenced_first(live: Session, known: Dict[str, Table]) -> List[str]:
    """Names of the tables, each after the tables that its foreign keys refer to, unless there is a cycle."""
    names = {table.oid: name for name, table in known.items()}
    needs: Dict[str, List[str]] = {name: [] for name in names.values()}
    for child, parent in live.rows("SELECT conrelid::bigint, confrelid::bigint FROM pg_constraint WHERE contype = 'f'"):
        if child in names and parent in names:
            needs[names[child]].append(names[parent])
    ordered: List[str] = []
    seen = set()

    def enter(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in needs[name]:
                enter(other)
            ordered.append(name)

    for name in sorted(needs):
        enter(name)
    return ordered


def _columns(loss: TableLoss, table: Table) -> List[str]:
    """Columns of the file: first those that can be restored, then the others that are not generated."""
    return loss.columns + [column for column in table.writable_columns if column not in loss.columns]


def _rows_query(loss: TableLoss, table: Table) -> str:
    """The rows that the base lacks; of equal rows in a table without key only as many as it lacks."""
    columns = ", ".join("r__." + quote_identifier(column) for column in _columns(loss, table))
    source = "%s r__" % table.source
    if loss.whole_table:
        return "SELECT %s FROM %s" % (columns, source)
    wanted = "unnest('{%s}'::bigint[], '{%s}'::bigint[]) k__(hash, times)" % (
        ",".join(map(str, loss.keys)),
        ",".join(map(str, loss.keys.values())),
    )
    # Number only the wanted rows: otherwise the server would sort the whole table.
    return (
        "SELECT %s FROM (SELECT r__.*, k__.times AS times__, row_number() OVER (PARTITION BY k__.hash) AS number__"
        " FROM %s JOIN %s ON k__.hash = %s WHERE %s) r__ WHERE r__.number__ <= r__.times__"
    ) % (columns, source, wanted, key_hash(loss.hashed), hash_among(key_hash(loss.hashed), loss.keys))


def _large_objects_query(loss: TableLoss) -> str:
    oids = ",".join(map(str, loss.keys))
    return "SELECT oid, lo_get(oid) FROM pg_largeobject_metadata WHERE oid = ANY('{%s}'::oid[])" % oids


def _script(live: Session, loss: TableLoss, table: Table) -> str:
    target = qualified(*loss.base_name)
    there = dict(zip(map(quote_identifier, loss.columns), map(quote_identifier, loss.in_base(loss.columns))))
    columns = list(there)
    key = [quote_identifier(column) for column in table.key if column in loss.columns]
    keyed = bool(key) and len(key) == len(table.key)
    same = " AND ".join("t.%s = l.%s" % (there[column], column) for column in key)
    statements = _unless_replaced(loss)
    fixed = [quote_identifier(column) for column in references.always_identity(live, table.oid)]
    changed = [column for column in columns if column not in key and column not in fixed]
    if keyed and changed and not loss.whole_table:
        statements += "UPDATE ONLY %s t SET %s FROM backstop_lost l WHERE %s;\n" % (
            target,
            ", ".join("%s = l.%s" % (there[column], column) for column in changed),
            same,
        )
    if not loss.columns_only:
        unless = " WHERE NOT EXISTS (SELECT FROM ONLY %s t WHERE %s)" % (target, same) if keyed else ""
        statements += "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM backstop_lost l%s;\n" % (
            target,
            ", ".join(there.values()),
            ", ".join("l." + column for column in columns),
            unless,
        )
    types = dict(zip(table.columns, table.types))
    definitions = [
        "%s %s" % (quote_identifier(column), types[column] if column in loss.columns else "text")
        for column in _columns(loss, table)
    ]
    return _in_transaction(", ".join(definitions), str(loss.file), statements)


def _unless_replaced(loss: TableLoss) -> str:
    """Until the migration is applied again, this name belongs to another table: no row must be written there."""
    if not loss.replaces:
        return ""
    return (
        "DO $backstop$ BEGIN IF to_regclass(%s) IS NULL THEN RAISE EXCEPTION 'apply the migration first: it makes table"
        " %%', %s; END IF; END $backstop$;\n"
    ) % (quote_literal(loss.replaces), quote_literal(loss.full_name))


def _in_transaction(columns: str, path: str, statements: str) -> str:
    return (
        "\\set ON_ERROR_STOP on\nSET client_encoding = 'UTF8';\nBEGIN;\n"
        "CREATE TEMPORARY TABLE backstop_lost (%s) ON COMMIT DROP;\n\\copy backstop_lost FROM %s\n%sCOMMIT;\n"
    ) % (columns, quote_literal(path), statements)


def _copy(session: Session, query: str, path: str) -> None:
    with private_file(path) as stream:
        session.copy_out("COPY (%s) TO STDOUT" % query, stream)
