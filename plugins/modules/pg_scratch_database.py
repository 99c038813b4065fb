#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_scratch_database
short_description: Drop scratch databases
version_added: "0.1.0"
description:
  - "Drops scratch databases: those whose name starts with C(backstop_scratch_). No other database is ever dropped by this collection unasked."
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
  state:
    description: They shall not be there.
    type: str
    choices: [absent]
    default: absent
  names:
    description: The databases. Without it, all scratch databases of O(operation).
    type: list
    elements: str
notes:
  - "On failure: nothing but scratch databases can have been dropped."
  - "How to undo: a drill or a restore makes them again."
seealso:
  - module: backstop.postgres.pg_backup_verify
"""

EXAMPLES = r"""
- name: Drop what the rehearsal left
  backstop.postgres.pg_scratch_database:
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
dropped:
  description: The databases that were (or would be) dropped.
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import server
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.database_properties import (
    drop_scratch_database,
    scratch_databases,
)


def act(request: Request) -> Dict[str, Any]:
    operation = request.params["operation"]
    with request.site.administer() as admin:
        present = [name for name, _oid, _allowed in server.databases(admin)]
        names = request.params["names"] or scratch_databases(admin, operation)
        dropped = [name for name in names if name in present]
        if not request.check_mode:
            dropped = [name for name in dropped if drop_scratch_database(admin, name)]
    return {"changed": bool(dropped), "dropped": dropped}


def main() -> None:
    run_module(
        dict(
            state=dict(type="str", choices=["absent"], default="absent"),
            names=dict(type="list", elements="str"),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        required_one_of=[("names", "operation")],
    )


if __name__ == "__main__":
    main()
