#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_gates_info
short_description: Evaluate the gates of a deploy
version_added: "0.1.0"
description:
  - Evaluates all preconditions of a deploy on the database, the store and the history in one call. A gate that could not be evaluated is a failed
    one.
  - What a rollback would need is tried in scratch databases that are dropped again, also in check mode. Nothing else is changed. With O(operation)
    the result is written to its journal; without that nothing is migrated.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.store
  - backstop.postgres.store.operation
  - backstop.postgres.prisma.files
attributes:
  check_mode:
    support: full
    details:
      - What a rollback would need is tried in check mode too, in scratch databases that are dropped again.
  diff_mode:
    support: N/A
options:
  migrations_path:
    description: Migrations folder of the release that is to be deployed.
    type: path
  migrations:
    description: Its contents, name of the migration to SQL, if there is no folder yet.
    type: dict
  expected:
    description: The only migrations that may be pending.
    type: list
    elements: str
    required: true
  environment_file:
    description:
      - File with the release's own URL, for the gate that compares which database it reaches.
      - Its variables are those of the Prisma schema (C(url) and C(directUrl)). Where the schema has none, it is C(DATABASE_URL) and those of
        Prisma's configuration. Without O(project) it is C(DATABASE_URL), else each that holds a URL of PostgreSQL.
    type: path
  project:
    description: Directory of the prepared release, where its Prisma schema is.
    type: path
  environment_rules:
    description: How the application's start reads O(environment_file), as Node's packages dotenv and dotenv-expand or as systemd.
    type: str
    choices: [dotenv, systemd]
    default: dotenv
  database_directory:
    description: The server's data directory, when it is on this host; its free space is checked.
    type: path
  database_free_bytes:
    description: Declared free space of the server's data, when it is on another host.
    type: int
  server_programs_version:
    description: Declared version of the server's programs on its disk, when it is on another host.
    type: str
  applications:
    description:
      - The application on every host, by the host's name with C(commit) (none where no release is installed), C(running), C(healthy) and
        C(elsewhere), as M(backstop.postgres.application_info) returns them.
      - Without it the gate V(application) cannot be evaluated, so it is closed.
    type: dict
  drift:
    description:
      - Whether the live schema may differ from the applied migrations. V(show) only reports the differences, V(refuse) closes the gate V(drift).
      - The migrations are run in a scratch database and both are compared object by object, except owners and privileges.
    type: str
    choices: [show, refuse]
    default: show
  plan:
    description: What RV(plan) describes besides the gates, for check mode.
    type: dict
    suboptions:
      commit:
        description: The release that is wanted.
        type: str
        required: true
      former:
        description: The release that runs; empty where there is none.
        type: str
        default: ""
      pending:
        description: The pending migrations.
        type: list
        elements: str
        required: true
      hosts:
        description: Hosts of the application.
        type: list
        elements: str
        required: true
      confirm:
        description: Whether the operator is asked before the application is stopped.
        type: bool
        default: false
  safety_copy:
    description:
      - How the live database is copied on its server right before the migration, so that going back needs no restore. The copy is no backup.
      - V(clone) shares the blocks of its files, in about the time of a checkpoint. It needs PostgreSQL 18 or newer and a file system that does that.
        V(template) copies every file. V(auto) clones where a scratch database shows that this works, and makes no copy elsewhere.
    type: str
    choices: ["off", auto, clone, template]
    default: "off"
  safety_copy_seconds:
    description: How long that may take, as estimated from a scratch database. The application is stopped meanwhile.
    type: float
    default: 60
  waivers:
    description:
      - Gates to waive, name to reason. The reason must not be empty; it is kept in RV(gates) and in the journal.
    type: dict
    default: {}
notes:
  - "On failure: a failed gate is not a failure of this module; see RV(passed)."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.rollback_plan_info
  - module: backstop.postgres.application_info
"""

EXAMPLES = r"""
- name: Evaluate the gates
  backstop.postgres.deploy_gates_info:
    migrations_path: /srv/electricity-tokens/current/prisma/migrations
    expected: [20251108000000_add_receipt_data]
    environment_file: /srv/electricity-tokens/shared/.env
    applications:
      app1:
        commit: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
        running: true
        healthy: true
    waivers:
      database_disk: The volume grows by itself.
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: gates
"""

RETURN = r"""
passed:
  description: Whether every gate passed or was waived.
  returned: success
  type: bool
gates:
  description: Each gate with name, passed, found, expected, hint and waived.
  returned: success
  type: list
  elements: dict
rollback:
  description:
    - What a complete rollback would be, whatever was waived. V(swap), a new database takes the live name; V(in_place), the live database cannot be
      renamed but this role owns all that is in it; V(refused), a backup could not be restored.
  returned: success
  type: str
  sample: swap
