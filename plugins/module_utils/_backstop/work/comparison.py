# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing a database with a manifest: tables by digest, everything else by definition."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import Any, Dict, List, Optional, Sequence

from ..base.errors import BackstopError, Refused
from ..base.sql_names import scratch_name
from ..postgres import archive, catalog, definitions, digests
from ..postgres.connection import Session
from ..postgres.damage import is_damage
from ..postgres.database_properties import create_database, drop_scratch_database
from ..store.layout import new_id
from ..store.manifest import readable, require_whole, verification
from .context import Context


@dataclasses.dataclass
class Comparison:
    """What differs; empty lists mean equal."""

    #: one sentence for each table that differs
    tables: List[str]
    #: one sentence for each object that differs
    objects: List[str]
    #: differences that a dump and restore cannot avoid, with the reason
    tolerated: List[str] = dataclasses.field(default_factory=list)
    #: objects that are the same though printed otherwise: both texts
    reprinted: Dict[str, List[str]] = dataclasses.field(default_factory=dict)
    compared_tables: int = 0
    compared_rows: int = 0

    @property
    def equal(self) -> bool:
        return not self.tables and not self.objects

    def require_equal(self, what: str, hint: str) -> None:
        """:raises BackstopError: tells the first differences"""
        if not self.equal:
            differences = self.tables + self.objects
            more = " (and %d more)" % (len(differences) - 10) if len(differences) > 10 else ""
            raise BackstopError(
                what, found="; ".join(differences[:10]) + more, hint=hint, details={"differences": differences}
            )


def compare_tables(
    session: Session, manifest: Dict[str, Any], besides: Sequence[str] = (), *, new_columns: bool = False
) -> Comparison:
    """Digest every table of the manifest in this database.

    :param besides: full names of tables that are not compared
    :param new_columns: a table may have more columns than in the manifest; they are not compared
    """
    require_whole(manifest)
    # By schema and name apart: names may hold dots.
    present = {(table.schema, table.name): table for table in catalog.tables(session)}
    result = Comparison([], [])
    for entry in manifest["tables"]:
        name = "%s.%s" % (entry["schema"], entry["name"])
        table = present.pop((entry["schema"], entry["name"]), None)
        if name not in besides:
            _compare_table(session, name, entry, table, new_columns, result)
    result.tables += [
        "table %s was not there" % table.full_name
        for table in present.values()
        # An extension's own is made with it: other versions of it, and older manifests, do not have the same ones.
        if table.full_name not in besides and table.extension_filter is None
    ]
    if digests.large_objects_digest(session) != digests.Digest.from_json(manifest["large_objects"]):
        result.tables.append("the large objects differ")
    return result


def compare_kept_tables(session: Session, manifest: Dict[str, Any]) -> List[str]:
    """How tables differ from those of a manifest that need not have all; other tables are not looked at."""
    present = {(table.schema, table.name): table for table in catalog.tables(session)}
    result = Comparison([], [])
    for entry in manifest["tables"]:
        name = "%s.%s" % (entry["schema"], entry["name"])
        _compare_table(session, name, entry, present.get((entry["schema"], entry["name"])), False, result)
    return result.tables


def _compare_table(
    session: Session,
    name: str,
    entry: Dict[str, Any],
    table: Optional[catalog.Table],
    new_columns: bool,
    result: Comparison,
) -> None:
    columns = [column["name"] for column in entry["columns"]]
    if table is None:
        result.tables.append("table %s is missing" % name)
        return
    if [column for column in table.columns if not new_columns or column in columns] != columns:
        result.tables.append("table %s has other columns: %s" % (name, ", ".join(table.columns)))
        return
    wanted = digests.Digest.from_json(entry["digest"])
    try:
        with session.savepoint():
            found = digests.table_digest(session, table.source, columns)
    except BackstopError as error:
        if not is_damage(error):
            raise
        result.tables.append("table %s cannot be read: it is damaged (%s)" % (name, error.found))
        return
    result.compared_tables += 1
    result.compared_rows += found.rows
    if found.rows != wanted.rows:
        result.tables.append("table %s has %d rows, not %d" % (name, found.rows, wanted.rows))
    elif found != wanted:
        result.tables.append("table %s has %d rows with other contents" % (name, found.rows))


