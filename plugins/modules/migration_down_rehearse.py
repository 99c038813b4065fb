#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_down_rehearse
short_description: Prove SQL that takes an applied migration out again
version_added: "0.1.0"
description:
  - Finds the down-SQL of the migrations that were applied since a backup. It is what O(sql) or O(sql_file) gives, else the files
    C(down.sql) beside the migrations, else what C(prisma migrate diff) makes from the schema of the new release to that of the old one.
  - Restores a backup of the database as it is into a scratch database, or takes the copy of a rehearsal, runs the SQL there and takes the
    migrations out of the history.
  - It is proved when the catalog is then that of the backup from before, and all rows of the tables that stay are untouched.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.prisma
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  before:
    description: The backup from before the migration.
    type: str
    required: true
  backup:
    description:
      - The backup of the database as it is, from which the copy is made.
      - Exactly one of O(backup) and O(database) is needed.
    type: str
  database:
    description: A scratch database on which a rehearsal applied the migration; it is not dropped.
    type: str
  sql:
    description: The down-SQL.
    type: str
  sql_file:
    description: File on the target with the down-SQL.
    type: path
  old_project:
    description: Directory of the release before the migration, for C(prisma migrate diff).
    type: path
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
  controller:
    description:
      - The process that runs the playbook. Once another one has taken up the operation, this one's modules are refused.
      - Set by this collection's action plugin; do not set it.
    type: dict
notes:
  - "On failure: the live database was not touched, the scratch database is dropped. A proof that fails is an answer and no failure: see RV(proved)."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the scratch database is dropped.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: Nothing to undo; the live database is only read."
seealso:
  - module: backstop.postgres.migration_down
"""

EXAMPLES = r"""
- name: Prove that the migration can be taken out again
  backstop.postgres.migration_down_rehearse:
    project: /srv/electricity-tokens/releases/0a1b2c
    old_project: /srv/electricity-tokens/releases/9f8e7d
    before: electricity_tokens-20251108T020000Z-3fa9c1
    backup: electricity_tokens-20251108T093000Z-77ab01
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: proof
"""

RETURN = r"""
proved:
  description: Whether the SQL leads back and leaves all else alone.
  returned: success
  type: bool
reasons:
  description: Why not.
  returned: success
  type: list
  elements: str
source:
  description: Where the SQL came from.
  returned: success
  type: str
sha256:
  description: Checksum of the SQL.
  returned: success
  type: str
migrations:
  description: Migrations that it takes out.
  returned: it is proved
  type: list
  elements: str
dropped_tables:
  description: Tables that go.
  returned: it is proved
  type: list
  elements: str
dropped_columns:
  description: Columns that go from tables that stay.
  returned: it is proved
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import rehearse_down


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    before = request.store.find_backup(params["before"])
    now = request.store.find_backup(params["backup"]) if params["backup"] else None
    if request.check_mode:
        return {"changed": True, "proved": False, "reasons": ["check mode proves nothing"], "source": "", "sha256": ""}
    return rehearse_down(
        request.run,
        before,
        now,
        scratch=params["database"],
        given=params["sql"],
        file=params["sql_file"],
        prisma=request.prisma,
        old_release=params["old_project"],
    )


def main() -> None:
    run_module(
        dict(
            before=dict(type="str", required=True),
            backup=dict(type="str"),
            database=dict(type="str"),
            sql=dict(type="str"),
            sql_file=dict(type="path"),
            old_project=dict(type="path"),
            **prisma_argument_spec(),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("sql", "sql_file"), ("backup", "database")],
        required_one_of=[("backup", "database")],
    )


if __name__ == "__main__":
    main()
