#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_table_restore
short_description: Put a table right from a backup
version_added: "0.1.0"
description:
  - Loads the backup's rows beside the table, proves them by their digest, and makes the table equal in one transaction in which only rows
    that differ are touched. Before, it backs the table up as it is; before its COMMIT it proves count, digest, earliest, latest and exact sums.
  - Readers go on. Who writes to the table, or to one that refers to it, waits until the end. Triggers of the users do not fire. A table
    that refers to itself, and unique foreign keys that two rows with children exchanged, make readers wait too.
  - Rows of other tables are only touched with O(accept_cascade), and rows are only deleted up to O(accept_lost_rows).
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
  table:
    description: The table, as a person types it; a partitioned one means all its partitions.
    type: str
  backup:
    description:
      - Id of the backup, of the whole database or of single tables.
      - Default is the newest verified one that holds the table and is no emergency backup.
    type: str
  mode:
    description:
      - V(replace) makes the table what it was in the backup.
      - V(repair) does so for the rows of O(where) and O(keys). Without these it only reports what differs.
    type: str
    choices: [replace, repair]
    default: replace
  where:
    description:
      - The rows of a repair, by a condition in SQL as after C(WHERE). A row counts when it meets it in the table or in the backup.
      - The search path is C(pg_catalog), so names of your own functions and types need their schema.
    type: str
  keys:
    description: The rows of a repair, by their keys. Each is the value of the key's one column, or a dictionary of the key's columns.
    type: list
    elements: raw
    default: []
  undo:
    description: Id of an operation that restored a table. The table gets back what it held before; rows that a cascade deleted come back too.
    type: str
  accept_lost_rows:
    description:
      - How many rows may be deleted because the backup does not have them. In a table without key a changed row is one of those.
      - For O(undo), how many rows that were written since may be lost.
    type: int
    default: 0
  accept_cascade:
    description: Whether foreign keys may delete or change rows of other tables. These tables are part of the emergency backup.
    type: bool
    default: false
  accept_unreadable:
    description:
      - Whether rows that the server cannot read any more may be given up, when the table is damaged and no backup of it can be made.
      - All rows that can be read are saved in the directory of O(operation) before.
    type: bool
    default: false
  again:
    description: Act although an earlier operation did the very same to this table and was not undone.
    type: bool
    default: false
notes:
  - "On failure: the one transaction was rolled back, the table is as it was; the message names what is in the way."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the transaction is rolled back.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: C(undo_rollback.yml), or this module with O(undo). Without an operation, restore the table from RV(emergency)."
seealso:
  - module: backstop.postgres.pg_dump
  - module: backstop.postgres.pg_table_info
"""

EXAMPLES = r"""
- name: What differs from the backup
  backstop.postgres.pg_table_restore:
    table: ReceiptData
    mode: repair
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: report

- name: Put some rows right
  backstop.postgres.pg_table_restore:
    table: ReceiptData
    mode: repair
    where: '"totalAmountZWG" = 0'
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
table:
  description: Full name of the table.
  returned: success
  type: str
  sample: public.ReceiptData
backup:
  description: The backup that the rows come from.
  returned: success
  type: str
differences:
  description: For the table (for each partition) how many rows are missing, changed and newer than the backup, with keys of some.
  returned: when anything was compared
  type: list
  elements: dict
report:
  description: In check mode what differs, else what the table holds now, as lines for people.
  returned: when anything was compared
  type: list
  elements: str
effects:
  description: What foreign keys do to rows of other tables.
  returned: when anything was compared
  type: list
  elements: dict
lacking:
  description:
    - Each table that refers to rows which come back and lacks rows of the backup that went with them, parents first.
    - C(missing) counts those that are not there, C(emptied) those that do not refer to them any more, C(command) brings them back, C(told) says all this.
  returned: when anything was compared, but for an undo, which brings them back itself
  type: list
  elements: dict
would_change:
  description: Whether anything would be done.
  returned: in check mode
  type: bool
damaged:
  description: What the server says of a table that it cannot read.
  returned: in check mode, of a damaged table, with O(accept_unreadable=true)
  type: str
total:
  description: Number of rows that differ.
  returned: when anything was compared
  type: int
lost_rows:
  description: How many of them are deleted for good, counted against O(accept_lost_rows).
  returned: when anything was compared
  type: int
emergency:
  description: The backup of the table as it was before; none of a damaged table.
  returned: changed
  type: str
now:
  description: Rows, earliest, latest and exact sums of the table afterwards.
  returned: changed
  type: list
  elements: dict
done_before:
  description: The earlier operation that did the same, for which nothing was done now.
  returned: success
  type: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    plan,
    plan_undo_of,
    restore_table,
    undo_table,
)


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    params = request.params
    policy = LossPolicy(params["accept_lost_rows"], unreadable=params["accept_unreadable"])
    if params["undo"]:
        undone = Operation.load(request.store, params["undo"])
        carry_out = plan_undo_of if request.check_mode else undo_table
        return _told(request, carry_out(site, undone, policy, params["accept_cascade"]))
    wish = TableRestoreRequest(
        params["table"],
        params["mode"],
        params["where"],
        params["keys"],
        policy,
        params["accept_cascade"],
    )
    carry_out = plan if request.check_mode else restore_table
    return _told(request, carry_out(site, wish, params["backup"], again=params["again"]))


def _told(request: Request, result: Dict[str, Any]) -> Dict[str, Any]:
    """A task may set ``changed`` of its own; what check mode found must not get lost with it."""
    return {**result, "would_change": result["changed"]} if request.check_mode else result


def main() -> None:
    run_module(
        dict(
            table=dict(type="str"),
            backup=dict(type="str"),
            mode=dict(type="str", choices=["replace", "repair"], default="replace"),
            where=dict(type="str"),
            keys=dict(type="list", elements="raw", default=[], no_log=False),
            undo=dict(type="str"),
            accept_lost_rows=dict(type="int", default=0),
            accept_cascade=dict(type="bool", default=False),
            accept_unreadable=dict(type="bool", default=False),
            again=dict(type="bool", default=False),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("table", "undo")],
        required_one_of=[("table", "undo")],
    )


if __name__ == "__main__":
    main()
