#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_unit
short_description: See that an application runs as a unit of systemd, in the wanted release and nowhere else
version_added: "0.1.0"
description:
  - Starts or stops a service unit that is there already; units are not written.
  - The exit status of C(systemctl start) is not believed, it is 0 for an application that crashes a moment later. What counts is what systemd
    says afterwards, and in which directory the main process works.
  - A unit that is active in another directory is restarted. With C(WorkingDirectory=) set to the link to the current release, a unit stays in
    the release to which the link led when it was started.
  - Whether the application answers is not asked here; see M(backstop.postgres.smoke_test).
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of the unit, with or without C(.service).
    type: str
    required: true
  scope:
    description: Whose systemd it is, V(system) or V(user) for that of the user who runs this.
    type: str
    choices: [system, user]
    default: system
  state:
    description:
      - V(started) means active in O(cwd) and no restart for O(stable) seconds.
      - V(stopped) means that nothing of the unit runs, what it started and left behind included. It is refused while a socket or a timer
        would start the unit again.
    type: str
    choices: [started, stopped]
    default: started
  cwd:
    description: Directory of the release to run in, for O(state=started). A link is followed before the start.
    type: path
  wait:
    description: Seconds to wait until the application is active, or gone.
    type: float
    default: 30
  stable:
    description: Seconds for which it must stay active without a restart.
    type: float
    default: 2
notes:
  - "On failure: With O(state=started), a unit that crashes is left as it is; the message has the end of its log, without the
    secrets in C(.env). With O(state=stopped), systemd goes on stopping the unit by the unit's own settings."
  - "How to undo: With the status and directory in RV(previous)."
  - The program must work in the directory that it was started in; one that changes it cannot be told from another release.
  - For V(system) it must be run by root, with C(become) if need be; for V(user) by the user, whose systemd must be running
    (C(loginctl enable-linger)).
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.pm2_process
  - module: backstop.postgres.smoke_test
"""

EXAMPLES = r"""
- name: Run the current release
  backstop.postgres.systemd_unit:
    name: electricity-tokens
    cwd: /srv/electricity-tokens/current
  become: true

- name: Stop it
  backstop.postgres.systemd_unit:
    name: electricity-tokens
    state: stopped
  become: true
"""

RETURN = r"""
status:
  description: What systemd says of the unit now; V(absent) when it knows none. In check mode, what it would say.
  returned: success
  type: str
  sample: active
previous:
  description: Status and directory before.
  returned: success
  type: dict
  contains:
    status:
      description: As RV(status).
      type: str
      sample: inactive
    cwd:
      description: Directory in which the main process worked; null when there was none.
      type: str
      sample: /srv/electricity-tokens/releases/f901234567f901234567f901234567f901234567
processes:
  description: The main process with status, pid, restarts and cwd.
  returned: success, not in check mode
  type: list
  elements: dict
  sample: [{status: active, pid: 4711, restarts: 0, cwd: /srv/electricity-tokens/releases/0a1b2c3d}]
log_cursor:
  description: Place at which the journal ended just before the start; what follows was written since.
  returned: O(state=started), when it was started
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 3.2
"""

import os
import time
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.systemd import SCOPES, Unit


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    started = time.monotonic()
    unit = Unit(params["name"], params["scope"])
    previous = unit.state()
    if request.check_mode:
        after, result = _predicted(unit, params)
    else:
        result = _bring_about(unit, params)
        now = unit.state() if result["changed"] else previous
        after = now.summary()
        result["processes"] = [now.facts()] if now.pid else []
    result.update(
        status=after["status"], previous=previous.summary(), seconds=round(time.monotonic() - started, 3)
    )
    return {**result, "diff": dict(before=previous.summary(), after=after)} if request.diff else result


def _bring_about(unit: Unit, params: Dict[str, Any]) -> Dict[str, Any]:
    if params["state"] == "stopped":
        return dict(changed=unit.stop(wait=params["wait"]))
    cursor = unit.log_cursor()
    if not unit.start(params["cwd"], wait=params["wait"], stable=params["stable"]):
        return dict(changed=False)
    return dict(changed=True, log_cursor=cursor)


def _predicted(unit: Unit, params: Dict[str, Any]) -> Any:
    found = unit.state()
    if params["state"] == "started":
        runs = unit.runs_in(params["cwd"], params["stable"])
        return dict(status="active", cwd=os.path.realpath(params["cwd"])), dict(changed=not runs)
    if not found.running:
        return found.summary(), dict(changed=False)
    return dict(status="inactive", cwd=None), dict(changed=True)


def main() -> None:
    run_module(
        dict(
            name=dict(type="str", required=True),
            scope=dict(type="str", choices=list(SCOPES), default="system"),
            state=dict(type="str", choices=["started", "stopped"], default="started"),
            cwd=dict(type="path"),
            wait=dict(type="float", default=30),
            stable=dict(type="float", default=2),
        ),
        act,
        required_if=[("state", "started", ("cwd",))],
    )


if __name__ == "__main__":
    main()
