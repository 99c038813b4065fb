#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_process
short_description: See that an application runs under pm2, in the wanted release and nowhere else
version_added: "0.1.0"
description:
  - Starts, stops or removes an application by its name. Other applications of the same pm2 are not touched.
  - pm2's exit status is not believed, it is 0 for an application that crashes at once. What counts is what pm2 and the system say afterwards.
  - An application that runs in another directory is deleted and started anew, because pm2 keeps the old directory and environment when it restarts.
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
    description: Name of the application, as in its ecosystem file.
    type: str
    required: true
  state:
    description:
      - V(started) means online in O(cwd) and no restart for O(stable) seconds.
      - V(stopped) means that nothing of it runs, neither a process of it nor what it started, also when pm2's daemon was killed.
      - V(absent) means in addition that pm2 does not know it.
    type: str
    choices: [started, stopped, absent]
    default: started
  executable:
    description: Path of pm2, or its name when it is found in O(node_bin_dir) or C(PATH).
    type: str
    default: pm2
  home:
    description:
      - C(PM2_HOME), owned by the user who runs this. It is made when it is missing.
      - At most 98 bytes long, because pm2 keeps its sockets there.
    type: path
    required: true
  cwd:
    description: Directory of the release to run in, for O(state=started). A link is followed before the start.
    type: path
  ecosystem_file:
    description: pm2's description of the application, relative to O(cwd). Only the application O(name) of it is started.
    type: str
    default: ecosystem.config.js
  node_bin_dir:
    description: Directory of the C(node) that runs pm2 and the application.
    type: path
  wait:
    description: Seconds to wait until the application is online, or gone.
    type: float
    default: 30
  stable:
    description: Seconds for which it must stay online without a restart.
    type: float
    default: 2
  save:
    description: Where pm2 has a saved list for the next boot, save it again after a start or a removal, so that a boot brings back what runs now.
    type: bool
    default: true
notes:
  - "On failure: With O(state=started), a process that crashes is left under pm2 as it is; the message has the end of its log, without the
    secrets in C(.env). Nothing is stopped when the ecosystem file is missing or is none."
  - "How to undo: With the status and directory in RV(previous)."
  - The application gets C(PATH), C(HOME), C(LANG), C(TZ) and C(TMPDIR) from here and nothing else, because pm2 keeps what it gets for ever.
    Its settings belong in its ecosystem file and its environment file.
  - Run it as the user that owns the application, with C(become) if need be.
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.smoke_test
"""

EXAMPLES = r"""
- name: Run the current release
  backstop.postgres.pm2_process:
    name: electricity-tokens
    cwd: /srv/electricity-tokens/current
    home: /var/lib/electricity-tokens/.pm2

- name: Stop it
  backstop.postgres.pm2_process:
    name: electricity-tokens
    state: stopped
    home: /var/lib/electricity-tokens/.pm2
"""

RETURN = r"""
status:
  description: What pm2 says of the processes now; V(absent) when it knows none, V(mixed) when they differ. In check mode, what it would say.
  returned: success
  type: str
  sample: online
previous:
  description: Status and directory before.
  returned: success
  type: dict
  contains:
    status:
      description: As RV(status).
      type: str
      sample: stopped
    cwd:
      description: Directory that the processes were started in, links followed; null when there were none.
      type: str
      sample: /srv/electricity-tokens/releases/f901234567f901234567f901234567f901234567
processes:
  description: Each process with pm_id, status, pid, restarts and cwd.
  returned: success, not in check mode
  type: list
  elements: dict
  sample: [{pm_id: 0, status: online, pid: 4711, restarts: 0, cwd: /srv/electricity-tokens/releases/0a1b2c3d}]
log_positions:
  description: Size of each log file just before the start, by its path; what follows was written since.
  returned: O(state=started), when it was started
  type: dict
  sample: {/var/lib/electricity-tokens/.pm2/logs/electricity-tokens-error.log: 5120}
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 3.2
"""

import os
import time
from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import (
    Outcome,
    Pm2,
    Process,
    summary,
)


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    started = time.monotonic()
    pm2 = Pm2(params["executable"], params["home"], params["node_bin_dir"])
    found = pm2.processes(params["name"])
    previous = summary(found)
    if request.check_mode:
        after, changed = _predict(pm2, params, found)
        result: Dict[str, Any] = dict(changed=changed)
    else:
        sizes = pm2.log_sizes()
        outcome = _bring_about(pm2, params, found)
        after = summary(outcome.processes)
        result = dict(changed=outcome.changed, processes=[process.facts() for process in outcome.processes])
        if outcome.changed and params["state"] == "started":
            logs = {path for process in outcome.processes for path in process.logs}
            result["log_positions"] = {path: sizes.get(path, 0) for path in sorted(logs)}
    result.update(status=after["status"], previous=previous, seconds=round(time.monotonic() - started, 3))
    return {**result, "diff": dict(before=previous, after=after)} if request.diff else result


def _bring_about(pm2: Pm2, params: Dict[str, Any], found: List[Process]) -> Outcome:
    name, wait = params["name"], params["wait"]
    if params["state"] == "stopped":
        return pm2.stop(name, wait=wait, found=found)
    if params["state"] == "absent":
        outcome = pm2.delete(name, wait=wait, found=found)
    else:
        stable = params["stable"]
        outcome = pm2.start(name, params["cwd"], params["ecosystem_file"], wait=wait, stable=stable, found=found)
    if outcome.changed and params["save"]:
        pm2.save()
    return outcome


def _predict(pm2: Pm2, params: Dict[str, Any], found: List[Process]) -> Any:
    name, previous = params["name"], summary(found)
    if params["state"] == "started":
        runs = pm2.runs_in(name, params["cwd"], params["stable"])
        return dict(status="online", cwd=os.path.realpath(params["cwd"])), not runs
    orphans = pm2.orphans(name, found)
    if params["state"] == "absent" or previous["status"] == "absent":
        gone = previous["status"] == "absent"
        return dict(status="absent", cwd=None), bool(orphans) or not gone
    return dict(previous, status="stopped"), bool(orphans) or previous["status"] != "stopped"


def main() -> None:
    run_module(
        dict(
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["started", "stopped", "absent"], default="started"),
            executable=dict(type="str", default="pm2"),
            home=dict(type="path", required=True),
            cwd=dict(type="path"),
            ecosystem_file=dict(type="str", default="ecosystem.config.js"),
            node_bin_dir=dict(type="path"),
            wait=dict(type="float", default=30),
            stable=dict(type="float", default=2),
            save=dict(type="bool", default=True),
        ),
        act,
        required_if=[("state", "started", ("cwd",))],
    )


if __name__ == "__main__":
    main()
