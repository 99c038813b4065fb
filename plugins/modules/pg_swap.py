#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_swap
short_description: Give the live name to another database
version_added: "0.1.0"
description:
  - Fences writers out, counts exactly which rows would be lost, refuses above O(accept_lost_rows), and renames both databases in one transaction.
  - "Nothing is overwritten: the former database keeps all it has, under a name that starts with C(backstop_retired_)."
  - Rows that the new database lacks are also written to files in the directory of the operation.
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
    description:
      - The backup from which M(backstop.postgres.pg_restore) built the successor in this operation.
      - Exactly one of O(backup) and O(undo) is needed.
    type: str
  undo:
    description: Id of the operation whose retired database gets the live name back.
    type: str
  accept_lost_rows:
    description: How many rows may be lost, inserted, updated and deleted ones together.
    type: int
    default: 0
  accept_changes_in:
    description:
      - Tables, each as schema and name, whose differences from the backup are not counted as lost, for O(backup).
      - Meant for what a failed migration did itself while the application was stopped. The rows are kept like lost ones.
    type: list
    elements: str
    default: []
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the live database is as it was; killed before the commit of the renames, nothing has happened."
  - "How to undo: a swap with O(undo) of this operation gives the name back."
seealso:
  - module: backstop.postgres.pg_restore
  - module: backstop.postgres.rollback_plan_info
"""

EXAMPLES = r"""
- name: Revert
  backstop.postgres.pg_swap:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
retired:
  description: Name under which the former live database is kept.
  returned: success
  type: str
losses:
  description: For each table with lost rows, how many were inserted, updated and deleted, and the file that holds them.
  returned: success
  type: list
  elements: dict
lost_rows:
  description: Their sum.
  returned: success
  type: int
seconds_closed:
  description: How long newcomers had to wait.
  returned: changed
  type: float
ended_sessions:
  description: Sessions that were ended.
  returned: changed
  type: list
  elements: str
"""

from typing import Any, Dict, cast

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.revert import revert, undo


def act(request: Request) -> Dict[str, Any]:
    context = request.context
    accept = request.params["accept_lost_rows"]
    undone = Operation.load(request.store, request.params["undo"]) if request.params["undo"] else None
    place = request.store.find_backup(request.params["backup"]) if request.params["backup"] else None
    if request.check_mode:
        return {"changed": True}
    if undone is not None:
        return undo(context, undone, accept)
    return revert(context, cast(BackupPlace, place), accept, request.params["accept_changes_in"])


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str"),
            undo=dict(type="str"),
            accept_lost_rows=dict(type="int", default=0),
            accept_changes_in=dict(type="list", elements="str", default=[]),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        mutually_exclusive=[("backup", "undo")],
        required_one_of=[("backup", "undo")],
    )


if __name__ == "__main__":
    main()
