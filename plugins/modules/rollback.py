#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Take the database back, in the way that the operation asks for
version_added: "0.1.0"
description:
  - >-
    The one call behind every way back, and behind its undo: removing what a failed migration left, taking a migration out by down-SQL that was proved, giving
    the live name to a database restored from a backup or to a retired one, restoring in place, putting a table right, or leaving the database alone.
  - "Nothing is overwritten by a swap: the former database keeps all it has, under a name that starts with C(backstop_retired_)."
  - Everything in place is one transaction that is proved before its COMMIT, after a backup of what it removes.
  - What would be lost is counted exactly when writers are out, written to files in the directory of the operation, and above what is accepted nothing is done.
  - >-
    For a deploy that failed, give the deploy's operation, the new release as O(project), and accept nothing: then only a way is taken that loses nothing. The
    application has to be stopped. No M(backstop.postgres.rollback_prepare) is needed before.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.rollback
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
    details:
      - Nothing is done and nothing is counted; M(backstop.postgres.rollback_plan_info) tells what would be.
  diff_mode:
    support: none
notes:
  - "On failure: the live database is as it was, or the next run with the same operation finishes it; C(state=settle) of M(backstop.postgres.operation) tells."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the one transaction is rolled back. A swap that has begun is
    finished first; then the module fails, and the journal has what it did. A cut connection and the task's C(timeout) leave it at
    work, and what follows ends it or waits for it; see M(backstop.postgres.operation)."
  - "How to undo: C(undo_rollback.yml), or an operation of kind V(undo) whose request names this one. A migration that was taken out is deployed again instead."
  - Prepared statements of sessions that stayed connected may refer to types that an in place restore made anew; the application has to connect again.
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

- name: Say what happened
  ansible.builtin.debug:
    msg: "{{ rolled_back.story }}"
"""

RETURN = r"""
way:
  description: The way that was taken, V(leftovers), V(code_only), V(drop), V(restore), V(in_place) or V(table).
  returned: success and not in check mode
  type: str
database:
  description: How the database stands now, as the end of a sentence.
  returned: as RV(way)
  type: str
  sample: as before, the migration was taken out again by its down-SQL
story:
  description: Short lines for people.
  returned: as RV(way)
  type: list
  elements: str
next:
  description: What a person may want to do next.
  returned: as RV(way)
  type: str
losses:
  description:
    - For each table with lost rows, how many were inserted, updated and deleted, and the file that holds them.
    - C(by_migration) is true where the migration itself did it, and nobody wrote since; that does not count as lost.
  returned: RV(way) is V(drop), V(restore) or V(in_place)
  type: list
  elements: dict
lost_rows:
  description: Their sum, without those that the migration itself did. In a table, how many rows were deleted for good.
  returned: as RV(losses), and when a table was put right
  type: int
lost_objects:
  description: Objects that went and that the migrations did not make, each as kind and name; C((changed\)) follows those that the backup has otherwise.
  returned: RV(way) is V(restore) or V(in_place)
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
  description: Whether it was confirmed by the synchronous standbys, where there are any, in 5 seconds. When not, it is done all the same.
  returned: RV(way) is V(restore) or V(in_place)
  type: bool
pooled:
  description: What was done with the clients behind O(poolers).
  returned: RV(way) is V(restore) or V(in_place)
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
retired:
  description: Name under which the former live database is kept.
  returned: RV(way) is V(restore)
  type: str
seconds_closed:
  description: For how long new connections were blocked.
  returned: RV(way) is V(restore)
  type: float
advanced_sequences:
  description: Sequences that were set forward, so that they do not give out numbers again that the former database gave out.
  returned: RV(way) is V(restore) or V(in_place)
  type: list
  elements: str
standbys:
  description:
    - The standbys that stream from the server, and how many bytes of WAL each had still to replay after at most 5 seconds.
    - A role without C(pg_monitor) sees that there is one, not which or how far.
  returned: RV(way) is V(restore)
  type: list
  elements: dict
standbys_summary:
  description: The same in words, with what happens to sessions there; empty without standbys.
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
backup:
  description: The backup that was gone back to; of a migration that was taken out, the emergency backup that holds all of it.
  returned: RV(way) is not V(leftovers) or V(code_only)
  type: str
emergency:
  description: The backup of what was removed, or of the table as it was before; none of a damaged table.
  returned: RV(way) is V(in_place) or V(table)
  type: str
migrations:
  description: Migrations that were taken out.
  returned: RV(way) is V(drop)
  type: list
  elements: str
outcome:
  description: V(clean) when the failed migration had left nothing, else V(dropped).
  returned: RV(way) is V(leftovers)
  type: str
resolved:
  description: Migrations that were marked as rolled back.
  returned: RV(way) is V(leftovers)
  type: list
  elements: str
kept_rows:
  description: How many rows of new tables, and rows with values in new columns, went with what was left; they are in C(lost-rows) of the operation's directory.
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
    - Each table that refers to rows which came back and lacks rows of the backup that went with them, parents first.
    - C(missing) counts those that are not there, C(emptied) those that do not refer to them any more, C(command) brings them back, C(told) says all this.
  returned: RV(way) is V(table), but for an undo, which brings them back itself
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
    pooler_argument_spec,
    rollback_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.report import what_next
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import apply, facts_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs


def act(request: Request) -> Dict[str, Any]:
    if request.check_mode:
        return {"changed": True}
    run = request.run
    way, outcome = apply(run, Programs.of(request.params, lambda: request.prisma), Consent.of(request.params))
    return {**facts_of(way, outcome), "next": what_next(run.operation, way.name, outcome.facts)}


def main() -> None:
    run_module(
        dict(
            **rollback_argument_spec(),
            **pooler_argument_spec(),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("down_sql", "down_sql_file")],
    )


if __name__ == "__main__":
    main()
