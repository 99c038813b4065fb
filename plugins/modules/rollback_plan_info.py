#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_plan_info
short_description: What a rollback would do
version_added: "0.1.0"
description:
  - Says which backup a complete revert would go to, how far it is verified, how long the recovery took in the
    drill, the steps, and whether there is anything to do.
  - For O(scenario=failed_migration), how the database would be put back; for O(scenario=undo), which operation would be undone.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  scenario:
    description: Which way back.
    type: str
    choices: [complete, failed_migration, undo]
    default: complete
  backup:
    description: The backup to revert to. Default is the one made before the last deploy.
    type: str
  undo:
    description: The operation to undo. Default is the newest swap or restore of a table.
    type: str
notes:
  - "On failure: Nothing was changed; this module only reads."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_swap
"""

EXAMPLES = r"""
- name: What would be done
  backstop.postgres.rollback_plan_info:
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: plan
"""

RETURN = r"""
needed:
  description: Whether there is anything to do.
  returned: success
  type: bool
backup:
  description: The backup that would be restored.
  returned: O(scenario=complete)
  type: str
level:
  description: How far it is verified.
  returned: O(scenario=complete)
  type: str
recovery_seconds:
  description: How long its drill took.
  returned: O(scenario=complete)
  type: float
commit:
  description: The release that would run afterwards.
  returned: success
  type: str
steps:
  description: What would be done, in order.
  returned: O(scenario=complete)
  type: list
  elements: str
history_differences:
  description: How the history of migrations differs from that of the backup.
  returned: O(scenario=complete)
  type: list
  elements: str
failed_migrations:
  description: Migrations that are marked as failed.
  returned: O(scenario=failed_migration)
  type: list
  elements: str
undoes:
  description: The operation that would be undone.
  returned: O(scenario=undo)
  type: str
table:
  description: The table that would get back what it held, when the operation restored one; none for a swap.
  returned: O(scenario=undo)
  type: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.plan import (
    plan_failed_migration,
    plan_revert,
    plan_undo,
)


def act(request: Request) -> Dict[str, Any]:
    if request.params["scenario"] == "undo":
        return {"changed": False, **plan_undo(request.context, request.params["undo"])}
    if request.params["scenario"] == "failed_migration":
        return {"changed": False, **plan_failed_migration(request.context, request.params["backup"])}
    return {"changed": False, **plan_revert(request.context, request.params["backup"])}


def main() -> None:
    run_module(
        dict(
            scenario=dict(type="str", choices=["complete", "failed_migration", "undo"], default="complete"),
            backup=dict(type="str"),
            undo=dict(type="str"),
            store=dict(type="path", required=True),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
