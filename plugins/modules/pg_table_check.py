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
  - Checks existence, columns, key, rows, earliest, latest and sums of tables, with O(backup) that they hold what a backup holds, and with
    O(operation) that the catalog is the one that the rehearsal left.
  - A sum is exact whatever the order of the rows, also of a floating point column; NaN and infinities are counted apart.
  - All checks are evaluated; the module fails when one does not hold.
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
    support: N/A
options:
  tables:
    description: The tables and what is expected of them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The table, as a person types it.
        type: str
        required: true
      exists:
        description: Whether it shall exist.
        type: bool
        default: true
      columns:
        description: Columns that it must have, in any order.
        type: list
        elements: str
      key:
        description: Columns of its primary key, else of a unique index over NOT NULL columns, in their order.
        type: list
        elements: str
      rows:
        description: Exact number of rows.
        type: int
      min_rows:
        description: Least number of rows.
        type: int
      max_rows:
        description: Largest number of rows.
        type: int
      earliest:
        description: Column to its smallest value, in any spelling of its type; null only measures it.
        type: dict
      latest:
        description: Column to its largest value, in any spelling of its type; null only measures it.
        type: dict
      sums:
        description:
          - Column to the exact sum of its numbers, as text or number; null only measures it. Where the column holds NaN or infinities no sum
            is as expected.
        type: dict
  backup:
    description:
      - Id of a backup whose digests O(tables) must have. Without O(tables) all tables of the backup.
    type: str
  rehearsal:
    description: Compare the whole catalog with the one that the rehearsal of O(operation) left.
    type: bool
    default: false
notes:
  - "On failure: the message tells each check that does not hold. Nothing was changed."
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
  description: Number of tables, and the comparison with the rehearsal, that are as expected.
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

from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import qualified
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.rehearse import (
    check_against_rehearsal,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.table_checks import check_table
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    params = request.params
    manifest = manifests.load(request.store.find_backup(params["backup"])) if params["backup"] else None
    wanted = params["tables"]
    if manifest is not None and not wanted:
        wanted = [{"name": qualified(entry.schema, entry.name)} for entry in manifest.tables]
    wrong: List[str] = []
    measured = []
    with site.connect() as session:
        for one in wanted:
            found, sentences = check_table(session, one, request.connection.schema, manifest)
            measured.append(found)
            wrong += sentences
        if site.operation is not None and params["rehearsal"] and not request.check_mode:
            wrong += check_against_rehearsal(site, session)
    if wrong:
        raise BackstopError(
            "The database is not as expected",
            found="; ".join(wrong[:20]),
            details={"wrong": wrong, "tables": measured},
        )
    return {"changed": False, "checks": len(wanted) + int(params["rehearsal"]), "tables": measured}


def main() -> None:
    run_module(
        dict(
            tables=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    name=dict(type="str", required=True),
                    exists=dict(type="bool", default=True),
                    columns=dict(type="list", elements="str"),
                    key=dict(type="list", elements="str", no_log=False),
                    rows=dict(type="int"),
                    min_rows=dict(type="int"),
                    max_rows=dict(type="int"),
                    earliest=dict(type="dict"),
                    latest=dict(type="dict"),
                    sums=dict(type="dict"),
                ),
            ),
            backup=dict(type="str"),
            rehearsal=dict(type="bool", default=False),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        required_if=[("rehearsal", True, ("operation",))],
    )


if __name__ == "__main__":
    main()
