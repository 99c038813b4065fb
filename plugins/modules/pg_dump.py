#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_dump
short_description: Make a verified backup
version_added: "0.1.0"
description:
  - Dumps the database in a snapshot in which no table can be truncated or rewritten, and counts the rows and computes a digest of every table in the
    same snapshot while C(pg_dump) runs.
  - The whole archive is read back. The backup exists when its manifest does; an interrupted one is never listed.
  - Every run makes a new backup, unless O(max_age) lets it reuse one.
  - With O(age_recipients) it is encrypted while C(pg_dump) writes it and decoded at the same time, so that level V(readable) is reached although this
    host may not have the key. This requires O(format=custom) without O(plain).
  - With O(tables) the backup contains single tables. It can repair a table with M(backstop.postgres.rollback); drills and reverts refuse it.
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
  kind:
    description: The kind of the backup, which decides how long it is kept.
    type: str
    choices: [daily, weekly, pre-migration, post-migration, emergency]
    default: pre-migration
  tables:
    description:
      - The only tables to back up. V(ReceiptData), V(public.ReceiptData) and both with double quotes mean the same table; capitals count.
      - A partitioned table means all its partitions. Without this option the whole database is backed up.
    type: list
    elements: str
  format:
    description:
      - V(custom) is one file. V(directory) is a directory that O(jobs) write and restore at the same time.
    type: str
    choices: [custom, directory]
    default: custom
  jobs:
    description: How many tables are dumped, and restored, at the same time; more than one with O(format=directory) only.
    type: int
    default: 1
  schema_only:
    description:
      - Keep the definitions without rows. Drills, deploys and reverts refuse such a backup, as they refuse one of single tables.
    type: bool
    default: false
  plain:
    description:
      - Also keep the backup as plain SQL in the file C(plain.sql), for reading. It is made from the archive, so it proves that the archive can be
        read.
    type: bool
    default: false
  prisma:
    description:
      - Keep the Prisma schema of a release as SQL beside the archive, in the file C(prisma-schema.sql), as C(prisma migrate diff) writes it.
        Nothing is read from the database, so this works with Prisma 6 and 7.
    type: dict
    suboptions:
      project:
        description: Directory of the release, with its C(node_modules).
        type: path
        required: true
      node_bin_dir:
        description: Directory of C(node). Default is the search path.
        type: path
      environment:
        description: Further environment variables for Prisma, no secrets.
        type: dict
        default: {}
      schema_path:
        description: The Prisma schema, if it is not in one of Prisma's usual places.
        type: str
      config_path:
        description: Prisma's configuration, if it is not in one of its usual places; relative to O(prisma.project).
        type: str
  max_age:
    description:
      - Reuse a backup whose snapshot is at most this many seconds old. It must be of O(kind), of the same database, release and format, verified,
        with undamaged files, and with the current history of migrations. V(0) always makes a new one.
    type: float
    default: 0
  migrations_path:
    description:
      - Migrations folder of the running release, kept in the backup.
      - Where there is no such folder the module warns, and the backup has none; a release from before the first migration has none.
    type: path
  commit:
    description: Commit of the running release, kept in the manifest.
    type: str
  step:
    description: Name under which the journal of O(operation) keeps this backup.
    type: str
    default: backup
notes:
  - "On failure: the message has the error of C(pg_dump) or the server. No backup of this run is listed, others are untouched; run it again."
  - "Interrupted: a signal (Ctrl-C, SIGTERM, SIGHUP) ends it like a failure: the partial backup is removed. After a cut connection or the task's
    C(timeout) it keeps running, and the next step ends it first; see M(backstop.postgres.operation)."
  - "How to undo: remove the directory of the backup."
seealso:
  - module: backstop.postgres.pg_backup_verify
  - module: backstop.postgres.pg_backup_info
  - module: backstop.postgres.pg_restore
"""

EXAMPLES = r"""
- name: Back up before a migration
  backstop.postgres.pg_dump:
    kind: pre-migration
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
  register: backup

- name: Back up with four jobs, and as plain SQL to read, unless that was done within the hour
  backstop.postgres.pg_dump:
    format: directory
    jobs: 4
    plain: true
    max_age: 3600
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Keep the definitions
  backstop.postgres.pg_dump:
    kind: daily
    schema_only: true
    plain: true
    step: definitions
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Back up encrypted; only the holder of the private key can read it
  backstop.postgres.pg_dump:
    kind: daily
    age_recipients: ["age1qgzsg3psph477xwwl2gvdnrs4xcm50z2qmtkethxrxayg3safsfsnrpwel"]
    step: encrypted
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop

- name: Back up one table
  backstop.postgres.pg_dump:
    kind: daily
    tables: [TokenPurchase]
    step: one_table
    connection:
      url: "{{ database_url }}"
    store: /var/backups/backstop
"""

RETURN = r"""
backup:
  description: Id of the backup; none in check mode.
  returned: success
  type: str
  sample: electricity_tokens-20251108T020000Z-3fa9c1
