#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_trial
short_description: Try the old release on a migrated copy
version_added: "0.1.0"
description:
  - Starts a release on its own port, with a scratch database on which a rehearsal ran the migrations, waits until it is healthy, sends it the smoke
    tests, and ends it with all its child processes.
  - The release cannot reach the live database. It runs in a network namespace with only the loopback interface, and cannot create Unix sockets; at
    the database's port there is a relay to the scratch database. If Linux does not allow that, the release is not tried.
  - Variables that point to a database are redirected there. They are found by their values in the C(.env) files of the release and of O(project) and
    in O(environment_file), and by the names in the Prisma schema and configuration.
  - It is also not tried if SQL in the copy could reach other databases or servers, see RV(reason), or as a superuser.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.store
  - backstop.postgres.store.operation
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  database:
    description: The scratch database.
    type: str
    required: true
  release:
    description: Directory of the release.
    type: path
    required: true
  command:
    description: The command that starts it, as a list of arguments; no shell.
    type: list
    elements: str
    required: true
  project:
    description: Its Prisma project directory, if that is not O(release).
    type: path
  schema_path:
    description: Its Prisma schema, if it is not in one of Prisma's usual places; relative to O(project).
    type: str
  config_path:
    description: Its Prisma configuration, if it is not in a usual place; relative to O(project).
    type: str
  environment_file:
    description: File of lines C(NAME=value) with more environment variables.
    type: path
  environment_rules:
    description: How O(environment_file) and the release's C(.env) are read, as Node's packages dotenv and dotenv-expand or as systemd does.
    type: str
    choices: [dotenv, systemd]
    default: dotenv
  port_variable:
    description: Environment variable with the application's port.
    type: str
    default: PORT
  node_bin_dir:
    description: Directory of the C(node) that the command finds first.
    type: path
  steps:
    description: The smoke tests, as O(backstop.postgres.smoke_test#module:steps).
    type: list
    elements: dict
    required: true
  headers:
    description: Headers for every request, such as C(Authorization).
    type: dict
    default: {}
  timeout:
    description: Seconds for each request.
    type: float
    default: 10
  health_path:
    description: Path that answers with a status from 200 to 299 when the application is healthy. When empty it is enough that it listens.
    type: str
    default: ""
  health_expect:
    description: What the JSON answer of O(health_path) must contain.
    type: dict
    default: {}
  health_timeout:
    description: Seconds until it must be healthy.
    type: float
    default: 60
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
notes:
  - "On failure: a release that does not work, or cannot be tried, is a result, not a failure: see RV(works) and RV(reason)."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the started release is ended. After a cut connection or the task's
    C(timeout) it keeps running, and the next step ends it first; see M(backstop.postgres.operation)."
  - "How to undo: Nothing to undo; only the scratch database was written to."
seealso:
  - module: backstop.postgres.prisma_migrate_rehearse
  - module: backstop.postgres.smoke_test
"""

EXAMPLES = r"""
- name: Test the old release on the new schema
  backstop.postgres.release_trial:
    database: "{{ rehearsed.database }}"
    release: /srv/electricity-tokens/releases/9f8e7d
    command: [npm, start]
    health_path: /api/health
    steps:
      - name: list users
        path: /api/users?limit=1
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
tried:
  description: Whether it was tried.
  returned: success
  type: bool
works:
  description: Whether health and every step were as expected. Only true after a trial that could not reach another database.
  returned: success
  type: bool
reason:
  description: Why it does not work, or was not tried.
  returned: it does not work
  type: str
results:
  description: Each step, as RV(backstop.postgres.smoke_test#module:results).
  returned: a smoke test was sent
  type: list
  elements: dict
output:
  description: The last lines that the release wrote, without secrets.
  returned: it was tried and does not work
  type: list
  elements: str
seconds:
  description: How long all steps took.
  returned: it works
  type: float
seconds_to_health:
  description: Time until the release was healthy, or listened on its port.
  returned: it works
  type: float
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import smoke, smoke_steps
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.trial import Health
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.environment_file import RULES
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.old_release import (
    OldRelease,
    try_old_release,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import OLD_RELEASE


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    steps = smoke_steps.parse(params["steps"])
    if not steps:
        raise Refused("There is nothing to test", expected="steps")
    if request.check_mode:
        return {"changed": False, "tried": False, "works": False, "reason": "check mode tries nothing"}

    def test(port: int) -> Dict[str, Any]:
        headers = {str(name): str(value) for name, value in params["headers"].items()}
        report = smoke.run("http://127.0.0.1:%d" % port, steps, timeout=params["timeout"], headers=headers)
        return report.require_passed()

    release = OldRelease(
        params["release"],
        Project(params["project"] or params["release"], params["schema_path"], params["config_path"]),
        params["command"],
        environment_files=[params["environment_file"]] if params["environment_file"] else [],
        environment_rules=params["environment_rules"],
        port_variable=params["port_variable"],
        node_bin_dir=params["node_bin_dir"],
        health_path=params["health_path"],
        health=Health(expect=params["health_expect"], timeout=params["health_timeout"]),
    )
    with journaled_step(request.run, OLD_RELEASE) as facts:
        found = try_old_release(request.run, params["database"], release, test).to_json()
        facts.update({key: found[key] for key in ("tried", "works", "reason") if key in found})
    return {"changed": False, **found}


def main() -> None:
    run_module(
        dict(
            database=dict(type="str", required=True),
            release=dict(type="path", required=True),
            command=dict(type="list", elements="str", required=True),
            project=dict(type="path"),
            schema_path=dict(type="str"),
            config_path=dict(type="str"),
            environment_file=dict(type="path"),
            environment_rules=dict(type="str", choices=list(RULES), default="dotenv"),
            port_variable=dict(type="str", default="PORT"),
            node_bin_dir=dict(type="path"),
            steps=dict(type="list", elements="dict", required=True),
            headers=dict(type="dict", default={}, no_log=True),
            timeout=dict(type="float", default=10),
            health_path=dict(type="str", default=""),
            health_expect=dict(type="dict", default={}),
            health_timeout=dict(type="float", default=60),
            **store_argument_spec(operation=True),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
