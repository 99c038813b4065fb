#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operation
short_description: Begin, record and end an operation
version_added: "0.1.0"
description:
  - An operation is one deploy, rollback or undo. It has an id, a journal and a lock in the store.
  - An operation that an interrupted run left open, with the same O(request), is continued. While the run that began it is alive, beginning another is refused.
  - A module may outlive the run that started it, for example when its connection was cut. V(begin), V(wait) and V(settle) send it SIGTERM and wait
    until it has ended before they read the journal. A module that migrates or swaps finishes that first, however long it takes; meanwhile its
    progress is in C(progress.json) of the operation's directory.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.action_group
  - backstop.postgres.connection
  - backstop.postgres.pooler
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description:
      - V(begin) begins an operation or continues an open one.
      - V(step) records a fact in the journal.
      - V(stop) records in the journal that the application is about to be stopped, V(started) that it runs and is healthy again, V(confirm) that the
        operator confirmed. In a deploy they are refused when a step before them is missing.
      - V(wait) ends a module of this operation that is still running, and waits for that. Use it after a failure, before the journal is read.
      - V(settle) waits in the same way, then finds out from the databases what the operation did, by any way back, and records it in the journal. It
        resumes pools of O(poolers) that the operation paused. Use it after a module was killed or a host was lost; it returns what to do and what to
        report then.
      - V(leave) records with O(facts) why a run of it failed, and leaves it open for a run that continues it.
      - V(end) closes it with an outcome, and drops its scratch databases, those whose name starts with C(backstop_scratch_) and its id.
    type: str
    choices: [begin, step, confirm, stop, started, wait, settle, leave, end]
    required: true
  kind:
    description: What the operation is, for O(state=begin).
    type: str
    choices: [deploy, rollback, undo]
  request:
    description: What is asked for. Equal requests of one kind are the same operation.
    type: dict
    default: {}
  operation:
    description: Id of the operation, for every O(state) but V(begin).
    type: str
  step:
    description: Name of the step, for O(state=step).
    type: str
  facts:
    description: What to keep with the beginning, the step or the end; no secrets.
    type: dict
    default: {}
  required_steps:
    description: Steps without which O(state=step) and O(state=end) are refused.
    type: list
    elements: str
    default: []
  outcome:
    description: How the operation ended, for O(state=end).
    type: str
    choices: [done, failed, rolled_back, abandoned]
  summary:
    description: What RV(story) shows besides the journal, for O(state=end).
    type: dict
    suboptions:
      release:
        description: The release that runs on all O(summary.hosts) and is healthy.
        type: str
      hosts:
        description: Hosts of the application.
        type: list
        elements: str
      not_restarted:
        description: Programs that still run the release that they were started with, names by host.
        type: dict
      next:
        description: What can be done next. For a deploy with a O(summary.release) it is known.
        type: str
  take_over:
    description: Continue although it cannot be checked from here whether the earlier run is alive.
    type: bool
    default: false
  controller:
    description:
      - The process that runs the playbook. Once another one has adopted the operation, this one is refused.
      - Set by this collection's action plugin, which also shows the module's progress, one line every few seconds from the fifth second on.
      - Do not set it.
    type: dict
notes:
  - "On failure: V(begin) is refused while another run is alive, and names it; the others name the missing steps. Nothing was changed."
  - "How to undo: Nothing to undo; an operation is a record."
seealso:
  - module: backstop.postgres.operation_info
  - module: backstop.postgres.operation_report
"""

EXAMPLES = r"""
- name: Begin a deploy
  backstop.postgres.operation:
    state: begin
    kind: deploy
    request:
      revision: et-100
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: begun

- name: Note that the application is about to be stopped
  backstop.postgres.operation:
    state: stop
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Note that it serves again
  backstop.postgres.operation:
    state: started
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: See how things are after a failure
  backstop.postgres.operation:
    state: settle
    operation: "{{ begun.operation }}"
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: settled

- name: End it
  backstop.postgres.operation:
    state: end
    operation: "{{ begun.operation }}"
    outcome: done
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
operation:
  description: Id of the operation; none in check mode when it would begin.
  returned: success
  type: str
  sample: 20251108T020000Z-3fa9c1
adopted:
  description: Whether an interrupted run had left it open.
  returned: O(state=begin)
  type: bool
swapped:
  description: Whether another database has got the live name in this operation.
  returned: O(state=settle)
  type: bool
restored:
  description: Whether the live database was restored in place in this operation.
  returned: O(state=settle)
  type: bool
