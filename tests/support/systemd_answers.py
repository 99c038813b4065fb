# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated answers of systemd's programs, for a machine that may have none."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import Finished

HERE = os.getpid()


class Answers:
    """Simulates systemctl and journalctl; the main process of the unit is this process."""

    def __init__(self, **properties: Any) -> None:
        self.properties: Dict[str, Any] = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "Result": "success",
            "MainPID": HERE,
            "NRestarts": 0,
            "ControlGroup": "",
            "TriggeredBy": "",
            "ActiveEnterTimestampMonotonic": 1,
            **properties,
        }
        self.called: List[List[str]] = []
        self.after_restart: Dict[str, Any] = {}
        self.log = ""
        self.triggers = ""

    def run(self, argv: List[str], check: Any = None, **_keywords: Any) -> Finished:
        action = next(part for part in argv[1:] if not part.startswith("--")) if "systemctl" in argv[0] else "journal"
        self.called.append([action, *argv])
        if action == "restart":
            self.properties.update(self.after_restart)
        if action == "stop":
            self.properties.update(ActiveState="inactive", MainPID=0)
        text = {
            "show": "".join("%s=%s\n" % pair for pair in self.properties.items()),
            "journal": self.log if "--output=cat" in argv else '{"__CURSOR":"s=1;i=2"}\n',
            "is-active": self.triggers,
        }.get(action, "")
        return Finished(argv, 0, text, "")

    @property
    def actions(self) -> List[str]:
        return [call[0] for call in self.called if call[0] not in ("show", "journal")]
