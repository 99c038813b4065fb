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
  - Checks existence, columns and row counts of tables, and with O(operation) that the catalog is the one that the rehearsal left.
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
      rows:
        description: Exact number of rows.
        type: int
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
"""

RETURN = r"""
checks:
  description: Number of checks that hold.
  returned: success
  type: int
"""

from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Session
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.rehearsal import check_against_rehearsal


def act(request: Request) -> Dict[str, Any]:
    context = request.context
    wrong: List[str] = []
    with context.connect() as session:
        for wanted in request.params["tables"]:
            wrong += _check(session, wanted, request.connection.schema)
        if context.operation is not None and request.params["rehearsal"] and not request.check_mode:
            wrong += check_against_rehearsal(context.operation, session)
    if wrong:
        raise BackstopError("The database is not as expected", found="; ".join(wrong[:20]), details={"wrong": wrong})
    return {"changed": False, "checks": len(request.params["tables"]) + int(request.params["rehearsal"])}


def _check(session: Session, wanted: Dict[str, Any], schema: str) -> List[str]:
    name = wanted["name"]
    try:
        table = catalog.find_table(session, name, schema)
    except Refused as error:
        return [str(error)] if wanted["exists"] else []
    if not wanted["exists"]:
        return ["table %s exists" % name]
    wrong = []
    missing = [column for column in wanted["columns"] or [] if column not in table.columns]
    if missing:
        wrong.append("table %s lacks the columns %s; it has %s" % (name, ", ".join(missing), ", ".join(table.columns)))
    if wanted["rows"] is not None:
        rows = digests.table_digest(session, table.schema, table.name, table.columns).rows
        if rows != wanted["rows"]:
            wrong.append("table %s has %d rows, not %d" % (name, rows, wanted["rows"]))
    return wrong


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
                    rows=dict(type="int"),
                ),
            ),
            rehearsal=dict(type="bool", default=False),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        required_if=[("rehearsal", True, ("operation",))],
    )


if __name__ == "__main__":
    main()
