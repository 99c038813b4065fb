#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_service
short_description: Run an application in the wanted release, or stop it
version_added: "0.1.0"
description:
  - Starts or stops an application under pm2, as a systemd unit, or by its own commands.
  - The exit status of the start command does not count. C(pm2 start) and C(systemctl start) exit with 0 for an application that crashes a moment
    later. What counts is the status in the manager and the system afterwards, and the working directory of the processes.
  - An application that runs in another release is restarted. pm2 keeps the old directory and environment when it restarts, so it is deleted from pm2
    first. A systemd unit stays in the release to which the link pointed when it was started, so it is restarted.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.service
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(started) means that it runs in O(release), and under pm2 and systemd that it was not restarted for some seconds.
        Where O(commands.status) prints no commit, O(commands.start) is run in any case.
      - V(stopped) means that no process of it runs. Under pm2 and systemd that includes processes that it left behind, also when pm2's daemon was
        killed; with O(commands) it means that O(commands.status) ends with a status other than 0. Under systemd it is refused while a socket or a
        timer would start the unit again.
      - V(absent) means in addition that it is not in pm2's list. Only for O(manager=pm2).
    type: str
    choices: [started, stopped, absent]
    default: started
  release:
    description:
      - Directory of the release to run in. A link is followed before the start.
      - Required for O(state=started) and for O(manager=commands).
    type: path
  wait:
    description: Seconds to wait until the application runs, or has ended. Each of O(commands) may take as long, but at least a minute.
    type: float
    default: 30
  health_url:
    description:
      - For O(state=started), address to ask afterwards until it answers with a status from 200 to 299.
      - When empty health is not checked.
    type: str
    default: ""
  health_expect:
    description: What the JSON answer of O(health_url) must contain.
    type: dict
    default: {}
  health_timeout:
    description: Seconds to wait for health.
    type: float
    default: 60
notes:
  - "On failure: With O(state=started), an application that crashes or is unhealthy is left as it is. The message has the end of its log, without the
    secrets in C(.env). Nothing is stopped when pm2's ecosystem file is missing or invalid. With O(state=stopped), systemd continues to stop the unit
    by the unit's own settings."
  - "How to undo: With the opposite O(state), or with the directory in RV(previous) as O(release)."
  - Under pm2 the application gets C(PATH), C(HOME), C(LANG), C(TZ) and C(TMPDIR) from the module's environment and nothing else, because pm2 keeps
    its environment permanently. Its settings belong in its ecosystem file and its environment file.
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.application_info
  - module: backstop.postgres.smoke_test
"""

EXAMPLES = r"""
- name: Stop the application under pm2
  backstop.postgres.application_service:
    manager: pm2
    pm2:
      name: electricity-tokens
      home: /var/lib/electricity-tokens/.pm2
    state: stopped

- name: Run the current release under pm2, and wait until it is healthy
  backstop.postgres.application_service:
    manager: pm2
    pm2:
      name: electricity-tokens
      home: /var/lib/electricity-tokens/.pm2
    release: /srv/electricity-tokens/current
    health_url: http://127.0.0.1:3000/api/health

- name: Run the current release as a unit of systemd
  backstop.postgres.application_service:
    manager: systemd
    systemd:
      unit: electricity-tokens
    release: /srv/electricity-tokens/current
  become: true

- name: Run the current release by a program that returns the commit that runs
  backstop.postgres.application_service:
    manager: commands
    commands:
      status: [/usr/local/bin/tokens-service, status]
      start: [/usr/local/bin/tokens-service, run, "${commit}", "${release}"]
    release: /srv/electricity-tokens/current

- name: Stop what that program runs
  backstop.postgres.application_service:
    manager: commands
    commands:
      status: [/usr/local/bin/tokens-service, status]
      stop: [/usr/local/bin/tokens-service, stop]
    release: /srv/electricity-tokens/current
    state: stopped
"""

RETURN = r"""
status:
  description:
    - The status in pm2 or systemd now, or V(online) and V(stopped) by O(commands.status). V(absent) when the manager has no such application,
      V(mixed) when processes differ.
    - In check mode, the status that it would have.
  returned: success
  type: str
  sample: online
previous:
  description: What ran before.
  returned: success
  type: dict
  contains:
    status:
      description: As RV(status).
      type: str
      sample: stopped
    cwd:
      description: Directory that it ran in, links followed; null when it did not. Not for O(manager=commands).
      type: str
      sample: /srv/electricity-tokens/releases/f901234567f901234567f901234567f901234567
    commits:
      description: The commits that O(commands.status) printed. Only for O(manager=commands).
      type: list
      elements: str
processes:
  description: Each process with status, pid, restarts and cwd, under pm2 with pm_id; of a unit the main process.
  returned: success, not in check mode and not for O(manager=commands)
  type: list
  elements: dict
  sample: [{pm_id: 0, status: online, pid: 4711, restarts: 0, cwd: /srv/electricity-tokens/releases/0a1b2c3d}]
log_start:
  description:
    - Where the log ended just before the start, for O(backstop.postgres.application_info#module:log_start); what follows was written since.
    - With pm2 the size of each log file by its path, with systemd a position in the journal, with O(commands) a time.
  returned: O(state=started), when it was started
  type: raw
  sample: {/var/lib/electricity-tokens/.pm2/logs/electricity-tokens-error.log: 5120}
seconds:
  description: How long it took until it ran, or had ended.
  returned: success
  type: float
  sample: 3.2
seconds_to_health:
  description: How long it took after that until it was healthy.
  returned: O(state=started), with O(health_url), not in check mode
  type: float
  sample: 1.1
"""

import time
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_service import (
    managed_service,
    service_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service import STARTED, STATES


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    started = time.monotonic()
    change = managed_service(request).ensure(
        params["state"], params["release"] or "", wait=params["wait"], effect=not request.check_mode
    )
    result: Dict[str, Any] = dict(
        changed=change.changed,
        status=change.after["status"],
        previous=change.before,
        seconds=round(time.monotonic() - started, 3),
    )
    if change.processes is not None:
        result["processes"] = change.processes
    if change.log_start is not None:
        result["log_start"] = change.log_start
    if params["state"] == STARTED and params["health_url"] and not request.check_mode:
        health = web.wait_healthy(params["health_url"], params["health_expect"], timeout=params["health_timeout"])
        result["seconds_to_health"] = round(health.seconds, 3)
    return {**result, "diff": dict(before=change.before, after=change.after)} if request.diff else result


def main() -> None:
    run_module(
        dict(
            service_argument_spec(),
            state=dict(type="str", choices=list(STATES), default=STARTED),
            release=dict(type="path"),
            wait=dict(type="float", default=30),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            health_timeout=dict(type="float", default=60),
        ),
        act,
        required_if=[("state", STARTED, ("release",)), ("manager", "commands", ("release",))],
    )


if __name__ == "__main__":
    main()
