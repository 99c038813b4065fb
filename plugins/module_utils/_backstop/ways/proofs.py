# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deploy proves on a copy while the application runs: that its backup can be restored, what the migrations do,
and the SQL that reverts them.

Each proof is a separate step in the journal. After an interruption the next run repeats the missing steps, on the same
copy if it is still usable.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..backups.drill import Verified, verify
from ..backups.story import restored
from ..base.short_lines import packed
from ..base.sql_names import scratch_name
from ..migrations.deploy import Limits, read_state
from ..migrations.rehearse import rehearse_closed
from ..migrations.table_checks import check_tables
from ..postgres import server
from ..postgres.database_properties import drop_scratch_database
from ..prisma.cli import Prisma
from ..site import Run, journaled_step
from ..store.layout import BackupPlace
from ..store.operation import Operation
from ..store.steps import BACKUP, DOWN_PROOF, DRILL, FENCE, OLD_RELEASE, REHEARSAL
from .down_sql import rehearse_down


def prove(
    run: Run,
    prisma: Prisma,
    limits: Limits,
    *,
    tables: Sequence[Mapping[str, Any]] = (),
    down: Optional[Mapping[str, Any]] = None,
    keep: bool = False,
) -> Dict[str, Any]:
    """Drill the operation's backup, rehearse the pending migrations on the restored copy, and prove the down-SQL.

    :param tables: expectations of tables of the migrated copy; see check_tables()
    :param down: arguments of find_down_sql(), if down-SQL is wanted
    :param keep: keep the copy for the trial of the old release; the down-SQL, which changes it, is left to the next
        call
    :returns: the journal's facts of each proof, ``story``, and ``database``, the copy if it was kept
    """
    operation = run.operation
    copy = scratch_name(operation.id, "drill")
    missing = [] if _is_over(operation) else [step for step in _wanted(down, keep) if operation.done(step) is None]
    if missing:
        place = run.store.find_backup(operation.result(BACKUP).backup)
        if REHEARSAL in missing or not _is_migrated(run, prisma, copy):
            _rehearse(run, prisma, place, copy, tables, limits)
        if DOWN_PROOF in missing and _is_there(run, copy):
            rehearse_down(run, place, scratch=copy, prisma=prisma, **(down or {}))
    if not keep:
        with run.administer() as admin:
            drop_scratch_database(admin, copy)
    found: Dict[str, Dict[str, Any]] = {
        step: operation.facts(step) or {} for step in (DRILL, REHEARSAL, OLD_RELEASE, DOWN_PROOF)
    }
    to_try = keep and OLD_RELEASE in missing and _is_there(run, copy)
    return {
        "changed": bool(missing),
        **found,
        "database": copy if to_try else None,
        "story": [] if to_try else story(found),
    }


def _wanted(down: Optional[Mapping[str, Any]], keep: bool) -> List[str]:
    if keep:
        return [DRILL, REHEARSAL, OLD_RELEASE]
    return [DRILL, REHEARSAL, DOWN_PROOF] if down is not None else [DRILL, REHEARSAL]


def _is_over(operation: Operation) -> bool:
    """After the fence the copy is debris, and the backup may be another one. An isolated server leaves no copy."""
    rehearsed = operation.done(REHEARSAL) or {}
    return operation.last(FENCE) is not None or bool(rehearsed.get("closed_server"))


def _rehearse(
    run: Run,
    prisma: Prisma,
    place: BackupPlace,
    copy: str,
    tables: Sequence[Mapping[str, Any]],
    limits: Limits,
) -> None:
    """Leave a copy on which the migrations ran, unless an isolated server was needed.

    The copy of an interrupted rehearsal cannot be used, so the drill is repeated too.
    """
    with journaled_step(run, DRILL) as facts:
        facts.update(verify(run, place, "restored", keep=True).to_json())
    with journaled_step(run, REHEARSAL) as facts:
        rehearsed = rehearse_closed(run, copy, prisma, place, limits)
        facts.update(dataclasses.asdict(rehearsed))
        if not rehearsed.closed_server:
            with run.connect(copy) as session:
                check_tables(session, tables, run.connection.schema)


def _is_there(run: Run, name: str) -> bool:
    with run.administer() as admin:
        return name in [known for known, _oid, _allowed in server.databases(admin)]


def _is_migrated(run: Run, prisma: Prisma, name: str) -> bool:
    """Whether a rehearsal left it, and no proof of down-SQL reverted the migrations."""
    if not _is_there(run, name):
        return False
    with run.connect(name) as session:
        state = read_state(session, prisma, run.connection.schema)
    return not state.pending and not state.failed


def story(found: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """The proofs, as short lines for users."""
    drill, rehearsal = found[DRILL], found[REHEARSAL]
    lines = restored(Verified.from_json(drill)) if drill else []
    if rehearsal:
        names = [migration["name"] for migration in rehearsal["migrations"]]
        lines += packed("Rehearsed on the copy in %s s:" % rehearsal["seconds"], names)
        if rehearsal["closed_server"]:
            lines.append("  in a server of its own, because of: %s" % rehearsal["closed_server"])
        lines += ["  " + line.strip() for line in packed("", rehearsal["summary"].split("; "), "; ")]
        lines.append("The old release on the new schema: %s." % _trial(found[OLD_RELEASE]))
        if found[DOWN_PROOF]:
            lines += packed("Taking them out again by SQL:", [_down(found[DOWN_PROOF]) + "."])
    return lines


def _trial(trial: Mapping[str, Any]) -> str:
    how = "works" if trial.get("works") else "does not work" if trial.get("tried") else "not tried"
    return ", ".join([how, *([str(trial["reason"])] if trial.get("reason") else [])])


def _down(proof: Mapping[str, Any]) -> str:
    return "proved" if proof["proved"] else ", ".join(["not proved", *proof["reasons"]])
