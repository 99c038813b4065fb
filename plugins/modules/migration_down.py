#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_down
short_description: Take an applied migration out of the live database
version_added: "0.1.0"
description:
  - Runs the down-SQL that M(backstop.postgres.migration_down_rehearse) proved in this operation on the live database, in one transaction,
    with the rows of the history deleted by their ids, so that a later deploy applies the migration again.
  - Before the COMMIT it is proved once more that the catalog is that of the backup from before and that every row of the tables that stay
    is untouched.
  - Rows of tables and values of columns that go are counted exactly, kept as files in the directory of the operation, and above
    O(accept_lost_rows) nothing is done.
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
    details:
      - What would be lost is counted while the application runs, and refused as it would be.
  diff_mode:
    support: none
options:
  accept_lost_rows:
    description: How many rows may be lost, rows of dropped tables and rows with values in dropped columns together.
    type: int
    default: 0
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
  - "On failure: the one transaction was rolled back, the database is as it was. Killed after the COMMIT, the next run finds it done."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the transaction is rolled back.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: deploy the release again and put the kept rows back, or revert to the emergency backup with rollback_complete.yml."
seealso:
  - module: backstop.postgres.migration_down_rehearse
"""

EXAMPLES = r"""
- name: Take it out
  backstop.postgres.migration_down:
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
migrations:
  description: Migrations that were taken out.
  returned: success
  type: list
  elements: str
dropped_tables:
  description: Tables that went.
  returned: success
  type: list
  elements: str
dropped_columns:
  description: Columns that went from tables that stay.
  returned: success
  type: list
  elements: str
losses:
  description:
    - For each table with lost rows their number, and the file that holds them.
    - C(by_migration) is true where the migration itself did it, and nobody wrote since; that does not count as lost.
  returned: success
  type: list
  elements: dict
lost_rows:
  description: Their sum, without those that the migration itself did.
  returned: success
  type: int
backup:
  description: The backup that holds all of it.
  returned: success
  type: str
differences:
  description:
    - Definitions that are not as before, though the down-SQL was proved; C(pg_dump) shows them only after the COMMIT.
    - They were changed beside the migration and not by the down-SQL.
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import count_ahead, take_out


def act(request: Request) -> Dict[str, Any]:
    run, policy = request.run, LossPolicy(request.params["accept_lost_rows"])
    if request.check_mode:
        return {**count_ahead(run, policy), "changed": True}
    return take_out(run, policy)


def main() -> None:
    run_module(
        dict(accept_lost_rows=dict(type="int", default=0), **store_argument_spec(operation=True)),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
