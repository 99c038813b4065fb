#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_rehearse
short_description: Prove a backup, the pending migrations and the down-SQL on a copy
version_added: "0.1.0"
description:
  - "The drill: restores the backup of the operation into a scratch database and compares it with its manifest, tables by digest, other objects by definition."
  - "The rehearsal: runs the pending migrations with the release's own Prisma on that copy, and returns how long each takes, which tables it locks
    and rewrites, and what it destroys. Then O(tables) must be as described."
  - It fails when the release's user, known from M(backstop.postgres.deploy_gates_info), could not use a table that the migrations create, or an
    existing one as before.
  - "With O(down_sql) the proof of SQL that reverts the migrations: it is proved when the catalog then equals that of the backup, and all rows of the
    remaining tables are unchanged. A failed proof is a result, not a failure."
  - Each is a step in the journal of O(operation); after an interrupted run only the missing ones are done.
  - Migrations there must not reach another database or server. Foreign servers of C(postgres_fdw) are disabled meanwhile. Other connections
    (C(dblink), code in untrusted languages, other wrappers) cannot be closed in a scratch database. Then the backup is restored into a separate
    PostgreSQL server that can connect to nothing, if its programs are installed on this host; else the rehearsal is refused and names them. Such a
    server leaves no copy, so neither the old release nor the down-SQL is tried then.
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
  diff_mode:
    support: none
options:
  expected:
    description: The only migrations that may be pending.
    type: list
    elements: str
    required: true
  lock_timeout:
    description: Seconds that a statement may wait for a lock.
    type: float
    default: 5
  timeout:
    description: Seconds for all.
    type: float
  down_sql:
    description:
      - SQL that reverts the migrations, to be proved.
      - V(auto) takes C(down.sql) beside each migration, else what C(prisma migrate diff) generates from the schemas of both releases.
    type: str
  old_project:
    description: Directory of the release before the migrations, for O(down_sql=auto).
    type: path
  keep_scratch:
    description:
      - Keep the copy for M(backstop.postgres.release_trial), see RV(database), and leave the proof of O(down_sql), which changes it, to the next call.
      - Without it the copy is dropped at the end.
    type: bool
    default: false
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it. Its backup is the one that is restored.
      - The steps are written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the message names what differs from the backup, or the migration that fails on the copy. The live database was only read. Fix
    the migration."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: only the copy was changed. After a cut connection or the task's
    C(timeout) it keeps running, and the next step ends it first; see M(backstop.postgres.operation)."
  - "How to undo: M(backstop.postgres.operation) with O(backstop.postgres.operation#module:state=end) drops the copy."
seealso:
  - module: backstop.postgres.pg_backup_verify
  - module: backstop.postgres.prisma_migrate_deploy
  - module: backstop.postgres.release_trial
"""

EXAMPLES = r"""
- name: Rehearse
  backstop.postgres.prisma_migrate_rehearse:
    project: /srv/electricity-tokens/releases/0a1b2c
    expected: [20251108000000_add_receipt_data]
    keep_scratch: true
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: rehearsed

- name: Prove the down-SQL, and drop the copy
  backstop.postgres.prisma_migrate_rehearse:
    project: /srv/electricity-tokens/releases/0a1b2c
    old_project: /srv/electricity-tokens/releases/9f8e7d
    expected: [20251108000000_add_receipt_data]
    down_sql: auto
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
database:
  description: The copy with the migrations, if the old release must still be tried on it.
  returned: O(keep_scratch=true)
  type: str
story:
  description: What was proved, as short lines to show; empty while the old release must still be tried on RV(database).
  returned: success
  type: list
  elements: str
drill:
  description: The drill's facts in the journal, as M(backstop.postgres.pg_backup_verify) returns it.
  returned: success
  type: dict
old_release:
  description: The facts in the journal of the trial of the old release, RV(backstop.postgres.release_trial#module:works) and reason.
  returned: success
  type: dict
down_proof:
  description: The facts in the journal of the proof of O(down_sql), with C(proved), C(reasons) and C(source).
  returned: success
  type: dict
rehearsal:
  description: The rehearsal's facts in the journal.
  returned: success
  type: dict
  contains:
    migrations:
      description: Name and seconds of each migration.
      returned: success
      type: list
      elements: dict
    closed_server:
      description: What could reach other databases or servers from a scratch database, if the rehearsal ran in a separate server; no copy is left then.
      returned: success
      type: str
    seconds:
      description: Duration of all of it.
      returned: success
      type: float
    locked:
      description:
        - For each existing table, the strongest lock on it beyond reading. From the migrations' own transactions, as
          M(backstop.postgres.deploy_gates_info) saw them, and from sampling every 10 ms.
      returned: success
      type: dict
    every_lock:
      description: Whether every lock is known, not only those held longer than 10 ms.
      returned: success
      type: bool
    destroys:
      description:
        - One clause for each thing that the migrations destroy. Dropped columns with the number of their values, dropped tables with the number of
          rows, other dropped objects, changed types with the number of values that change, deleted and updated rows.
      returned: success
      type: list
      elements: str
      sample: [drops User.name (125 values)]
    summary:
      description: The most important facts, in one sentence.
      returned: success
      type: str
    rewritten:
      description: Existing tables that were rewritten.
      returned: success
      type: list
      elements: str
    added_tables:
      description: Tables that were added.
      returned: success
      type: list
      elements: str
    new_tables:
      description: The same, in double quotes where an option for table names needs them.
      returned: success
      type: list
      elements: str
    dropped_tables:
      description: Tables that were dropped.
      returned: success
      type: list
      elements: str
    changed_rows:
      description: Existing tables whose rows the migration changed.
      returned: success
      type: list
      elements: str
    changed_columns:
      description: Existing tables whose columns the migration changed.
      returned: success
      type: list
      elements: str
    added_bytes:
      description: Growth of the database in bytes.
      returned: success
      type: int
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    prisma_argument_spec,
    run_module,
    store_argument_spec,
    table_checks_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_prisma import prisma_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.proofs import prove


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    if request.check_mode:
        return {"changed": True, "database": None, "story": []}
    down = None
    if params["down_sql"]:
        given = None if params["down_sql"] == "auto" else params["down_sql"]
        down = {"given": given, "old_release": params["old_project"]}
    return prove(
        request.run,
        prisma_of(request),
        Limits(params["expected"], int(params["lock_timeout"] * 1000), timeout=params["timeout"]),
        tables=params["tables"],
        down=down,
        keep=params["keep_scratch"],
    )


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            expected=dict(type="list", elements="str", required=True),
            lock_timeout=dict(type="float", default=5),
            timeout=dict(type="float"),
            down_sql=dict(type="str"),
            old_project=dict(type="path"),
            keep_scratch=dict(type="bool", default=False),
            **table_checks_argument_spec(),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
