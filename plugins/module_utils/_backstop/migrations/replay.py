# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the database has what the applied migrations create.

Prisma's own check (``migrate diff --from-migrations``) ignores views, functions and triggers, needs a separate shadow
database and takes seconds. So the migrations' SQL is run in a scratch database, as Prisma runs it, and both are
compared object by object, but without owners and privileges, which are mostly set outside of migrations.
"""

from __future__ import annotations

import contextlib
import re
from typing import Dict, Iterator, List, Sequence, Tuple

from ..backups.catalog_comparison import is_about, load_definitions, schema_of_database
from ..backups.scratch import scratch_database
from ..base.databases import DatabaseProperties
from ..base.errors import BackstopError, CouldNotVerify
from ..base.sql_names import quote_identifier
from ..postgres import definitions, dumped_definitions
from ..postgres.connection import Session
from ..postgres.database_properties import read_properties
from ..postgres.ways_out import REACHING
from ..prisma import history
from ..prisma.outgoing import openings
from ..prisma.sql_text import cluster_statements, statements
from ..site import Site
from ..store.manifest import readable
from .deploy import backup_history

_PARTITION = re.compile("; bound [^;]")
#: What migrations do not determine.
_NOT_COMPARED = ("EXTENSION ", "COMMENT EXTENSION ", "SUBSCRIPTION ", "COMMENT SUBSCRIPTION ")
_OF_EVERY_DATABASE = ("SCHEMA public", "COMMENT SCHEMA public")


def compare(site: Site, session: Session, files: Sequence[history.MigrationFile]) -> Tuple[List[str], List[str]]:
    """Run the applied migrations in a scratch database and compare it with the live one, by pg_dump's output.

    :returns: one sentence for each object that differs; tables, columns and types that are missing in the database
    :raises BackstopError: the migrations cannot be run again, so the result is unknown
    """
    with _run_again(site, session, files) as name:
        gone = _gone(site, session, name)
        made, live = (_entries(site, database) for database in (name, site.database))
        found = dumped_definitions.compare(made, live)
        if any(found.values()):
            properties = read_properties(session, site.database)
            found = _without_reprinted(site, name, properties, found, made, live)
    return [
        dumped_definitions.describe(key, how, made, live)
        for kind, how in (("added", "only in the database"), ("missing", "only in the migrations"), ("changed",) * 2)
        for key in found[kind]
    ], gone


@contextlib.contextmanager
def _run_again(site: Site, session: Session, files: Sequence[history.MigrationFile]) -> Iterator[str]:
    """The name of a scratch database in which the applied migrations were run."""
    state = history.compare(files, history.read_rows(session.cursor(), site.connection.schema))
    if state.unknown or state.edited or state.failed:
        raise CouldNotVerify(
            "the history is not that of this release", hint="see the gate migrations, which shows what is wrong"
        )
    in_force = [file for file in files if file.name in state.applied]
    if any(cluster_statements(file.sql) or openings(file.sql, REACHING) for file in in_force):
        raise CouldNotVerify("a migration in force acts beyond its database, so it cannot be run in a scratch one")
    with scratch_database(site, session, "drift") as (_admin, name):
        _run_all(site, name, in_force)
        yield name


def _gone(site: Site, session: Session, name: str) -> List[str]:
    with site.connect(name) as scratch:
        return objects_gone(_own(site, scratch), _own(site, session))


def _entries(site: Site, database: str) -> dumped_definitions.Entries:
    with site.connect(database) as session:
        tools = site.tools(session)
    settings = site.connection.with_database(database)
    return _comparable(site, dumped_definitions.of_database(tools, settings, keep_open=site.keep_open))


def _comparable(site: Site, entries: dumped_definitions.Entries) -> dumped_definitions.Entries:
    own = "%s.%s" % (site.connection.schema, history.TABLE)
    return {
        key: several
        for key, several in dumped_definitions.without_rights(entries).items()
        if not key.startswith(_NOT_COMPARED) and key not in _OF_EVERY_DATABASE and not is_about(key, own)
    }


def _without_reprinted(
    site: Site,
    name: str,
    properties: DatabaseProperties,
    found: Dict[str, List[str]],
    made: dumped_definitions.Entries,
    live: dumped_definitions.Entries,
) -> Dict[str, List[str]]:
    """The differences without those of printing, because the live database was once restored: both are loaded again.

    If this role cannot restore them, this cannot be proved, so they stay differences.
    """
    try:
        again = []
        for number, database in enumerate((site.database, name), 1):
            with schema_of_database(site, database) as source:
                loaded = load_definitions(site, source, properties, "trip%d" % number).dumped
            again.append(_comparable(site, loaded))
    except BackstopError:
        return found
    left = dumped_definitions.compare(again[1], again[0])
    mixed = dumped_definitions.compare(made, again[0])
    return {how: [key for key in keys if key in left[how] and key in mixed[how]] for how, keys in found.items()}


# Applied, but missing


def missing_objects(site: Site, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """Tables, columns and types that the applied migrations create and the database does not have.

    :raises BackstopError: the migrations cannot be run again, so the result is unknown
    """
    with _run_again(site, session, files) as name:
        return _gone(site, session, name)


def _own(site: Site, session: Session) -> definitions.Definitions:
    ours = "%s.%s" % (site.connection.schema, history.TABLE)
    return {key: text for key, text in definitions.definitions(session).items() if not is_about(key, ours)}


def objects_gone(made: definitions.Definitions, live: definitions.Definitions) -> List[str]:
    """Missing objects of the kinds without which an application fails. Partitions are ignored: they come and go."""
    missing = definitions.compare(made, live)["missing"]
    partitions = [key for key in missing if _PARTITION.search(made[key])]
    gone = [key for key in missing if definitions.kind_of(key) in ("relation", "type") and key not in partitions]
    whole = tuple("%s." % key.split(" ", 1)[1] for key in gone + partitions)
    columns = [key for key in missing if definitions.kind_of(key) == "column"]
    columns = [key for key in columns if not key[len("column ") :].startswith(whole)]
    return [definitions.shown(key, made) for key in gone + columns]


def missing_since_backup(site: Site, session: Session, files: Sequence[history.MigrationFile]) -> List[str]:
    """The same where the migrations cannot be run again: missing objects that the first backup with exactly this
    history has, and that an applied migration names."""
    rows = history.read_rows(session.cursor(), site.connection.schema)
    known = [backup for backup in readable(site.store.backups()) if backup.manifest.is_whole]
    same = [
        backup.manifest
        for backup in known
        if backup.manifest.database.name == site.database
        and rows
        and not history.history_differences(backup_history(backup.place), rows)
    ]
    if not same:
        return []
    made = min(same, key=lambda manifest: manifest.created).definitions
    applied = history.compare(files, rows).applied
    text = "\n".join(file.sql for file in files if file.name in applied)
    gone = objects_gone(made, _own(site, session))
    return [key for key in gone if re.search(r"\b%s\b" % re.escape(key.rsplit(".", 1)[-1]), text)]


# Running the migrations again


def _run_all(site: Site, database: str, files: Sequence[history.MigrationFile]) -> None:
    """Each script as one query, as Prisma sends it."""
    with site.connect(database, pinned=False) as session:
        schema = quote_identifier(site.connection.schema)
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
