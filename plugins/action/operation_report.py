# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders the report that the module of this name makes on the host, on the controller, where Jinja2 is."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.backstop.postgres.plugins.plugin_utils.report_pages import write_page


class ActionModule(ActionBase):
    """Runs the module, renders the page, and writes it on the host or the controller."""

    _requires_connection = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Read, render, write."""
        result: Dict[str, Any] = super().run(tmp, task_vars)
        try:
            result.update(write_page(self, dict(self._task.args), task_vars))
        except OSError as error:
            raise AnsibleActionFail("The report could not be written on the controller: %s" % error) from error
        written = [path for path in (result.get("dest"), *(result.get("files") or [])) if path]
        if written:
            result["story"] = [*result["story"], "", "Report: %s" % ", ".join(written)]
        return result
