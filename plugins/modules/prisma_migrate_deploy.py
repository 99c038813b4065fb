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
  - With O(operation) it is refused unless the journal holds the gates, the backup, the drill, the rehearsal and the fence.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
  - backstop.postgres.prisma
attributes:
  check_mode:
    support: full
    details:
      - In check mode the history is read and compared, nothing is applied.
  diff_mode:
    support: none
options:
  expected:
    description: The only migrations that may be pending.
    type: list
    elements: str
    required: true
  lock_timeout:
    description: Seconds that a statement may wait for a lock before the migration fails.
    type: float
    default: 5
  lock_retries:
    description:
      - How often a migration that failed only by O(lock_timeout) is tried again.
      - Only with O(operation), and only where definitions and rows are proved to be those of its backup, so that the migration left nothing;
        then it is marked as rolled back first.
    type: int
    default: 0
  statement_timeout:
    description: Seconds that one statement may take.
    type: float
  timeout:
    description: Seconds for all.
    type: float
notes:
  - "On failure: the message has Prisma's code, the migration and the server's words.
    C(rollback_failed_migration.yml) puts the database back; a deploy does so by itself."
  - "How to undo: C(rollback_complete.yml)."
seealso:
  - module: backstop.postgres.prisma_migrate_rehearse
  - module: backstop.postgres.prisma_migrate_info
  - module: backstop.postgres.failed_migration_cleanup
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
  description: Tables that were there and were written anew as a whole.
  returned: changed
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    prisma_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import (
    read_state,
    refuse_problems,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.retry import apply_patiently


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    prisma = request.prisma
    if request.check_mode:
        with site.connect() as session:
            state = read_state(session, prisma, request.connection.schema)
        refuse_problems(state, request.params["expected"])
        return {"changed": bool(state.pending), "applied": state.pending, "seconds": 0.0, "lock_retries": 0}
    return apply_patiently(
        site,
        prisma,
        lock_retries=request.params["lock_retries"],
        expected=request.params["expected"],
        lock_timeout_ms=int(request.params["lock_timeout"] * 1000),
        statement_timeout_ms=_milliseconds(request.params["statement_timeout"]),
        timeout=request.params["timeout"],
    )


def _milliseconds(seconds: Any) -> Any:
    return None if seconds is None else int(seconds * 1000)


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            expected=dict(type="list", elements="str", required=True),
            lock_timeout=dict(type="float", default=5),
            lock_retries=dict(type="int", default=0),
            statement_timeout=dict(type="float"),
            timeout=dict(type="float"),
            **store_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