scope:
  description: V(database), V(schema) for the definitions alone, or V(tables) for a backup of single tables.
  returned: success
  type: str
source:
  description: The database that would be backed up.
  returned: in check mode, when a backup would be made
  type: str
database_bytes:
  description: Its size; a compressed backup is usually smaller.
  returned: as RV(source)
  type: int
reused:
  description: Whether an existing backup was reused, by O(max_age).
  returned: success
  type: bool
plain:
  description: Path of the plain SQL; null when it was not asked for.
  returned: success
  type: str
encrypted:
  description: Whether its archive is encrypted, by O(age_recipients).
  returned: success
  type: bool
directory:
  description: Directory of the backup.
  returned: success
  type: str
size:
  description: Size of the archive in bytes.
  returned: success
  type: int
tables:
  description: Number of tables with a digest.
  returned: success
  type: int
rows:
  description: Number of rows in them.
  returned: success
  type: int
seconds:
  description: Duration of dump and reading back.
  returned: success
  type: dict
level:
  description: How far the backup is verified.
  returned: success
  type: str
story:
  description: Short lines to show, the same facts.
  returned: success
  type: list
  elements: str
"""

import dataclasses
import os
from typing import Any, Dict, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
    store_argument_spec,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import story
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import (
    BackupSummary,
    make_backup,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.reuse import reusable_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import read_tree
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.encryption import (
    find_age,
    require_recipients,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import server
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.catalog import find_family
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.relay import relayed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Prisma
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace


def act(request: Request) -> Dict[str, Any]:
    site = request.site
    params = request.params
    form = BackupOptions(
        format=params["format"],
        jobs=params["jobs"],
        schema_only=params["schema_only"],
        plain=params["plain"],
        tables=params["tables"],
    )
    form.require_possible(bool(site.recipients))
    found = None
    if params["max_age"] > 0:
        found = reusable_backup(site, params["kind"], params["max_age"], form, params["commit"])
    if request.check_mode:
        return predicted_result(request, form, found)
    with journaled_step(site, params["step"]) as facts:
        place = found or make_backup(
            site,
            params["kind"],
            migrations=_migrations(request),
            commit=params["commit"],
            form=form,
            prisma_schema=_prisma_schema(params["prisma"], request.connection.url()),
        )
        backup, reused = BackupSummary.of(place), found is not None
        facts.update(dataclasses.asdict(backup), reused=reused)
    return _result(backup, reused)


def _result(backup: BackupSummary, reused: bool) -> Dict[str, Any]:
    text = story.backed_up(backup, reused)
    return {"changed": not reused, **dataclasses.asdict(backup), "reused": reused, "story": text}


def _migrations(request: Request) -> Optional[Dict[str, bytes]]:
    folder = request.params["migrations_path"]
    if folder and not os.path.isdir(folder):
        request.warn("The backup holds no migrations: there is no folder %s" % folder)
        return None
    return read_tree(folder) if folder else None


def _prisma_schema(wanted: Optional[Dict[str, Any]], url: str) -> Optional[bytes]:
    if wanted is None:
        return None
    return Prisma(
        Project(wanted["project"], wanted["schema_path"], wanted["config_path"], wanted["node_bin_dir"]),
        environment={str(name): str(value) for name, value in wanted["environment"].items()},
        relay=relayed,
        offline=True,
    ).schema_script(url)


def predicted_result(request: Request, form: BackupOptions, found: Optional[BackupPlace]) -> Dict[str, Any]:
    if found is not None:
        return _result(BackupSummary.of(found), reused=True)
    require_recipients(request.site.recipients)
    if request.site.recipients:
        find_age()
    with request.site.connect() as session:
        request.site.tools(session)
        for name in form.tables or []:
            find_family(session, name, request.connection.schema)
        size = server.database_size(session, request.site.database)
    source = request.connection.masked
    text = story.would_back_up(form, source, size, request.params["kind"], request.params["store"])
    result = {"backup": None, "scope": form.scope, "reused": False, "source": source, "database_bytes": size}
    return {"changed": True, **result, "story": text}


def main() -> None:
    run_module(
        dict(
            kind=dict(
                type="str",
                choices=["daily", "weekly", "pre-migration", "post-migration", "emergency"],
                default="pre-migration",
            ),
            tables=dict(type="list", elements="str"),
            format=dict(type="str", choices=["custom", "directory"], default="custom"),
            jobs=dict(type="int", default=1),
            schema_only=dict(type="bool", default=False),
            plain=dict(type="bool", default=False),
            prisma=dict(
                type="dict",
                options=dict(
                    project=dict(type="path", required=True),
                    node_bin_dir=dict(type="path"),
                    environment=dict(type="dict", default={}),
                    schema_path=dict(type="str"),
                    config_path=dict(type="str"),
                ),
            ),
            max_age=dict(type="float", default=0),
            migrations_path=dict(type="path"),
            commit=dict(type="str"),
            step=dict(type="str", default="backup"),
            **store_argument_spec(),
        ),
        act,
        connection=True,
        acts=True,
    )


if __name__ == "__main__":
    main()
