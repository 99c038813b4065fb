#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_info
short_description: List the backups of a store, and retired databases
version_added: "0.1.0"
description:
  - Lists committed backups with their age, size, the level to which they were verified, and the mark that keeps them. Unfinished backups are never
    listed.
  - C(scope) is V(database), or V(tables) for a backup of single tables, V(schema) for one without rows.
  - With O(connection), lists retired databases too, the former live ones that swaps kept.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  connection:
    required: false
  undo_window:
    description: Days after a swap, as for M(backstop.postgres.pg_retired_prune); for RV(retired[].undo_window_end).
    type: float
    default: 7
  kind:
    description: Only backups of this kind.
    type: str
    choices: [daily, weekly, pre-migration, post-migration, emergency]
  backup:
    description: Only the backup of this id, with its whole manifest.
    type: str
notes:
  - "On failure: Nothing was changed; this module only reads."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_dump
  - module: backstop.postgres.pg_backup_verify
  - module: backstop.postgres.pg_backup_mark
"""

EXAMPLES = r"""
- name: Pre-migration backups
  backstop.postgres.pg_backup_info:
    store: /var/backups/backstop
    kind: pre-migration
  register: found

- name: Retired databases
  backstop.postgres.pg_backup_info:
    store: /var/backups/backstop
    connection:
      url: "{{ database_url }}"
  register: found
"""

RETURN = r"""
backups:
  description: The backups, oldest first within their kind.
  returned: success
  type: list
  elements: dict
  sample: [{backup: electricity_tokens-20251108T020000Z-3fa9c1, kind: pre-migration, scope: database, level: restored}]
unreadable:
  description:
    - Backups whose manifest or verification cannot be read, with the reason. They are never chosen, never deleted by retention, and do not affect the
      others; inspect them.
  returned: success
  type: list
  elements: dict
  contains:
    backup:
      description: Name of its directory.
      type: str
    kind:
      description: Its kind.
      type: str
    path:
      description: Its directory.
      type: str
    reason:
      description: Why it cannot be read.
      type: str
retired:
  description:
    - Former live databases of this application's database, and those that belong to no operation of the store.
  returned: success and O(connection) is given
  type: list
  elements: dict
  contains:
    name:
      description: Name of the database.
      type: str
    operation:
      description: The operation that retired it.
      type: str
    database:
      description: Its former name.
      type: str
    retired_at:
      description: When that was.
      type: str
    age_days:
      description: Days since then.
      type: float
    size:
      description: Its size on disk in bytes.
      type: int
    dump:
      description: The best backup of this very database since it was retired, by its level, then its age.
      type: str
    dump_level:
      description: To which level that backup is verified.
      type: str
    undo_window_end:
      description: When O(undo_window) ends.
      type: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import mark_of


def act(request: Request) -> Dict[str, Any]:
    wanted = request.params["backup"]
    store = request.store
    places = [store.find_backup(wanted)] if wanted else store.directories(request.params["kind"])
    good, bad = manifests.read_each(places)
    if wanted and bad:
        raise BackstopError("Backup %s cannot be read" % wanted, found=bad[0].reason)
    facts = {
        "changed": False,
        "backups": [_described(backup, whole=bool(wanted)) for backup in good],
        "unreadable": [
            {"backup": one.place.backup_id, "kind": one.place.kind, "path": one.place.path, "reason": one.reason}
            for one in bad
        ],
    }
    if request.has_connection:
        # Only here: Python compiles what a module imports in each call, and this is most of the library.
        from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import retired_databases

        with request.site.administer() as admin:
            found = retired_databases(request.site, admin)
        facts["retired"] = [one.to_json(request.params["undo_window"]) for one in found]
    return facts


def _described(backup: manifests.Readable, whole: bool) -> Dict[str, Any]:
    place, manifest = backup.place, backup.manifest
    facts = {
        "backup": place.backup_id,
        "kind": place.kind,
        "path": place.path,
        "created": manifest.created,
        "database": manifest.database.name,
        "scope": manifest.scope,
        "encrypted": manifest.is_encrypted,
        "tables": manifest.table_names,
        "size": manifest.archive.size,
        "rows": manifest.rows,
        "commit": manifest.commit,
        "level": backup.level,
        "verification": manifests.verification(place),
        "mark": mark_of(place),
    }
    return {**facts, "manifest": manifest.to_json()} if whole else facts


def main() -> None:
    run_module(
        dict(
            kind=dict(type="str", choices=["daily", "weekly", "pre-migration", "post-migration", "emergency"]),
            backup=dict(type="str"),
            undo_window=dict(type="float", default=7),
            store=dict(type="path", required=True),
        ),
        act,
        connection="optional",
    )


if __name__ == "__main__":
    main()
