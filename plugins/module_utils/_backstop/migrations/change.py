# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deploy does to the database while the application is stopped: fence, a final backup if the first one is no
longer exact, the migrations, and the checks afterwards.

Each is a separate step in the journal, so a run after an interruption repeats only the missing steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, List, Mapping, Optional, Sequence

from ..backups.make import BackupSummary, make_again
from ..base.errors import Refused
from ..loss.migration_changes import note_migrated
from ..prisma import history
from ..prisma.cli import Prisma
from ..site import Run, exclusive, journaled_step
from ..store.steps import BACKUP, CHECK, FENCE, GATES, MIGRATE, Checked, Migrated
from .deploy import Limits, applied_since, read_state
from .fence import fence, require_proofs
from .rehearse import check_against_rehearsal
from .retry import apply_patiently
from .table_checks import check_tables


@dataclasses.dataclass(frozen=True)
class DatabaseChanged(Migrated, Checked):
    """What the journal has of migration, checks, fence and backup, from whichever run."""

    #: by this run
    changed: bool = False
    backup: Optional[str] = None
    ended_sessions: List[str] = dataclasses.field(default_factory=list)
    differences: List[str] = dataclasses.field(default_factory=list)


def change_database(
    run: Run, prisma: Prisma, limits: Limits, *, wait_seconds: float, tables: Sequence[Mapping[str, Any]] = ()
) -> DatabaseChanged:
    """Migrate a deploy's database, or continue an interrupted run of this operation.

    :param wait_seconds: how long the fence waits for active sessions
    :param tables: expectations of tables afterwards; see check_tables()
    """
    operation = run.operation
    with run.connect() as session:
        pending = read_state(session, prisma, run.connection.schema).pending
    if pending:
        _fence(run, wait_seconds)
        apply_patiently(run, prisma, limits)
    elif operation.done(MIGRATE) is None:
        _note_applied(run)
    if operation.done(CHECK) is None:
        with journaled_step(run, CHECK) as facts, run.connect() as session:
            wrong = check_against_rehearsal(run, session)
            facts["checks"] = 1 + len(check_tables(session, tables, run.connection.schema, besides=wrong))
    fenced = operation.result(FENCE)
    return DatabaseChanged(
        **vars(operation.result(MIGRATE)),
        **vars(operation.result(CHECK)),
        changed=bool(pending),
        backup=operation.result(BACKUP).backup or None,
        ended_sessions=fenced.ended_sessions,
        differences=fenced.differences,
    )


def _note_applied(run: Run) -> None:
    """Record migrations that are applied already: by a run that was killed right after the COMMIT, or outside of this
    deploy."""
    operation = run.operation
    with exclusive(run), run.connect() as session:
        applied: List[str] = []
        if operation.last(MIGRATE) is not None:
            place = run.store.find_backup(str((operation.facts(BACKUP) or {})["backup"]))
            rows = history.read_rows(session.cursor(), run.connection.schema)
            applied = [row.migration_name for row in applied_since(place, rows)]
            note_migrated(operation, session)
        operation.write(MIGRATE, "done", applied=applied, seconds=0.0, rewritten=[])


def _fence(run: Run, wait_seconds: float) -> None:
    """End all other sessions in the database, and ensure that the backup is exact, and so the safety copy."""
    require_proofs(run.operation)
    place = run.store.find_backup(run.operation.result(BACKUP).backup)
    safety_copy = run.operation.result(GATES).safety_copy
    if fence(run, place, wait_seconds, safety_copy).same:
        return
    with journaled_step(run, BACKUP) as facts:
        place = make_again(run, place)
        facts.update(dataclasses.asdict(BackupSummary.of(place)), reused=False)
    if safety_copy and not fence(run, place, wait_seconds, safety_copy).same:
        raise Refused(
            "The database was written to while its final backup was made",
            found="; ".join(run.operation.result(FENCE).differences[:5]),
            hint="stop that program, then run this again",
        )
