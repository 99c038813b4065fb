# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Passes the process that runs the playbook to the modules of an operation, so that they can detect a dead run.

``meta/runtime.yml`` names the modules.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import this_controller


class ActionModule(ActionBase):
    """Adds ``controller`` to the module's arguments."""

    _requires_connection = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Run the module. This code runs in a worker, whose parent is ansible-playbook."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["controller"] = this_controller(os.getppid())
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        return result
