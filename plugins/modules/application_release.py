#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_release
short_description: Prepare a release of an application, and make it the current one
version_added: "0.1.0"
description:
  - Installs and builds each revision of an application in its own directory, C(releases/<commit>) below O(root), with a link C(current) to the one that runs.
  - A release is built beside the running one, which is not touched. It gets its name only when it is complete; an interrupted one is built again.
  - The link is replaced atomically; a process that follows it sees the old release or the new one.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
    details:
      - The repository is asked for the commit of O(revision). Objects fetched for that are stored in a temporary directory.
  diff_mode:
    support: full
options:
  root:
    description:
      - Directory with the releases, the link, the mirror of the repository and the shared files. It is created when it is missing.
      - The module fails if C(current) exists and is not a link, whatever O(state) is.
    type: path
    required: true
  repository:
    description:
      - Address or path of the application's git repository, without a password.
      - It is not contacted when O(revision) is the full commit of a release that exists already.
    type: str
    default: ""
  revision:
    description:
      - Tag, branch or commit of the repository.
      - A name that is a tag of one commit and a branch of another is refused; write C(refs/tags/name) or C(refs/heads/name) then.
    type: str
    required: true
  state:
    description:
      - V(resolved) finds the commit and reads its migrations; at most the mirror of the repository is updated.
      - V(prepared) makes sure that the release of the commit is complete.
      - V(current) makes sure that it is complete and that C(current) points to it. It does not start anything.
    type: str
    choices: [resolved, prepared, current]
    default: prepared
  commands:
    description:
      - The commands that install and build a release, each as a list of arguments. They run in the new release, one after the other, without a shell.
      - They work in C(releases/.partial-<commit>), which is renamed when all have succeeded; their output must not contain that path.
    type: list
    elements: list
    default: []
  command_timeout:
    description: Seconds that each command may take.
    type: float
    default: 3600
  node_bin_dir:
    description: Directory of the C(node) and C(npm) that the commands find first.
    type: path
  environment:
    description: Environment variables for the commands. No secrets; those belong in a shared file.
    type: dict
    default: {}
  shared_links:
    description:
      - Files that outlive releases, such as the environment file. The path in the release becomes a link to the file.
      - The file must exist, and the commit must not contain that path.
    type: dict
    default: {}
  migrations_path:
    description: Folder of the migrations in the repository.
    type: str
    default: prisma/migrations
  keep:
    description:
      - After a release was built, remove the oldest ones beyond this number. The current one and the new one are always kept.
      - V(0) keeps all.
    type: int
    default: 0
notes:
  - "On failure: A failed command leaves no release; the message ends with its output, without the secrets of the shared files. C(current) is
    unchanged, and the running application is not touched."
  - "How to undo: With O(state=current) and the commit in RV(previous), the link points to that release again; it still exists and nothing is built."
  - Run it as the user that owns the application, with C(become) if need be.
seealso:
  - module: backstop.postgres.application_service
  - module: backstop.postgres.application_info
"""

EXAMPLES = r"""
- name: Build the release beside the running one
  backstop.postgres.application_release:
    root: /srv/electricity-tokens
    repository: git@git.example.org:energy/electricity-tokens.git
    revision: et-100
    commands:
      - [npm, ci]
      - [npx, --no-install, prisma, generate]
      - [npm, run, build]
    shared_links:
      .env: /srv/electricity-tokens/shared/.env
  register: release

- name: Make it the current one
  backstop.postgres.application_release:
    root: /srv/electricity-tokens
    revision: "{{ release.commit }}"
    state: current
"""

RETURN = r"""
commit:
  description: The full commit of O(revision).
  returned: success
  type: str
  sample: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
path:
  description: Directory of the release.
  returned: success
  type: str
  sample: /srv/electricity-tokens/releases/0a1b2c3d4e5f60718293a4b5c6d7e8f901234567
previous:
  description: The commit that C(current) pointed to before; null when there was none.
  returned: success
  type: str
  sample: f901234567f901234567f901234567f901234567
