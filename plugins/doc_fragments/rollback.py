# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that run a rollback: what is accepted, and the programs."""

from __future__ import annotations


class ModuleDocFragment:
    """Consent and programs."""

    DOCUMENTATION = r"""
options:
  operation:
    description:
      - Id of the operation, as M(backstop.postgres.operation) returned it. Its request determines the way back and the backup.
      - >-
        For a deploy that failed: if its migration did not finish, what it left is removed. If the rehearsal proved the former release on the new
        schema, nothing is changed. Else the migration is reverted by the proved down-SQL; else its backup is restored.
      - Each step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
    required: true
  controller:
    description:
      - The process that runs the playbook. Once another one has adopted the operation, this one's modules are refused.
      - Set by this collection's action plugin; do not set it.
    type: dict
  accept_lost_rows:
    description:
      - How many rows may be lost; inserted, updated and deleted rows together.
      - For a table repair, how many may be deleted because the backup does not have them.
    type: int
    default: 0
  accept_lost_objects:
    description:
      - How many objects, such as indexes, views or schemas, may be lost that were created or changed since the backup by anything but the rolled-back
        migrations.
      - The rehearsal records what the migrations create. If a migration was applied without a rehearsal, objects are named and need no consent.
    type: int
    default: 0
  accept_unreadable:
    description:
      - Continue although a table of the live database is damaged, so that its loss cannot be counted.
      - A retired database keeps the table as it is. In place, all readable rows are saved first, and such a restore cannot be undone.
    type: bool
    default: false
  accept_cascade:
    description: Whether foreign keys may delete or change rows of other tables, when a table is repaired. These tables are part of the emergency backup.
    type: bool
    default: false
  accept_restore:
    description: Whether the backup is restored if down-SQL was requested and is not proved.
    type: bool
    default: true
  again:
    description: Repeat a table's repair that an earlier operation already did and that was not undone.
    type: bool
    default: false
  reapply:
    description:
      - Whether rows that were inserted or updated in the live database since the backup are carried over to the new one.
      - V(report) reports what would be carried over and what would not, and carries nothing.
      - >-
        V(apply) carries them in one transaction, behind the fence and before the renames: by key, on the columns that both databases have, in the order of
        foreign keys, without firing triggers. Each table is proved to hold what it held before and what was carried.
      - >-
        A row that cannot be carried over is reported as a conflict and counts as lost: its table, key or column is missing there, a row that it
        refers to is missing, its unique value is taken, it was changed on both sides. Each such row, with its key and the reason, is in
        C(reapply-conflicts.jsonl) of the operation's directory.
      - >-
        Equal rows of tables without a key cannot be distinguished, only counted. They are carried over if both databases have all columns of the
        table, and if rows were only inserted or O(reapply_deletes) is set, because an update is one row less and one more.
      - >-
        Large objects keep their OIDs, owners and privileges. One whose OID is taken there is a conflict, and so is each row that refers to it by a
        column of type C(oid) or C(lo).
      - Rows carried over do not count for O(accept_lost_rows).
    type: str
    choices: ["off", report, apply]
    default: "off"
  reapply_deletes:
    description: Also delete rows that were deleted in the live database since the backup.
    type: bool
    default: false
  project:
    description: Directory of the release whose migrations are in the database, with C(node_modules). Needed after a failed migration and for down-SQL.
    type: path
  old_project:
    description: Directory of the release from before the migration, for C(prisma migrate diff).
    type: path
  down_sql:
    description: SQL that reverts the migration. Default is C(down.sql) beside each migration, else what C(prisma migrate diff) generates from both releases.
    type: str
  down_sql_file:
    description: File on the target with O(down_sql).
    type: path
  dump:
    description: The options of the emergency backup before a migration is reverted.
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
    description: Back up the retired database before an undo makes it live again, so that this undo can be undone with an exact count.
    type: bool
    default: true
  wait:
    description: Seconds to wait for sessions of other programs to end before down-SQL is run.
    type: float
    default: 30
"""
