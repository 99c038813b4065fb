# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A migration that renames a table or column writes no row: only rows written since are lost, and carried over."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.count import count_losses
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.kept_rows import write_lost_rows
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.pairing import known_by_oid
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.forecast import losses_of_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from support.databases import OWNER

BEFORE = """
CREATE TABLE item (id integer PRIMARY KEY, name text, price integer, note text);
CREATE TABLE loose (a integer, b text);
INSERT INTO item SELECT g, 'n' || g, g, 'o' || g FROM generate_series(1, 500) g;
INSERT INTO loose SELECT g % 5, 'x' FROM generate_series(1, 50) g;
"""
#: A migration, the writes after it, and the resulting loss.
RENAMES = {
    "table": ("ALTER TABLE item RENAME TO article", "INSERT INTO article VALUES (1000, 'new', 1, '')",
              {"public.article": (1, 0, 0)}),
    "schema": ("CREATE SCHEMA shop; ALTER TABLE item SET SCHEMA shop",
               "DELETE FROM shop.item WHERE id = 3; UPDATE shop.item SET name = 'u' WHERE id = 4",
               {"shop.item": (0, 1, 1)}),
    "columns": ("ALTER TABLE item RENAME id TO number; ALTER TABLE item RENAME name TO title",
                "UPDATE item SET title = 'other' WHERE number IN (7, 8)", {"public.item": (0, 2, 0)}),
    "columns exchanged": (
        "ALTER TABLE item RENAME name TO t; ALTER TABLE item RENAME note TO name; ALTER TABLE item RENAME t TO note",
        "UPDATE item SET note = 'other' WHERE id = 9", {"public.item": (0, 1, 0)}),
    "all at once": (
        ("CREATE SCHEMA shop; ALTER TABLE item SET SCHEMA shop; ALTER TABLE shop.item RENAME TO article;"
         " ALTER TABLE shop.article RENAME id TO number; ALTER TABLE shop.article ADD fresh text"),
        "INSERT INTO shop.article VALUES (1000, 'new', 1, '', 'x'); UPDATE shop.article SET price = 0 WHERE number < 3",
        {"shop.article": (1, 2, 0)}),
    "without a key": ("ALTER TABLE loose RENAME TO free; ALTER TABLE free RENAME a TO c",
                      "INSERT INTO free VALUES (1, 'y'), (1, 'y'), (1, 'x')", {"public.free": (3, 0, 0)}),
    "two tables exchanged": (
        ("CREATE TABLE item_2 (LIKE item INCLUDING ALL); ALTER TABLE item RENAME TO item_old;"
         " ALTER TABLE item_2 RENAME TO item"),
        "INSERT INTO item VALUES (1, 'a', 1, ''); INSERT INTO item_old VALUES (1000, 'new', 1, '')",
        {"public.item": (1, 0, 0), "public.item_old": (1, 0, 0)}),
}  # fmt: skip


@pytest.fixture
def shop(plain):
    plain.as_owner(BEFORE)
    return plain


def migrated(live, how):
    """The backup from before, and the loss after the migration and the writes."""
    place = live.backup()
    migration, writes, lost = RENAMES[how]
    live.as_owner(migration)
    live.as_owner(writes)
    return place, lost


def counted(losses):
    return {loss.full_name: (loss.inserted, loss.updated, loss.deleted) for loss in losses}


def contents(live, database):
    names = live.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname IN ('item', 'loose')", database)
    return {name: live.rows("SELECT t::text FROM %s t ORDER BY 1" % name, database) for (name,) in names}


@pytest.mark.parametrize("how", sorted(RENAMES))
def test_only_what_was_written_is_lost_and_can_be_put_back(shop, databases, tmp_path, how):
    shop.execute("CREATE DATABASE base TEMPLATE %s OWNER %s" % (shop.name, OWNER), "postgres")
    place, lost = migrated(shop, how)
    manifest = load(place)
    with shop.site.connect() as live, shop.site.connect("base") as base:
        known = known_by_oid(live, manifest)
        losses = count_losses(live, base, known)
        assert counted(losses) == lost
        # By names alone every row would be lost.
        assert sum(sum(one) for one in counted(count_losses(live, base)).values()) >= sum(map(sum, lost.values()))
        write_lost_rows(live, losses, str(tmp_path / "kept"))
    before = contents(shop, "base")
    for loss in losses:
        script = str(tmp_path / "kept" / (loss.full_name + ".sql"))
        done = subprocess.run(
            [str(shop.cluster.bin_dir / "psql"), "-X", "-d", "base", "-f", script],
            env=shop.cluster.environment("base", OWNER),
            capture_output=True,
            text=True,
            check=False,
        )
        # A new table under the old name: its rows are not inserted among those of the old one.
        assert (done.returncode == 0) is (loss.replaces is None), done.stderr
        assert loss.replaces is None or "apply the migration first" in done.stderr
    with shop.site.connect() as live, shop.site.connect("base") as base:
        left = [loss for loss in count_losses(live, base, known) if loss.replaces is None]
    fresh = how == "all at once"  # a value of a column that the base does not have stays in the file
    expected = {"shop.article": (0, 1, 0)} if fresh else {k: (0, 0, v[2]) for k, v in lost.items() if v[2]}
    assert counted(left) == expected
    assert contents(shop, "base") != before


@pytest.mark.parametrize("how", ["table", "all at once", "without a key", "two tables exchanged"])
def test_rows_are_carried_over_to_the_old_name(shop, how):
    place, lost = migrated(shop, how)
    run = shop.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    result = revert(run, place, LossPolicy(10, reapply=Reapply("apply"), objects=99))
    total = sum(map(sum, lost.values()))
    whole = {"two tables exchanged": 1, "all at once": 1}.get(how, 0)
    assert (result.reapply.carried_rows, result.lost_rows) == (total - whole + (how == "all at once"), whole)
    if how == "without a key":
        assert shop.value("SELECT count(*) FROM loose WHERE b = 'y'") == 2
    else:
        assert shop.value("SELECT name FROM item WHERE id = 1000") == "new"
        assert shop.value("SELECT count(*) FROM item") == 501


def test_the_plan_and_a_restore_in_place_count_the_same(shop):
    place, lost = migrated(shop, "all at once")
    plan = {
        loss.table: (loss.inserted, loss.updated, loss.deleted)
        for loss in losses_of_revert(shop.site, gather(shop.site, backup_id=place.backup_id))
    }
    # For a table with an added column, a plan without a copy knows an upper bound: no more rows than were written.
    assert plan["shop.article"] <= lost["shop.article"] and "public.item" not in plan
    run = shop.begun("rollback", {"backup": place.backup_id})
    ahead = revert_in_place(run, place, LossPolicy(3, objects=99), only_count=True)
    assert ahead.lost_rows == 3 and shop.value("SELECT count(*) FROM shop.article") == 501
    result = revert_in_place(run, place, LossPolicy(3, objects=99))
    assert result.lost_rows == 3 and shop.value("SELECT count(*) FROM item") == 500
