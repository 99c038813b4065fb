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
  - Builds the database that is to take over in a complete revert, with every property of the original, and
    compares it with the manifest of the backup.
  - The live database is only read. One that this operation built already is used again.
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
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the new database was dropped, the live one was only read; the message says what differs or could not be restored."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the new database is dropped.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: M(backstop.postgres.operation) drops the new database when O(operation) ends."
seealso:
  - module: backstop.postgres.pg_swap
  - module: backstop.postgres.pg_backup_verify
"""

EXAMPLES = r"""
- name: Build the successor
  backstop.postgres.pg_restore:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    operation: "{{ begun.operation }}"
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
  returned: success
  type: dict
tables:
  description: Number of tables whose digests are equal.
  returned: success
  type: int
rows:
  description: Number of rows in them.
  returned: success
  type: int
tolerated:
  description: Differences that a dump and restore cannot avoid, with the reason.
  returned: success
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor


def act(request: Request) -> Dict[str, Any]:
    place = request.store.find_backup(request.params["backup"])
    if request.check_mode:
        request.run.archive(place, manifests.load(place))
        return {"changed": True}
    return build_successor(request.run, place)


def main() -> None:
    run_module(
        dict(backup=dict(type="str", required=True), **store_argument_spec(operation=True)),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
