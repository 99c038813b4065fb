# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the database has what the migrations in force make.

Prisma's own answer (``migrate diff --from-migrations``) knows neither views nor functions nor triggers, asks for a
shadow database of its own and takes seconds. So the migrations' SQL is run in a scratch database, as Prisma runs it,
and both are compared object by object. Owners and privileges are not: they are set outside of migrations, mostly.
"""

from __future__ import annotations

import re
from typing import Dict, List, Sequence, Tuple

from ...base.errors import BackstopError, CouldNotVerify
from ...base.sql_names import quote_identifier
from ...postgres import definitions
from ...postgres.connection import Session
from ...postgres.database_properties import read_properties
from ...postgres.ways_out import REACHING
from ...prisma import history
from ...prisma.outgoing import openings
from ...prisma.sql_text import cluster_statements, statements
from ...store.manifest import is_whole, readable
from ..comparison import round_trip
from ..context import Context
from ..scratch import scratch_database
from .migration import backup_history

_RIGHTS = re.compile(r"(?:; )?(?:owner [^;]*; )?privileges .*?(?=; |$)|^owner [^;]*(?:; |$)")
_PARTITION = re.compile("; bound [^;]")
#: Kinds that no migration decides.
_NOT_COMPARED = ("default privileges", "large object", "extension")


def differences(context: Context, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """One sentence for each object that differs.

    :raises BackstopError: the migrations cannot be run again, so nothing can be told
    """
    return sentences(compare(context, session, files)[2])


def missing_objects(context: Context, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """Tables, columns and types that the migrations in force make and the database does not have.

    :raises BackstopError: the migrations cannot be run again, so nothing can be told
    """
    made, live, _found = compare(context, session, files)
    return objects_gone(made, live)


def sentences(found: Dict[str, List[str]]) -> List[str]:
    return (
        ["only in the database: " + key for key in found["added"]]
        + ["only in the migrations: " + key for key in found["missing"]]
        + ["otherwise than in the migrations: " + key for key in found["changed"]]
    )


def compare(
    context: Context, session: Session, files: Sequence[history.MigrationFile]
) -> Tuple[definitions.Definitions, definitions.Definitions, Dict[str, List[str]]]:
    """What the migrations in force make, what the database has, and how these differ."""
    state = history.compare(files, history.read_rows(session.cursor(), context.connection.schema))
    if state.unknown or state.edited or state.failed:
        raise CouldNotVerify(
            "the history is not that of this release", hint="see the gate migrations, which tells what is wrong"
        )
    in_force = [file for file in files if file.name in state.applied]
    if any(cluster_statements(file.sql) or openings(file.sql, REACHING) for file in in_force):
        raise CouldNotVerify("a migration in force acts beyond its database, so it cannot be run in a scratch one")
    with scratch_database(context, session, "drift") as (_admin, name):
        _run_all(context, name, in_force)
        with context.connect(name) as scratch:
            made = _comparable(context, definitions.definitions(scratch))
        live = _comparable(context, definitions.definitions(session))
        found = definitions.compare(made, live)
        same = _printed_otherwise(context, session, name, found["changed"])
    return made, live, {**found, "changed": [key for key in found["changed"] if key not in same]}


# Applied, but not there -----------------------------------------------------------------------------------------------


def objects_gone(made: definitions.Definitions, live: definitions.Definitions) -> List[str]:
    """What is made and not there, of the kinds without which an application fails; a partition may come and go."""
    missing = definitions.compare(made, live)["missing"]
    partitions = [key for key in missing if _PARTITION.search(made[key])]
    gone = [key for key in missing if definitions.kind_of(key) in ("relation", "type") and key not in partitions]
    whole = tuple("%s." % key.split(" ", 1)[1] for key in gone + partitions)
    columns = [key for key in missing if definitions.kind_of(key) == "column"]
    return gone + [key for key in columns if not key[len("column ") :].startswith(whole)]


def missing_since_backup(context: Context, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """The same where the migrations cannot be run again: objects that the first backup with this very history has, and
    that a migration in force names."""
    rows = history.read_rows(session.cursor(), context.connection.schema)
    known = [backup for backup in readable(context.store.backups()) if is_whole(backup.manifest)]
    same = [
        backup.manifest
        for backup in known
        if backup.manifest["database"]["name"] == context.database
        and rows
        and not history.history_differences(backup_history(backup.place), rows)
    ]
    if not same:
        return []
    made = _comparable(context, min(same, key=lambda manifest: str(manifest["created"]))["definitions"])
    applied = history.compare(files, rows).applied
    text = "\n".join(file.sql for file in files if file.name in applied)
    gone = objects_gone(made, _comparable(context, definitions.definitions(session)))
    return [key for key in gone if re.search(r"\b%s\b" % re.escape(key.rsplit(".", 1)[-1]), text)]


# Running the migrations again -----------------------------------------------------------------------------------------


def _run_all(context: Context, database: str, files: Sequence[history.MigrationFile]) -> None:
    """Each script as one query, as Prisma sends it."""
    with context.connect(database, pinned=False) as session:
        schema = quote_identifier(context.connection.schema)
        session.execute("SET statement_timeout = 0; SET lock_timeout = '10s'")
        session.execute("CREATE SCHEMA IF NOT EXISTS %s" % schema)
        session.execute("SET search_path TO %s" % schema)
        for file in files:
            if not any(statements(file.sql)):
                continue
            try:
                session.execute(file.sql)
            except BackstopError as error:
                raise CouldNotVerify(
                    "migration %s cannot be run on an empty database" % file.name, found=error.found
                ) from None


def _comparable(context: Context, found: definitions.Definitions) -> definitions.Definitions:
    own = "%s.%s" % (context.connection.schema, history.TABLE)
    return {
        key: _RIGHTS.sub("", text)
        for key, text in found.items()
        if definitions.kind_of(key) not in _NOT_COMPARED
        and not key.startswith("comment on extension")
        and own not in key
    }


def _printed_otherwise(context: Context, session: Session, scratch: str, keys: Sequence[str]) -> List[str]:
    """Which of these objects only read differently, because the live database was once restored.

    Where this role cannot restore them that cannot be proved, so they stay differences.
    """
    keys = [key for key in keys if definitions.kind_of(key) in definitions.REPRINTED]
    if not keys:
        return []
    about: Dict[str, Dict[str, object]] = {"database": {"properties": read_properties(session, context.database)}}
    try:
        first = _comparable(context, round_trip(context, context.database, about, "trip1"))
        second = _comparable(context, round_trip(context, scratch, about, "trip2"))
    except BackstopError:
        return []
    return [key for key in keys if key in first and first.get(key) == second.get(key)]
