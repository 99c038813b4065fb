# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the command ``backstop`` from this collection's library on the controller and copies it to the host."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any, Dict, Optional

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.program import build_program

ARGUMENTS: Dict[str, Any] = {
    "path": {"type": "path", "default": "/usr/local/bin/backstop"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
}


class ActionModule(ActionBase):
    """Calls ansible.builtin.copy, which transfers nothing if the file is already there."""

    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Build the program and copy it."""
        result: Dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        folder = tempfile.mkdtemp(dir=constants.DEFAULT_LOCAL_TMP)
        try:
            source = os.path.join(folder, "backstop")
            with open(source, "wb") as stream:
                stream.write(build_program(arguments["python"]))
            result.update(self._copy(source, arguments["path"], task_vars))
        except BackstopError as error:
            raise AnsibleActionFail(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return result

    def _copy(self, source: str, path: str, task_vars: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        task = self._task.copy()
        task.args = {"src": source, "dest": path, "mode": "0755"}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        # A diff would show the bytes of a zip file.
        task.diff = False
        copied: Dict[str, Any] = action.run(task_vars=task_vars)
        return copied