safety_copy:
  description: How the database will be copied right before the migration, V(clone) or V(template); empty means not at all.
  returned: success
  type: str
waived:
  description: Name and reason of each gate that did not pass but was waived.
  returned: success
  type: dict
  sample: {database_disk: The volume grows by itself.}
closed:
  description: One sentence for each gate that did not pass.
  returned: success
  type: list
  elements: str
refusal:
  description: How many gates are closed, and all of RV(closed); empty if none is.
  returned: success
  type: str
story:
  description: The gates as a table of short lines, the closed and the waived ones first.
  returned: success
  type: list
  elements: str
plan:
  description: What a deploy would do, as short lines to show.
  returned: when O(plan) is given and no gate is closed
  type: list
  elements: str
"""

import functools
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    pooler_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import environment_file
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import story
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.connections import (
    release_connections,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import (
    evaluate,
    rollback_way,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.inputs import GateInputs
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.safety_copy import (
    SAFETY_COPIES,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import forecast
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import GATES


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    if site.operation is not None and not request.check_mode:
        site.operation.write(GATES, "began")
    question = _question(request)
    gates = evaluate(site, question)
    passed = all(gate.passed for gate in gates)
    closed = story.sentences(gates)
    waived = {gate.name: gate.waived for gate in gates if gate.waived is not None}
    rollback = rollback_way(site, gates)
    result = {
        "passed": passed,
        "gates": [gate.to_json() for gate in gates],
        "closed": closed,
        "refusal": story.refusal(gates),
        "waived": waived,
        "rollback": rollback,
        "safety_copy": question.copy_method,
        "story": story.table(gates),
    }
    if passed and request.params["plan"]:
        wanted = story.Wanted(**request.params["plan"])
        result["plan"] = story.would_do(gates, rollback, forecast(request.store), wanted)
    if site.operation is not None and not request.check_mode:
        facts = {key: result[key] for key in ("gates", "waived", "rollback", "safety_copy")}
        site.operation.write(GATES, "done" if passed else "failed", **facts)
    return {"changed": False, **result}


def _question(request: Request) -> GateInputs:
    params = request.params
    if params["migrations"] is not None:
        files = history.from_mapping({name: str(sql).encode() for name, sql in params["migrations"].items()})
    else:
        files = history.read_folder(params["migrations_path"])
    return GateInputs(
        files=files,
        expected=params["expected"],
        release_connections=functools.lru_cache(maxsize=1)(lambda: _release_connections(params))
        if params["environment_file"]
        else None,
        database_directory=params["database_directory"],
        database_free_bytes=params["database_free_bytes"],
        server_programs_version=params["server_programs_version"],
        applications=params["applications"],
        refuse_drift=params["drift"] == "refuse",
        safety_copy=params["safety_copy"],
        safety_copy_seconds=params["safety_copy_seconds"],
        waivers=params["waivers"],
    )


def _release_connections(params: Dict[str, Any]) -> Dict[str, Settings]:
    project = params["project"] and Project(
        params["project"], params["schema_path"], params["config_path"], params["node_bin_dir"]
    )
    return release_connections(params["environment_file"], params["environment_rules"], project or None)


def main() -> None:
    run_module(
        dict(
            migrations_path=dict(type="path"),
            migrations=dict(type="dict"),
            expected=dict(type="list", elements="str", required=True),
            environment_file=dict(type="path"),
            project=dict(type="path"),
            schema_path=dict(type="str"),
            config_path=dict(type="str"),
            node_bin_dir=dict(type="path"),
            environment_rules=dict(type="str", choices=list(environment_file.RULES), default="dotenv"),
            database_directory=dict(type="path"),
            database_free_bytes=dict(type="int"),
            server_programs_version=dict(type="str"),
            applications=dict(type="dict"),
            drift=dict(type="str", choices=["show", "refuse"], default="show"),
            plan=dict(
                type="dict",
                options=dict(
                    commit=dict(type="str", required=True),
                    former=dict(type="str", default=""),
                    pending=dict(type="list", elements="str", required=True),
                    hosts=dict(type="list", elements="str", required=True),
                    confirm=dict(type="bool", default=False),
                ),
            ),
            safety_copy=dict(type="str", choices=list(SAFETY_COPIES), default="off"),
            safety_copy_seconds=dict(type="float", default=60),
            waivers=dict(type="dict", default={}),
            **pooler_argument_spec(),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        required_one_of=[("migrations_path", "migrations")],
        required_by={"schema_path": "project", "config_path": "project"},
    )


if __name__ == "__main__":
    main()
