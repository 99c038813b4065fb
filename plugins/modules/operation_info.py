#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_info
short_description: Read the operations of a store
version_added: "0.1.0"
description:
  - Lists operations with their steps, how they ended, and the one command that continues an open one.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.store
  - backstop.postgres.store.operation
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
notes:
  - "On failure: Nothing was changed; this module only reads."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.operation
"""

EXAMPLES = r"""
- name: What is open
  backstop.postgres.operation_info:
    store: /var/backups/backstop
  register: known
"""

RETURN = r"""
operations:
  description: The operations, oldest first; or the given one.
  returned: success
  type: list
  elements: dict
  sample: [{id: 20251108T020000Z-3fa9c1, kind: deploy, outcome: done}]
forecast:
  description: What the newest backup, drill, rehearsal and downtime took, in words.
  returned: without O(operation)
  type: dict
  sample: {size: "the newest backup has 1.3 MB, 4500 rows", times: no drill was measured yet; the newest rehearsal ran 0.4 s}
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import forecast
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import to_continue
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation, operations


def act(request: Request) -> Dict[str, Any]:
    wanted = request.params["operation"]
    found = [Operation.load(request.store, wanted)] if wanted else operations(request.store)
    described = [_described(operation) for operation in found]
    return {"changed": False, "operations": described, **({} if wanted else {"forecast": forecast(request.store)})}


def _described(operation: Operation) -> Dict[str, Any]:
    return {
        **operation.header,
        "outcome": operation.outcome,
        "directory": operation.path,
        "journal": operation.journal(),
        "next": str(to_continue(operation)) if operation.is_open else None,
    }


def main() -> None:
    run_module(store_argument_spec(), act)


if __name__ == "__main__":
    main()
