#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate_lint
short_description: Look for dangerous statements in migrations with squawk
version_added: "0.1.0"
description:
  - Runs L(squawk, https://squawkhq.com) on migrations and returns what it finds.
  - It does not use a database. The rehearsal, M(backstop.postgres.prisma_migrate_rehearse), returns what a migration really locks and how long it takes.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
options:
  migrations:
    description: Name of each migration to its SQL.
    type: dict
    required: true
  names:
    description: Check only these of O(migrations), such as the pending ones.
    type: list
    elements: str
  stop:
    description: Rules that must not be violated. A violation makes RV(passed) false.
    type: list
    elements: str
    default: []
  exclude:
    description:
      - Rules that are not checked.
      - The defaults are not useful here, because a deploy sets a lock timeout itself and rolls back a migration that fails part way through.
    type: list
    elements: str
    default: [require-lock-timeout, require-statement-timeout, prefer-robust-stmts]
  program:
    description: The program C(squawk), version 2, by name or path. It is in the package C(squawk-cli) of PyPI.
    type: str
    default: squawk
  postgres_version:
    description: Version of the server, such as V(15.4), where it matters for a rule.
    type: str
notes:
  - "On failure: nothing was changed; this module only reads. It fails when squawk is missing or did not return its findings."
  - "How to undo: nothing to undo."
seealso:
  - module: backstop.postgres.prisma_migrate_info
  - module: backstop.postgres.prisma_migrate_rehearse
"""

EXAMPLES = r"""
- name: Look at a migration
  backstop.postgres.prisma_migrate_lint:
    program: /opt/squawk/bin/squawk
    migrations:
      20251108000000_add_receipt_data: DROP TABLE "Old";
    stop: [ban-drop-table]
  register: lint

- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ lint.story }}"
"""

RETURN = r"""
findings:
  description: What squawk found, in the order of migrations and lines.
  returned: success
  type: list
  elements: dict
  sample:
    - migration: 20251108000000_add_receipt_data
      line: 1
      rule: ban-drop-table
      level: warning
      message: Dropping a table may break existing clients.
      help: ""
story:
  description: The same as lines of text.
  returned: success
  type: list
  elements: str
passed:
  description: Whether no rule of O(stop) is violated.
  returned: success
  type: bool
stopping:
  description: Migration, line and rule of the findings about rules of O(stop).
  returned: success
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.lint import NOT_HERE, lint


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    scripts = {str(name): str(sql) for name, sql in params["migrations"].items()}
    if params["names"] is not None:
        unknown = sorted(set(params["names"]) - set(scripts))
        if unknown:
            raise Refused("There is no such migration", found=", ".join(unknown), expected=", ".join(sorted(scripts)))
        scripts = {name: scripts[name] for name in params["names"]}
    findings = lint(
        scripts,
        program=params["program"],
        exclude=params["exclude"],
        postgres_version=params["postgres_version"],
    )
    stopping = [_place(finding) for finding in findings if finding["rule"] in params["stop"]]
    return {
        "changed": False,
        "findings": findings,
        "story": [_line(finding) for finding in findings],
        "passed": not stopping,
        "stopping": stopping,
    }


def _place(finding: Dict[str, Any]) -> str:
    return "%(migration)s line %(line)d (%(rule)s)" % finding


def _line(finding: Dict[str, Any]) -> str:
    return "%s: %s" % (_place(finding), " ".join(filter(None, (finding["message"], finding["help"]))))


def main() -> None:
    run_module(
        dict(
            migrations=dict(type="dict", required=True),
            names=dict(type="list", elements="str"),
            stop=dict(type="list", elements="str", default=[]),
            exclude=dict(type="list", elements="str", default=list(NOT_HERE)),
            program=dict(type="str", default="squawk"),
            postgres_version=dict(type="str"),
        ),
        act,
    )


if __name__ == "__main__":
    main()