taken_out:
  description: Whether this operation reverted a migration in the live database by its down-SQL.
  returned: O(state=settle)
  type: bool
state:
  description:
    - State of the database. V(as_before) when no way back changed it; V(in_force) when one changed it completely; V(half_done) when a second run has
      to finish it.
  returned: O(state=settle)
  type: str
way:
  description: The way back that changed it, as M(backstop.postgres.rollback) returns it; none where nothing was changed.
  returned: O(state=settle)
  type: str
keep_open:
  description: Whether the operation stays open for a second run that finishes it.
  returned: O(state=settle)
  type: bool
release:
  description: The release that must run now, by the content of the database; empty where it is not known.
  returned: O(state=settle)
  type: str
attempt:
  description: The steps for that on each host, of V(stop), V(activate) and V(start).
  returned: O(state=settle)
  type: list
  elements: str
before_error:
  description: Text to show before the failure.
  returned: O(state=settle)
  type: str
after_error:
  description: Text to show after the failure, the state once the hosts run that release.
  returned: O(state=settle)
  type: str
next:
  description: Text to show, what to do.
  returned: O(state=settle)
  type: str
story:
  description:
    - Short lines to show, with O(summary). The journal, the report, the retired databases and the downtime; of a deploy also its migrations, gates and ended
      sessions.
    - What runs and what can be done next stand last.
  returned: O(state=end)
  type: list
  elements: str
retired:
  description: How many retired databases there are, how much disk they occupy and since when, and how to drop them.
  returned: O(state=end)
  type: str
  sample: "2, 310 MB, the oldest 9 d old; to drop old ones: the module pg_retired_prune"
standing:
  description:
    - How far a deploy came; null for other kinds.
    - With C(application), V(untouched), V(stopped) or V(serving); C(proved), C(migration_began), C(migrated); C(backup), the exact one.
    - Text to show in C(rehearsed), C(applied), C(ended_sessions), C(waived) and C(rollback).
  returned: success
  type: dict
dropped:
  description: Scratch databases, and safety copies of earlier deploys, that were dropped.
  returned: O(state=end)
  type: list
  elements: str
directory:
  description: Directory of the operation's journal and files.
  returned: success
  type: str
began:
  description: When it began.
  returned: success
  type: str
facts:
  description: The facts that were recorded when it began.
  returned: success
  type: dict
steps:
  description: Steps that are done, name to their facts in the journal.
  returned: success
  type: dict
downtime:
  description: Seconds for which the application was stopped, all windows of the operation together.
  returned: success
  type: float
  sample: 3.2
began_steps:
  description: Names of the steps that began.
  returned: success
  type: list
  elements: str
