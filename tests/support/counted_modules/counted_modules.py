# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write down each module that a playbook executes on a host, and the host that its task is delegated to."""

from __future__ import annotations

import json
import os

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: counted_modules
type: notification
short_description: Count the modules that a playbook executes
description: For the tests only.
"""
FILE = os.environ.get("BACKSTOP_TEST_MODULES", "")


def counted(execute_module):
    """The same, with a line in the file for each call."""

    def execute(self, module_name=None, *arguments, **keywords):
        facts = {"module": module_name or self._task.action, "task": self._task.name, "to": self._task.delegate_to}
        # One write, because tasks run in several processes.
        with open(FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        return execute_module(self, module_name, *arguments, **keywords)

    return execute


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "counted_modules"

    def v2_playbook_on_start(self, playbook):
        if FILE:
            # The processes of tasks are forked later.
            ActionBase._execute_module = counted(ActionBase._execute_module)
