#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_retired_prune
short_description: Drop retired databases that are no longer needed
version_added: "0.1.0"
description:
  - A swap keeps the former live database under a name that starts with C(backstop_retired_). This module drops those of one application's database.
  - >-
    One is dropped only when its undo window has passed, no operation is open, and a backup of this very database is in the store, verified to
    O(level), that holds the same rows and objects. That is compared right before, while no other session can connect.
  - It also drops the safety copies of earlier deploys, which start with C(backstop_copy_); see O(safety_copy_days).
  - A database that no operation of the store retired, or that has a subscription or a replication slot, is kept.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.controller
attributes:
  check_mode:
    support: full
    details:
      - That a backup holds the same as the database cannot be compared without allowing a connection, so it is not checked.
  diff_mode:
    support: none
options:
  undo_window:
    description: Days after the swap in which nothing is dropped.
    type: float
    default: 7
  level:
    description:
      - To which level the backup must be verified.
      - V(readable) means that its whole archive was decoded, V(restored) that it was restored into a scratch database and compared.
    type: str
    choices: [readable, restored]
    default: restored
  dump:
    description:
      - Make that backup, of kind V(emergency), if there is none.
      - >-
        The retired database accepts connections while its dump and its drill run. A session that knows its name could write to it then; the
        comparison afterwards would find that.
    type: bool
    default: false
  safety_copy_days:
    description:
      - Days after its deploy for which a safety copy is kept. It is dropped when that deploy has ended and a backup that was made since is verified.
    type: float
    default: 1
notes:
  - "On failure: only databases were dropped that the result of an earlier run, or the journal of the operation that retired them, names with their backups."
  - "How to undo: restore the backup of a dropped database with M(backstop.postgres.rollback)."
seealso:
  - module: backstop.postgres.pg_backup_info
  - module: backstop.postgres.rollback
"""

EXAMPLES = r"""
- name: Tidy up after the deploys of the last weeks
  hosts: backstop_runner
  gather_facts: false
  tasks:
    - name: Drop retired databases, each after a restored and compared backup of it
      backstop.postgres.pg_retired_prune:
        connection:
          url: "{{ database_url }}"
        store: /var/backups/backstop
        undo_window: 14
        dump: true
      register: pruned

    - name: Show what was kept, and why
      ansible.builtin.debug:
        msg: "{{ pruned.retired | map(attribute='reason') }}"
"""

RETURN = r"""
retired:
  description: Each retired database and safety copy of this application's database.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the database.
      type: str
    operation:
      description: The operation that retired it.
      type: str
    age_days:
      description: Days since then.
      type: float
    size:
      description: Its size on disk in bytes.
      type: int
    undo_window_end:
      description: When O(undo_window) ends.
      type: str
    dump:
      description: The backup of it.
      type: str
    dump_level:
      description: Level to which that is verified.
      type: str
    action:
      description: V(kept) or V(dropped); in check mode what would be done.
      type: str
    reason:
      description: Why.
      type: str
dropped:
  description: Names of the databases that were (or would be) dropped.
  returned: success
  type: list
  elements: str
freed:
  description: Their size in bytes.
  returned: success
  type: int
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import (
    DEFAULT_WINDOW_DAYS,
    DUMP_LEVELS,
    prune,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.safety_copies import DEFAULT_DAYS


def act(request: Request) -> Dict[str, Any]:
    window = request.params["undo_window"]
    if window < 0:
        raise Refused("Invalid undo window", found=str(window), expected="a number of days, 0 or more")
    found = prune(
        request.site,
        window_days=window,
        level=request.params["level"],
        dump=request.params["dump"],
        copy_days=request.params["safety_copy_days"],
        check=request.check_mode,
    )
    dropped = [one for one in found if one["action"] == "dropped"]
    return {
        "changed": bool(dropped),
        "retired": found,
        "dropped": [one["name"] for one in dropped],
        "freed": sum(one["size"] for one in dropped),
    }


def main() -> None:
    run_module(
        dict(
            undo_window=dict(type="float", default=DEFAULT_WINDOW_DAYS),
            level=dict(type="str", choices=list(DUMP_LEVELS), default="restored"),
            dump=dict(type="bool", default=False),
            safety_copy_days=dict(type="float", default=DEFAULT_DAYS),
            store=dict(type="path", required=True),
            controller=dict(type="dict"),
        ),
        act,
        connection=True,
    )


if __name__ == "__main__":
    main()
