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
  - Rows that the new database lacks are also written to files in the directory of the operation. With O(reapply) they are carried over instead.
  - Sequences of the database that takes over are set forward to where the former one's are.
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
      - What would be lost is counted while the application runs, and refused as it would be. What must be built for that is built.
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
  accept_lost_objects:
    description:
      - How many objects may go that were made or changed since the backup, and not by the migrations that are rolled back, such as an index, a view, a schema.
      - What the migrations made is known from their rehearsal. Where a migration was applied that no deploy rehearsed, objects are named and need no consent.
    type: int
    default: 0
  accept_unreadable:
    description:
      - Go on although a table of the live database is damaged, so that its loss cannot be counted.
      - The former database keeps the table as it is.
    type: bool
    default: false
  accept_changes_in:
    description:
      - Tables, each as schema and name, whose differences from the backup are not counted as lost, for O(backup).
      - Meant for what a failed migration did itself while the application was stopped. The rows are kept like lost ones.
    type: list
    elements: str
    default: []
  reapply:
    description:
      - Whether rows that were inserted or updated in the live database since go over to the one that takes over.
      - V(report) tells what would be carried over and what would not, and carries nothing.
      - >-
        V(apply) carries them in one transaction, behind the fence and before the renames: by key, on the columns that both databases have, in the order of
        foreign keys, without firing triggers. Each table is proved to hold what it held before and what was carried.
      - >-
        What does not go is reported as a conflict and counts as lost: its table, key or column is missing there, a row that it refers to is missing, its unique
        value is taken, it was changed on both sides. Each such row, with its key and the reason, is in C(reapply-conflicts.jsonl) of the operation's directory.
      - >-
        Rows of tables without a key cannot be told from each other, but counted: so many equal rows more, so many less. They go when both databases have
        all columns of the table, and when rows were only inserted or O(reapply_deletes) is set: for an update is one row less and one more.
      - >-
        Large objects keep their numbers, owners and privileges. One whose number another one has there is a conflict, and so is each row that refers to it by a
        column of type C(oid) or C(lo).
      - What was carried does not count for O(accept_lost_rows).
    type: str
    choices: ["off", report, apply]
    default: "off"
  reapply_deletes:
    description: Delete rows that were deleted in the live database since, too.
    type: bool
    default: false
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the live database is as it was; killed before the commit of the renames, nothing has happened."
  - "Interrupted: a swap that has begun is finished whatever signal comes (Ctrl-C, SIGTERM, SIGHUP); then the module fails, and the
    journal has what it did. A cut connection and the task's C(timeout) leave it at work, and what follows waits for it;
    see M(backstop.postgres.operation)."
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

- name: Undo it, and keep what was written meanwhile
  backstop.postgres.pg_swap:
    undo: 20251108T120000Z-3fa9c1
    reapply: apply
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
reapply:
  description: What was, or would be, carried over.
  returned: success
  type: dict
  contains:
    mode:
      description: As O(reapply).
      type: str
    carried:
      description: For each table, how many rows were inserted, updated and deleted.
      type: list
      elements: dict
    carried_rows:
      description: Their sum, without those that the migration itself did.
      type: int
    conflicts:
      description: Table, reason and number of rows that were not carried.
      type: list
      elements: dict
    conflict_rows:
      description: Their sum, without those that the migration itself did.
      type: int
    summary:
      description: All this in one sentence.
      type: str
  sample: {mode: apply, carried: [{table: public.TokenPurchase, inserted: 1, updated: 0, deleted: 0}], carried_rows: 1, conflicts: [], conflict_rows: 0}
advanced_sequences:
  description: Sequences that were set forward, so that they do not give out numbers again that the former database gave out.
  returned: changed
  type: list
  elements: str
losses:
  description:
    - For each table with lost rows, how many were inserted, updated and deleted, and the file that holds them.
    - C(by_migration) is true where the migration itself did it, and nobody wrote since; that does not count as lost.
  returned: success
  type: list
  elements: dict
lost_objects:
  description: Objects that went and that the migrations did not make, each as kind and name; C((changed\)) follows those that the backup has otherwise.
  returned: success
  type: list
  elements: str
objects_of_unknown_origin:
  description: Whether migrations were applied that no deploy rehearsed, so that RV(lost_objects) may be theirs.
  returned: success
  type: bool
lost_rows:
  description: Their sum, without those that the migration itself did.
  returned: success
  type: int
seconds_closed:
  description: How long newcomers had to wait.
  returned: changed
  type: float
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
standbys:
  description:
    - The standbys that stream from the server, and how many bytes of WAL each had still to replay after at most 5 seconds.
    - A role without C(pg_monitor) sees that there is one, not which or how far.
  returned: changed
  type: list
  elements: dict
standbys_summary:
  description: The same in words, with what happens to sessions there; empty without standbys.
  returned: changed
  type: str
confirmed:
  description: Whether it was confirmed by the synchronous standbys, where there are any, in 5 seconds. When not, it is done all the same.
  returned: changed
  type: bool
ended_sessions:
  description: Sessions that were ended.
  returned: changed
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    pooler_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import MODES, Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import revert, undo


def act(request: Request) -> Dict[str, Any]:
    run, params = request.run, request.params
    policy = LossPolicy(
        params["accept_lost_rows"],
        params["accept_lost_objects"],
        params["accept_unreadable"],
        params["accept_changes_in"],
        Reapply(params["reapply"], params["reapply_deletes"]),
    )
    if params["undo"]:
        undone = Operation.load(request.store, params["undo"])
        result = undo(run, undone, policy, only_count=request.check_mode)
    else:
        place = request.store.find_backup(params["backup"])
        result = revert(run, place, policy, only_count=request.check_mode)
    return {**result, "changed": True} if request.check_mode else result


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str"),
            undo=dict(type="str"),
            accept_lost_rows=dict(type="int", default=0),
            accept_lost_objects=dict(type="int", default=0),
            accept_unreadable=dict(type="bool", default=False),
            accept_changes_in=dict(type="list", elements="str", default=[]),
            reapply=dict(type="str", choices=list(MODES), default="off"),
            reapply_deletes=dict(type="bool", default=False),
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
