# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollback that reverts an applied migration in the live database by SQL that was proved on a copy.

Without a proof the backup is restored instead, if that is accepted.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Optional, Union

from ..backups.make import make_backup
from ..base.durable_files import read_tree
from ..base.errors import Refused
from ..base.remedies import Given, Setting, remedy
from ..migrations.fence import fence
from ..site import Run, Site, journaled_step
from ..store.layout import BackupPlace
from ..store.steps import DOWN_PROOF, EMERGENCY_BACKUP, DownSqlProved, TakenOut
from .choose import DOWN_SQL
from .down_sql import count_ahead, is_out, not_by_itself, rehearse_down, settle, take_out
from .facts import Facts
from .forecast import losses_of_drop, objects_of_revert
from .in_force import Change
from .way import Applied, Consent, Outcome, Plan, Prepared, Programs, Ready, TakeInstead, Way, then_start
from .way_swap import Swap, lost_lines


@dataclasses.dataclass(frozen=True)
class TakeOut:
    """Run proved down-SQL."""

    #: the backup from before the migration
    place: BackupPlace
    programs: Programs

    name = DOWN_SQL
    stops_application = True

    @staticmethod
    def plan(site: Site, facts: Facts, release: str) -> Plan:
        return Plan(
            [
                "make an emergency backup and prove the down-SQL on a copy restored from it",
                "stop the application",
                "run the down-SQL and take %s out of the history, in one transaction" % ", ".join(facts.applied_since),
                then_start(release),
            ],
            losses_of_drop(site, facts),
            objects_of_revert(site, facts.place, facts),
            copies=True,
            keeps=True,
        )

    def prepare(self, run: Run, consent: Consent) -> Prepared:
        proof = run.operation.recorded(DOWN_PROOF) or self._rehearse(run)
        if not proof.proved:
            why = "The down-SQL (%s) is not proved: %s." % (proof.source, "; ".join(proof.reasons))
            if not consent.restore:
                raise Refused(why.rstrip("."), hint=remedy("fix it, or use %s", Given(Setting.METHOD, "restore")))
            return TakeInstead(Swap(self.place), why + " The database is restored instead.")
        return Ready(True, count_ahead(run, consent.policy))

    def _rehearse(self, run: Run) -> DownSqlProved:
        programs = self.programs
        return rehearse_down(
            run,
            self.place,
            _back_up(run, programs),
            given=programs.down_sql,
            file=programs.down_sql_file,
            prisma=programs.prisma(),
            old_release=programs.old_project,
        )

    def apply(self, run: Run, consent: Consent) -> Applied:
        proof = run.operation.recorded(DOWN_PROOF)
        if proof is not None and not proof.proved:
            return TakeInstead(Swap(self.place), "the down-SQL is not proved")
        if not is_out(run, self.place):
            self._renew_backup(run)
        return _outcome(run, take_out(run, consent.policy))

    def _renew_backup(self, run: Run) -> None:
        """The emergency backup must equal the current database. The automatic rollback of a deploy has made none; a
        rollback made one before the application stopped."""
        operation = run.operation
        known = operation.facts(EMERGENCY_BACKUP) if operation.kind == "rollback" else None
        if known is None or not fence(run, run.store.find_backup(known["backup"]), self.programs.wait).same:
            _back_up(run, self.programs)

    @staticmethod
    def settle(run: Run) -> Optional[Outcome]:
        found = settle(run)
        return _outcome(run, found) if found else None

    @staticmethod
    def reverse(change: Change, programs: Programs) -> Union[Way, Refused]:
        return not_by_itself(change.operation)


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


def _outcome(run: Run, found: TakenOut) -> Outcome:
    what = "Taken out: %s. Emergency backup: %s." % (", ".join(found.migrations), found.backup or "see the journal")
    database = "as before, the migration was taken out again by its down-SQL"
    return Outcome.of(found, lost_lines(run, found, what), database)
