#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: failed_migration_cleanup
short_description: Put a database back after a failed migration
version_added: "0.1.0"
description:
  - Proves that no session still works on the migration, compares the catalog and every table with the backup,
    drops what the migration only added in one transaction without CASCADE, and marks it as rolled back.
  - Rows that go with new tables and columns are written to files in the directory of the operation, with the command that puts them back.
  - When the migration did more than add objects, nothing is changed and RV(outcome) is V(restore_needed).
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
  backup:
    description: The backup that was made before the migration.
    type: str
    required: true
notes:
  - "On failure: the one transaction was rolled back; the message names what is in the way."
  - "How to undo: deploy the mended migration."
seealso:
  - module: backstop.postgres.prisma_migrate_resolve
  - module: backstop.postgres.pg_swap
"""

EXAMPLES = r"""
- name: Clean up
  backstop.postgres.failed_migration_cleanup:
    project: /srv/electricity-tokens/releases/0a1b2c
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
outcome:
  description: V(clean) when nothing was left, V(dropped), or V(restore_needed).
  returned: success
  type: str
dropped:
  description: What was added by the migration and is gone.
  returned: success
  type: list
  elements: str
kept_rows:
  description: How many rows of new tables, and rows with values in new columns, went with it; they are in C(lost-rows) of the operation's directory.
  returned: success and not in check mode
  type: int
resolved:
  description: Migrations that were marked as rolled back.
  returned: success
  type: list
  elements: str
reasons:
  description: Why dropping would not do.
  returned: success
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.migrations.leftovers import (
    clean_failed_migration,
    leftovers,
)


def act(request: Request) -> Dict[str, Any]:
    context = request.context
    place = request.store.find_backup(request.params["backup"])
    if request.check_mode:
        with context.connect() as session:
            found = leftovers(context, session, manifests.load(place))
        outcome = "restore_needed" if found["reasons"] else "dropped" if found["added"] else "clean"
        return {"changed": outcome == "dropped", "outcome": outcome, "dropped": found["added"], **found}
    return clean_failed_migration(context, place, request.prisma)


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            backup=dict(type="str", required=True),
            **store_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
