#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Roll back the database, by the way in the operation's request
version_added: "0.1.0"
description:
  - >-
    Runs every rollback and every undo: removes what a failed migration left, reverts a migration by proved down-SQL, renames a database restored from
    a backup or a retired one to the live name, restores in place, repairs a table, or leaves the database unchanged.
  - "Nothing is overwritten by a swap: the former database is kept under a name that starts with C(backstop_retired_)."
  - Everything in place is one transaction that is proved before its COMMIT, after a backup of what it removes.
  - The loss is counted exactly behind the fence and written to files in the directory of the operation. Above the accepted numbers nothing is changed.
  - >-
    For a deploy that failed, give the deploy's operation, the new release as O(project), and accept no loss: then only a way without loss is taken.
    The application must be stopped. No M(backstop.postgres.rollback_prepare) is needed before.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.prisma.settings
  - backstop.postgres.rollback
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
    details:
      - Nothing is changed and nothing is counted; use M(backstop.postgres.rollback_plan_info).
  diff_mode:
    support: none
notes:
  - "On failure: the live database is unchanged, or the next run with the same operation finishes it; C(state=settle) of
    M(backstop.postgres.operation) reports which."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the one transaction is rolled back. A swap that has begun is finished
    first; then the module fails, and the journal records what it did. After a cut connection or the task's C(timeout) it keeps running, and the next
    step ends it or waits for it; see M(backstop.postgres.operation)."
  - "How to undo: C(undo_rollback.yml), or an operation of kind V(undo) whose request names this one. After down-SQL deploy the migration again instead."
  - Prepared statements of sessions that stayed connected may refer to types that a restore in place created again; the application must reconnect.
seealso:
  - module: backstop.postgres.rollback_prepare
  - module: backstop.postgres.rollback_plan_info
  - module: backstop.postgres.operation
"""

EXAMPLES = r"""
- name: Roll back as the operation asks
  backstop.postgres.rollback:
    project: /srv/electricity-tokens/releases/0a1b2c
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: rolled_back

- name: Show what happened
  ansible.builtin.debug:
    msg: "{{ rolled_back.story }}"
"""

RETURN = r"""
way:
  description: The way that was taken, V(leftovers), V(code_only), V(drop), V(restore), V(in_place) or V(table).
  returned: success and not in check mode
  type: str
database:
  description: State of the database now, as the end of a sentence.
  returned: as RV(way)
  type: str
  sample: as before, the migration was taken out again by its down-SQL
story:
  description: Short lines to show.
  returned: as RV(way)
  type: list
  elements: str
next:
  description: Suggested next step.
  returned: as RV(way)
  type: str
losses:
  description:
    - For each table with lost rows, how many were inserted, updated and deleted, and the file that holds them.
    - C(by_migration) is true if the migration itself changed them, and nothing was written since; that does not count as lost.
  returned: RV(way) is V(drop), V(restore) or V(in_place)
  type: list
  elements: dict
lost_rows:
  description: Their sum, without changes by the migration itself. For a table, the number of permanently deleted rows.
  returned: as RV(losses), and when a table was repaired
  type: int
lost_objects:
  description: Objects that went and that the migrations did not make, each as kind and name; C((changed\)) follows those that the backup has otherwise.
  returned: RV(way) is V(restore), V(in_place) or V(leftovers)
  type: list
  elements: str
objects_of_unknown_origin:
  description: Whether migrations were applied that no deploy rehearsed, so that RV(lost_objects) may be theirs.
  returned: as RV(lost_objects)
  type: bool
ended_sessions:
  description: Sessions that were ended.
  returned: as RV(losses)
  type: list
  elements: str
confirmed:
  description: Whether the synchronous standbys, if any, confirmed it within 5 seconds. If not, it is committed all the same.
  returned: RV(way) is V(restore) or V(in_place)
  type: bool
