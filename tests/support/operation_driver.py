# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out the database's part of a deploy, a revert or an undo in one process, as the roles do with modules.

A test starts it as a program, kills it at a failpoint, starts it again and checks the result:

    python -m support.operation_driver deploy|deploy_with_down|revert|revert_and_carry|undo|undo_and_carry SETTINGS.json
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, Dict, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.change import change_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits, read_state
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import evaluate
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.inputs import GateInputs
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import (
    clean_failed_migration,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import require_before
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.template_copy import FILES
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Prisma
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site, journaled_step
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import (
    Beginning,
    begin,
    this_controller,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    Operation,
    open_operations,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import STARTED, STOP
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.proofs import prove
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import back_up_retired
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.forks import drive

LOCK_TIMEOUT_MS = 5000


class Driver:
    """One run of a playbook, without its application."""

    def __init__(self, given: Dict[str, Any]) -> None:
        connection = Settings.from_url(given["url"])
        administration = Settings.from_url(given.get("administration", given["url"])).with_database("postgres")
        self.site = Site(connection, administration, Store(given["store"]), given.get("client_bin_dir"))
        self.release = Settings.from_url(given.get("release_url", given["url"]))
        self.controller = given.get("controller") or this_controller()
        self.expected = given.get("expected", [])
        self.down: Optional[Dict[str, Any]] = None
        self.safety_copy = ""
        self.data_directory = given.get("data_directory")
        project = Project(given["project"], node_bin_dir=given["node_bin_dir"])
        self.prisma = Prisma(project, environment=given["prisma_environment"])

    def _begin(self, kind: str, request: Dict[str, Any], **facts: Any) -> Operation:
        how = Beginning(facts)
        operation, _adopted = begin(self.site.store, kind, self.site.database, request, self.controller, how)
        self.site = self.site.run(operation, self.controller)
        return operation

    def _state(self) -> history.MigrationState:
        with self.site.connect() as session:
            return read_state(session, self.prisma, self.site.connection.schema)

    def deploy_with_down(self) -> Dict[str, Any]:
        """SQL that reverts the migration is proved too."""
        self.down = {"given": 'DROP TABLE "ReceiptData"'}
        return self.deploy()

    def deploy_with_copy(self) -> Dict[str, Any]:
        """The database is copied before the migration."""
        self.safety_copy = FILES
        return self.deploy()

    def deploy(self) -> Dict[str, Any]:
        state = self._state()
        operation = self._begin("deploy", {"migrations": self.expected}, pending=state.pending)
        if state.failed:
            return self._clean(operation)
        if state.pending:
            self._prove(operation)
            require_before(operation, STOP)
            operation.write(STOP, "done")
        if state.pending or operation.last("migrate"):
            self._change()
            require_before(operation, STARTED)
            operation.write(STARTED, "done")
        operation.close("done")
        return {"operation": operation.id, "outcome": "done"}

    def _prove(self, operation: Operation) -> None:
        gates = evaluate(
            self.site,
            GateInputs(
                files=history.read_folder(self.prisma.project.migrations()),
                expected=self.expected,
                release_connections=lambda: {"DATABASE_URL": self.release},
                database_directory=self.data_directory,
                applications={},
            ),
        )
        closed = [gate for gate in gates if not gate.passed]
        if closed:
            raise BackstopError("Gates are closed", found="; ".join(str(gate) for gate in closed))
        operation.write("gates", "done", safety_copy=self.safety_copy)
        if not operation.done("rehearsal"):
            self._back_up(operation)
        prove(self.site, self.prisma, Limits(self.expected, LOCK_TIMEOUT_MS), down=self.down)

    def _back_up(self, operation: Operation) -> None:
        with journaled_step(self.site, "backup") as facts:
            facts["backup"] = make_backup(self.site, "pre-migration").backup_id

    def _change(self) -> None:
        change_database(self.site, self.prisma, Limits(self.expected, LOCK_TIMEOUT_MS), wait_seconds=5)

    def _clean(self, operation: Operation) -> Dict[str, Any]:
        place = self.site.store.find_backup((operation.facts("backup") or {})["backup"])
        result = clean_failed_migration(self.site, place, self.prisma, LossPolicy())
        operation.close("rolled_back")
        return {"operation": operation.id, **dataclasses.asdict(result), "outcome": "rolled_back"}

    def revert_and_carry(self) -> Dict[str, Any]:
        """Rows that were written since the backup are carried over."""
        return self.revert(Reapply("apply", deletes=True))

    def undo_and_carry(self) -> Dict[str, Any]:
        return self.undo(Reapply("apply", deletes=True))

    def revert(self, reapply: Optional[Reapply] = None) -> Dict[str, Any]:
        plan = plan_revert(self.site, None)
        if not plan["needed"] and not self._interrupted("rollback"):
            return {"outcome": "nothing"}
        operation = self._begin("rollback", {"scenario": "complete", "backup": plan["backup"]})
        place = self.site.store.find_backup(plan["backup"])
        build_successor(self.site, place)
        revert(self.site, place, LossPolicy(0, reapply=reapply or Reapply()))
        operation.close("done")
        return {"operation": operation.id, "outcome": "done"}

    def undo(self, reapply: Optional[Reapply] = None) -> Dict[str, Any]:
        plan = plan_undo(self.site, None)
        if not plan["needed"] and not self._interrupted("undo"):
            return {"outcome": "nothing"}
        operation = self._begin("undo", {"undoes": plan["undoes"]})
        undone = Operation.load(self.site.store, plan["undoes"])
        back_up_retired(self.site, undone)
        undo(self.site, undone, LossPolicy(0, reapply=reapply or Reapply()))
        operation.close("done")
        return {"operation": operation.id, "outcome": "done"}

    def _interrupted(self, kind: str) -> bool:
        return any(operation.kind == kind for operation in open_operations(self.site.store))


def main() -> int:
    return drive(lambda what, given: getattr(Driver(given), what)())


if __name__ == "__main__":
    sys.exit(main())
