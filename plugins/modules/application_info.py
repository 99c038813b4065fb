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
  - With O(log_positions), O(log_cursor) or O(log_since), tells also which lines of the log since then look like errors.
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
    description: The application's process under pm2. Exactly one of this, O(systemd) and O(commands) is given.
    type: dict
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
  systemd:
    description: The application's unit of systemd. Its directory and its log are read, for which a system unit needs root.
    type: dict
    suboptions:
      unit:
        description: Name of the unit.
        type: str
        required: true
      scope:
        description: Whose systemd it is.
        type: str
        choices: [system, user]
        default: system
  commands:
    description: The application's own commands, as in M(backstop.postgres.service_commands).
    type: dict
    suboptions:
      status:
        description: Ends with status 0 when the application runs, and prints the commit of the release that runs.
        type: list
        elements: str
        required: true
      log:
        description: Prints the log since V(${since}). Without it no log is looked at.
        type: list
        elements: str
        default: []
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
  log_cursor:
    description: Place in the journal, as RV(backstop.postgres.systemd_unit#module:log_cursor) has it.
    type: str
  log_since:
    description: Time of the start, as RV(backstop.postgres.service_commands#module:log_since) has it.
    type: str
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
  - module: backstop.postgres.systemd_unit
  - module: backstop.postgres.service_commands
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
  description:
    - The releases in which processes of the application are.
    - For O(commands), what the status command prints; where that is no commit, the current release, which it then cannot tell from others.
  returned: success
  type: list
  elements: str
  sample: [0a1b2c3d4e5f60718293a4b5c6d7e8f901234567]
elsewhere:
  description: Directories in which processes of the application run that are in no release; none for O(commands).
  returned: success
  type: list
  elements: str
  sample: [/opt/tokens]
others:
  description:
    - What else runs here and no deploy restarts. The other applications of this pm2, and processes that work below O(root) or
      were started from there. Of other users' processes only root sees where they are.
    - None for O(commands), with which the application's own processes cannot be told from others.
  returned: success
  type: list
  elements: str
  sample: [worker (pm2, pid 4712) in /srv/electricity-tokens/releases/0a1b2c3d]
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
  description: Each process with status, pid, restarts and cwd, under pm2 with pm_id; none for O(commands).
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
  description: Lines of the log since the given place that look like errors, without the secrets in C(.env); the last 20.
  returned: success
  type: list
  elements: str
  sample: []
"""

import re
from typing import Any, Dict, List, Mapping, Optional, Pattern, Sequence

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import (
    Pm2,
    errors_in_logs,
    status_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.service_commands import (
    ServiceCommands,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import (
    others_below,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.systemd import SCOPES, Unit
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    releases = Releases(params["root"])
    commit = releases.current()
    pattern = _pattern(params["log_error_pattern"])
    (look,) = [_MANAGERS[name] for name in _MANAGERS if params[name] is not None]
    found = look(params, releases, pattern)
    places = found.pop("places")
    beside = found.pop("beside")
    healthy, health = _health(params)
    return dict(
        found,
        changed=False,
        commit=commit,
        running=found.pop("up") and commit is not None and set(places) == {commit},
        running_commits=sorted({place for place in places if place}),
        elsewhere=_elsewhere(releases, found["processes"]),
        others=beside + _below(params["root"], found["processes"], found.pop("known")),
        healthy=healthy,
        health=health,
        releases=[
            {key: release[key] for key in ("commit", "path", "prepared", "current")} for release in releases.finished()
        ],
    )


def _elsewhere(releases: Releases, processes: Sequence[Mapping[str, Any]]) -> List[str]:
    running = [str(process["cwd"]) for process in processes if process["pid"]]
    return sorted({path for path in running if releases.commit_at(path) is None})


def _below(root: str, own: Sequence[Mapping[str, Any]], known: Optional[Sequence[int]]) -> List[str]:
    if known is None:
        return []
    besides = [int(process["pid"]) for process in own if process["pid"]] + list(known)
    return ["%s (pid %d) in %s" % (name, pid, cwd) for pid, name, cwd in others_below(root, besides)]


# Each of these tells status, whether all is up, the releases of what runs, processes and errors in the log; what else the
# manager keeps, and its pids (None where nobody can tell the application's own processes from others).


def _under_pm2(params: Dict[str, Any], releases: Releases, pattern: Pattern[str]) -> Dict[str, Any]:
    options = params["pm2"]
    pm2 = Pm2(options["executable"], options["home"], options["node_bin_dir"])
    found, others = pm2.processes_and_others(options["name"])
    positions = {str(path): int(size) for path, size in params["log_positions"].items()}
    return dict(
        status=status_of(found),
        up=bool(found) and status_of(found) == "online",
        places=[releases.commit_at(process.cwd) for process in found if process.running],
        processes=[process.facts() for process in found],
        log_errors=errors_in_logs(positions, pattern, found[0].cwd if found else releases.link),
        beside=["%s (pm2, pid %d) in %s" % (one.name, one.pid, one.cwd) for one in others if one.running],
        known=[one.pid for one in others],
    )


def _under_systemd(params: Dict[str, Any], releases: Releases, pattern: Pattern[str]) -> Dict[str, Any]:
    unit = Unit(params["systemd"]["unit"], params["systemd"]["scope"])
    found = unit.state()
    cursor = params["log_cursor"]
    return dict(
        status=found.status,
        up=found.status == "active" and found.pid > 0,
        places=[releases.commit_at(found.cwd)] if found.pid else [],
        processes=[found.facts()] if found.pid else [],
        log_errors=[] if cursor is None else unit.errors_since(cursor, pattern, releases.link),
        beside=[],
        known=[],
    )


def _by_commands(params: Dict[str, Any], releases: Releases, pattern: Pattern[str]) -> Dict[str, Any]:
    options = params["commands"]
    service = ServiceCommands(releases.link, status=options["status"], log=options["log"])
    found = service.state()
    since = params["log_since"]
    return dict(
        status=found.status,
        up=found.running,
        places=(found.commits or [releases.current()]) if found.running else [],
        processes=[],
        log_errors=[] if since is None else service.errors_since(since, pattern),
        beside=[],
        known=None,
    )


_MANAGERS = {"pm2": _under_pm2, "systemd": _under_systemd, "commands": _by_commands}


def _health(params: Dict[str, Any]) -> Any:
    if not params["health_url"]:
        return False, "not asked"
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
        raise Refused("The pattern for errors in the log is no regular expression", found=str(error)) from error


def main() -> None:
    pm2_options = dict(
        name=dict(type="str", required=True),
        executable=dict(type="str", default="pm2"),
        home=dict(type="path", required=True),
        node_bin_dir=dict(type="path"),
    )
    systemd_options = dict(
        unit=dict(type="str", required=True),
        scope=dict(type="str", choices=list(SCOPES), default="system"),
    )
    commands_options = dict(
        status=dict(type="list", elements="str", required=True),
        log=dict(type="list", elements="str", default=[]),
    )
    managers: List[str] = sorted(_MANAGERS)
    run_module(
        dict(
            root=dict(type="path", required=True),
            pm2=dict(type="dict", options=pm2_options),
            systemd=dict(type="dict", options=systemd_options),
            commands=dict(type="dict", options=commands_options),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            log_positions=dict(type="dict", default={}),
            log_cursor=dict(type="str"),
            log_since=dict(type="str"),
            log_error_pattern=dict(type="str", default=r"(?i)\b(error|exception|fatal|unhandled)\b"),
        ),
        act,
        mutually_exclusive=[managers],
        required_one_of=[managers],
    )


if __name__ == "__main__":
    main()
