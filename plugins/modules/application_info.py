#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_info
short_description: Return which release of an application is current, what runs, and whether it is healthy
version_added: "0.1.0"
description:
  - Reads the link to the current release, asks the process manager what runs where, and asks the application for its health. Nothing is started, not
    even pm2's daemon. Options that only a start or a stop needs are ignored.
  - With O(log_start), also returns the lines of the log since then that look like errors.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.service
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
  health_url:
    description: Address to ask once for health.
    type: str
    default: ""
  health_expect:
    description: What the JSON answer must contain.
    type: dict
    default: {}
  log_start:
    description: The position of the log before a start, from RV(backstop.postgres.application_service#module:log_start).
    type: raw
  log_error_pattern:
    description: Regular expression, in Python's form, of the lines that look like errors.
    type: str
    default: '(?i)\b(error|exception|fatal|unhandled)\b'
notes:
  - "On failure: Nothing was changed. An application that does not run or does not answer is a result, not a failure."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.application_release
  - module: backstop.postgres.application_service
"""

EXAMPLES = r"""
- name: Check what runs
  backstop.postgres.application_info:
    root: /srv/electricity-tokens
    manager: pm2
    pm2:
      name: electricity-tokens
      home: /var/lib/electricity-tokens/.pm2
    health_url: http://127.0.0.1:3000/api/health
  register: application
"""

RETURN = r"""
commit:
  description: The commit that C(current) points to; null when it points to no release.
  returned: success
  type: str
  sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
running:
  description: Whether all processes of the application are online in the release of RV(commit). False also when an older release still runs.
  returned: success
  type: bool
  sample: true
running_commits:
  description:
    - The releases in which processes of the application run.
    - For O(manager=commands), the output of the status command; if that is no commit, the current release, which then cannot be distinguished from others.
  returned: success
  type: list
  elements: str
  sample: [0a1b2c3d4e5f60718293a4b5c6d7e8f901234567]
elsewhere:
  description: Directories outside any release in which processes of the application run; none for O(manager=commands).
  returned: success
  type: list
  elements: str
  sample: [/opt/tokens]
others:
  description:
    - What else runs here that no deploy restarts. The other applications of this pm2, and processes whose working directory is below O(root) or that
      were started from there. Only root can see the directories of other users' processes.
    - None for O(manager=commands), with which the application's own processes cannot be distinguished from others.
  returned: success
  type: list
  elements: str
  sample: [worker (pm2, pid 4712) in /srv/electricity-tokens/releases/0a1b2c3d]
status:
  description: The status in the process manager; V(absent) when it has no such application, V(mixed) when processes differ.
  returned: success
  type: str
  sample: online
healthy:
  description: Whether the application is healthy, by its answer. Without O(health_url), as RV(running).
  returned: success
  type: bool
  sample: true
health:
  description: What was found.
  returned: success
  type: str
  sample: "status 200: {\"status\":\"ok\"}"
processes:
  description: Each process with status, pid, restarts and cwd, under pm2 with pm_id; none for O(manager=commands).
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
      description: When it was built.
      type: str
      sample: "2026-01-01T00:00:00.000Z"
    current:
      description: Whether it is the current one.
      type: bool
      sample: true
log_errors:
  description: Lines of the log since the given position that look like errors, without the secrets in C(.env); the last 20.
  returned: success
  type: list
  elements: str
  sample: []
"""

import re
from typing import Any, Dict, List, Pattern, Tuple

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_service import (
    managed_service,
    service_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service import Running
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import (
    others_below,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    releases = Releases(params["root"])
    commit = releases.current()
    pattern = _pattern(params["log_error_pattern"])
    service = managed_service(request)
    found = service.look(releases)
    places = [str(process["cwd"]) for process in found.processes if process["pid"]]
    running = found.up and commit is not None and set(found.commits) == {commit}
    healthy, health = _health(params, running)
    log_errors: List[str] = []
    if params["log_start"] is not None:
        place = next((str(process["cwd"]) for process in found.processes if process["cwd"]), releases.link)
        lines = service.log_since(params["log_start"], place)
        log_errors = [line for line in lines if pattern.search(line)][-20:]
    return dict(
        changed=False,
        commit=commit,
        running=running,
        running_commits=sorted({one for one in found.commits if one}),
        elsewhere=sorted({place for place in places if releases.commit_at(place) is None}),
        others=[*found.others, *_below(params["root"], found)],
        status=found.status,
        healthy=healthy,
        health=health,
        processes=found.processes,
        releases=[
            {key: release[key] for key in ("commit", "path", "prepared", "current")} for release in releases.finished()
        ],
        log_errors=log_errors,
    )


def _below(root: str, found: Running) -> List[str]:
    """Other processes below the root; none where the application's own processes cannot be distinguished from others."""
    if found.known is None:
        return []
    besides = [int(process["pid"]) for process in found.processes if process["pid"]] + list(found.known)
    return ["%s (pid %d) in %s" % (name, pid, cwd) for pid, name, cwd in others_below(root, besides)]


def _health(params: Dict[str, Any], running: bool) -> Tuple[bool, str]:
    """Without a health URL a running application counts as healthy: else each deploy would find something to do."""
    if not params["health_url"]:
        return running, "not asked"
    try:
        return True, web.check_health(params["health_url"], params["health_expect"]).short()
    except Refused:
        raise
    except BackstopError as error:
        return False, error.found or str(error)


def _pattern(text: str) -> Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise Refused("Invalid regular expression for errors in the log", found=str(error)) from error


def main() -> None:
    run_module(
        dict(
            service_argument_spec(),
            root=dict(type="path", required=True),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            log_start=dict(type="raw"),
            log_error_pattern=dict(type="str", default=r"(?i)\b(error|exception|fatal|unhandled)\b"),
        ),
        act,
    )


if __name__ == "__main__":
    main()
