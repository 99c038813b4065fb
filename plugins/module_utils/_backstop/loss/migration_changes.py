# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration itself did to rows: going back to before the migration does not lose it.

A deploy records the contents of the tables that its migrations fill or change: once in the rehearsal, and once right
after they ran on the live database. A table that still has these contents was not written to since.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ..base.durable_files import read_json, write_json
from ..base.tables import Digest, Table
from ..postgres import catalog, definitions, digests
from ..postgres.connection import Session
from ..store.layout import BackupPlace, Store
from ..store.operation import Operation, operations
from ..store.steps import BACKUP, DRILL
from .count import TableLoss

#: Files of an operation; a migration with now() or random ids leaves other rows than its rehearsal.
REHEARSED, MIGRATED = "rehearsed-digests.json", "migrated-digests.json"
OBJECTS = "rehearsed-objects.json"
#: In bytes. The digests of larger tables would prolong the downtime; one of this size takes about half a second.
_MAX_BYTES = 64 << 20

#: Columns, row count and hash.
_Contents = Tuple[Tuple[str, ...], Digest]


def note_rehearsed(
    operation: Operation, tables: Iterable[Table], contents: Mapping[str, Digest], dropped: Sequence[str]
) -> None:
    """Record the rehearsal's contents of tables that it created or changed, and which tables it dropped."""
    found = [_to_json(table, contents[table.full_name]) for table in tables]
    write_json(operation.file(REHEARSED), {"tables": found, "dropped": list(dropped)})


def note_objects(operation: Operation, before: definitions.Definitions, after: definitions.Definitions) -> None:
    """Record the objects that the rehearsed migrations created or changed, as keys of definitions."""
    found = definitions.compare(before, after)
    write_json(operation.file(OBJECTS), sorted(found["added"] + found["changed"]))


def noted_objects(operation: Operation) -> Optional[Set[str]]:
    """The result of note_objects(); None where the operation rehearsed nothing."""
    path = operation.file(OBJECTS)
    return set(read_json(path, "objects of the rehearsal")) if os.path.exists(path) else None


def note_migrated(operation: Operation, session: Session) -> None:
    """Record the contents of the same tables right after the migration, except for large ones."""
    path = operation.file(REHEARSED)
    if not os.path.exists(path):
        return
    rehearsed = read_json(path, "digests of the rehearsal")
    names = {entry["table"] for entry in rehearsed["tables"]}
    found = [
        _to_json(table, digests.table_digest(session, table.source, table.columns))
        for table in catalog.tables(session)
        if table.full_name in names and table.size <= _MAX_BYTES
    ]
    write_json(operation.file(MIGRATED), {"tables": found, "dropped": rehearsed["dropped"]})


def _to_json(table: Table, digest: Digest) -> Dict[str, Any]:
    return {"table": table.full_name, "columns": list(table.columns), "digest": digest.to_json()}


def mark(live: Session, losses: Sequence[TableLoss], store: Store, place: BackupPlace) -> None:
    """Mark the losses that only the migrations of a deploy caused, which ran after it made this backup."""
    readable = [loss.full_name for loss in losses if not loss.unreadable]
    names = as_migrated(live, readable, store, place)
    for loss in losses:
        loss.by_migration = loss.full_name in names


def as_migrated(live: Session, names: Sequence[str], store: Store, place: BackupPlace) -> Set[str]:
    """The given tables that are exactly as these migrations left them: with the same rows, or dropped."""
    if not names:
        return set()
    contents, dropped = _noted(store, place)
    tables = {table.full_name: table for table in catalog.tables(live)}
    found = set(dropped) - set(tables)
    for name in set(names) & set(contents) & set(tables):
        table = tables[name]
        now = (table.columns, digests.table_digest(live, table.source, table.columns))
        if now in contents[name]:
            found.add(name)
    return found & set(names)


def _noted(store: Store, place: BackupPlace) -> Tuple[Dict[str, List[_Contents]], List[str]]:
    contents: Dict[str, List[_Contents]] = {}
    dropped: List[str] = []
    for operation in operations(store):
        if not _began_from(operation, place):
            continue
        for name in (REHEARSED, MIGRATED):
            if not os.path.exists(operation.file(name)):
                continue
            noted = read_json(operation.file(name), "digests that a deploy noted")
            dropped += noted["dropped"]
            for entry in noted["tables"]:
                found = (tuple(entry["columns"]), Digest.from_json(entry["digest"]))
                contents.setdefault(entry["table"], []).append(found)
    return contents, dropped


def _began_from(operation: Operation, place: BackupPlace) -> bool:
    """Whether its migrations started from the contents of this backup."""
    return place.backup_id in (operation.result(BACKUP).backup, operation.result(DRILL).backup)
