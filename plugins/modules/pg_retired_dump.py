#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_retired_dump
short_description: Back up a retired database before an undo brings it back
version_added: "0.1.0"
description:
  - Makes a backup of kind V(emergency) of the database that an operation retired, and proves that it holds the same.
  - From then on an undo of that undo can count exactly what was written in between, whatever is written to the database once it is live again.
  - A backup that was made since the database was retired and holds the same does as well; then nothing is changed.
  - The application goes on meanwhile, on the database that is live.
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
    support: none
options:
  undo:
    description: Id of the operation whose retired database is to come back.
    type: str
    required: true
  operation:
    description:
      - Id of the undo that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: the retired database is as it was and closed again; no backup of it is kept."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the retired database is closed again.
    A cut connection and the task's C(timeout) leave it at work, and what follows ends it first; see M(backstop.postgres.operation)."
  - "How to undo: Nothing to undo; a backup more."
  - The retired database accepts connections while its dump runs. Whoever knows its name could write to it then, which the comparison afterwards would find.
seealso:
  - module: backstop.postgres.pg_swap
  - module: backstop.postgres.pg_retired_prune
"""

EXAMPLES = r"""
- name: Back up what comes back
  backstop.postgres.pg_retired_dump:
    undo: 20251108T120000Z-3fa9c1
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
backup:
  description: Id of the backup of it.
  returned: success, unless the database came back before
  type: str
retired:
  description: Name of the database.
  returned: as RV(backup)
  type: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import back_up_retired


def act(request: Request) -> Dict[str, Any]:
    run = request.run
    undone = Operation.load(request.store, request.params["undo"])
    if request.check_mode:
        return {"changed": True}
    return back_up_retired(run, undone)


def main() -> None:
    run_module(
        dict(undo=dict(type="str", required=True), **store_argument_spec(operation=True)),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
