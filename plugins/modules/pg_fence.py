#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_fence
short_description: Clear the database of other sessions and compare it with a backup
version_added: "0.1.0"
description:
  - "After the application was stopped: ends sessions that are idle, waits for those at work, then compares every table with the backup by digest."
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  backup:
    description: The backup to compare with.
    type: str
    required: true
  wait:
    description: Seconds to wait for sessions that are at work.
    type: float
    default: 30
notes:
  - "On failure: sessions are still at work; the message names them. Stop these programs."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: nothing was changed but the sessions that it ended.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: Nothing to undo; clients connect again."
seealso:
  - module: backstop.postgres.pg_dump
"""

EXAMPLES = r"""
- name: Fence
  backstop.postgres.pg_fence:
    backup: "{{ backup.backup }}"
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
same:
  description: Whether every table equals the backup.
  returned: success
  type: bool
differences:
  description: One sentence for each table that differs.
  returned: success
  type: list
  elements: str
ended_sessions:
  description: Idle sessions that were ended.
  returned: success
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence


def act(request: Request) -> Dict[str, Any]:
    place = request.store.find_backup(request.params["backup"])
    if request.check_mode:
        return {"changed": True}
    return fence(request.site, place, request.params["wait"])


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str", required=True),
            wait=dict(type="float", default=30),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
