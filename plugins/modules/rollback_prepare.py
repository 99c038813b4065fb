#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_prepare
short_description: Build and prove what a rollback needs, while the application runs
version_added: "0.1.0"
description:
  - Builds and proves what a rollback or an undo needs, beside the live database, which is only read.
  - "Before a swap: a database is restored from the backup and compared with its manifest, or the retired database is backed up."
  - "Before a migration is reverted: an emergency backup is made, and the down-SQL is proved on a copy of it. If it is not proved, the restore is prepared."
  - The present loss is counted, and refused as M(backstop.postgres.rollback) would refuse it, before anything is stopped.
  - A killed run is continued; what is ready already is reused.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.prisma.settings
  - backstop.postgres.rollback
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
    details:
      - Nothing is built, so nothing is counted.
  diff_mode:
    support: none
notes:
  - "On failure: the live database was only read; the message names what would be lost, or what could not be built."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: incomplete databases are dropped. After a cut connection or the task's
    C(timeout) it keeps running, and the next step ends it first; see M(backstop.postgres.operation)."
  - "How to undo: M(backstop.postgres.operation) drops what was built when it ends the operation."
seealso:
  - module: backstop.postgres.rollback
  - module: backstop.postgres.rollback_plan_info
"""

EXAMPLES = r"""
- name: Make everything ready
  backstop.postgres.rollback_prepare:
    project: /srv/electricity-tokens/releases/0a1b2c
    old_project: /srv/electricity-tokens/releases/9f8e7d
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: ready
"""

RETURN = r"""
way:
  description: The way that will be taken, V(leftovers), V(code_only), V(drop), V(restore), V(in_place) or V(table).
  returned: success and not in check mode
  type: str
stops_application:
  description: Whether the application must be stopped for it.
  returned: as RV(way)
  type: bool
losses:
  description: For each table with rows that would be lost, how many were inserted, updated and deleted.
  returned: when they are counted in advance
  type: list
  elements: dict
lost_rows:
  description: Their sum, without changes by the migration itself.
  returned: when they are counted in advance
  type: int
reapply:
  description: What would be carried over, as M(backstop.postgres.rollback) returns it.
  returned: when it is counted in advance
  type: dict
story:
  description: Short lines to show, such as why a different way from the requested one is taken.
  returned: as RV(way)
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    rollback_argument_spec,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_prisma import prisma_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import as_json
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import prepare
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Consent, Programs


def act(request: Request) -> Dict[str, Any]:
    if request.check_mode:
        return {"changed": True}
    programs = Programs.of(request.params, lambda: prisma_of(request))
    way, ready, reasons = prepare(request.run, programs, Consent.of(request.params))
    return {
        **as_json(ready.facts),
        "changed": ready.changed,
        "way": way.name,
        "stops_application": way.stops_application,
        "story": reasons,
    }


def main() -> None:
    run_module(
        rollback_argument_spec(),
        act,
        connection=True,
        acts=True,
        mutually_exclusive=[("down_sql", "down_sql_file")],
    )


if __name__ == "__main__":
    main()
