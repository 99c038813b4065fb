#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_info
short_description: Tell which release of an application is current, what runs, and whether it is healthy
version_added: "0.1.0"
description:
  - Reads the link to the current release, asks the process manager what runs where, and asks the application for its health. Nothing is
    started for that, not even pm2's daemon.
  - With O(log_positions), tells also which lines of the log since then look like errors.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options:
  root:
    description: Directory with the releases, as in M(backstop.postgres.application_release).
    type: path
    required: true
  pm2:
    description: The application's process under pm2.
    type: dict
    required: true
    suboptions:
      name:
        description: Name of the application.
        type: str
        required: true
      executable:
        description: Path of pm2, or its name.
        type: str
        default: pm2
      home:
        description: C(PM2_HOME).
        type: path
        required: true
      node_bin_dir:
        description: Directory of the C(node) that runs pm2.
        type: path
  health_url:
    description: Address to ask once for health.
    type: str
    default: ""
  health_expect:
    description: What the JSON answer must contain.
    type: dict
    default: {}
  log_positions:
    description: Path and size of log files, as RV(backstop.postgres.pm2_process#module:log_positions) has them.
    type: dict
    default: {}
  log_error_pattern:
    description: Regular expression, in Python's form, of the lines that look like errors.
    type: str
    default: '(?i)\b(error|exception|fatal|unhandled)\b'
notes:
  - "On failure: Nothing was changed. An application that does not run or does not answer is a result, no failure."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.pm2_process
"""

EXAMPLES = r"""
- name: See what runs
  backstop.postgres.application_info:
    root: /srv/electricity-tokens
    pm2:
      name: electricity-tokens
      home: /var/lib/electricity-tokens/.pm2
    health_url: http://127.0.0.1:3000/api/health
  register: application
"""

RETURN = r"""
commit:
  description: The commit that C(current) leads to; null when it leads to no release.
  returned: success
  type: str
  sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
running:
  description: Whether all processes of the application are online in the release of RV(commit). False also when an older release still runs.
  returned: success
  type: bool
  sample: true
running_commits:
  description: The releases in which processes of the application are.
  returned: success
  type: list
  elements: str
  sample: [0a1b2c3d4e5f60718293a4b5c6d7e8f901234567]
status:
  description: What the process manager says; V(absent) when it knows no such application, V(mixed) when processes differ.
  returned: success
  type: str
  sample: online
healthy:
  description: Whether the application answered as a healthy one. False without O(health_url).
  returned: success
  type: bool
  sample: true
health:
  description: What was found.
  returned: success
  type: str
  sample: "status 200: {\"status\":\"ok\"}"
processes:
  description: Each process with pm_id, status, pid, restarts and cwd.
  returned: success
  type: list
  elements: dict
  sample: [{pm_id: 0, status: online, pid: 4711, restarts: 0, cwd: /srv/electricity-tokens/releases/0a1b2c3d}]
releases:
  description: The complete releases, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    commit:
      description: The full commit.
      type: str
      sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
    path:
      description: Its directory.
      type: str
      sample: /srv/electricity-tokens/releases/0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
    prepared:
      description: When it was made.
      type: str
      sample: "2026-01-01T00:00:00.000Z"
    current:
      description: Whether it is the current one.
      type: bool
      sample: true
log_errors:
  description: Lines of the log since O(log_positions) that look like errors, without the secrets in C(.env); the last 20.
  returned: success
  type: list
  elements: str
  sample: []
"""

import re
from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import (
    Pm2,
    errors_in_logs,
    status_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    releases = Releases(params["root"])
    pm2 = Pm2(params["pm2"]["executable"], params["pm2"]["home"], params["pm2"]["node_bin_dir"])
    found = pm2.processes(params["pm2"]["name"])
    commit = releases.current()
    places = [releases.commit_at(process.cwd) for process in found if process.running]
    healthy, health = _health(params)
    return dict(
        changed=False,
        commit=commit,
        running=bool(found) and commit is not None and status_of(found) == "online" and set(places) == {commit},
        running_commits=sorted({place for place in places if place}),
        status=status_of(found),
        healthy=healthy,
        health=health,
        processes=[process.facts() for process in found],
        releases=[
            {key: release[key] for key in ("commit", "path", "prepared", "current")} for release in releases.finished()
        ],
        log_errors=_log_errors(params, found[0].cwd if found else releases.link),
    )


def _health(params: Dict[str, Any]) -> Any:
    if not params["health_url"]:
        return False, "not asked"
    try:
        return True, web.check_health(params["health_url"], params["health_expect"]).short()
    except Refused:
        raise
    except BackstopError as error:
        return False, error.found or str(error)


def _log_errors(params: Dict[str, Any], place: str) -> List[str]:
    try:
        pattern = re.compile(params["log_error_pattern"])
    except re.error as error:
        raise Refused("The pattern for errors in the log is no regular expression", found=str(error)) from error
    positions = {str(path): int(size) for path, size in params["log_positions"].items()}
    return errors_in_logs(positions, pattern, place)


def main() -> None:
    pm2_options = dict(
        name=dict(type="str", required=True),
        executable=dict(type="str", default="pm2"),
        home=dict(type="path", required=True),
        node_bin_dir=dict(type="path"),
    )
    run_module(
        dict(
            root=dict(type="path", required=True),
            pm2=dict(type="dict", required=True, options=pm2_options),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            log_positions=dict(type="dict", default={}),
            log_error_pattern=dict(type="str", default=r"(?i)\b(error|exception|fatal|unhandled)\b"),
        ),
        act,
    )


if __name__ == "__main__":
    main()