"""

import dataclasses
from typing import Any, Dict, List, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    pooler_argument_spec,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import (
    require_before,
    standing_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.operation_report import report_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import exclusive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import (
    Beginning,
    begin,
    require_held,
    this_controller,
    wait_for_job,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import STARTED, STOP

# The ways back are most of the library, and Python compiles what a module imports in each call: most calls of this one
# need none of them.


def act(request: Request) -> Dict[str, Any]:
    if request.params["state"] == "begin":
        return _begin(request)
    operation = Operation.load(request.store, request.params["operation"])
    if request.params["state"] in ("wait", "settle") and not request.check_mode:
        _require_held(request, operation)
        wait_for_job(operation, request.warn, request.progress)
    if request.params["state"] == "wait":
        return _described(operation, False)
    if request.params["state"] == "settle":
        return _settle(request, operation)
    state = request.params["state"]
    changed = operation.is_open
    if changed:
        _require_held(request, operation)
        why = "This was not done: an earlier step was left out"
        operation.require(request.params["required_steps"], why, once=True)
        before = request.params["outcome"] if state == "end" else state
        if operation.kind == "deploy" and before in (STOP, STARTED, "done"):
            require_before(operation, before)
    if changed and not request.check_mode:
        if state == "end":
            operation.close(request.params["outcome"], **request.params["facts"])
        elif state == "leave":
            operation.leave(**request.params["facts"])
        else:
            operation.write(request.params["step"] if state == "step" else state, "done", **request.params["facts"])
    described = _described(operation, changed)
    if state == "leave":
        return {**described, "report": _report(request, operation)}
    return {**described, **_ended(request, operation)} if state == "end" else described


def _ended(request: Request, operation: Operation) -> Dict[str, Any]:
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import retired, story

    kept = retired.summary(request.site)
    text = story.ended(operation, kept, story.Summary.of(request.params["summary"]))
    dropped = _clean_up(request, operation)
    return {"retired": kept, "story": text, "dropped": dropped, "report": _report(request, operation)}


def _report(request: Request, operation: Operation) -> Optional[Dict[str, Any]]:
    """For the action plugin, which renders it and writes it beside the journal; none must not keep the operation from
    its end."""
    if request.check_mode:
        return None
    try:
        return report_of(operation).to_json()
    except Exception as error:
        request.warn("The report of operation %s could not be made: %r" % (operation.id, error))
        return None


def _clean_up(request: Request, operation: Operation) -> List[str]:
    """An unreachable server does not keep the operation open."""
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import clean_up

    if request.check_mode:
        return []
    try:
        return clean_up(request.site.run(operation))
    except BackstopError as error:
        request.warn("Scratch databases of operation %s, or old safety copies, may be left: %s" % (operation.id, error))
        return []


def _begin(request: Request) -> Dict[str, Any]:
    if request.check_mode:
        return {"changed": True, "operation": "", "adopted": False, "directory": "", "began": "", "steps": {}}
    params = request.params
    controller = params["controller"] or this_controller()
    how = Beginning(params["facts"], params["take_over"], request.warn, request.progress)
    operation, adopted = begin(
        request.store, params["kind"], request.connection.database, params["request"], controller, how
    )
    return {**_described(operation, True), "adopted": adopted}


def _settle(request: Request, operation: Operation) -> Dict[str, Any]:
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.choose import (
        DOWN_SQL,
        IN_PLACE,
        SWAP,
    )
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.report import after_failure
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.rollback import settle
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.way import Settled

    if request.check_mode:
        return _described(operation, False)
    # Before its migration a deploy does nothing to the database, so the server is not asked.
    asked = operation.kind != "deploy" or standing_of(operation).migration_began
    found = Settled()
    if asked:
        with exclusive(request.run) as run:
            found = settle(run)
    return {
        **_described(operation, found.changed),
        "swapped": found.way == SWAP,
        "restored": found.way == IN_PLACE,
        "taken_out": found.way == DOWN_SQL,
        "state": found.state,
        "way": found.way,
        **dataclasses.asdict(after_failure(operation, found)),
    }


def _require_held(request: Request, operation: Operation) -> None:
    if request.params["controller"]:
        require_held(operation, request.params["controller"])


def _described(operation: Operation, changed: bool) -> Dict[str, Any]:
    standing = dataclasses.asdict(standing_of(operation)) if operation.kind == "deploy" else None
    return {
        "standing": standing,
        "changed": changed,
        "operation": operation.id,
        "directory": operation.path,
        "began": operation.began,
        "facts": operation.header.get("facts", {}),
        "steps": {entry["step"]: entry for entry in operation.journal() if entry["event"] == "done"},
        "downtime": operation.downtime(),
        "began_steps": sorted({entry["step"] for entry in operation.journal() if entry["event"] == "began"}),
    }


def main() -> None:
    run_module(
        dict(
            state=dict(
                type="str",
                required=True,
                choices=["begin", "step", "confirm", "stop", "started", "wait", "settle", "leave", "end"],
            ),
            kind=dict(type="str", choices=["deploy", "rollback", "undo"]),
            request=dict(type="dict", default={}),
            step=dict(type="str"),
            facts=dict(type="dict", default={}),
            required_steps=dict(type="list", elements="str", default=[]),
            summary=dict(
                type="dict",
                options=dict(
                    release=dict(type="str"),
                    hosts=dict(type="list", elements="str"),
                    not_restarted=dict(type="dict"),
                    next=dict(type="str"),
                ),
            ),
            outcome=dict(type="str", choices=["done", "failed", "rolled_back", "abandoned"]),
            take_over=dict(type="bool", default=False),
            **pooler_argument_spec(),
            **store_argument_spec(operation=False),
        ),
        act,
        connection=True,
        required_if=[
            ("state", "begin", ("kind",)),
            ("state", "step", ("operation", "step")),
            ("state", "confirm", ("operation",)),
            ("state", "stop", ("operation",)),
            ("state", "started", ("operation",)),
            ("state", "wait", ("operation",)),
            ("state", "settle", ("operation",)),
            ("state", "leave", ("operation",)),
            ("state", "end", ("operation", "outcome")),
        ],
    )


if __name__ == "__main__":
    main()
