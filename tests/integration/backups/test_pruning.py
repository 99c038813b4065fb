# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pruning with real operations: after the strictest rule, the backups they need exist, and they continue with them."""

from __future__ import annotations

import datetime

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from support.made_backups import made_backup

HARDEST = Policy(days=1, weeks=1, pre_migration_days=1, post_migration_days=1)
YEARS = datetime.timedelta(days=4000)


def pruned_years_later(live):
    """The remaining backups after years of newer backups of every kind."""
    identifier = prune(live.store, HARDEST, only_check=True)[0].item.server
    for kind in ("daily", "weekly", "pre-migration", "post-migration"):
        for days in (3, 1):
            created = utc_now() + YEARS - datetime.timedelta(days=days)
            made_backup(live.store, kind, created, database=live.name, server=identifier, level="restored")
    decisions = prune(live.store, HARDEST, max_share=1, now=utc_now() + YEARS)
    assert any(not decision.keep for decision in decisions)
    return {place.backup_id for place in live.store.backups()}


def test_a_revert_that_was_interrupted_and_its_undo(plain):
    superseded = plain.backup("daily")
    place = plain.backup()
    run = plain.begun("rollback", {"backup": place.backup_id})
    left = pruned_years_later(plain)
    assert place.backup_id in left and superseded.backup_id not in left

    build_successor(run, place)
    assert revert(run, place, LossPolicy(0)).changed
    run.operation.close("done")
    plain.execute(
        'DELETE FROM "User" WHERE id = (SELECT min(id) FROM "User" WHERE id NOT IN'
        ' (SELECT "createdBy" FROM "TokenPurchase"))'
    )
    assert place.backup_id in pruned_years_later(plain)

    back = plain.begun("undo", {"undoes": run.operation.id})
    assert undo(back, run.operation, LossPolicy(10**9)).changed
    back.operation.close("done")


def test_the_last_deploy_can_be_reverted(plain):
    deploy = plain.begun("deploy")
    plain.site = deploy
    place = plain.backup()
    deploy.operation.write("backup", "done", backup=place.backup_id)
    plain.run("receipts.sql")
    deploy.operation.write("migrate", "done", applied=["receipts"])
    deploy.operation.close("done")
    assert place.backup_id in pruned_years_later(plain)
    assert plan_revert(plain.site, None)["backup"] == place.backup_id
    run = plain.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    assert revert(run, place, LossPolicy(0)).changed
