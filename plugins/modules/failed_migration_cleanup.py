#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: failed_migration_cleanup
short_description: Put a database back after a migration that failed or was cut off
version_added: "0.1.0"
description:
  - Proves that no session still works on the migration, and compares the history of migrations, the catalog and every table with the backup together.
  - Drops what the migrations since the backup only added in one transaction without CASCADE, which also takes those out of the history
    that were applied before the failed one; then marks the failed one as rolled back.
  - Rows that go with new tables and columns are written to files in the directory of the operation, with the command that puts them back.
  - When the migrations did more than add objects, or rows were written since into what an applied one added, nothing is changed and
    RV(outcome) is V(restore_needed).
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
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the transaction is rolled back.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
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
  description: What was added by the migrations and is gone.
  returned: success
  type: list
  elements: str
taken_out:
  description: Migrations that had been applied since the backup and are taken out of the history with what they added; the next deploy applies them again.
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import (
    clean_failed_migration,
    leftovers,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    place = request.store.find_backup(request.params["backup"])
    if request.check_mode:
        with site.connect() as session:
            found = leftovers(site, session, place)
            failed = history.compare([], history.read_rows(session.cursor(), site.connection.schema)).failed
        left = found["added"] or found["applied"]
        outcome = "restore_needed" if found["reasons"] else "dropped" if left else "clean"
        changed = not found["reasons"] and bool(left or failed)
        return {
            "changed": changed,
            "outcome": outcome,
            "dropped": found["added"],
            "taken_out": found["applied"],
            "resolved": failed if changed else [],
            "reasons": found["reasons"],
        }
    return clean_failed_migration(site, place, request.prisma)


def main() -> None:
    run_module(
        dict(
            **prisma_argument_spec(),
            backup=dict(type="str", required=True),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
