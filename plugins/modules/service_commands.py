#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_commands
short_description: Start and stop an application by commands of its own, such as those of Docker or a platform
version_added: "0.1.0"
description:
  - For an application that neither pm2 nor systemd runs. What counts is what O(status_command) says afterwards, not the exit status of the others alone.
  - V(${commit}) and V(${release}) in an argument stand for the current release's commit and directory. The commands run in that directory, without a shell.
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
  release:
    description: Directory of the current release; a link is followed.
    type: path
    required: true
  state:
    description:
      - V(started) means that O(status_command) ends with status 0, and that the commit which it prints is that of O(release).
        Where it prints none, O(start_command) is run in any case.
      - V(stopped) means that O(status_command) ends with another status than 0.
    type: str
    choices: [started, stopped]
    default: started
  status_command:
    description:
      - Ends with status 0 when the application runs, and prints the full commit of the release that runs, as one word.
      - What else it prints does not matter.
    type: list
    elements: str
    required: true
  start_command:
    description:
      - Starts the release, or replaces another one by it.
      - It must hand the application over to something else. What stays in the command's own process group is ended with it.
    type: list
    elements: str
    default: []
  stop_command:
    description: Stops the application.
    type: list
    elements: str
    default: []
  wait:
    description: Seconds to wait until the status is as wanted. Each command may take as long, but at least a minute.
    type: float
    default: 30
notes:
  - "On failure: Nothing is undone; the message has the end of what the command said, without the secrets in C(.env)."
  - "How to undo: With O(state) the other way round, or with the former release as O(release)."
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.pm2_process
  - module: backstop.postgres.systemd_unit
"""

EXAMPLES = r"""
- name: Run the current release by a program that tells which commit runs
  backstop.postgres.service_commands:
    release: /srv/electricity-tokens/current
    status_command: [/usr/local/bin/tokens-service, status]
    start_command: [/usr/local/bin/tokens-service, run, "${commit}", "${release}"]

- name: Stop it
  backstop.postgres.service_commands:
    release: /srv/electricity-tokens/current
    state: stopped
    status_command: [/usr/local/bin/tokens-service, status]
    stop_command: [/usr/local/bin/tokens-service, stop]
"""

RETURN = r"""
status:
  description: V(online) or V(stopped), as the status command says now. In check mode, what it would say.
  returned: success
  type: str
  sample: online
previous:
  description: Status and commits before.
  returned: success
  type: dict
  contains:
    status:
      description: As RV(status).
      type: str
      sample: stopped
    commits:
      description: The commits that the status command printed.
      type: list
      elements: str
log_since:
  description: Time just before the start.
  returned: O(state=started), when it was started
  type: str
  sample: "2025-11-08T02:00:00.000Z"
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
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service_commands import (
    ServiceCommands,
    now,
)


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    started = time.monotonic()
    service = ServiceCommands(
        params["release"], status=params["status_command"], start=params["start_command"],
        stop=params["stop_command"], timeout=max(60.0, params["wait"]),
    )
    previous = service.state().summary()
    since = now()
    if request.check_mode:
        after, changed = _predict(service, params["state"], previous)
    else:
        act_on = service.start if params["state"] == "started" else service.stop
        changed = act_on(wait=params["wait"])
        after = service.state().summary() if changed else previous
    result = dict(
        changed=changed, status=after["status"], previous=previous, seconds=round(time.monotonic() - started, 3)
    )
    if changed and params["state"] == "started" and not request.check_mode:
        result["log_since"] = since
    return {**result, "diff": dict(before=previous, after=after)} if request.diff else result


def _predict(service: ServiceCommands, state: str, previous: Dict[str, Any]) -> Any:
    if state == "started":
        return dict(status="online", commits=[os.path.basename(service.release)]), not service.runs_current()
    return dict(status="stopped", commits=[]), previous["status"] != "stopped"


def main() -> None:
    run_module(
        dict(
            release=dict(type="path", required=True),
            state=dict(type="str", choices=["started", "stopped"], default="started"),
            status_command=dict(type="list", elements="str", required=True),
            start_command=dict(type="list", elements="str", default=[]),
            stop_command=dict(type="list", elements="str", default=[]),
            wait=dict(type="float", default=30),
        ),
        act,
    )


if __name__ == "__main__":
    main()
