#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_resolve
short_description: Mark a migration as rolled back or as applied
version_added: "0.1.0"
description:
  - Runs C(prisma migrate resolve) if the history shows that it is needed and correct, and verifies the history afterwards.
  - Only the history changes. The migration's SQL is neither run nor undone, so the database must be repaired before.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.prisma
  - backstop.postgres.prisma.settings
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  migration:
    description: Name of the migration, which is the name of its folder.
    type: str
    required: true
  state:
    description:
      - V(rolled_back) makes a failed migration pending again. A migration that succeeded is refused, as Prisma does.
      - >-
        V(applied) marks the migration as applied without running it. For a failed one that was finished by hand, and for a database that has the
        tables already (baselining).
    type: str
    required: true
    choices: [rolled_back, applied]
notes:
  - "On failure: the history is unchanged, and the message has the reason."
  - >-
    How to undo: V(rolled_back) is undone by O(state=applied) if the migration's objects are there. No command undoes V(applied); delete the
    migration's row from C(_prisma_migrations) to make it pending again.
seealso:
  - module: backstop.postgres.prisma_migrate_info
  - module: backstop.postgres.rollback
"""

EXAMPLES = r"""
- name: Let a failed migration run again, after its leftovers were removed
  backstop.postgres.prisma_migrate_resolve:
    migration: 20251108000000_add_receipt_data
    state: rolled_back
    project: /srv/electricity-tokens/current
    connection:
      url: "{{ database_url }}"

- name: Begin with a database that has the first tables already
  backstop.postgres.prisma_migrate_resolve:
    migration: 20251001000000_init
    state: applied
    project: /srv/electricity-tokens/current
    connection:
      url: "{{ database_url }}"
"""

RETURN = r"""
migration:
  description: The migration.
  returned: success
  type: str
  sample: 20251108000000_add_receipt_data
before:
  description: States of the migration's rows in the history before, oldest first.
  returned: success
  type: list
  elements: str
  sample: [failed]
after:
  description: The same afterwards, or as it would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [rolled_back]
"""

from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    prisma_argument_spec,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_prisma import prisma_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import connect
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.resolving import resolve


def act(request: Request) -> Dict[str, Any]:
    name = request.params["migration"]
    with connect(request.connection) as session:
        done = resolve(
            prisma_of(request),
            request.connection.url(),
            session.cursor(),
            name,
            request.params["state"],
            act=not request.check_mode,
        )
    result = {"changed": done.changed, "migration": name, "before": done.before, "after": done.after}
    if request.diff:
        result["diff"] = {
            "before_header": name,
            "after_header": name,
            "before": _lines(done.before),
            "after": _lines(done.after),
        }
    return result


def _lines(states: List[str]) -> str:
    return "".join(state + "\n" for state in states)


def main() -> None:
    run_module(
        dict(
            migration=dict(type="str", required=True),
            state=dict(type="str", required=True, choices=["rolled_back", "applied"]),
            **prisma_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
