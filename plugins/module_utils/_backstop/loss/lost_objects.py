# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a revert removes besides rows: indexes, views, schemas, functions that were created since the backup.

Going back to before a migration removes what the migration created, which is intended. Its rehearsal shows what it
created. Any other object that was added or changed since is not the migration's.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Sequence, Set

from ..postgres import definitions
from ..postgres.connection import Session
from ..prisma import history
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace
from ..store.operation import Operation, operations_of
from ..store.steps import REHEARSAL
from .migration_changes import noted_objects

#: Kinds whose identity begins with that of their relation; they are dropped with it.
_PARTS = ("column ", "constraint ", "trigger ", "rule ", "policy ")
_RELATIONS = """
SELECT n.nspname || '.' || c.relname,
  (SELECT m.nspname || '.' || t.relname FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
    JOIN pg_namespace m ON m.oid = t.relnamespace
    WHERE c.relkind IN ('i', 'I', 'S') AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1),
  (SELECT m.nspname || '.' || t.relname FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace m ON m.oid = t.relnamespace WHERE i.indexrelid = c.oid),
  EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I')
"""

#: Facts about objects in a count of losses.
OF_OBJECTS = ("lost_objects", "objects_of_unknown_origin")


@dataclasses.dataclass
class LostObjects:
    """Objects that the reverted migrations did not create, each as kind and name."""

    names: List[str] = dataclasses.field(default_factory=list)
    #: migrations that no deploy of this store rehearsed: they may have created the objects
    unknown: List[str] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> int:
        """How many need consent: none if it is unknown who created them."""
        return 0 if self.unknown else len(self.names)

    def to_json(self) -> Dict[str, Any]:
        return dict(zip(OF_OBJECTS, (self.names, bool(self.unknown and self.names))))

    def __str__(self) -> str:
        text = ", ".join(self.names)
        if self.unknown and self.names:
            text += " (made by hand, or by the migrations %s, which no deploy rehearsed)" % ", ".join(self.unknown)
        return text


def lost_objects(site: Site, live: Session, place: BackupPlace) -> LostObjects:
    """What going back to this backup removes that the migrations since did not create.

    Objects of the backup that were dropped since come back, so they are not lost.
    """
    manifest = manifests.load(place)
    then, now = manifest.definitions, definitions.definitions(live)
    found = definitions.compare(then, now)
    proved = manifests.reprinted(place)
    changed = [key for key in found["changed"] if not definitions.only_moved_up(key, then[key], now[key])]
    since = [
        key
        for key in found["added"] + changed
        # A restored live database may print or name the same object differently; the restore proved which are the same.
        if _counts(site, key) and proved.get(key) not in ([then.get(key), now[key]], [now[key], then.get(key)])
    ]
    if not since:
        return LostObjects()
    known = {row.id for row in history.read_file(place.file("history.json")) or ()}
    rows = history.read_rows(live.cursor(), site.connection.schema) or ()
    applied = {row.migration_name for row in rows if row.id not in known}
    unknown = set(applied)
    made: Set[str] = set()
    for operation in operations_of(site.store, site.database):
        objects = noted_objects(operation)
        rehearsed = _rehearsed(operation)
        if objects is not None and applied & rehearsed:
            unknown -= rehearsed
            made |= objects
    left = [key for key in since if key not in made]
    granted = {key for key in changed if definitions.only_granted(then[key], now[key])}
    return LostObjects(_as_shown(live, left, now, set(found["added"]), granted), sorted(unknown))


def _counts(site: Site, key: str) -> bool:
    """Not the configured schema's history, what is counted as rows, or what the server creates itself at a restore."""
    kind = definitions.kind_of(key)
    identity = key[len(kind) + 1 :]
    own = "%s.%s" % (site.connection.schema, history.TABLE)
    of_history = identity == own or identity.startswith((own + ".", own + "_"))
    return not of_history and kind not in ("large object", "extension") and not key.startswith("comment on extension")


def _rehearsed(operation: Operation) -> Set[str]:
    """Names of the migrations that a deploy rehearsed."""
    return set(operation.result(REHEARSAL).names)


def _as_shown(
    live: Session, keys: Sequence[str], now: definitions.Definitions, added: Set[str], granted: Set[str]
) -> List[str]:
    """Objects as shown to users, without those that are part of another one in the list.

    :param now: their definitions
    :param granted: those of which only the privileges changed
    """
    tables, of_constraint = {}, set()
    for name, owner, table, constraint in live.rows(_RELATIONS):
        tables[str(name)] = str(table or owner or "")
        if constraint:
            of_constraint.add(str(name))
    new = {key.split(" ", 1)[1] for key in keys if key.startswith("relation ") and key in added}
    starts = tuple(name + "." for name in new)
    lines = []
    for key in keys:
        kind = definitions.kind_of(key)
        name = key[len(kind) + 1 :]
        whole = tables.get(name, "") in new or key.startswith(_PARTS) and name.startswith(starts)
        if key in added and (whole or kind == "sequence" or kind == "index" and name in of_constraint):
            continue
        if kind == "comment" and any(one in name.replace('"', "") for one in new):
            continue
        shown = definitions.shown(key, now)
        if key not in added:
            shown = "privileges of " + shown if key in granted else shown + " (changed)"
        lines.append(shown)
    return lines
