#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore a backup into a new database beside the live one
version_added: "0.1.0"
description:
  - Restores a backup into a database that does not exist yet, with every property of the original, and compares it with the manifest of the backup.
    It gets the requested name only when it equals its source.
  - The live database is not touched. To make a restored backup the live database, use M(backstop.postgres.rollback).
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  backup:
    description: Id of the backup.
    type: str
    required: true
  database:
    description:
      - Name of the new database.
      - Names that start with C(backstop_scratch_) or C(backstop_retired_) are refused.
    type: str
    required: true
notes:
  - "On failure: the new database is dropped; the message names what differs or could not be restored."
  - A signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure. After a cut connection it runs until it is finished.
  - A killed one leaves a database whose name starts with C(backstop_scratch_).
  - "How to undo: drop the new database."
seealso:
  - module: backstop.postgres.rollback
  - module: backstop.postgres.pg_backup_verify
"""

EXAMPLES = r"""
- name: Look at the data of a backup
  backstop.postgres.pg_restore:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    database: electricity_tokens_of_saturday
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
database:
  description: Name of the new database.
  returned: success
  type: str
seconds:
  description: Duration of restore, ANALYZE and comparison.
  returned: changed
  type: dict
tables:
  description: Number of tables whose digests are equal.
  returned: changed
  type: int
rows:
  description: Number of rows in them.
  returned: changed
  type: int
tolerated:
  description: Differences that a dump and restore cannot avoid, with the reason.
  returned: changed
  type: list
  elements: str
"""

import dataclasses
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import (
    require_new_database,
    restore_beside,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    place = request.store.find_backup(request.params["backup"])
    name = request.params["database"]
    if not request.check_mode:
        return {"changed": True, **dataclasses.asdict(restore_beside(site, place, name, new_id()))}
    manifest = manifests.load(place)
    manifest.require_whole()
    site.archive(place, manifest)
    with site.administer() as admin:
        require_new_database(admin, name)
    return {"changed": True, "database": name}


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str", required=True),
            database=dict(type="str", required=True),
            store=dict(type="path", required=True),
            controller=dict(type="dict"),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
