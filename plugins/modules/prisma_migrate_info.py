#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_info
short_description: Read the state of the migrations
version_added: "0.1.0"
description:
  - Compares a migrations folder with the table C(_prisma_migrations), by the rules of C(prisma migrate deploy).
  - Prisma and Node are needed only if O(project) has a configuration of Prisma, which is run.
  - >-
    C(prisma migrate status) cannot be used for this. It exits with 0 when a migration was rolled back, when a file was edited and when the database
    is ahead of the folder, and with 1 for pending, failed and running migrations alike.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.prisma.files
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  project:
    description: Directory of the release; its Prisma schema determines the migrations folder.
    type: path
  migrations_path:
    description: The migrations folder, instead of O(project).
    type: path
  migrations:
    description: The folder's contents, name of the migration to SQL, if there is no folder yet.
    type: dict
  expected:
    description:
      - The only migrations that may be pending; each must be in the folder.
      - Others are listed in RV(problems). Without it any may be pending.
    type: list
    elements: str
notes:
  - "On failure: nothing was changed; this module only reads. Problems of the history are results, not failures."
  - "How to undo: nothing to undo."
seealso:
  - module: backstop.postgres.prisma_migrate_deploy
  - module: backstop.postgres.prisma_migrate_resolve
  - module: backstop.postgres.deploy_gates_info
"""

EXAMPLES = r"""
- name: See what a deploy of the release would run
  backstop.postgres.prisma_migrate_info:
    project: /srv/electricity-tokens/releases/0a1b2c
    expected: [20251108000000_add_receipt_data]
    connection:
      url: "{{ database_url }}"
  register: history

- name: Stop if that is not what was planned
  ansible.builtin.assert:
    that: history.problems | length == 0
    fail_msg: "{{ history.problems | map(attribute='message') | join('; ') }}"
"""

RETURN = r"""
table_exists:
  description: Whether the database has a history at all.
  returned: success
  type: bool
up_to_date:
  description: Whether exactly the migrations of the folder are applied, unedited.
  returned: success
  type: bool
applied:
  description: In the folder and applied in the database.
  returned: success
  type: list
  elements: str
  sample: [20251001000000_init]
pending:
  description: Migrations that the next deploy would run, in order.
  returned: success
  type: list
  elements: str
  sample: [20251108000000_add_receipt_data]
failed_migrations:
  description:
    - Started and neither finished nor rolled back. While RV(running) is true one of them may still succeed.
    - It is not called C(failed), because Ansible uses that key for the task.
  returned: success
  type: list
  elements: str
edited:
  description: Applied in the database, but from a different text than in the folder. Line endings are ignored.
  returned: success
  type: list
  elements: str
unknown:
  description: Applied or failed in the database, without a folder, and not squashed.
  returned: success
  type: list
  elements: str
squashed:
  description:
    - Applied in the database, without a folder. The first migration of the folder replaces them, because it was marked as applied after them. This
      does not prevent a deploy.
  returned: success
  type: list
  elements: str
rolled_back:
  description: Rolled back and not applied now.
  returned: success
  type: list
  elements: str
duplicates:
  description: In the history with more than one row that was not rolled back.
  returned: success
  type: list
  elements: str
problems:
  description: Every reason not to deploy.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: What it is.
      type: str
      sample: edited
    names:
      description: The migrations.
      type: list
      elements: str
    message:
      description: One sentence.
      type: str
    hint:
      description: What to do.
      type: str
failures:
  description: Prisma's record of the failed migrations.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The migration.
      type: str
    started_at:
      description: When it began.
      type: str
    logs:
      description: Prisma's error; none when it was interrupted or began its own transaction.
      type: str
running:
  description: Whether a migration is running, that is, a session holds Prisma's advisory lock.
  returned: success
  type: bool
lock_holders:
  description: The sessions that hold it.
  returned: success
  type: list
  elements: dict
effective_state:
  description: The resulting state of each migration's rows.
  returned: success
  type: list
  elements: dict
  sample: [{name: 20251001000000_init, checksum: 5d41, state: applied}]
cluster_statements:
  description: Statements of pending migrations that act on roles, databases or the server. They cannot be rehearsed.
  returned: success
  type: list
  elements: dict
  sample: [{migration: 20260101000000_roles, line: 3, text: CREATE ROLE reporting, why: acts on a role}]
"""

import dataclasses
from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import connect
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import lock_holders
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sql_text import cluster_statements


def act(request: Request) -> Dict[str, Any]:
    files = _files(request.params)
    with connect(request.connection) as session:
        rows = history.read_rows(session.cursor(), request.connection.schema)
        holders = lock_holders(session.cursor())
    state = history.compare(files, rows)
    problems = state.problems(request.params["expected"])
    lists = dataclasses.asdict(state)
    return {
        "changed": False,
        # Ansible takes a result's key "failed" for the task's failure.
        "failed_migrations": lists.pop("failed"),
        **lists,
        "up_to_date": state.up_to_date,
        "problems": [{**vars(problem), "hint": str(problem.hint)} for problem in problems],
        "failures": [_failure(row) for row in rows or () if row.state == history.FAILED],
        "running": bool(holders),
        "lock_holders": [holder.to_json() for holder in holders],
        "effective_state": [effect._asdict() for effect in history.effective_state(rows)],
        "cluster_statements": _reaching([file for file in files if file.name in state.pending]),
    }


def _files(params: Dict[str, Any]) -> List[history.MigrationFile]:
    if params["migrations"] is not None:
        return history.from_mapping({name: str(sql).encode() for name, sql in params["migrations"].items()})
    if params["migrations_path"]:
        return history.read_folder(params["migrations_path"])
    project = Project(params["project"], params["schema_path"], params["config_path"], params["node_bin_dir"])
    return history.read_folder(project.migrations())


def _failure(row: history.HistoryRow) -> Dict[str, Any]:
    noted = row.to_json()
    return {"name": row.migration_name, "started_at": noted["started_at"], "logs": noted["logs"]}


def _reaching(files: List[history.MigrationFile]) -> List[Dict[str, Any]]:
    return [
        {"migration": file.name, **dataclasses.asdict(found)}
        for file in files
        for found in cluster_statements(file.sql)
    ]


def main() -> None:
    run_module(
        dict(
            project=dict(type="path"),
            schema_path=dict(type="str"),
            config_path=dict(type="str"),
            node_bin_dir=dict(type="path"),
            migrations_path=dict(type="path"),
            migrations=dict(type="dict"),
            expected=dict(type="list", elements="str"),
        ),
        act,
        connection=True,
        mutually_exclusive=[("project", "migrations_path", "migrations")],
        required_one_of=[("project", "migrations_path", "migrations")],
        required_by={"schema_path": "project", "config_path": "project"},
    )


if __name__ == "__main__":
    main()