def compare_catalog(
    context: Context, session: Session, manifest: Dict[str, Any], result: Comparison, *, round_trips: bool = True
) -> None:
    """Compare the definitions of a restored database with those of the manifest; adds to ``result``.

    :param round_trips: False where no scratch database may be made to prove that a definition is only printed
        otherwise; those that no earlier restore proved are then tolerated and named
    """
    restored = definitions.definitions(session)
    found = definitions.compare(manifest["definitions"], restored)
    reprinted = [key for key in found["changed"] if definitions.kind_of(key) in definitions.REPRINTED]
    if reprinted:
        pairs = {key: [manifest["definitions"][key], restored[key]] for key in reprinted}
        known = _proved_before(context, pairs)
        unproved = [key for key in reprinted if key not in known]
        if round_trips:
            same = known + _same_after_round_trips(context, session.settings.database, manifest, unproved)
        else:
            same = reprinted
            why = "%s is printed otherwise; no drill has proved that it is the same"
            result.tolerated += [why % key for key in unproved]
        found["changed"] = [key for key in found["changed"] if key not in same]
        result.reprinted = {key: pairs[key] for key in same if round_trips or key in known}
    for key in list(found["changed"]):
        if key.startswith("extension "):
            found["changed"].remove(key)
            result.tolerated.append("%s: a restore installs the server's default version" % key)
    for key in list(found["missing"]):
        if key.startswith("comment on extension"):
            found["missing"].remove(key)
            result.tolerated.append("%s: belongs to the extension's owner" % key)
    for how in ("missing", "added", "changed"):
        result.objects += ["%s is %s" % (key, how) for key in found[how]]


def _proved_before(context: Context, pairs: Dict[str, List[str]]) -> List[str]:
    """Which of these objects an earlier restore of any backup found to be the same, printed in these two ways.

    That was while the live database still had them; a migration may have changed them since.
    """
    places = [backup.place for backup in readable(context.store.backups())]
    proved = [(verification(place) or {}).get("reprinted", {}) for place in places]
    return [key for key, pair in pairs.items() if any(known.get(key) == pair for known in proved)]


def _same_after_round_trips(context: Context, restored: str, manifest: Dict[str, Any], keys: List[str]) -> List[str]:
    """Which of these definitions only read differently.

    PostgreSQL prints some expressions differently once they were dumped and restored, and stably from then on. So the
    live database goes through one restore of its schema, the restored one through another, and these are compared.
    What the live database has otherwise than the backup cannot be compared, and is not the same.
    """
    source = context.source or context
    with source.connect() as live:
        present = definitions.definitions(live)
    keys = [key for key in keys if present.get(key) == manifest["definitions"][key]]
    if not keys:
        return []
    first = round_trip(source, source.database, manifest, "trip1")
    second = round_trip(context, restored, manifest, "trip2")
    return [key for key in keys if key in first and first.get(key) == second.get(key)]


def round_trip(context: Context, database: str, manifest: Dict[str, Any], purpose: str) -> definitions.Definitions:
    """Definitions of a database after its schema was dumped and restored into a scratch database."""
    name = scratch_name(context.operation.id if context.operation else new_id(), purpose)
    with context.administer() as admin, tempfile.TemporaryDirectory(prefix="backstop-schema-") as folder:
        path = os.path.join(folder, "schema.dump")
        with context.connect(database) as session:
            tools = context.tools(session)
        source = context.connection.with_database(database)
        with archive.start_dump(tools, source, path, schema_only=True, keep_open=context.keep_open) as dump:
            dump.check("pg_dump could not write the schema of %s" % database)
        drop_scratch_database(admin, name)
        try:
            create_database(admin, name, manifest["database"]["properties"])
            archive.restore(
                tools, context.connection.with_database(name), path, schema_only=True, keep_open=context.keep_open
            )
            with context.connect(name) as session:
                return definitions.definitions(session)
        finally:
            drop_scratch_database(admin, name)


def require_same_major(manifest: Dict[str, Any], major: int) -> None:
    """Refuse to compare across majors: text of rows and definitions is only promised to be equal within one."""
    if manifest["server"]["major"] != major:
        raise Refused(
            "The backup is of another major version than this server",
            found="version %d" % manifest["server"]["major"],
            expected="version %d" % major,
            hint="restore it by hand, or on a server of its version",
        )
