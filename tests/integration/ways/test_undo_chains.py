# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An undo is an operation like any other and can be undone by its id. Rows written in between are counted."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import retired_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import (
    Beginning,
    begin,
    this_controller,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import retired as retired_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.asked import Asked
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import (
    revert_in_place,
    undo_in_place,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import loss_of_undo, plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import back_up_retired, prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
    undo_table,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.undo import plan_undo
from support.interruptions import killed_at

EVERYTHING = 10**9
OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
PURCHASE = (
    'INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES (\'%s\', 1, now(), \'u1\')'
)


def begun(live, kind, **request):
    """An operation that records which release runs, as the roles do."""
    facts = {"former_commit": "release %d" % len(live.store.operation_ids())}
    operation, _adopted = begin(live.store, kind, live.name, request, this_controller(), Beginning(facts))
    return live.site.run(operation)


def buy(live, name):
    live.as_owner(PURCHASE % name)


def bought(live):
    found = live.rows('SELECT "id" FROM "TokenPurchase" WHERE "id" !~ \'^p[0-9]\' ORDER BY 1')
    return [name for (name,) in found]


def migrated(live):
    return live.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")


def reverted(live, place):
    run = begun(live, "rollback", scenario="complete", backup=place.backup_id)
    build_successor(run, place)
    revert(run, place, LossPolicy(0))
    run.operation.close("done")
    return run.operation


def undone(live, operation, accept=0, *, keep=True, reapply=None):
    """Do what undo_rollback.yml does with an operation's id."""
    plan = plan_undo(live.site, operation.id)
    assert (plan["needed"], plan["undoes"], plan["method"]) == (True, operation.id, "swap")
    run = begun(live, "undo", undoes=operation.id)
    try:
        if keep:
            back_up_retired(run, operation)
        result = undo(run, operation, LossPolicy(accept, reapply=reapply or Reapply()))
    except BackstopError:
        run.operation.close("failed")
        raise
    run.operation.close("done")
    return run.operation, result


def foretold(live, operation):
    """The loss that check mode shows."""
    return loss_of_undo(live.site, plan_undo(live.site, operation.id), Asked("undo"))["report"]


@pytest.fixture
def back_and_forth(plain):
    """A revert, and its undo."""
    place = plain.backup()
    plain.run("receipts.sql")
    first = reverted(plain, place)
    return plain, place, first, undone(plain, first)[0]


def test_three_long(back_and_forth):
    """For each, only rows written since are counted; each database is unchanged when it becomes live again."""
    live, place, first, second = back_and_forth
    assert migrated(live) and plan_revert(live.site, place.backup_id)["needed"]
    assert foretold(live, second) == ["Loss: none"]
    buy(live, "two")
    assert foretold(live, second)[0] == "Loss: public.TokenPurchase: at least 1 inserted"
    with pytest.raises(Refused, match="1 rows would be lost") as caught:
        undone(live, second)
    assert caught.value.found == "public.TokenPurchase: 1 inserted" and migrated(live) and bought(live) == ["two"]
    third, result = undone(live, second, accept=1)
    assert result.lost_rows == 1 and not migrated(live) and bought(live) == []
    assert plan_revert(live.site, place.backup_id)["needed"] is False, "the revert is in force again"

    buy(live, "three")
    live.as_owner('DELETE FROM "UserContribution" WHERE "id" = \'c1\'')
    with pytest.raises(Refused, match="2 rows would be lost"):
        undone(live, third, accept=1)
    lines = foretold(live, third)
    assert "Loss: public.UserContribution: at least 1 deleted" in lines and "at least 2 rows in all" in lines[-1]
    fourth, result = undone(live, third, accept=2)
    assert result.lost_rows == 2 and migrated(live) and bought(live) == ["two"]
    _fifth, result = undone(live, fourth)
    assert result.lost_rows == 0 and not migrated(live) and bought(live) == ["three"]
    assert not [name for name in live.names() if name.startswith("backstop_scratch_")]
    assert live.names() == [retired_name(_fifth.id, live.name), live.name]


def test_rows_go_along(back_and_forth):
    """With reapply they are carried over, by the revert and its undo, and none is counted twice."""
    live, _place, _first, second = back_and_forth
    apply = Reapply("apply", deletes=True)
    buy(live, "two")
    third, result = undone(live, second, reapply=apply)
    assert result.reapply.carried_rows == 1 and bought(live) == ["two"] and not migrated(live)
    assert foretold(live, third) == ["Loss: none"], "what was carried over was there when it took over"
    buy(live, "three")
    fourth, result = undone(live, third, reapply=apply)
    assert result.reapply.carried_rows == 1 and bought(live) == ["three", "two"] and migrated(live)
    _fifth, result = undone(live, fourth)
    assert result.lost_rows == 0 and bought(live) == ["three", "two"] and not migrated(live)


def test_what_an_id_means(back_and_forth):
    """The newest change can be undone; what it undid is undone already; everything else is refused by name."""
    live, _place, first, second = back_and_forth
    for operation_id in (None, first.id):
        plan = plan_undo(live.site, operation_id)
        assert (plan["needed"], plan["undoes"], plan["undone_by"]) == (False, first.id, second.id)
    third, _result = undone(live, second)
    plan = plan_undo(live.site, None)
    assert (plan["needed"], plan["undoes"], plan["undone_by"]) == (False, second.id, third.id)
    plan = plan_undo(live.site, third.id)
    assert (plan["needed"], plan["undone_by"]) == (True, None)
    can = "what can be undone now: -e rollback_operation=%s (undo of %s, swap)" % (third.id, second.id)
    with pytest.raises(Refused, match="Only the newest change can be undone") as caught:
        plan_undo(live.site, first.id)
    assert caught.value.hint == can and "%s (undo of %s, swap) came after %s" % (third.id, second.id, first.id) in (
        caught.value.found
    )
    with pytest.raises(Refused, match="There is no operation 20200101T000000Z-abcdef") as caught:
        plan_undo(live.site, "20200101T000000Z-abcdef")
    assert caught.value.hint == can
    with pytest.raises(Refused, match="There is no operation ../../etc"):
        plan_undo(live.site, "../../etc")
    nothing = live.begun("rollback", {"scenario": "complete", "backup": "x"}).operation
    nothing.close("failed")
    with pytest.raises(Refused, match="changed nothing that an undo could take back.*rollback that ended: failed") as (
        caught
    ):
        plan_undo(live.site, nothing.id)
    assert caught.value.hint == can
    other = Operation.create(live.store, "rollback", {"database": "elsewhere", "request": {}})
    with pytest.raises(Refused, match="about another database"):
        plan_undo(live.site, other.id)


def test_a_swap_that_came_in_between(back_and_forth):
    """Its undo compares with the swap before it; the older one is named as such."""
    live, place, _first, second = back_and_forth
    another = reverted(live, place)
    with pytest.raises(Refused, match="Only the newest change can be undone") as caught:
        plan_undo(live.site, second.id)
    assert "%s (rollback, swap) came after %s" % (another.id, second.id) in caught.value.found
    assert caught.value.hint.endswith("-e rollback_operation=%s (rollback, swap)" % another.id)
    undone(live, another)
    assert migrated(live)


def test_a_retired_database_that_was_pruned(back_and_forth):
    """It can be restored from its dump; nothing else can be undone then."""
    live, _place, first, second = back_and_forth
    [pruned] = prune(live.site, window_days=0, level="readable", dump=True)
    assert pruned["action"] == "dropped"
    with pytest.raises(Refused, match="cannot be undone any more") as caught:
        plan_undo(live.site, second.id)
    assert pruned["name"] in caught.value.found and pruned["dump"] in caught.value.found
    assert "rollback_backup=" + pruned["dump"] in caught.value.hint and "nothing can be undone now" in caught.value.hint
    with pytest.raises(Refused, match="Operation %s cannot be undone any more" % first.id) as caught:
        plan_undo(live.site, first.id)
    assert caught.value.found == "no database " + retired_name(first.id, live.name)


def test_not_past_a_deploy(back_and_forth):
    live, _place, _first, second = back_and_forth
    deploy = live.begun("deploy", {"commit": "newer"}).operation
    deploy.close("done")
    for operation_id in (None, second.id):
        with pytest.raises(Refused, match="nothing to undo.*deploy %s came after" % deploy.id):
            plan_undo(live.site, operation_id)


def test_the_backup_of_what_comes_back(back_and_forth):
    """One is enough; it is made while the application runs, and the retired database stays closed."""
    live, _place, first, second = back_and_forth
    assert len(live.store.backups("emergency")) == 1
    run = begun(live, "undo", undoes=second.id)
    made = back_up_retired(run, second)
    assert made.changed and made.retired == retired_name(second.id, live.name)
    assert back_up_retired(run, second) == dataclasses.replace(made, changed=False)
    allowed = "SELECT datallowconn FROM pg_database WHERE datname = '%s'" % made.retired
    assert live.value(allowed, "postgres") is False
    # The operation failed: the next undo finds its backup.
    run.operation.close("failed")
    third, result = undone(live, second)
    assert result.backup == made.backup and len(live.store.backups("emergency")) == 2
    # Also when it is called again after the swap.
    assert back_up_retired(run, second).changed is False
    with pytest.raises(Refused, match="cannot be undone"):
        back_up_retired(run, first)
    assert third.facts("keep")["backup"] == made.backup


def test_somebody_who_writes_while_it_is_backed_up(back_and_forth, monkeypatch):
    live, _place, _first, second = back_and_forth
    name = retired_name(second.id, live.name)

    def write(where):
        if where == "retired.dumped":
            live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS true' % name, "postgres")
            live.execute('DELETE FROM "UserContribution" WHERE "id" = \'c7\'', name)
            live.execute('ALTER DATABASE "%s" ALLOW_CONNECTIONS false' % name, "postgres")

    monkeypatch.setattr(retired_module, "reach", write)
    with pytest.raises(BackstopError, match="changed while it was backed up.*UserContribution has 399 rows, not 400"):
        undone(live, second)
    assert migrated(live) and name in live.names()


def test_without_that_backup_nothing_is_guessed(back_and_forth):
    """Equal contents need no backup; rows written since cannot be counted without one, so it is refused."""
    live, _place, _first, second = back_and_forth
    third, _result = undone(live, second, keep=False)
    (told,) = foretold(live, third)
    assert told.startswith("Note: what was written since is not known: ")
    with pytest.raises(BackstopError, match="What was written since cannot be counted"):
        undone(live, third, accept=EVERYTHING)


def test_an_undo_that_was_cut_off_goes_on_by_its_id(back_and_forth):
    """Killed right after the COMMIT of its swap: by the same id it is found done."""
    live, _place, _first, second = back_and_forth
    run = begun(live, "undo", undoes=second.id)
    back_up_retired(run, second)
    undo(run, second, LossPolicy(0))
    plan = plan_undo(live.site, second.id)
    assert (plan["needed"], plan["undone_by"]) == (False, run.operation.id)
    assert back_up_retired(run, second).changed is False and undo(run, second, LossPolicy(0)).changed is False


@pytest.mark.fault("deploy", "undo killed between its COMMIT and its journal", by="the retired database's name")
def test_an_undo_that_was_killed_before_it_could_record_its_swap(plain):
    """The database that it made live was live before, by an operation whose journal is complete."""
    place = plain.backup()
    plain.run("receipts.sql")
    reverted(plain, place)
    made_live = plain.value(OID)
    second = reverted(plain, place)
    run = begun(plain, "undo", undoes=second.id)
    back_up_retired(run, second)
    killed_at("swap.committed", lambda: undo(run, second, LossPolicy(0)))
    assert plain.value(OID) == made_live and run.operation.done("swap") is None
    plan = plan_undo(plain.site, second.id)
    assert (plan["needed"], plan["undone_by"]) == (False, run.operation.id)
    assert undo(run, second, LossPolicy(0)).changed is False and run.operation.done("swap")
    run.operation.close("done")
    undone(plain, run.operation)
    assert plain.value(OID) != made_live


def test_in_place_three_long(plain):
    place = plain.backup()
    plain.run("receipts.sql")
    run = begun(plain, "rollback", scenario="complete", method="in_place")
    revert_in_place(run, place, LossPolicy(0))
    run.operation.close("done")
    last, expected = run.operation, False
    for number in range(3):
        assert migrated(plain) is expected
        buy(plain, "n%d" % number)
        plan = plan_undo(plain.site, last.id)
        assert (plan["needed"], plan["method"], plan["undoes"]) == (True, "in_place", last.id)
        assert plan["commit"] == last.header["facts"]["former_commit"]
        assert foretold(plain, last)[0] == "Loss: public.TokenPurchase: at least 1 inserted"
        run = begun(plain, "undo", undoes=last.id)
        with pytest.raises(Refused, match="1 rows would be lost"):
            undo_in_place(run, last, LossPolicy(0))
        assert undo_in_place(run, last, LossPolicy(1)).lost_rows == 1
        run.operation.close("done")
        former, last, expected = last, run.operation, not expected
        plan = plan_undo(plain.site, former.id)
        assert (plan["needed"], plan["undone_by"]) == (False, last.id)
    assert migrated(plain) and bought(plain) == ["n1"]


def test_the_code_alone_three_long(plain):
    """The database stays unchanged, so nothing is needed there; the release is the one that ran before each."""

    def changed(kind, **request):
        operation = begun(plain, kind, **request).operation
        operation.write("code", "done", commit="x")
        operation.close("done")
        return operation

    last = changed("rollback", method="code_only")
    for _number in range(3):
        plan = plan_undo(plain.site, last.id)
        assert (plan["method"], plan["undoes"], plan["undone_by"]) == ("code_only", last.id, None)
        assert plan["commit"] == last.header["facts"]["former_commit"] and plan["needed"] is False
        former, last = last, changed("undo", undoes=last.id)
        assert plan_undo(plain.site, former.id)["undone_by"] == last.id
        assert plan_undo(plain.site, None)["undoes"] == former.id


def test_a_table_three_long(plain):
    place = plain.backup()
    plain.execute('UPDATE "UserContribution" SET "contributionAmount" = 0 WHERE "id" < \'c2\'')
    zeros = 'SELECT count(*) FROM "UserContribution" WHERE "contributionAmount" = 0'
    wrong = plain.value(zeros)
    run = begun(plain, "rollback", scenario="corrupted_table")
    assert restore_table(run, TableRestoreRequest("UserContribution"), place.backup_id).changed
    run.operation.close("done")
    chain = [run.operation]
    for expected in (wrong, 0, wrong):
        plan = plan_undo(plain.site, chain[-1].id)
        assert (plan["needed"], plan["method"], plan["undoes"]) == (True, "table", chain[-1].id)
        run = begun(plain, "undo", undoes=chain[-1].id)
        undo_table(run, chain[-1], LossPolicy(0))
        run.operation.close("done")
        chain.append(run.operation)
        assert plain.value(zeros) == expected
        plan = plan_undo(plain.site, chain[-2].id)
        assert (plan["needed"], plan["undone_by"]) == (False, chain[-1].id)
    assert plan_undo(plain.site, None)["undoes"] == chain[-2].id
    with pytest.raises(Refused, match="Only the newest restore of table public.UserContribution") as caught:
        plan_undo(plain.site, chain[0].id)
    assert caught.value.hint == "undo that one: -e rollback_operation=" + chain[-1].id
    with pytest.raises(Refused, match="There is no operation") as caught:
        plan_undo(plain.site, "20200101T000000Z-abcdef")
    assert caught.value.hint == "what can be undone now: -e rollback_operation=%s (undo of %s, table)" % (
        chain[-1].id,
        chain[-2].id,
    )
