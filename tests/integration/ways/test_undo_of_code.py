# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The change that an undo reverts if the last rollback changed only the release: found by operation, newest first."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo


def ended(live, kind, outcome="done", step="code", **request):
    """An operation of this database that recorded a step."""
    facts = {"former_commit": "newer"}
    operation = Operation.create(live.store, kind, {"database": live.name, "request": request, "facts": facts})
    operation.write(step, "done")
    operation.close(outcome)
    return operation


def test_the_release_goes_back_and_the_database_stays(plain):
    rolled_back = ended(plain, "rollback", method="code_only")
    plan = plan_undo(plain.site, None)
    assert plan == {
        "needed": False,
        "method": "code_only",
        "undoes": rolled_back.id,
        "commit": "newer",
        "retired": None,
        "table": None,
        "undone_by": None,
    }
    assert plan_undo(plain.site, rolled_back.id) == plan

    undo = ended(plain, "undo", undoes=rolled_back.id)
    plan["undone_by"] = undo.id
    assert plan_undo(plain.site, None) == plan, "an undo that is done has nothing left to do but the same"
    assert plan_undo(plain.site, rolled_back.id) == plan


def test_only_the_newest_change(plain):
    first = ended(plain, "rollback", method="code_only")
    second = ended(plain, "rollback", method="code_only", again=True)
    assert plan_undo(plain.site, None)["undoes"] == second.id
    with pytest.raises(Refused, match="Only the newest change can be undone.*%s .* came after" % second.id):
        plan_undo(plain.site, first.id)


def test_one_that_failed_does_not_count(plain):
    ended(plain, "rollback", outcome="failed", method="code_only")
    with pytest.raises(Refused, match="nothing to undo"):
        plan_undo(plain.site, None)


def test_not_after_another_deploy(plain):
    ended(plain, "rollback", method="code_only")
    deploy = ended(plain, "deploy", step="migrate")
    with pytest.raises(Refused, match="nothing to undo.*deploy %s came after" % deploy.id):
        plan_undo(plain.site, None)


def test_a_swap_that_came_after(plain):
    ended(plain, "rollback", method="code_only")
    place = plain.backup()
    run = plain.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    revert(run, place, LossPolicy(0))
    run.operation.close("done")
    plan = plan_undo(plain.site, None)
    assert (plan["method"], plan["undoes"], plan["needed"]) == ("swap", run.operation.id, True)
