#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_rehearse
short_description: Run the pending migrations on a copy
version_added: "0.1.0"
description:
  - Runs the pending migrations with the release's own Prisma on a scratch database that a drill left, and tells
    how long each takes, which tables it locks and rewrites, and what it destroys.
  - It fails when the release's user, whom M(backstop.postgres.deploy_gates_info) was told, could not use a table that
    the migrations make, or one that was there as before.
  - Nothing that a migration does there may reach another database or server. Meanwhile foreign servers of C(postgres_fdw) lead nowhere. Other
    ways out (C(dblink), code in untrusted languages, further wrappers) cannot be closed in a scratch database. Then O(backup) is restored into
    a PostgreSQL server of its own that can connect to nothing, if its programs are installed on this host; else it is refused by name.
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
  diff_mode:
    support: none
options:
  database:
    description: The scratch database, as M(backstop.postgres.pg_backup_verify) returned it.
    type: str
    required: true
  expected:
    description: The only migrations that may be pending.
    type: list
    elements: str
    required: true
  backup:
    description: The backup that O(database) was restored from, for a server of its own.
    type: str
  lock_timeout:
    description: Seconds that a statement may wait for a lock.
    type: float
    default: 5
  timeout:
    description: Seconds for all.
    type: float
notes:
  - "On failure: the migration fails on a copy of the database; the live one was not touched. Mend the migration."
  - "How to undo: M(backstop.postgres.pg_scratch_database) drops the copy."
seealso:
  - module: backstop.postgres.pg_backup_verify
  - module: backstop.postgres.prisma_migrate_deploy
"""

EXAMPLES = r"""
- name: Rehearse
  backstop.postgres.prisma_migrate_rehearse:
    project: /srv/electricity-tokens/releases/0a1b2c
    database: "{{ drill.database }}"
    expected: [20251108000000_add_receipt_data]
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
migrations:
  description: Name and seconds of each migration.
  returned: success
  type: list
  elements: dict
closed_server:
  description: What leads out of the scratch database, where the rehearsal ran in a server of its own; O(database) was dropped then.
  returned: success
  type: str
seconds:
  description: Duration of all of it.
  returned: success
  type: float
locked:
  description:
    - For each table that was there, the strongest lock on it beyond reading. From the migrations' own transactions, as
      M(backstop.postgres.deploy_gates_info) saw them, and from looking every 10 ms.
  returned: success
  type: dict
every_lock:
  description: Whether every lock is known, and not only those that were held longer than 10 ms.
  returned: success
  type: bool
destroys:
  description:
    - One clause for each thing that the migrations destroy. Dropped columns with how many values they had, dropped tables
      with their rows, other dropped objects, changed types with how many values change, deleted and updated rows.
  returned: success
  type: list
  elements: str
  sample: [drops User.name (125 values)]
summary:
  description: All that people should know of it, in one sentence.
  returned: success
  type: str
rewritten:
  description: Tables that were there and were written anew as a whole.
  returned: success
  type: list
  elements: str
added_tables:
  description: Tables that were added.
  returned: success
  type: list
  elements: str
new_tables:
  description: The same, in double quotes where an option that takes the name of a table needs them.
  returned: success
  type: list
  elements: str
dropped_tables:
  description: Tables that were dropped.
  returned: success
  type: list
  elements: str
changed_rows:
  description: Tables that were there, whose rows the migration changed.
  returned: success
  type: list
  elements: str
changed_columns:
  description: Tables that were there, whose columns the migration changed.
  returned: success
  type: list
  elements: str
added_bytes:
  description: By how much the database grew.
  returned: success
  type: int
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    prisma_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.rehearse import rehearse_closed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import REHEARSAL


def act(request: Request) -> Dict[str, Any]:
    if request.check_mode:
        return {"changed": True, "closed_server": None}
    site, backup = request.site, request.params["backup"]
    with journaled_step(site, REHEARSAL) as facts:
        result = rehearse_closed(
            site,
            request.params["database"],
            request.prisma,
            site.store.find_backup(backup) if backup else None,
            expected=request.params["expected"],
            lock_timeout_ms=int(request.params["lock_timeout"] * 1000),
            timeout=request.params["timeout"],
        )
        facts.update(result)
    return {"changed": True, **result}


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            database=dict(type="str", required=True),
            expected=dict(type="list", elements="str", required=True),
            backup=dict(type="str"),
            lock_timeout=dict(type="float", default=5),
            timeout=dict(type="float"),
            **store_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
