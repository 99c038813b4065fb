# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that carry a way back out: what is accepted, and the programs."""

from __future__ import annotations


class ModuleDocFragment:
    """Consent and programs."""

    DOCUMENTATION = r"""
options:
  operation:
    description:
      - Id of the operation, as M(backstop.postgres.operation) returned it. Its request says which way back, and from what.
      - >-
        Of a deploy that failed: what its migration left is removed where it did not come to its end; nothing, where the rehearsal proved the former release on
        the new schema; else it is taken out by the down-SQL that was proved; else its backup is restored.
      - Each step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
  controller:
    description:
      - The process that runs the playbook. Once another one has taken up the operation, this one's modules are refused.
      - Set by this collection's action plugin; do not set it.
    type: dict
  accept_lost_rows:
    description:
      - How many rows may be lost, inserted, updated and deleted ones together.
      - Of a table that is put right, how many may be deleted because the backup does not have them.
    type: int
    default: 0
  accept_lost_objects:
    description:
      - How many objects may go that were made or changed since the backup, and not by the migrations that are rolled back, such as an index, a view, a schema.
      - What the migrations made is known from their rehearsal. Where a migration was applied that no deploy rehearsed, objects are named and need no consent.
    type: int
    default: 0
  accept_unreadable:
    description:
      - Go on although a table of the live database is damaged, so that its loss cannot be counted.
      - A database that is swapped out keeps the table as it is. In place, all that can be read is saved before, and such a restore cannot be undone.
    type: bool
    default: false
  accept_cascade:
    description: Whether foreign keys may delete or change rows of other tables, when a table is put right. These tables are part of the emergency backup.
    type: bool
    default: false
  accept_restore:
    description: Whether the backup is restored where down-SQL was asked for and is not proved.
    type: bool
    default: true
  again:
    description: Put a table right although an earlier operation did the very same and was not undone.
    type: bool
    default: false
  reapply:
    description:
      - Whether rows that were inserted or updated in the live database since go over to the one that takes over.
      - V(report) tells what would be carried over and what would not, and carries nothing.
      - >-
        V(apply) carries them in one transaction, behind the fence and before the renames: by key, on the columns that both databases have, in the order of
        foreign keys, without firing triggers. Each table is proved to hold what it held before and what was carried.
      - >-
        What does not go is reported as a conflict and counts as lost: its table, key or column is missing there, a row that it refers to is missing, its unique
        value is taken, it was changed on both sides. Each such row, with its key and the reason, is in C(reapply-conflicts.jsonl) of the operation's directory.
      - >-
        Rows of tables without a key cannot be told from each other, but counted: so many equal rows more, so many less. They go when both databases have
        all columns of the table, and when rows were only inserted or O(reapply_deletes) is set: for an update is one row less and one more.
      - >-
        Large objects keep their numbers, owners and privileges. One whose number another one has there is a conflict, and so is each row that refers to it by a
        column of type C(oid) or C(lo).
      - What was carried does not count for O(accept_lost_rows).
    type: str
    choices: ["off", report, apply]
    default: "off"
  reapply_deletes:
    description: Delete rows that were deleted in the live database since, too.
    type: bool
    default: false
  project:
    description: Directory of the release whose migrations are in the database, with C(node_modules). Needed after a failed migration and for down-SQL.
    type: path
  old_project:
    description: Directory of the release from before the migration, for C(prisma migrate diff).
    type: path
  down_sql:
    description: SQL that takes the migration out. Default is C(down.sql) beside each migration, else what C(prisma migrate diff) makes of both releases.
    type: str
  down_sql_file:
    description: File on the target with O(down_sql).
    type: path
  dump:
    description: The form of the emergency backup before a migration is taken out.
    type: dict
    default: {}
    suboptions:
      format:
        description: As in M(backstop.postgres.pg_dump).
        type: str
        choices: [custom, directory]
        default: custom
      jobs:
        description: As in M(backstop.postgres.pg_dump).
        type: int
        default: 1
      plain:
        description: As in M(backstop.postgres.pg_dump).
        type: bool
        default: false
  keep_retired:
    description: Back the retired database up before an undo brings it back, so that this undo can be undone with an exact count.
    type: bool
    default: true
  wait:
    description: Seconds that sessions of other programs get to end by themselves before down-SQL is run.
    type: float
    default: 30
  node_bin_dir:
    description: Directory of C(node); without it PATH is used.
    type: path
  prisma_environment:
    description:
      - Further environment variables for Prisma.
      - No secrets; the connection is handed over separately.
    type: dict
    default: {}
  schema_path:
    description: The Prisma schema, where it is not in one of Prisma's usual places; relative to O(project).
    type: str
  config_path:
    description:
      - Prisma's configuration, where it is not in a usual place such as C(prisma.config.ts); relative to O(project).
      - Its C(schema) and C(migrations.path) must be plain texts; its C(datasource) does not count.
    type: str
"""