pooled:
  description: How the clients behind O(poolers) were treated.
  returned: RV(way) is V(restore) or V(in_place)
  type: dict
  contains:
    pools:
      description: Each pool that was paused, and resumed.
      type: list
      elements: str
    held:
      description: Clients that kept a session, with V(end).
      type: list
      elements: str
    seconds:
      description: How long the pooled clients waited, if there are pools.
      type: float
  sample: {pools: ["electricity_tokens at 10.0.0.6:6432"], held: [], seconds: 0.4}
retired:
  description: Name under which the former live database is kept.
  returned: RV(way) is V(restore)
  type: str
seconds_closed:
  description: For how long new connections were blocked.
  returned: RV(way) is V(restore)
  type: float
advanced_sequences:
  description: Sequences that were advanced, so that they do not repeat values of the former database.
  returned: RV(way) is V(restore) or V(in_place)
  type: list
  elements: str
standbys:
  description:
    - The standbys that stream from the server, and how many bytes of WAL each still had to replay after at most 5 seconds.
    - A role without C(pg_monitor) sees that there is one, not which or how far.
  returned: RV(way) is V(restore)
  type: list
  elements: dict
standbys_summary:
  description: The same as text, with what happens to sessions there; empty without standbys.
  returned: RV(way) is V(restore)
  type: str
reapply:
  description: What was, or would be, carried over.
  returned: RV(way) is V(restore)
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
      description: Their sum, without changes by the migration itself.
      type: int
    conflicts:
      description: Table, reason and number of rows that were not carried.
      type: list
      elements: dict
    conflict_rows:
      description: Their sum, without changes by the migration itself.
      type: int
    summary:
      description: All this in one sentence.
      type: str
  sample: {mode: apply, carried: [{table: public.TokenPurchase, inserted: 1, updated: 0, deleted: 0}], carried_rows: 1, conflicts: [], conflict_rows: 0}
backup:
  description: The backup that was restored; after down-SQL, the emergency backup of the whole database.
  returned: RV(way) is not V(leftovers) or V(code_only)
  type: str
emergency:
  description: The backup of what was removed, or of the table before; none for a damaged table.
  returned: RV(way) is V(in_place) or V(table)
  type: str
migrations:
  description: Migrations that were reverted.
  returned: RV(way) is V(drop)
  type: list
  elements: str
outcome:
  description: V(clean) if the failed migration left nothing, else V(dropped).
  returned: RV(way) is V(leftovers)
  type: str
resolved:
  description: Migrations that were marked as rolled back.
  returned: RV(way) is V(leftovers)
  type: list
  elements: str
kept_rows:
  description: Number of rows of new tables, and of rows with values in new columns, that were removed with what was left; they are in C(lost-rows) of
    the operation's directory.
  returned: RV(way) is V(leftovers)
  type: int
table:
  description: Full name of the table.
  returned: RV(way) is V(table)
  type: str
total:
  description: Number of rows that differed.
  returned: RV(way) is V(table)
  type: int
effects:
  description: What foreign keys did to rows of other tables.
  returned: RV(way) is V(table)
  type: list
  elements: dict
lacking:
  description:
    - Each table that refers to restored rows and lacks rows of the backup that were deleted with them, parents first.
    - C(missing) counts the missing rows, C(emptied) those that no longer refer to them, C(command) restores them, C(message) is all this as text.
  returned: RV(way) is V(table), except for an undo, which restores them itself
  type: list
  elements: dict
now:
  description: Rows, earliest, latest and exact sums of the table afterwards.
  returned: RV(way) is V(table)
  type: list
  elements: dict
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    rollback_argument_spec,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_prisma import prisma_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.report import what_next
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import apply, facts_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs


def act(request: Request) -> Dict[str, Any]:
    if request.check_mode:
        return {"changed": True}
    run = request.run
    way, outcome = apply(run, Programs.of(request.params, lambda: prisma_of(request)), Consent.of(request.params))
    return {**facts_of(way, outcome), "next": what_next(run.operation, way.name, outcome)}


def main() -> None:
    run_module(
        rollback_argument_spec(),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("down_sql", "down_sql_file")],
    )


if __name__ == "__main__":
    main()
