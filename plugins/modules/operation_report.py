#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_report
short_description: Write the proof report of an operation, or of a whole store
version_added: "0.1.0"
description:
  - Writes what an auditor asks of a deploy, a rollback or an undo. What was changed, by whom and when; which backup stood behind it, how it was verified
    and how long a restore takes; what was compared and what is not covered; what the gates said, what was waived and why; what was lost or carried
    over; how long users were without service; how to go back now. Then a timeline, gates, migrations with durations and locks, tables with rows and
    digests, backups and the journal.
  - The report is made from the journal of the operation and the manifests of its backups alone; no database is asked. It contains no secrets, as these
    contain none.
  - C(report.html) is one page below 1 MB without scripts, which needs no network. It is rendered on the controller, so nothing is installed on hosts.
    C(report.json) has the same facts as data (its schema is C(docs/operation-report.schema.json)); C(report.xml) is JUnit XML with a test case
    for each gate and each phase, for CI systems.
  - A report does not count as a change, because it only shows what is there.
  - M(backstop.postgres.operation) with O(backstop.postgres.operation#module:state=end) writes the report of its operation by itself.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written; the report is returned.
  diff_mode:
    support: none
options:
  operation:
    description:
      - Id of the operation. The newest one of the store by default.
    type: str
  whole_store:
    description:
      - Report the whole store instead. Backups with their ages and what retention decides on them, drills and recovery times, operations, retired
        databases, and disk.
    type: bool
    default: false
  beside:
    description:
      - Write the files beside the journal of the operation; those of a store into the store, without C(report.xml).
    type: bool
    default: true
  dest:
    description:
      - File on the controller for the page. Its directory must exist.
    type: path
  keep_days:
    description:
      - With O(whole_store), the retention with which ages are compared, as in M(backstop.postgres.pg_backup_prune).
    type: int
    default: 7
  keep_weeks:
    description: As O(keep_days).
    type: int
    default: 4
  keep_pre_migration_days:
    description: As O(keep_days).
    type: int
    default: 90
  keep_post_migration_days:
    description: As O(keep_days).
    type: int
    default: 90
  page:
    description:
      - The rendered page. Set by this collection's action plugin; do not set it.
    type: str
notes:
  - "On failure: Nothing was changed, or a report of the same name is still the former one: each file is replaced as a whole."
  - "How to undo: Nothing to undo; remove the files."
seealso:
  - module: backstop.postgres.operation
  - module: backstop.postgres.operation_info
  - module: backstop.postgres.pg_backup_info
"""

EXAMPLES = r"""
- name: Report the newest operation, and fetch the page
  backstop.postgres.operation_report:
    store: /var/backups/backstop
    dest: /tmp/report.html

- name: Report one operation
  backstop.postgres.operation_report:
    store: /var/backups/backstop
    operation: 20251108T020000Z-3fa9c1

- name: Report all backups, drills and operations
  backstop.postgres.operation_report:
    store: /var/backups/backstop
    whole_store: true
    dest: /tmp/store.html
"""

RETURN = r"""
report:
  description: The report as data, as C(docs/operation-report.schema.json) documents it.
  returned: success
  type: dict
story:
  description: The questions and answers, as lines of text.
  returned: success
  type: list
  elements: str
  sample: ["Deploy of electricity_tokens, 20251108T020000Z-3fa9c1: done", "", "What was changed?", "  1 migration applied in 0.4 s."]
files:
  description: The files that were written on the host.
  returned: success
  type: list
  elements: str
  sample: [/var/backups/backstop/operations/20251108T020000Z-3fa9c1/report.html]
dest:
  description: The file that was written on the controller.
  returned: with O(dest)
  type: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports import files
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.answers import store_story, story
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.operation_report import (
    choose,
    report_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.store_report import store_report
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import OPTIONS, policy_of


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    beside = params["beside"] and not request.check_mode
    if params["whole_store"]:
        found = store_report(request.store, policy_of({**OPTIONS, **params}))
        written = files.write_in_store(request.store, found, params["page"]) if beside else []
        return {"changed": False, "report": found.to_json(), "story": store_story(found), "files": written}
    operation = choose(request.store, params["operation"])
    report = report_of(operation)
    written = files.write_beside(operation, report, params["page"]) if beside else []
    return {"changed": False, "report": report.to_json(), "story": story(report), "files": written}


def main() -> None:
    run_module(
        dict(
            store=dict(type="path", required=True),
            operation=dict(type="str"),
            whole_store=dict(type="bool", default=False),
            beside=dict(type="bool", default=True),
            dest=dict(type="path"),
            keep_days=dict(type="int", default=7),
            keep_weeks=dict(type="int", default=4),
            keep_pre_migration_days=dict(type="int", default=90),
            keep_post_migration_days=dict(type="int", default=90),
            page=dict(type="str"),
        ),
        act,
        mutually_exclusive=[("operation", "whole_store")],
    )


if __name__ == "__main__":
    main()
