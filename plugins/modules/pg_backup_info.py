#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_info
short_description: List the backups of a store
version_added: "0.1.0"
description:
  - Lists committed backups with their age, size, the level to which they were verified, and the mark that keeps them.
    Ones that are being made are never listed.
  - C(scope) is V(database), or V(tables) for a backup of single tables, V(schema) for one without rows.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
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
"""

RETURN = r"""
backups:
  description: The backups, oldest first within their kind.
  returned: success
  type: list
  elements: dict
  sample: [{backup: electricity_tokens-20251108T020000Z-3fa9c1, kind: pre-migration, scope: database, level: restored}]
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import mark_of


def act(request: Request) -> Dict[str, Any]:
    wanted = request.params["backup"]
    store = request.store
    places = [store.find_backup(wanted)] if wanted else store.backups(request.params["kind"])
    return {"changed": False, "backups": [_described(place, whole=bool(wanted)) for place in places]}


def _described(place: BackupPlace, whole: bool) -> Dict[str, Any]:
    manifest = manifests.load(place)
    facts = {
        "backup": place.backup_id,
        "kind": place.kind,
        "path": place.path,
        "created": manifest["created"],
        "database": manifest["database"]["name"],
        "scope": manifest.get("scope", manifests.WHOLE),
        "tables": ["%s.%s" % (table["schema"], table["name"]) for table in manifest["tables"]],
        "size": manifest["archive"]["size"],
        "rows": sum(table["digest"]["rows"] for table in manifest["tables"]),
        "commit": manifest.get("release", {}).get("commit"),
        "level": manifests.level_of(place),
        "verification": manifests.verification(place),
        "mark": mark_of(place),
    }
    return {**facts, "manifest": manifest} if whole else facts


def main() -> None:
    run_module(
        dict(
            kind=dict(type="str", choices=["daily", "weekly", "pre-migration", "post-migration", "emergency"]),
            backup=dict(type="str"),
            store=dict(type="path", required=True),
        ),
        act,
    )


if __name__ == "__main__":
    main()
