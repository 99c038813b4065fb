#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Try an application by requests that are given as data
version_added: "0.1.0"
description:
  - Waits until an application is healthy, when O(health_url) is given, then sends it the requests in O(steps) and compares the answers.
  - After the first answer that is wrong, only the steps with C(cleanup) are run, so that rows which the test made do not stay.
  - With O(trial), the application is started first, by a plain command on a port of its own, and ended afterwards with all that it started.
  - Redirections are not followed and no proxy is asked.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
    details:
      - The data are checked; nothing is started and no request is sent.
  diff_mode:
    support: N/A
    details:
      - It changes nothing that stays.
options:
  url:
    description:
      - Address of the application, without a path.
      - With O(trial) it may be empty, which means V(http://127.0.0.1) with the port of the trial; V(${port}) in it stands for that port.
    type: str
    default: ""
  steps:
    description:
      - The requests, in their order. Each is a dictionary with C(name), C(path), and if wanted C(method) (V(GET)), C(headers), C(body) (sent
        as JSON),
        C(status) (a number or a list, V(200)), C(expect) (what the JSON answer must contain; it may contain more),
        C(save) (name of a value to the place of it in the answer, such as V(purchase.id)) and C(cleanup) (V(true) for a step that is run after a failure too).
      - C(path), C(headers), C(body) and C(expect) of later steps take saved values in the place of V(${name}).
    type: list
    elements: dict
    default: []
  headers:
    description:
      - Headers for every request, such as C(Authorization). Their values are kept out of the result, wherever they occur in it.
    type: dict
    default: {}
  timeout:
    description: Seconds for each request.
    type: float
    default: 10
  health_url:
    description: Address to ask until it answers with a status from 200 to 299. V(${port}) stands for the port of the trial.
    type: str
    default: ""
  health_expect:
    description: What the JSON answer of O(health_url) must contain.
    type: dict
    default: {}
  health_timeout:
    description: Seconds to wait for health, or for a trial to listen on its port.
    type: float
    default: 60
  trial:
    description: Start the application for the test.
    type: dict
    suboptions:
      command:
        description: The command as a list of arguments; no shell.
        type: list
        elements: str
        required: true
      cwd:
        description: Directory of the release.
        type: path
        required: true
      environment:
        description:
          - Environment variables of the application. The values are taken for secrets and hidden wherever they occur in the result,
            so plain settings are better kept in O(trial.environment_file).
        type: dict
        default: {}
      environment_file:
        description: File of lines C(NAME=value) with more environment variables. O(trial.environment) wins.
        type: path
      environment_rules:
        description: How O(trial.environment_file) is read, as Node's packages dotenv and dotenv-expand or as systemd does.
        type: str
        choices: [dotenv, systemd]
        default: dotenv
      port:
        description: Port to listen on; V(0) for any that is free.
        type: int
        default: 0
      port_variable:
        description: Environment variable that tells the application its port.
        type: str
        default: PORT
      node_bin_dir:
        description: Directory of the C(node) that the command finds first.
        type: path
notes:
  - "On failure: The message names each step with what was found and what was expected; RV(results) has all steps. Cleanup steps have been
    run. After a failed trial, C(output) has the end of what the application said, without secrets."
  - "How to undo: Nothing to undo where the steps clean up what they make. A cleanup step that fails is reported, with the request to send again."
seealso:
  - module: backstop.postgres.pm2_process
"""

EXAMPLES = r"""
- name: Wait until the application is healthy
  backstop.postgres.smoke_test:
    health_url: http://127.0.0.1:3000/api/health

- name: Create, read and delete a purchase
  backstop.postgres.smoke_test:
    url: http://127.0.0.1:3000
    steps:
      - name: list users
        path: /api/users?limit=1
        save: {user: users.0.id}
      - name: create a purchase
        method: POST
        path: /api/purchases
        body: {userId: "${user}", totalTokens: 10, totalPayment: 25, purchaseDate: "2025-11-08T02:00:00Z"}
        status: 201
        save: {purchase: id}
      - name: read it
        path: /api/purchases/${purchase}
        expect: {totalTokens: 10}
      - name: delete it
        method: DELETE
        path: /api/purchases/${purchase}
        status: 204
        cleanup: true

- name: Try a release on another database
  backstop.postgres.smoke_test:
    health_url: http://127.0.0.1:${port}/api/health
    trial:
      command: [node, dist/server.js]
      cwd: /srv/electricity-tokens/current
      environment:
        DATABASE_URL: "{{ scratch_database_url }}"
"""

RETURN = r"""
passed:
  description: Whether health and every step were as expected; null in check mode.
  returned: always
  type: bool
  sample: true
results:
  description: Each step with name, passed, skipped, cleanup, status, expected, found and milliseconds.
  returned: always
  type: list
  elements: dict
  sample: [{name: read it, passed: true, skipped: false, cleanup: false, status: 200, expected: status 200, found: status 200, milliseconds: 12}]
seconds:
  description: How long all steps took.
  returned: success
  type: float
  sample: 0.4
seconds_to_health:
  description: How long it took until the application was healthy, or listened on its port.
  returned: success
  type: float
  sample: 1.1
output:
  description: The last lines that the application wrote in a trial.
  returned: failure of a trial
  type: list
  elements: str
  sample: [listening]
"""

from typing import Any, Dict, List, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import (
    smoke,
    smoke_steps,
    trial,
    web,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import environment_file
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    steps = smoke_steps.parse(params["steps"])
    if not steps and not params["health_url"]:
        raise Refused("There is nothing to test", expected="steps, a health_url, or both")
    if steps and not params["url"] and params["trial"] is None:
        raise Refused("The address of the application is missing", expected="url, or a trial that starts it")
    if request.check_mode:
        return dict(changed=False, passed=None, results=[], seconds=0.0, seconds_to_health=0.0)
    if params["trial"] is None:
        return _test(params, steps, None)
    return _try(params, steps)


def _test(params: Dict[str, Any], steps: List[smoke_steps.Step], port: Optional[int]) -> Dict[str, Any]:
    waited = 0.0
    if params["health_url"] and port is None:
        health = web.wait_healthy(params["health_url"], params["health_expect"], timeout=params["health_timeout"])
        waited = health.seconds
    if not steps:
        return dict(changed=False, passed=True, results=[], seconds=0.0, seconds_to_health=round(waited, 3))
    report = smoke.run(
        _with_port(params["url"], port) or "http://127.0.0.1:%d" % (port or 0),
        steps,
        timeout=params["timeout"],
        headers={str(name): str(value) for name, value in params["headers"].items()},
    )
    results = report.facts()
    if not report.passed:
        raise BackstopError(
            "%d of %d smoke tests failed" % (len(report.failed), len(steps)),
            found=report.summary(),
            details=dict(passed=False, results=results),
        )
    return dict(
        changed=False, passed=True, results=results, seconds=round(report.seconds, 3), seconds_to_health=round(waited, 3)
    )


def _try(params: Dict[str, Any], steps: List[smoke_steps.Step]) -> Dict[str, Any]:
    options = params["trial"]
    port = options["port"] or trial.free_port()
    given = options["environment_file"]
    settings = environment_file.read(given, options["environment_rules"]) if given else {}
    settings.update({str(name): str(value) for name, value in options["environment"].items()})
    outcome = trial.run(
        options["command"],
        lambda: _test(params, steps, port),
        health_url=_with_port(params["health_url"], port),
        expect=params["health_expect"],
        health_timeout=params["health_timeout"],
        cwd=options["cwd"],
        port=port,
        port_variable=options["port_variable"],
        environment=settings,
        node_bin_dir=options["node_bin_dir"],
    )
    return {**outcome.value, "seconds_to_health": round(outcome.seconds_to_health, 3)}


def _with_port(url: str, port: Optional[int]) -> str:
    return url.replace("${port}", str(port)) if port else url


def main() -> None:
    trial_options = dict(
        command=dict(type="list", elements="str", required=True),
        cwd=dict(type="path", required=True),
        environment=dict(type="dict", default={}, no_log=True),
        environment_file=dict(type="path"),
        environment_rules=dict(type="str", choices=list(environment_file.RULES), default="dotenv"),
        port=dict(type="int", default=0),
        port_variable=dict(type="str", default="PORT"),
        node_bin_dir=dict(type="path"),
    )
    run_module(
        dict(
            url=dict(type="str", default=""),
            steps=dict(type="list", elements="dict", default=[]),
            headers=dict(type="dict", default={}, no_log=True),
            timeout=dict(type="float", default=10),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            health_timeout=dict(type="float", default=60),
            trial=dict(type="dict", options=trial_options),
        ),
        act,
    )


if __name__ == "__main__":
    main()
