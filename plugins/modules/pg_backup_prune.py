#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_prune
short_description: Delete the backups that retention does not keep
version_added: "0.1.0"
description:
  - Daily and weekly backups are one series. The newest verified backup is kept of each of the last O(keep_days) days that have one and of each of the
    last O(keep_weeks) ISO weeks that have one. A daily backup that is kept for its week stays under C(daily).
  - Days and weeks without a backup are not counted, and the age of pre-migration and post-migration backups is counted back from the newest backup of
    the database, so nothing expires while a job does not run.
  - Emergency backups are deleted by hand only, with O(remove).
  - Always kept are the newest verified backup of each database, the newest that a drill restored, the newest pre-migration backup, the backups that
    an open operation, an undo or a rollback of the last migration needs, and those marked with M(backstop.postgres.pg_backup_mark).
  - Backups count by the time in their manifest, separately for each server (system identifier) and exact name of a database; those of single tables
    are counted separately. A backup that was not verified to level C(readable), is damaged, or has a manifest that cannot be read or is dated in the
    future, is kept, listed and not counted.
  - Before anything is deleted, the checksums of the backup that replaces the others are verified again.
  - No database is contacted, so this works while it is down.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.store
  - backstop.postgres.store.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  keep_days:
    description: Days with a backup, of which the newest is kept.
    type: int
    default: 7
  keep_weeks:
    description: ISO weeks with a backup, of which the newest is kept.
    type: int
    default: 4
  keep_pre_migration_days:
    description: Maximum age of a pre-migration backup, counted back from the newest backup of its database, in days.
    type: int
    default: 90
  keep_post_migration_days:
    description: The same for post-migration backups, which belong to the pre-migration ones.
    type: int
    default: 90
  time_zone:
    description:
      - Time zone in which days and weeks begin, such as V(Africa/Harare) or V(UTC).
      - Empty is the time zone of the host, which cron and systemd timers use too.
    type: str
    default: ""
  max_delete_share:
    description:
      - Refuse to delete more than this share of all backups of the store at once, V(0) to V(1).
      - Backups in O(remove) do not count.
    type: float
    default: 0.5
  keep_row_days:
    description:
      - Days after the end of a rollback or undo for which the rows that it kept as files (C(lost-rows) and C(carried) in its operation) stay, at
        least V(30). They stay longer while the operation is open, while its retired database is kept, and while it is the last of its database. Rows
        saved from a damaged table (C(saved-rows)) are never deleted.
    type: int
    default: 90
  remove:
    description:
      - Ids of backups to delete although the rule keeps them, such as emergency backups that were reviewed, or damaged ones.
      - A backup that is needed or marked, or that no newer verified backup follows, is refused. An id that does not exist is ignored.
    type: list
    elements: str
    default: []
notes:
  - "On failure: the message names what would be deleted or what is needed; RV(items) has the reason for each backup. A partly deleted backup is no
    longer listed; the next backup or pruning removes the rest of it."
  - "How to undo: a deleted backup cannot be restored. Run in check mode first, which shows the reason for every backup, and mark those that must stay."
seealso:
  - module: backstop.postgres.pg_backup_mark
  - module: backstop.postgres.pg_backup_info
"""

EXAMPLES = r"""
- name: What would be deleted, and why
  backstop.postgres.pg_backup_prune:
    store: /var/backups/backstop
  check_mode: true
  register: retention

- name: Delete an emergency backup that was reviewed
  backstop.postgres.pg_backup_prune:
    store: /var/backups/backstop
    remove:
      - electricity_tokens-20251101T120000Z-5b1c0d
"""

RETURN = r"""
items:
  description: Every backup with its decision and all reasons, by database and time.
  returned: success, or when the decision was refused
  type: list
  elements: dict
  sample:
    - backup: electricity_tokens-20251108T020000Z-3fa9c1
      kind: daily
      database: electricity_tokens
      server: "7300000000000000000"
      scope: database
      created: "2025-11-08T02:00:00.000Z"
      level: readable
      size: 118057
      mark:
      problem:
      decision: keep
      reason: the newest verified backup of its database; the newest of day 2025-11-08, day 1 of 7
deleted:
  description: Ids of the backups that were deleted, or would be.
  returned: success
  type: list
  elements: str
row_files:
  description: Every operation that keeps rows as files, with the decision and its reason.
  returned: success
  type: list
  elements: dict
  sample:
    - operation: 20251108T020000Z-3fa9c1
      kind: rollback
      database: electricity_tokens
      folders: [lost-rows]
      size: 4711
      decision: keep
      reason: its retired database is kept, and an undo may need them
freed:
  description: Size in bytes of all that was deleted.
  returned: success
  type: int
"""

from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.row_files import prune_row_files
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import (
    OPTIONS,
    Decision,
    policy_of,
    row_days_of,
)


def act(request: Request) -> Dict[str, Any]:
    row_days_of(request.params)
    request.progress.phase("pruning backups")
    decisions = prune(
        request.store,
        policy_of(request.params),
        max_share=request.params["max_delete_share"],
        by_hand=request.params["remove"],
        only_check=request.check_mode,
    )
    request.progress.phase("pruning the rows that operations kept")
    rows = prune_row_files(request.store, row_days_of(request.params), only_check=request.check_mode)
    going = [decision for decision in decisions if not decision.keep]
    gone_rows = [one for one in rows if not one.keep]
    result: Dict[str, Any] = {
        "changed": bool(going or gone_rows),
        "items": [decision.to_json() for decision in decisions],
        "deleted": [decision.item.backup_id for decision in going],
        "row_files": [one.to_json() for one in rows],
        "freed": sum(decision.item.size for decision in going) + sum(one.size for one in gone_rows),
    }
    if request.diff:
        result["diff"] = {"before": _lines(decisions), "after": _lines([each for each in decisions if each.keep])}
    return result


def _lines(decisions: List[Decision]) -> str:
    return "".join("%s/%s\n" % (decision.item.kind, decision.item.backup_id) for decision in decisions)


def main() -> None:
    run_module(
        dict(
            keep_days=dict(type="int", default=OPTIONS["keep_days"]),
            keep_weeks=dict(type="int", default=OPTIONS["keep_weeks"]),
            keep_pre_migration_days=dict(type="int", default=OPTIONS["keep_pre_migration_days"]),
            keep_post_migration_days=dict(type="int", default=OPTIONS["keep_post_migration_days"]),
            time_zone=dict(type="str", default=OPTIONS["time_zone"]),
            max_delete_share=dict(type="float", default=OPTIONS["max_delete_share"]),
            keep_row_days=dict(type="int", default=OPTIONS["keep_row_days"]),
            remove=dict(type="list", elements="str", default=[]),
            store=dict(type="path", required=True),
            controller=dict(type="dict"),
        ),
        act,
    )


if __name__ == "__main__":
    main()
