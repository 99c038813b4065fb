# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate on drift: whether the live schema is the one that the migrations in force make.

Prisma's own answer (``migrate diff --from-migrations``) knows neither views nor functions nor triggers, asks for a
shadow database of its own and takes seconds. So the migrations' SQL is run in a scratch database, as Prisma runs it,
and both are compared object by object. Owners and privileges are not: they are set outside of migrations, mostly.
"""

from __future__ import annotations

import re
from typing import Dict, List, Sequence

from ...base.errors import BackstopError, CouldNotVerify, Refused
from ...base.sql_names import quote_identifier
from ...postgres import definitions
from ...postgres.connection import Session
from ...postgres.database_properties import read_properties
from ...prisma import history
from ...prisma.sql_text import cluster_statements, statements
from ..comparison import round_trip
from ..context import Context
from .question import Question
from .scratch import scratch_database

_RIGHTS = re.compile(r"(?:; )?(?:owner [^;]*; )?privileges .*?(?=; |$)|^owner [^;]*(?:; |$)")
#: Kinds that no migration decides.
_NOT_COMPARED = ("default privileges", "large object", "extension")
_HINT = (
    "put what is in the database only into a migration and mark it as applied, or take it back; or waive the gate drift"
    " with a reason"
)


def drift(context: Context, session: Session, question: Question) -> str:
    """Shown; it closes the gate only where that was asked for."""
    try:
        found = differences(context, session, question.files)
    except BackstopError as error:
        if question.refuse_drift:
            raise
        return "not compared: " + error.message
    if found and question.refuse_drift:
        raise Refused("The live schema is not the one of its migrations", found="; ".join(found[:10]), hint=_HINT)
    more = "; and %d more" % (len(found) - 10) if len(found) > 10 else ""
    return "; ".join(found[:10]) + more if found else "the live schema is that of the migrations in force"


def differences(context: Context, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """One sentence for each object that differs.

    :raises BackstopError: the migrations cannot be run again, so nothing can be told
    """
    state = history.compare(files, history.read_rows(session.cursor(), context.connection.schema))
    if state.unknown or state.edited or state.failed:
        raise CouldNotVerify(
            "the history is not that of this release", hint="see the gate migrations, which tells what is wrong"
        )
    in_force = [file for file in files if file.name in state.applied]
    if any(cluster_statements(file.sql) for file in in_force):
        raise CouldNotVerify("a migration in force acts beyond its database, so it cannot be run in a scratch one")
    with scratch_database(context, session, "drift") as (_admin, name):
        _run_all(context, name, in_force)
        with context.connect(name) as scratch:
            made = definitions.definitions(scratch)
        live = definitions.definitions(session)
        found = definitions.compare(_comparable(context, made), _comparable(context, live))
        same = _printed_otherwise(context, session, name, found["changed"])
    return (
        ["only in the database: " + key for key in found["added"]]
        + ["only in the migrations: " + key for key in found["missing"]]
        + ["otherwise than in the migrations: " + key for key in found["changed"] if key not in same]
    )


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