prepared:
  description: Whether the release is complete now; in check mode, whether it was found complete.
  returned: success
  type: bool
  sample: true
migrations_path:
  description: The migrations folder of the release.
  returned: success
  type: str
  sample: /srv/electricity-tokens/releases/0a1b2c3d4e5f60718293a4b5c6d7e8f901234567/prisma/migrations
migrations:
  description: The C(migration.sql) of each migration of the commit, by the name of its folder. This needs no prepared release.
  returned: O(state=resolved)
  type: dict
  sample: {20251108000000_add_receipt_data: "CREATE TABLE ..."}
seconds:
  description: How long the build of the release took; 0 when it existed.
  returned: success
  type: float
  sample: 41.7
removed:
  description: Commits of the releases that O(keep) removed.
  returned: success
  type: list
  elements: str
  sample: []
"""

import time
from typing import Any, Dict, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request, run_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases


def act(request: Request) -> Dict[str, Any]:
    params = request.params
    releases = Releases(params["root"], params["repository"], migrations=params["migrations_path"])
    releases.require_link()
    previous = releases.current()
    commit = releases.resolve(params["revision"], effect=not request.check_mode)
    result: Dict[str, Any] = dict(
        changed=False,
        commit=commit,
        path=releases.path(commit),
        previous=previous,
        prepared=releases.is_complete(commit),
        migrations_path=releases.migrations_path(commit),
        seconds=0.0,
        removed=[],
    )
    if params["state"] == "resolved":
        files = releases.read_migrations(commit, effect=not request.check_mode)
        return {**result, "migrations": {name: sql.decode(errors="replace") for name, sql in files.items()}}
    before = dict(prepared=result["prepared"], current=previous)
    after = dict(prepared=True, current=commit if params["state"] == "current" else previous)
    result["changed"] = before != after
    if before["prepared"]:
        _warn_of_other_commands(request, releases, commit)
    if not request.check_mode:
        result.update(_bring_about(request, releases, commit, result["prepared"]))
    return {**result, "diff": dict(before=before, after=after)} if request.diff else result


def _bring_about(request: Request, releases: Releases, commit: str, prepared: bool) -> Dict[str, Any]:
    params = request.params
    started = time.monotonic()
    removed: List[str] = []
    if not prepared:
        releases.prepare(
            commit,
            _commands(params),
            node_bin_dir=params["node_bin_dir"],
            environment={str(name): str(value) for name, value in params["environment"].items()},
            shared_links={str(name): str(path) for name, path in params["shared_links"].items()},
            command_timeout=params["command_timeout"],
        )
        if params["keep"] > 0:
            removed = releases.prune(params["keep"], protect=[commit])
    seconds = 0.0 if prepared else round(time.monotonic() - started, 3)
    if params["state"] == "current":
        releases.activate(commit)
    return dict(prepared=True, seconds=seconds, removed=removed)


def _commands(params: Dict[str, Any]) -> List[List[str]]:
    return [[str(part) for part in command] for command in params["commands"]]


def _warn_of_other_commands(request: Request, releases: Releases, commit: str) -> None:
    marker = releases.marker(commit) or {}
    ran = [command["argv"] for command in marker.get("commands", [])]
    wanted = _commands(request.params)
    if wanted and ran != wanted:
        request.warn(
            "The release %s was made by other commands than are given now. It is used as it is; to have it made again, "
            "make sure that nothing runs in it and remove its directory." % releases.path(commit)
        )


def main() -> None:
    run_module(
        dict(
            root=dict(type="path", required=True),
            repository=dict(type="str", default=""),
            revision=dict(type="str", required=True),
            state=dict(type="str", choices=["resolved", "prepared", "current"], default="prepared"),
            commands=dict(type="list", elements="list", default=[]),
            command_timeout=dict(type="float", default=3600),
            node_bin_dir=dict(type="path"),
            environment=dict(type="dict", default={}),
            shared_links=dict(type="dict", default={}),
            migrations_path=dict(type="str", default="prisma/migrations"),
            keep=dict(type="int", default=0),
        ),
        act,
    )


if __name__ == "__main__":
    main()
