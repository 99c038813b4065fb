# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of operations, by the names that journals have for them.

``operation`` is none of them: under that name a journal keeps that an operation was adopted, and how it ended.
"""

from __future__ import annotations

# Of a deploy, in their order.

GATES = "gates"
BACKUP = "backup"
DRILL = "drill"
REHEARSAL = "rehearsal"
#: The release before it was tried on the new schema.
OLD_RELEASE = "old_release"
#: A person said yes.
CONFIRM = "confirm"
#: From here to STARTED the application is stopped; a rollback has both, too.
STOP = "stop"
FENCE = "fence"
#: The migrations were applied on the live database.
MIGRATE = "migrate"
#: Definitions are those that the rehearsal left, and tables as described.
CHECK = "check"
STARTED = "started"
POST_BACKUP = "post_backup"

# Ways back, which a deploy may take too.

#: What a failed migration left was dropped, and the failed migration marked as rolled back.
CLEAN = "clean"
RESOLVE = "resolve"
#: The release was changed and the database left alone.
CODE = "code"
#: Down-SQL: proved on a copy; the backup that must hold all that is there right before it runs; run.
DOWN_PROOF = "down_proof"
EMERGENCY_BACKUP = "emergency_backup"
DOWN = "down"
#: The database that is to take over was built; it took over the live name.
BUILD = "build"
SWAP = "swap"
#: What would be lost was counted and accepted, behind the fence.
COUNT = "count"
#: The live database was backed up, then restored in place; the latter is known by the number of its transaction, which
#: is kept before its COMMIT.
EMERGENCY = "emergency"
IN_PLACE = "in_place"
IN_PLACE_COMMIT = "in_place_commit"
RESTORE_TABLE = "restore_table"
#: A way back was taken to its end, whatever becomes of the application then.
APPLIED = "rollback"
#: PgBouncer's pools were paused ("began") and resumed ("done").
PAUSE_POOLS = "pause_pools"

# Undo of a swap.

#: The database that comes back was backed up before it does.
KEEP = "keep"
#: What the live database held when it took over was restored, to count what was written since.
BASE = "base"

# After an operation's end.

#: The retired database of a swap was dropped: what its undo needed may go.
RETIRED_PRUNED = "prune"
#: The rows that it kept were removed.
ROW_FILES = "row_files"

#: Steps without which nobody's session is ended: nothing would be migrated, or taken out, afterwards; by the kind of
#: operation.
PROOFS = {"deploy": (GATES, BACKUP, DRILL, REHEARSAL), "rollback": (EMERGENCY_BACKUP, DOWN_PROOF)}
#: Steps without which nothing is migrated.
BEFORE_MIGRATING = (*PROOFS["deploy"], FENCE)
