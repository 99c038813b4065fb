#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_table_info
short_description: Read the properties of tables
version_added: "0.1.0"
description:
  - Columns, key, rows, size and digest of tables, and which other tables a DELETE or TRUNCATE would reach, from the live catalog.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  tables:
    description: Names with or without schema and double quotes, such as V(ReceiptData) or V(public.ReceiptData). Default is all.
    type: list
    elements: str
  referenced:
    description: Add the tables that O(tables) refer to, directly or indirectly.
    type: bool
    default: false
  counts:
    description: Count and digest the rows; every table is read completely for that.
    type: bool
    default: true
notes:
  - "On failure: Nothing was changed; this module only reads."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_table_check
"""

EXAMPLES = r"""
- name: What deleting a purchase would take along
  backstop.postgres.pg_table_info:
    tables: [TokenPurchase]
    connection:
      url: "{{ database_url }}"
  register: known

- name: Show the impact table
  ansible.builtin.debug:
    msg: "{{ known.story }}"
"""

RETURN = r"""
tables:
  description: The tables.
  returned: success
  type: list
  elements: dict
  sample: [{schema: public, name: ReceiptData, rows: 0, key: [id]}]
impact:
  description: What DELETE of rows and C(TRUNCATE ... CASCADE) of each table do to it and to every table that they reach.
  returned: success
  type: list
  elements: dict
  sample:
    - action: DELETE
      table: public.TokenPurchase
      effects: {public.TokenPurchase: rows deleted, public.ReceiptData: deletes rows}
story:
  description: The same as short lines to show, one for each effect.
  returned: success
  type: list
  elements: str
"""

import dataclasses
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.tables import Table
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests, impact
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Session, connect


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    schema = request.connection.schema
    with connect(request.connection) as session:
        known, graph = catalog.tables(session), impact.ForeignKeyGraph(session)
        tables = [catalog.find_table(session, name, schema, known) for name in params["tables"] or ()] or known
        if params["referenced"]:
            wanted = graph.with_referenced([table.oid for table in tables])
            tables = [table for table in known if table.oid in wanted]
        described = [_described(session, graph, table, params["counts"]) for table in tables]
        reached = impact.impact_of(graph, tables)
    return {
        "changed": False,
        "tables": described,
        "impact": [dataclasses.asdict(one) for one in reached],
        "story": impact.story(reached, schema),
    }


def _described(session: Session, graph: impact.ForeignKeyGraph, table: Table, counts: bool) -> Dict[str, Any]:
    digest = digests.table_digest(session, table.source, table.columns) if counts else None
    return {
        **table.to_json(),
        **({"rows": digest.rows, "digest": digest.hash} if digest else {}),
        "delete_reaches": graph.reached_by_delete(table),
        "truncate_reaches": graph.reached_by_truncate(table),
    }


def main() -> None:
    run_module(
        dict(
            tables=dict(type="list", elements="str"),
            referenced=dict(type="bool", default=False),
            counts=dict(type="bool", default=True),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
