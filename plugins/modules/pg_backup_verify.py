#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_verify
short_description: Prove that a backup can be restored
version_added: "0.1.0"
description:
  - "V(checksum) compares every file with the manifest. V(readable) reads the whole archive. V(restored) is a
    drill: the backup is restored into a scratch database and compared with its manifest, tables by digest, other objects by definition."
  - With O(where=cluster) that is done in a scratch server, which is removed afterwards.
  - The duration of the drill is the measured recovery time. The result is kept beside the backup, also after a failure.
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
  backup:
    description: Id of the backup; by default the newest one of the whole database that O(connection) names.
    type: str
  level:
    description: How far to verify. A backup of single tables cannot be verified to V(restored).
    type: str
    choices: [checksum, readable, restored]
    default: restored
  where:
    description:
      - Where O(level=restored) restores. V(database) is a scratch database beside the live one.
      - V(cluster) is a server of the same version that is created for the drill on this host and removed afterwards, reachable only through a socket.
        The backup's roles are created first, so owners and privileges are restored without the live server.
    type: str
    choices: [database, cluster]
    default: database
  scratch_directory:
    description: Directory for the data of that server. Default is the directory for temporary files.
    type: path
  max_age:
    description:
      - Accept an earlier verification to this level that passed at most this many seconds ago, after every file was compared with the manifest again.
        V(0), and O(keep_scratch), always verify again.
    type: float
    default: 0
  keep_scratch:
    description: Keep the drill's database; M(backstop.postgres.operation) drops it when O(operation) ends.
    type: bool
    default: false
notes:
  - "On failure: the message names what differs. The scratch database was dropped, the live database was only read."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the scratch database is dropped. After a cut connection or the task's
    C(timeout) it keeps running, and the next step ends it first; see M(backstop.postgres.operation)."
  - "How to undo: Nothing to undo."
seealso:
  - module: backstop.postgres.pg_dump
  - module: backstop.postgres.prisma_migrate_rehearse
"""

EXAMPLES = r"""
- name: Restore drill
  backstop.postgres.pg_backup_verify:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Restore drill in a server of its own
  backstop.postgres.pg_backup_verify:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    where: cluster
    scratch_directory: /var/tmp
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Restore drill, once a day
  backstop.postgres.pg_backup_verify:
    backup: electricity_tokens-20251108T020000Z-3fa9c1
    max_age: 86400
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
level:
  description: The level that was reached.
  returned: success
  type: str
backup:
  description: Id of the backup.
  returned: success
  type: str
reused:
  description: Whether an earlier result was accepted, by O(max_age).
  returned: success
  type: bool
verified_at:
  description: When that was.
  returned: RV(reused=true)
  type: str
method:
  description: How it was verified.
  returned: success
  type: str
role:
  description: The role that restored it.
  returned: O(level=restored)
  type: str
server:
  description: Version of the server that it was restored on.
  returned: O(level=restored)
  type: str
database:
  description: The scratch database that was kept.
  returned: O(keep_scratch=true)
  type: str
recovery_seconds:
  description: How long the restore took, with its comparison.
  returned: O(level=restored)
  type: float
tables:
  description: Number of tables whose digests are equal.
  returned: O(level=restored)
  type: int
rows:
  description: Number of rows in them.
  returned: O(level=restored)
  type: int
tolerated:
  description: Differences that no dump and restore can avoid.
  returned: O(level=restored)
  type: list
  elements: str
story:
  description: Short lines to show, the same facts.
  returned: success
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import story
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import (
    Verified,
    newest_whole,
    verified_before,
    verify,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import DRILL


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    params = request.params
    place = request.store.find_backup(params["backup"]) if params["backup"] else newest_whole(site)
    if params["level"] == "restored":
        manifests.load(place).require_whole()
    earlier = None
    if params["max_age"] > 0 and not params["keep_scratch"]:
        earlier = verified_before(place, params["level"], params["max_age"])
    if request.check_mode:
        text = story.would_verify(place.backup_id, params["level"], params["where"], earlier is not None)
        return {"changed": earlier is None, "level": params["level"], "backup": place.backup_id, "story": text}
    with journaled_step(site, DRILL) as facts:
        result = earlier or _verify(request, place)
        facts.update(result.to_json())
    text = story.verified(result, params["where"])
    return {"changed": earlier is None, "reused": earlier is not None, **result.to_json(), "story": text}


def _verify(request: Request, place: BackupPlace) -> Verified:
    params = request.params
    site = request.site
    if params["level"] != "restored" or params["where"] == "database":
        return verify(site, place, params["level"], keep=params["keep_scratch"])
    if params["keep_scratch"]:
        raise Refused("A scratch cluster is always removed", found="keep_scratch", hint="drill in a scratch database")
    return run_cluster_drill(site, place, params["scratch_directory"])


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str"),
            level=dict(type="str", choices=["checksum", "readable", "restored"], default="restored"),
            where=dict(type="str", choices=["database", "cluster"], default="database"),
            scratch_directory=dict(type="path"),
            max_age=dict(type="float", default=0),
            keep_scratch=dict(type="bool", default=False),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
