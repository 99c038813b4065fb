# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback that reverts an applied migration in the live database by SQL that was proved on a copy.

Without a proof the backup is restored instead, if that is accepted.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, Optional, Union

from ..backups.make import make_backup
from ..base.durable_files import read_tree
from ..base.errors import Refused
from ..base.remedies import Given, Setting, remedy
from ..migrations.fence import fence
from ..site import Run, journaled_step
from ..store.layout import BackupPlace
from ..store.steps import DOWN, DOWN_PROOF, EMERGENCY_BACKUP
from .choose import DOWN_SQL
from .down_sql import count_ahead, how_to_undo, is_out, rehearse_down, settle, take_out
from .way import Change, Consent, Outcome, Programs, Ready, Refusal, TakeInstead, Way, facts_without_own
from .way_swap import Swap, lost_lines


@dataclasses.dataclass(frozen=True)
class TakeOut:
    """Run proved down-SQL."""

    #: the backup from before the migration
    place: BackupPlace
    programs: Programs

    name = DOWN_SQL
    stops_application = True

    def prepare(self, run: Run, consent: Consent) -> Union[Ready, TakeInstead]:
        operation = run.operation
        proof = operation.facts(DOWN_PROOF)
        if proof is None:
            now = _back_up(run, self.programs)
            prisma, programs = self.programs.prisma(), self.programs
            proof = rehearse_down(
                run,
                self.place,
                now,
                given=programs.down_sql,
                file=programs.down_sql_file,
                prisma=prisma,
                old_release=programs.old_project,
            )
        if not proof["proved"]:
            why = "The down-SQL (%s) is not proved: %s." % (proof["source"], "; ".join(proof["reasons"]))
            if not consent.restore:
                raise Refused(why.rstrip("."), hint=remedy("fix it, or use %s", Given(Setting.METHOD, "restore")))
            return TakeInstead(Swap(self.place, self.programs), why + " The database is restored instead.")
        return Ready(True, count_ahead(run, consent.policy), ())

    def apply(self, run: Run, consent: Consent) -> Union[Outcome, TakeInstead]:
        operation = run.operation
        proof = operation.facts(DOWN_PROOF)
        if proof is not None and not proof["proved"]:
            return TakeInstead(Swap(self.place, self.programs), "the down-SQL is not proved")
        if not is_out(run, self.place):
            self._renew_backup(run)
        return _outcome(run, take_out(run, consent.policy))

    def _renew_backup(self, run: Run) -> None:
        """The emergency backup must equal the current database. The automatic rollback of a deploy has made none; a
        rollback made one before the application stopped."""
        operation = run.operation
        known = operation.facts(EMERGENCY_BACKUP) if operation.kind == "rollback" else None
        if known is None or not fence(run, run.store.find_backup(known["backup"]), self.programs.wait)["same"]:
            _back_up(run, self.programs)

    def settle(self, run: Run) -> Optional[Outcome]:
        return settled(run)

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refusal]:
        return Refused(
            "Operation %s cannot be undone by itself: it took a migration out of the live database" % change.id,
            hint=" ".join(how_to_undo(change.operation.result(DOWN))),
        )


def settled(run: Run) -> Optional[Outcome]:
    found = settle(run)
    if not found["taken_out"]:
        return None
    return _outcome(run, {**(run.operation.facts(DOWN) or {}), "changed": found["changed"]})


def _back_up(run: Run, programs: Programs) -> BackupPlace:
    """A backup of the current database, with the running release."""
    operation = run.operation
    commit = operation.request.get("commit") if operation.kind == "deploy" else operation.former_commit
    folder = programs.prisma().project.migrations()
    with journaled_step(run, EMERGENCY_BACKUP) as kept:
        place = make_backup(
            run,
            "emergency",
            migrations=read_tree(folder) if os.path.isdir(folder) else None,
            commit=commit or None,
            form=programs.backup,
        )
        kept["backup"] = place.backup_id
    return place


def _outcome(run: Run, found: Dict[str, Any]) -> Outcome:
    facts = facts_without_own(found)
    what = "Taken out: %s. Emergency backup: %s." % (
        ", ".join(facts.get("migrations", [])), facts.get("backup") or "see the journal",
    )  # fmt: skip
    story = lost_lines(run, facts, what)
    return Outcome(found["changed"], facts, story, "as before, the migration was taken out again by its down-SQL")
