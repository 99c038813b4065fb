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
    choices: [auto, complete, failed_migration, application_errors, undo]
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
    description: Whether rows are to be carried over, as in M(backstop.postgres.pg_swap). The report tells which go.
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
  - module: backstop.postgres.pg_swap
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

import functools
from typing import Any, Dict, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import MODES
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import read_folder
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import ReadFolder
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import (
    diagnose,
    plan_application_errors,
    plan_failed_migration,
    plan_revert,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.report import Options
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import loss_of_undo, plan_undo


def act(request: Request) -> Dict[str, Any]:
    site, params = request.site, request.params
    scenario = params["scenario"]
    options = Options(
        params["accept_lost_rows"],
        params["accept_lost_objects"],
        params["reapply"],
        params["reapply_deletes"],
        params["backup"],
        params["revision"],
        None if params["method"] == "auto" else params["method"],
        params["restore_method"] == "in_place",
    )
    if scenario == "undo":
        plan = plan_undo(site, params["undo"])
        return {"changed": False, **plan, **loss_of_undo(site, plan, options)}
    folder = params["migrations_path"]
    read = functools.partial(read_folder, folder) if folder else None
    chosen = _chosen(site, params, read)
    if not chosen.get("needed", True) and chosen.get("method") != "code_only":
        return {"changed": False, **chosen}
    facts = gather(
        site,
        folder=read,
        healthy=params["healthy"],
        backup_id=chosen.get("backup") or params["backup"],
    )
    runs = scenario != "auto" and not request.check_mode
    return {"changed": False, **chosen, **diagnose(site, scenario, facts, chosen, options, runs=runs)}


def _chosen(site: Site, params: Dict[str, Any], folder: Optional[ReadFolder]) -> Dict[str, Any]:
    if params["scenario"] == "failed_migration":
        return plan_failed_migration(site, params["backup"], folder)
    if params["scenario"] == "application_errors":
        return plan_application_errors(site, params["method"], params["backup"])
    return plan_revert(site, params["backup"]) if params["scenario"] == "complete" else {}


def main() -> None:
    run_module(
        dict(
            scenario=dict(
                type="str",
                choices=["auto", "complete", "failed_migration", "application_errors", "undo"],
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
            healthy=dict(type="bool"),
            migrations_path=dict(type="path"),
            store=dict(type="path", required=True),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
