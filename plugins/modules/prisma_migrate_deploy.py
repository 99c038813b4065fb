#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_deploy
short_description: Apply the pending migrations with Prisma
version_added: "0.1.0"
description:
  - Runs C(prisma migrate deploy) of the release under a lock timeout and verifies the history afterwards; its exit status alone decides nothing.
  - "With O(operation) it makes all changes of a deploy to the database while the application is stopped. First the fence: it ends idle sessions,
    waits for active ones, and compares every table and definition with the backup of the operation."
  - If something differs it makes a final backup, with the options, release and migrations of the first, verified to level V(readable).
  - After the migrations it compares the whole catalog with the one that the rehearsal left, and checks O(tables).
  - Each of these is a step in the journal; after an interrupted run only the missing ones are done.
  - It is refused unless the journal holds the gates, the backup, the drill and the rehearsal.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
  - backstop.postgres.prisma
  - backstop.postgres.prisma.settings
  - backstop.postgres.table_checks
attributes:
  check_mode:
    support: full
    details:
      - In check mode the history is read and compared; nothing is applied.
  diff_mode:
    support: none
options:
  expected:
    description: The only migrations that may be pending.
    type: list
    elements: str
    required: true
  fence_wait:
    description: Seconds to wait for active sessions, with O(operation).
    type: float
    default: 30
  lock_timeout:
    description: Seconds that a statement may wait for a lock before the migration fails.
    type: float
    default: 5
  lock_retries:
    description:
      - How often a migration that failed only by O(lock_timeout) is tried again.
      - Only with O(operation), and only if definitions and rows are proved to equal those of its backup, so that the migration left nothing. It is
        marked as rolled back first.
    type: int
    default: 0
  statement_timeout:
    description: Seconds that one statement may take.
    type: float
  timeout:
    description: Seconds for all.
    type: float
notes:
  - "On failure: sessions that are still active are named: stop these programs. Else the message has Prisma's code, the migration and the server's
    error. C(rollback_failed_migration.yml) rolls back the database; a deploy does so by itself."
  - "Interrupted: a migration that has begun is finished despite signals (Ctrl-C, SIGTERM, SIGHUP); then the module fails, and the journal records
    what it did. After a cut connection or the task's C(timeout) it keeps running, and the next step waits for it; see M(backstop.postgres.operation).
    To cancel a migration, end the session of C(prisma) on the server."
  - "How to undo: C(rollback_complete.yml)."
seealso:
  - module: backstop.postgres.prisma_migrate_rehearse
  - module: backstop.postgres.prisma_migrate_info
  - module: backstop.postgres.rollback
"""

EXAMPLES = r"""
- name: Migrate
  backstop.postgres.prisma_migrate_deploy:
    project: /srv/electricity-tokens/releases/0a1b2c
    expected: [20251108000000_add_receipt_data]
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
backup:
  description: Id of the backup that equals the database before the migration, to revert to.
  returned: with O(operation)
  type: str
differences:
  description: One sentence for each table or object that differed from the first backup, so that a final one was made.
  returned: with O(operation)
  type: list
  elements: str
ended_sessions:
  description: Idle sessions that were ended.
  returned: with O(operation)
  type: list
  elements: str
checks:
  description: Number of checks that hold after the migrations.
  returned: with O(operation)
  type: int
applied:
  description: The migrations that were (or would be) applied, in order.
  returned: success
  type: list
  elements: str
seconds:
  description: Duration.
  returned: success
  type: float
lock_retries:
  description: How often a migration was tried again because of a lock.
  returned: success
  type: int
rewritten:
  description: Existing tables that were rewritten.
  returned: changed
  type: list
  elements: str
"""

import dataclasses
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    prisma_argument_spec,
    run_module,
    store_argument_spec,
    table_checks_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_prisma import prisma_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.change import change_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import (
    Limits,
    read_state,
    refuse_problems,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.retry import apply_patiently
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.table_checks import check_tables


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    prisma = prisma_of(request)
    if request.check_mode:
        with site.connect() as session:
            state = read_state(session, prisma, request.connection.schema)
        refuse_problems(state, request.params["expected"])
        return {"changed": bool(state.pending), "applied": state.pending, "seconds": 0.0, "lock_retries": 0}
    limits = Limits(
        expected=request.params["expected"],
        lock_timeout_ms=int(request.params["lock_timeout"] * 1000),
        statement_timeout_ms=_milliseconds(request.params["statement_timeout"]),
        timeout=request.params["timeout"],
        lock_retries=request.params["lock_retries"],
    )
    tables = request.params["tables"]
    if site.operation is None:
        done = apply_patiently(site, prisma, limits)
        with site.connect() as session:
            check_tables(session, tables, request.connection.schema)
        return {"changed": bool(done.applied), **dataclasses.asdict(done)}
    wait = request.params["fence_wait"]
    return dataclasses.asdict(change_database(request.run, prisma, limits, wait_seconds=wait, tables=tables))


def _milliseconds(seconds: Any) -> Any:
    return None if seconds is None else int(seconds * 1000)


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            expected=dict(type="list", elements="str", required=True),
            fence_wait=dict(type="float", default=30),
            lock_timeout=dict(type="float", default=5),
            lock_retries=dict(type="int", default=0),
            statement_timeout=dict(type="float"),
            timeout=dict(type="float"),
            **table_checks_argument_spec(),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
