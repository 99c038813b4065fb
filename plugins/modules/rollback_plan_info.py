#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_plan_info
short_description: What a rollback would do
version_added: "0.1.0"
description:
  - Says from the facts which rollback applies, with the evidence, the steps, the backup and how far it is verified, the
    measured recovery time, the disk it needs, the expected downtime and what would be lost.
  - The facts are the history of migrations, the catalog and the rows against those of the backup from before the last
    migration, who migrates now, invalid indexes, the last operation and whether the application is healthy.
  - With another O(scenario) than V(auto), whether that one has anything to do, and its plan.
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
      - Which way back. V(auto) finds it.
    type: str
    choices: [auto, complete, failed_migration, application_errors, corrupted_table, undo]
    default: auto
  backup:
    description: The backup to revert to. Default is the one made before the last deploy.
    type: str
  undo:
    description:
      - The operation to undo, an undo too. Default is the newest change, unless that is an undo already.
      - Only the newest change of the database and the release can be undone, and the newest restore of each table.
        Anything else is refused with the ids that can.
    type: str
  method:
    description:
      - How, for O(scenario=application_errors). V(auto) takes the old release on the new schema where the rehearsal of the
        deploy proved that, else down-SQL.
    type: str
    choices: [auto, code_only, drop, restore]
    default: auto
  accept_lost_rows:
    description: How many rows the rollback may lose. The report tells whether that is enough.
    type: int
    default: 0
  accept_lost_objects:
    description: How many objects that the migrations did not make may go. The report tells whether that is enough.
    type: int
    default: 0
  reapply:
    description: Whether rows are to be carried over, as in M(backstop.postgres.rollback). The report tells which go.
    type: str
    choices: ["off", report, apply]
    default: "off"
  reapply_deletes:
    description: With O(reapply), whether deletions are carried over, too.
    type: bool
    default: false
  revision:
    description: The release that is to run afterwards, where it is not the one that ran before.
    type: str
  restore_method:
    description: How a complete revert restores, as the role C(rollback) has it.
    type: str
    choices: [swap, in_place]
    default: swap
  table:
    description: For O(scenario=corrupted_table), the table, as a person types it; a partitioned one means all its partitions.
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
  accept_cascade:
    description: Whether foreign keys may delete or change rows of other tables, when a table is put right.
    type: bool
    default: false
  accept_unreadable:
    description: Whether rows that the server cannot read any more may be given up, when a damaged table is put right.
    type: bool
    default: false
  again:
    description: Put a table right although an earlier operation did the very same to it and was not undone.
    type: bool
    default: false
  running:
    description: The release that runs, which stays after a failed migration.
    type: str
  healthy:
    description: Whether the application is healthy. When it is not given nobody looked, which is a fact too.
    type: bool
  migrations_path:
    description: Migrations folder of the release that runs, to tell what is not applied and what the release does not know.
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
    - The one that was asked for, where one was.
  returned: O(scenario) is not V(undo) and there is anything to do
  type: str
found_scenario:
  description: The one that the facts point to.
  returned: as RV(scenario)
  type: str
candidates:
  description: What it may be when it is ambiguous.
  returned: as RV(scenario)
  type: list
  elements: str
evidence:
  description: The facts, in plain words.
  returned: as RV(scenario)
  type: list
  elements: str
lost_objects:
  description: Objects that would go and that the migrations did not make, each as kind and name.
  returned: when the plan goes back to a backup
  type: list
  elements: str
objects_of_unknown_origin:
  description: Whether migrations were applied that no deploy rehearsed, so that RV(lost_objects) may be theirs.
  returned: when the plan goes back to a backup
  type: bool
losses:
  description:
    - What would be lost, for each table. With V(exact) false the numbers are a bound ("at least"), made of row counts and of
      the transaction numbers in the rows; a rollback itself always counts exactly before it acts.
    - For O(scenario=undo) what was written since the operation that would be undone.
  returned: as RV(scenario), and for O(scenario=undo)
  type: list
  elements: dict
  sample: [{table: public.ReceiptData, inserted: 3, updated: 0, deleted: 0, exact: true, in_backup: true}]
next:
  description: The one command to run next.
  returned: as RV(scenario)
  type: str
notes:
  description: What else a person should know of the server, such as its standbys and collations of another version.
  returned: as RV(scenario)
  type: list
  elements: str
report:
  description: All of it as lines for people; for O(scenario=undo) the losses.
  returned: as RV(scenario), and for O(scenario=undo)
  type: list
  elements: str
disk_needed:
  description: Bytes that it needs for a second database and a backup.
  returned: as RV(scenario)
  type: int
downtime_seconds:
  description: How long the application would be stopped, by what the last deploy and the drill took; none when not measured.
  returned: as RV(scenario)
  type: float
steps:
  description: What would be done, in order.
  returned: as RV(scenario)
  type: list
  elements: str
kind:
  description: The kind of operation that carries it out.
  returned: O(scenario) is not V(auto)
  type: str
request:
  description: What to begin that operation with.
  returned: O(scenario) is not V(auto)
  type: dict
interrupted:
  description: Whether a run with this request was cut off, which is gone on with.
  returned: O(scenario) is not V(auto)
  type: bool
nothing_to_do:
  description: What to say when nothing is needed and the application is as it should be.
  returned: O(scenario) is not V(auto)
  type: str
done_before:
  description: The earlier operation that put the table right in the same way, for which nothing is to be done.
  returned: O(scenario=corrupted_table)
  type: str
differences:
  description: For the table (for each partition) how many rows are missing, changed and newer than the backup, with keys of some.
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
  description: How many of them would be deleted for good, counted against O(accept_lost_rows).
  returned: as RV(differences)
  type: int
needed:
  description: Whether there is anything to do in the database.
  returned: O(scenario) is not V(auto)
  type: bool
backup:
  description: The backup that counts as the state before; none where the last deploy changed the release only and no backup is named.
  returned: O(scenario) is not V(undo)
  type: str
level:
  description: How far it is verified.
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
  description: The release that the last deploy brought.
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
  description: The undo that did it already, where RV(needed) is false; by its id it can be undone itself.
  returned: O(scenario=undo)
  type: str
table:
  description: The table that would get back what it held, when the operation restored one; none for a swap.
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import (
    Asked,
    plan_of,
)


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
