#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_in_place
short_description: Make the live database what a backup says, in one transaction
version_added: "0.1.0"
description:
  - For servers where no second database may be created. Everywhere else use M(backstop.postgres.pg_restore) and M(backstop.postgres.pg_swap).
  - Makes an emergency backup of what will be removed, fences writers out, counts exactly which rows would be lost and refuses above O(accept_lost_rows).
  - Then, in the same transaction, empties the database, restores the backup, compares tables and catalog with its manifest, and commits.
  - Readers wait until then. Sessions that keep a table in use longer than 10 seconds make it give up; their names are told.
  - Until the commit the server needs the disk space of both. Lost rows are also written to files in the directory of the operation.
  - Properties of the database itself (owner, privileges, settings, comment) are not touched, subscriptions neither.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.store
  - backstop.postgres.store.operation
attributes:
  check_mode:
    support: full
    details:
      - What would be lost is counted while the application runs, and refused as it would be.
  diff_mode:
    support: none
options:
  backup:
    description:
      - The backup that the database is to hold.
      - Exactly one of O(backup) and O(undo) is needed.
    type: str
  undo:
    description: Id of an operation that restored in place; the database becomes what it was before, from that operation's emergency backup.
    type: str
  accept_lost_rows:
    description: How many rows may be lost, inserted, updated and deleted ones together.
    type: int
    default: 0
  accept_lost_objects:
    description: How many objects may go that were made or changed since the backup, and not by the migrations that are rolled back; see
      M(backstop.postgres.pg_swap).
    type: int
    default: 0
  accept_unreadable:
    description:
      - Go on although a table of the live database is damaged, so that its loss cannot be counted.
      - >-
        Then no whole backup can be made of what is removed. What can be read is saved in any case: rows of damaged tables in C(saved-rows) of
        the operation's directory, all other tables and the schema as emergency backups. With V(false) it ends there. Such a restore cannot be undone.
    type: bool
    default: false
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the live database is as it was, whatever failed: one transaction that was not committed. The emergency backup is kept."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the transaction is rolled back.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: with O(undo) of this operation."
  - Prepared statements of sessions that stayed connected may refer to types that were made anew; the application has to connect again.
seealso:
  - module: backstop.postgres.pg_swap
"""

EXAMPLES = r"""
- name: Revert where no second database may be created
  backstop.postgres.pg_restore_in_place:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
emergency:
  description: The backup of what was removed.
  returned: success
  type: str
losses:
  description:
    - For each table with lost rows, how many were inserted, updated and deleted, and the file that holds them.
    - C(by_migration) is true where the migration itself did it, and nobody wrote since; that does not count as lost.
  returned: success
  type: list
  elements: dict
lost_objects:
  description: Objects that went and that the migrations did not make, each as kind and name.
  returned: success
  type: list
  elements: str
objects_of_unknown_origin:
  description: Whether migrations were applied that no deploy rehearsed, so that RV(lost_objects) may be theirs.
  returned: success
  type: bool
lost_rows:
  description: Their sum, without those that the migration itself did. Large objects are counted all together when one of them differs.
  returned: success
  type: int
tolerated:
  description: Differences that a dump and restore cannot avoid, with the reason.
  returned: changed
  type: list
  elements: str
confirmed:
  description: Whether it was confirmed by the synchronous standbys, where there are any, in 5 seconds. When not, it is done all the same.
  returned: changed
  type: bool
pooled:
  description: What was done with the clients behind O(poolers).
  returned: changed
  type: dict
  contains:
    pools:
      description: Each pool that was paused, and resumed.
      type: list
      elements: str
    held:
      description: Clients that kept a session all the same, with V(end).
      type: list
      elements: str
    seconds:
      description: How long the pooled clients waited, where there are pools.
      type: float
  sample: {pools: ["electricity_tokens at 10.0.0.6:6432"], held: [], seconds: 0.4}
ended_sessions:
  description: Sessions that were ended because they held locks in the way of the fence.
  returned: changed
  type: list
  elements: str
seconds:
  description: How long the database could not be used, at most.
  returned: changed
  type: float
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    pooler_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import (
    revert_in_place,
    undo_in_place,
)


def act(request: Request) -> Dict[str, Any]:
    run, params = request.run, request.params
    policy = LossPolicy(params["accept_lost_rows"], params["accept_lost_objects"], params["accept_unreadable"])
    if params["undo"]:
        undone = Operation.load(request.store, params["undo"])
        result = undo_in_place(run, undone, policy, only_count=request.check_mode)
    else:
        place = request.store.find_backup(params["backup"])
        result = revert_in_place(run, place, policy, only_count=request.check_mode)
    return {**result, "changed": True} if request.check_mode else result


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str"),
            undo=dict(type="str"),
            accept_lost_rows=dict(type="int", default=0),
            accept_lost_objects=dict(type="int", default=0),
            accept_unreadable=dict(type="bool", default=False),
            **pooler_argument_spec(),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("backup", "undo")],
        required_one_of=[("backup", "undo")],
    )


if __name__ == "__main__":
    main()
