#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_verify
short_description: Prove that a backup can be restored
version_added: "0.1.0"
description:
  - "V(checksum) compares every file with the manifest. V(readable) reads the whole archive. V(restored) is a
    drill: the backup is restored into a scratch database and compared with its manifest, tables by digest, all
    else by definition."
  - The duration of the drill is the measured recovery time. The result is kept beside the backup, also a bad one.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
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
  level:
    description: How far to verify. A backup of single tables has no drill, so not to V(restored).
    type: str
    choices: [checksum, readable, restored]
    default: restored
  keep_scratch:
    description: Leave the drill's database, for a rehearsal; M(backstop.postgres.pg_scratch_database) drops it.
    type: bool
    default: false
notes:
  - "On failure: the message names what differs. The scratch database was dropped, the live database was only read."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_dump
  - module: backstop.postgres.prisma_migrate_rehearse
"""

EXAMPLES = r"""
- name: Restore drill
  backstop.postgres.pg_backup_verify:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
level:
  description: The level that was reached.
  returned: success
  type: str
database:
  description: The scratch database that was kept.
  returned: O(keep_scratch=true)
  type: str
recovery_seconds:
  description: How long the restore took, with its comparison.
  returned: O(level=restored)
  type: float
tables:
  description: Number of tables whose digests are equal.
  returned: O(level=restored)
  type: int
rows:
  description: Number of rows in them.
  returned: O(level=restored)
  type: int
tolerated:
  description: Differences that no dump and restore can avoid.
  returned: O(level=restored)
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.context import acting
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.drill import verify


def act(request: Request) -> Dict[str, Any]:
    context = request.context
    place = request.store.find_backup(request.params["backup"])
    if request.params["level"] == "restored":
        manifests.require_whole(manifests.load(place))
    if request.check_mode:
        return {"changed": True, "level": request.params["level"]}
    with acting(context, "drill") as facts:
        result = verify(context, place, request.params["level"], keep=request.params["keep_scratch"])
        facts.update(result)
    return {"changed": True, **result}


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str", required=True),
            level=dict(type="str", choices=["checksum", "readable", "restored"], default="restored"),
            keep_scratch=dict(type="bool", default=False),
            **store_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
