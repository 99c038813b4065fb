# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects that another session made since the backup are all named, and dropped only with consent; objects of the
rolled-back migrations are dropped without."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.migration_changes import note_objects
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import (
    count_ahead,
    rehearse_down,
    take_out,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import diagnose
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo

#: One of each kind that the issue was found with, and more than a list is usually cut at.
OTHERS = """
CREATE INDEX by_hand ON "TokenPurchase" ("purchaseDate");
CREATE VIEW report AS SELECT "id" FROM "TokenPurchase";
CREATE SCHEMA empty;
CREATE SCHEMA other;
CREATE TABLE other._prisma_migrations (id text PRIMARY KEY, migration_name text);
CREATE TABLE other.orders (id serial PRIMARY KEY, v text);
CREATE FUNCTION double(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';
CREATE TYPE colour AS ENUM ('red');
ALTER TABLE "User" ADD nickname text;
ALTER TABLE "TokenPurchase" ADD CONSTRAINT positive CHECK ("totalTokens" > -1) NOT VALID;
CREATE TRIGGER touched BEFORE UPDATE ON "User" FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
"""
NAMED = {
    "index public.by_hand", "view public.report", "schema empty", "schema other", "table other._prisma_migrations",
    "table other.orders", "function public.double(integer)", "type public.colour", "column public.User.nickname",
    "constraint public.TokenPurchase.positive", "trigger public.User.touched",
}  # fmt: skip


@pytest.fixture
def deployed(plain):
    """A backup, and the migration of ET-100 as a deploy rehearsed and applied it."""
    place = plain.backup()
    run = plain.begun("deploy")
    with plain.site.connect() as session:
        before = definitions.definitions(session)
    plain.run("receipts.sql")
    with plain.site.connect() as session:
        note_objects(run.operation, before, definitions.definitions(session))
    run.operation.write("backup", "done", backup=place.backup_id)
    migration = {"name": "20251108000000_add_receipt_data", "seconds": 0.1}
    run.operation.write("rehearsal", "done", migrations=[migration])
    run.operation.close("done")
    return plain, place


def begun(live, place, kind="rollback", **request):
    return live.begun(kind, request or {"backup": place.backup_id})


def test_every_object_that_the_migration_did_not_make_is_named(deployed):
    live, place = deployed
    live.as_owner(OTHERS)
    facts = gather(live.site, backup_id=place.backup_id, healthy=True)
    plan = diagnose(live.site, "complete", facts)
    assert set(plan["lost_objects"]) == NAMED and not plan["objects_of_unknown_origin"]
    told = "\n".join(plan["report"])
    assert all(name in told for name in NAMED) and "rollback_accept_lost_objects=11" in told and " more" not in told
    run = begun(live, place)
    build_successor(run, place)
    for ahead in (True, False):
        with pytest.raises(Refused) as caught:
            revert(run, place, LossPolicy(10, objects=10), only_count=ahead)
        assert set(str(caught.value.found).split(", ")) == NAMED
        assert caught.value.details["lost_objects"] == plan["lost_objects"]
        assert "-e rollback_accept_lost_objects=11" in caught.value.hint
        assert live.value("SELECT to_regclass('report') IS NOT NULL")
    assert revert(run, place, LossPolicy(10, objects=11), only_count=True).changed is False
    result = revert(run, place, LossPolicy(10, objects=11))
    assert set(result.lost_objects) == NAMED and live.value("SELECT to_regclass('report') IS NULL")
    run.operation.close("done")
    # An undo would drop objects that are made now.
    live.as_owner("CREATE VIEW later AS SELECT 1")
    back = begun(live, place, "undo", undoes=run.operation.id)
    with pytest.raises(Refused, match="1 objects that the migrations did not create") as caught:
        undo(back, run.operation, LossPolicy(0), only_count=True)
    assert caught.value.found == "view public.later"
    assert undo(back, run.operation, LossPolicy(0, objects=1)).changed
    assert live.value("SELECT to_regclass('report') IS NOT NULL")


def test_what_the_migrations_made_needs_no_consent(deployed):
    live, place = deployed
    run = begun(live, place)
    build_successor(run, place)
    result = revert(run, place, LossPolicy(0))
    assert result.changed and result.lost_objects == []


def test_changed_objects_and_a_restore_in_place(deployed):
    live, place = deployed
    live.as_owner('ALTER TABLE "User" ALTER "name" SET DEFAULT \'nobody\'')
    live.as_owner('GRANT SELECT ON "User" TO shop_report; GRANT UPDATE ("email") ON "User" TO shop_report')
    named = [
        "column public.User.name (changed)",
        "privileges of column public.User.email",
        "privileges of table public.User",
    ]
    run = begun(live, place)
    for ahead in (True, False):
        with pytest.raises(Refused) as caught:
            revert_in_place(run, place, LossPolicy(0), only_count=ahead)
        assert sorted(caught.value.found.split(", ")) == named
    assert not [one for one in run.store.backups("emergency") if ahead] or not ahead
    result = revert_in_place(run, place, LossPolicy(0, objects=3))
    assert result.changed and sorted(result.lost_objects) == named


def test_what_down_sql_takes_along(deployed):
    """The proof compares with the backup, so it expects a view made by hand to be gone too."""
    live, place = deployed
    live.as_owner('CREATE VIEW receipts AS SELECT "id" FROM "ReceiptData"')
    facts = gather(live.site, backup_id=place.backup_id, healthy=False)
    plan = diagnose(live.site, "application_errors", facts, {"method": "drop"})
    assert plan["lost_objects"] == ["view public.receipts"]
    run = live.begun("rollback", {"scenario": "application_errors", "method": "drop", "backup": place.backup_id})
    now = live.backup("emergency")
    run.operation.write("emergency_backup", "done", backup=now.backup_id)
    proof = rehearse_down(run, place, now, given='DROP TABLE "ReceiptData" CASCADE')
    assert proof.proved, proof.reasons
    for act in (count_ahead, take_out):
        with pytest.raises(Refused, match="1 objects that the migrations did not create") as caught:
            act(run, LossPolicy(0))
        assert caught.value.found == "view public.receipts"
    assert live.value("SELECT to_regclass('receipts') IS NOT NULL")
    assert take_out(run, LossPolicy(0, objects=1)).lost_objects == ["view public.receipts"]
    assert live.value("SELECT to_regclass('receipts') IS NULL")


def test_migrations_that_no_deploy_rehearsed(plain):
    """Then it is unknown which session made what: all of it is named, and consent to the rows is enough."""
    place = plain.backup()
    plain.run("receipts.sql")
    plain.as_owner("CREATE VIEW report AS SELECT 1")
    run = begun(plain, place)
    build_successor(run, place)
    result = revert(run, place, LossPolicy(0))
    assert result.objects_of_unknown_origin and {"table public.ReceiptData", "view public.report"} <= set(
        result.lost_objects
    )


def test_the_history_of_another_application_is_a_table_like_others(deployed):
    """Its rows are counted, compared and kept like all others."""
    live, _place = deployed
    live.as_owner("CREATE SCHEMA other; CREATE TABLE other._prisma_migrations (id text PRIMARY KEY)")
    place = live.backup()
    live.as_owner("INSERT INTO other._prisma_migrations VALUES ('theirs')")
    facts = gather(live.site, backup_id=place.backup_id, healthy=True)
    losses = {loss["table"]: loss["inserted"] for loss in diagnose(live.site, "complete", facts)["losses"]}
    assert losses["other._prisma_migrations"] == 1 and "public._prisma_migrations" not in losses
    run = begun(live, place)
    with pytest.raises(Refused, match="1 rows would be lost"):
        revert_in_place(run, place, LossPolicy(0))
    build_successor(run, place)
    with pytest.raises(Refused) as caught:
        revert(run, place, LossPolicy(0))
    assert "other._prisma_migrations: 1 inserted" in caught.value.found
