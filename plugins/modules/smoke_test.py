#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Test an application by requests that are given as data
version_added: "0.1.0"
description:
  - Waits until an application is healthy, when O(health_url) is given, then sends it the requests in O(steps) and compares the answers.
  - After the first wrong answer only the steps with C(cleanup) are run, so that rows which the test created do not stay.
  - Redirects are not followed and no proxy is used.
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
      - It makes no lasting changes.
options:
  url:
    description: Address of the application, without a path.
    type: str
    default: ""
  steps:
    description:
      - The requests, in their order. Each is a dictionary with C(name), C(path), and optionally C(method) (V(GET)), C(headers), C(body) (sent as
        JSON), C(status) (a number or a list, V(200)), C(expect) (what the JSON answer must contain; it may contain more), C(save) (name of a value to
        its path in the answer, such as V(purchase.id)) and C(cleanup) (V(true) for a step that is run after a failure too).
      - C(path), C(headers), C(body) and C(expect) of later steps take saved values in place of V(${name}).
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
    description: Address to ask until it answers with a status from 200 to 299.
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
  - "On failure: The message names each step with what was found and what was expected; RV(results) has all steps. Cleanup steps have been
    run."
  - "How to undo: Nothing to undo where the steps clean up what they make. A cleanup step that fails is reported, with the request to send again."
seealso:
  - module: backstop.postgres.application_service
  - module: backstop.postgres.release_trial
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
  description: Time until the application was healthy.
  returned: success
  type: float
  sample: 1.1
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import smoke, smoke_steps, web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    steps = smoke_steps.parse(params["steps"])
    if not steps and not params["health_url"]:
        raise Refused("There is nothing to test", expected="steps, a health_url, or both")
    if steps and not params["url"]:
        raise Refused("The address of the application is missing", expected="url")
    if request.check_mode:
        return dict(changed=False, passed=None, results=[], seconds=0.0, seconds_to_health=0.0)
    waited = 0.0
    if params["health_url"]:
        health = web.wait_healthy(params["health_url"], params["health_expect"], timeout=params["health_timeout"])
        waited = health.seconds
    if not steps:
        return dict(changed=False, passed=True, results=[], seconds=0.0, seconds_to_health=round(waited, 3))
    report = smoke.run(params["url"], steps, timeout=params["timeout"], headers=_texts(params["headers"]))
    return dict(changed=False, seconds_to_health=round(waited, 3), **report.require_passed())


def _texts(given: Dict[Any, Any]) -> Dict[str, str]:
    return {str(name): str(value) for name, value in given.items()}


def main() -> None:
    run_module(
        dict(
            url=dict(type="str", default=""),
            steps=dict(type="list", elements="dict", default=[]),
            headers=dict(type="dict", default={}, no_log=True),
            timeout=dict(type="float", default=10),
            health_url=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            health_timeout=dict(type="float", default=60),
        ),
        act,
    )


if __name__ == "__main__":
    main()
