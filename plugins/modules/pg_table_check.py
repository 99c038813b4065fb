#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_table_check
short_description: Check that tables are as expected
version_added: "0.1.0"
description:
  - Checks existence, columns, key, rows, earliest, latest and sums of tables, and with O(backup) that they hold what a backup holds.
  - A sum is exact whatever the order of the rows, also for a floating point column; NaN and infinities are counted separately.
  - All checks are evaluated; the module fails when one does not hold.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
  - backstop.postgres.table_checks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  backup:
    description:
      - Id of a backup whose digests O(tables) must have. Without O(tables) all tables of the backup.
    type: str
notes:
  - "On failure: the message names each check that does not hold. Nothing was changed."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_table_info
"""

EXAMPLES = r"""
- name: The new table is there
  backstop.postgres.pg_table_check:
    tables:
      - name: ReceiptData
        columns: [id, purchaseId]
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: What the runbook shows after a restore, as numbers that do not depend on the order of rows
  backstop.postgres.pg_table_check:
    tables:
      - name: ReceiptData
        earliest: {transactionDateTime: null}
        latest: {transactionDateTime: null}
        sums: {totalAmountZWG: null}
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: The table holds what the backup holds
  backstop.postgres.pg_table_check:
    tables:
      - name: User
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
checks:
  description: Number of tables that are as expected.
  returned: success
  type: int
tables:
  description: What was measured of each table.
  returned: success
  type: list
  elements: dict
  sample:
    - table: public.ReceiptData
      exists: true
      rows: 1500
      earliest: {transactionDateTime: "2025-01-01 08:00:00"}
      sums: {totalAmountZWG: {sum: "49947449.6994965", not_a_number: 0, infinite: 0}}
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
    table_checks_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import qualified
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.table_checks import check_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    params = request.params
    manifest = manifests.load(request.store.find_backup(params["backup"])) if params["backup"] else None
    wanted = params["tables"]
    if manifest is not None and not wanted:
        wanted = [{"name": qualified(entry.schema, entry.name)} for entry in manifest.tables]
    with site.connect() as session:
        measured = check_tables(session, wanted, request.connection.schema, manifest)
    return {"changed": False, "checks": len(wanted), "tables": measured}


def main() -> None:
    run_module(
        dict(
            **table_checks_argument_spec(),
            backup=dict(type="str"),
            **store_argument_spec(),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
