# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs modules that take long: shows their progress, and says what becomes of one whose connection is cut.

It also passes them the process that runs the playbook, so that they can detect a dead run. ``meta/runtime.yml`` names
the modules.
"""

from __future__ import annotations

import os
import secrets
from typing import Any, Dict, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import task_file
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import this_controller
from ansible_collections.backstop.postgres.plugins.plugin_utils.progress_display import ProgressDisplay
from ansible_collections.backstop.postgres.plugins.plugin_utils.report_pages import add_report


class ActionModule(ActionBase):
    """Adds ``controller`` to the module's arguments and runs it as Ansible does."""

    _requires_connection = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Run the module. This code runs in a worker, whose parent is ansible-playbook."""
        result = super().run(tmp, task_vars)
        task = secrets.token_hex(8)
        arguments = dict(self._task.args)
        arguments["controller"] = {**this_controller(os.getppid()), "task": task}
        if self._task.check_mode or not isinstance(arguments.get("store"), str):
            result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            return result
        host = str((task_vars or {}).get("inventory_hostname", ""))
        display = ProgressDisplay(self, host, task_file(arguments["store"], task))
        with display.shown():
            try:
                result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            except AnsibleConnectionFailure as error:
                what = display.after_cut(arguments.get("operation"))
                if not what:
                    raise
                raise AnsibleConnectionFailure(what) from error
        return add_report(self, result, arguments["store"], task_vars)
