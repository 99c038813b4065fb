#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_plan_info
short_description: Return what a rollback would do
version_added: "0.1.0"
description:
  - Returns which rollback applies, with the evidence, the steps, the backup and its level, the measured recovery time, the disk space, the expected
    downtime and what would be lost.
  - The facts are the history of migrations, the catalog and the rows compared with the backup from before the last migration, running migrations,
    invalid indexes, the last operation and whether the application is healthy.
  - With an O(scenario) other than V(auto), whether it has anything to do, and its plan.
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
  scenario:
    description:
      - The rollback. V(auto) finds it from the facts.
    type: str
    choices: [auto, complete, failed_migration, application_errors, corrupted_table, undo]
    default: auto
  backup:
    description: The backup to revert to. Default is the one made before the last deploy.
    type: str
  undo:
    description:
      - The operation to undo, which may be an undo itself. Default is the newest change, unless that is an undo already.
      - Only the newest change of the database and the release can be undone, and the newest restore of each table. For any other the error names the
        ids that can.
    type: str
  method:
    description:
      - How, for O(scenario=application_errors). V(auto) takes the old release on the new schema if the rehearsal of the deploy proved that, else down-SQL.
    type: str
    choices: [auto, code_only, drop, restore]
    default: auto
  accept_lost_rows:
    description: How many rows the rollback may lose. The report shows whether that is enough.
    type: int
    default: 0
  accept_lost_objects:
    description: How many objects that the migrations did not create may be lost. The report shows whether that is enough.
    type: int
    default: 0
  reapply:
    description: Whether rows are to be carried over, as in M(backstop.postgres.rollback). The report shows which.
    type: str
    choices: ["off", report, apply]
    default: "off"
  reapply_deletes:
    description: With O(reapply), whether deletions are carried over, too.
    type: bool
    default: false
  revision:
    description: The release to run afterwards, if not the one that ran before.
    type: str
  restore_method:
    description: How a complete revert restores, as in the role P(backstop.postgres.rollback#role).
    type: str
    choices: [swap, in_place]
    default: swap
  table:
    description: For O(scenario=corrupted_table), the table's name, with or without quotes and schema; a partitioned one means all its partitions.
    type: str
  mode:
    description:
      - V(replace) makes the table what it was in the backup.
      - V(repair) does so for the rows of O(where) and O(keys). Without these it only reports the differences.
    type: str
    choices: [replace, repair]
    default: replace
  where:
    description:
      - The rows to repair, as an SQL condition for C(WHERE). A row counts when it matches in the table or in the backup.
      - The search path is C(pg_catalog), so names of your own functions and types need their schema.
    type: str
  keys:
    description: The rows to repair, by their keys. Each is the value of the key's one column, or a dictionary of the key's columns.
    type: list
    elements: raw
    default: []
  accept_cascade:
    description: Whether foreign keys may delete or change rows of other tables, when a table is repaired.
    type: bool
    default: false
  accept_unreadable:
    description: Whether rows that the server can no longer read may be lost, when a damaged table is repaired.
    type: bool
    default: false
  again:
    description: Repeat a table's repair that an earlier operation already did and that was not undone.
    type: bool
    default: false
  running:
    description: The release that runs, which stays after a failed migration.
    type: str
  healthy:
    description: Whether the application is healthy. Not given means not checked.
    type: bool
  migrations_path:
    description: Migrations folder of the running release, to find migrations that are not applied or that the release does not have.
    type: path
notes:
  - "On failure: Nothing was changed; this module only reads."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.rollback
"""

EXAMPLES = r"""
- name: What would be done
  backstop.postgres.rollback_plan_info:
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: plan
"""

RETURN = r"""
scenario:
  description:
    - V(failed_migration) (1), V(application_errors) (2), V(corrupted_table) (3), V(complete) (4), V(nothing) or V(ambiguous).
    - The requested one, if there was one.
  returned: O(scenario) is not V(undo) and there is anything to do
  type: str
found_scenario:
  description: The one that the facts point to.
  returned: as RV(scenario)
  type: str
candidates:
  description: The possible scenarios when it is ambiguous.
  returned: as RV(scenario)
  type: list
  elements: str
evidence:
  description: The facts, as text.
  returned: as RV(scenario)
  type: list
  elements: str
lost_objects:
  description: Objects that would be lost and that the migrations did not create, each as kind and name.
  returned: when the plan reverts to a backup or drops what a failed migration left
  type: list
  elements: str
objects_of_unknown_origin:
  description: Whether migrations were applied that no deploy rehearsed, so that RV(lost_objects) may be theirs.
  returned: when the plan reverts to a backup
  type: bool
losses:
  description:
    - What would be lost, for each table. With V(exact) false the numbers are a lower bound ("at least"), from row counts and the transaction ids in
      the rows; a rollback itself always counts exactly before it acts.
    - For O(scenario=undo), changes since the operation that would be undone.
  returned: as RV(scenario), and for O(scenario=undo)
  type: list
  elements: dict
  sample: [{table: public.ReceiptData, inserted: 3, updated: 0, deleted: 0, exact: true, in_backup: true}]
next:
  description: The one command to run next.
  returned: as RV(scenario)
  type: str
notes:
  description: Other facts about the server, such as its standbys and collations with a different version.
  returned: as RV(scenario)
  type: list
  elements: str
report:
  description: The plan as lines of text; for O(scenario=undo) the losses.
  returned: as RV(scenario), and for O(scenario=undo)
  type: list
  elements: str
disk_needed:
  description: Bytes needed for a second database and a backup.
  returned: as RV(scenario)
  type: int
downtime_seconds:
  description: Expected downtime, from the durations of the last deploy and the drill; none when not measured.
  returned: as RV(scenario)
  type: float
steps:
  description: What would be done, in order.
  returned: as RV(scenario)
  type: list
  elements: str
kind:
  description: The kind of operation that performs it.
  returned: O(scenario) is not V(auto)
  type: str
request:
  description: The request to begin that operation with.
  returned: O(scenario) is not V(auto)
  type: dict
interrupted:
  description: Whether a run with this request was interrupted; it is continued.
  returned: O(scenario) is not V(auto)
  type: bool
nothing_to_do:
  description: Text to show when nothing is needed and the application is in the right state.
  returned: O(scenario) is not V(auto)
  type: str
done_before:
  description: The earlier operation that repaired the table in the same way, so that there is nothing to do.
  returned: O(scenario=corrupted_table)
  type: str
differences:
  description: For the table (for each partition), how many rows are missing, changed and newer than the backup, with keys of some.
  returned: O(scenario=corrupted_table), and when the restore of a table would be undone
  type: list
  elements: dict
effects:
  description: What foreign keys would do to rows of other tables.
  returned: as RV(differences)
  type: list
  elements: dict
total:
  description: Number of rows that differ.
  returned: as RV(differences)
  type: int
lost_rows:
  description: How many of them would be permanently deleted, counted against O(accept_lost_rows).
  returned: as RV(differences)
  type: int
needed:
  description: Whether there is anything to do in the database.
  returned: O(scenario) is not V(auto)
  type: bool
backup:
  description: The backup of the state before; none if the last deploy changed only the release and no backup is named.
  returned: O(scenario) is not V(undo)
  type: str
level:
  description: Its level.
  returned: as RV(scenario)
  type: str
recovery_seconds:
  description: How long its drill took.
  returned: as RV(scenario)
  type: float
commit:
  description: The release that would run afterwards.
  returned: O(scenario) is V(complete), V(application_errors) or V(undo)
  type: str
deployed_commit:
  description: The release of the last deploy.
  returned: O(scenario=application_errors)
  type: str
method:
  description: How. For O(scenario=undo) V(swap), V(in_place), V(table), or V(code_only) when only the release was changed.
  returned: O(scenario) is V(application_errors) or V(undo), or the facts point to application errors
  type: str
history_differences:
  description: How the history of migrations differs from that of the backup.
  returned: O(scenario=complete)
  type: list
  elements: str
failed_migrations:
  description: Migrations that are marked as failed.
  returned: O(scenario=failed_migration)
  type: list
  elements: str
undoes:
  description: The operation that would be undone.
  returned: O(scenario=undo)
  type: str
undone_by:
  description: The undo that did it already, if RV(needed) is false; it can be undone by its id.
  returned: O(scenario=undo)
  type: str
table:
  description: The table that would get its former content, when the operation restored one; none for a swap.
  returned: O(scenario=undo)
  type: str
"""

import dataclasses
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import (
    MODES,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_of


def act(request: Request) -> Dict[str, Any]:
    asked = Asked(**{field.name: request.params[field.name] for field in dataclasses.fields(Asked)})
    return {"changed": False, **plan_of(request.site, asked, runs=not request.check_mode)}


def main() -> None:
    run_module(
        dict(
            scenario=dict(
                type="str",
                choices=["auto", "complete", "failed_migration", "application_errors", "corrupted_table", "undo"],
                default="auto",
            ),
            backup=dict(type="str"),
            undo=dict(type="str"),
            method=dict(type="str", choices=["auto", "code_only", "drop", "restore"], default="auto"),
            revision=dict(type="str"),
            restore_method=dict(type="str", choices=["swap", "in_place"], default="swap"),
            accept_lost_rows=dict(type="int", default=0),
            accept_lost_objects=dict(type="int", default=0),
            reapply=dict(type="str", choices=list(MODES), default="off"),
            reapply_deletes=dict(type="bool", default=False),
            table=dict(type="str"),
            mode=dict(type="str", choices=["replace", "repair"], default="replace"),
            where=dict(type="str"),
            keys=dict(type="list", elements="raw", default=[], no_log=False),
            accept_cascade=dict(type="bool", default=False),
            accept_unreadable=dict(type="bool", default=False),
            again=dict(type="bool", default=False),
            running=dict(type="str"),
            healthy=dict(type="bool"),
            migrations_path=dict(type="path"),
            store=dict(type="path", required=True),
        ),
        act,
        connection=True,
        required_if=[("scenario", "corrupted_table", ("table",))],
    )


if __name__ == "__main__":
    main()
