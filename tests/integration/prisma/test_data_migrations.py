# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A migration that writes rows: its own changes are no loss, rows written since are."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.forecast import losses_of_revert
from support.operation_driver import Driver
from support.prisma_project import PrismaProject, tools

pytestmark = pytest.mark.prisma

INIT, BACKFILL = "20250101000000_init", "20250102000000_backfill"
BEFORE = """
CREATE TABLE "User" ("id" TEXT PRIMARY KEY, "name" TEXT NOT NULL);
CREATE TABLE "Meter" ("id" INT PRIMARY KEY, "userId" TEXT NOT NULL REFERENCES "User"("id"));
CREATE TABLE "Stale" ("id" INT PRIMARY KEY);
CREATE TABLE "Old" ("id" INT PRIMARY KEY);
CREATE TABLE "Still" ("id" INT PRIMARY KEY);
"""
ROWS = """
INSERT INTO "User" SELECT 'u' || g, 'name ' || g FROM generate_series(1, 30) g;
INSERT INTO "Meter" SELECT g, 'u' || (1 + g % 30) FROM generate_series(1, 40) g;
INSERT INTO "Stale" SELECT generate_series(1, 9);
INSERT INTO "Old" SELECT generate_series(1, 5);
INSERT INTO "Still" SELECT generate_series(1, 3);
"""
#: A column filled with values that no rehearsal can predict, a new table, changed and deleted rows, a dropped table.
WORK = """
ALTER TABLE "User" ADD COLUMN "token" UUID;
UPDATE "User" SET "token" = gen_random_uuid();
UPDATE "Meter" SET "userId" = 'u1' WHERE "id" < 10;
DELETE FROM "Stale" WHERE "id" > 4;
DROP TABLE "Old";
CREATE TABLE "Tariff" ("id" INT PRIMARY KEY);
INSERT INTO "Tariff" SELECT generate_series(1, 7);
"""


def prepare(database, tmp_path, work=WORK, **given) -> Driver:
    """A deploy of that migration, not yet run."""
    project = PrismaProject.create(tmp_path / "release", {INIT: BEFORE})
    project.run("migrate", "deploy", url=database.url, accept=[0])
    database.execute(ROWS)
    project.add(BACKFILL, work)
    made = Driver(
        {
            "url": database.url,
            "store": str(tmp_path / "store"),
            "client_bin_dir": str(database.cluster.bin_dir),
            "data_directory": str(tmp_path),
            "project": str(project.path),
            "node_bin_dir": str(tools().node.bin_dir),
            "prisma_environment": tools().environment,
            "expected": [BACKFILL],
            **given,
        }
    )
    made.before = contents(database)
    return made


@pytest.fixture
def driver(database, tmp_path) -> Driver:
    made = prepare(database, tmp_path)
    assert made.deploy()["outcome"] == "done"
    return made


def contents(database):
    names = database.value(
        "SELECT array_agg(relname::text) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    rows = 'SELECT (count(*), coalesce(sum(hashtext(t.*::text)), 0))::text FROM "%s" t'
    return {name: database.value(rows % name) for name in names if name != "_prisma_migrations"}


def test_what_a_migration_did_is_told_and_no_loss(database, driver) -> None:
    says_what_it_destroys(driver)
    assert [loss for loss in losses_of_revert(driver.site, gather(driver.site)) if loss.total] == []
    result = driver.revert()
    assert result["outcome"] == "done"
    assert contents(database) == driver.before


def test_who_cannot_use_what_is_new_is_found_where_the_gates_could_not_look(database, tmp_path) -> None:
    work = 'SELECT 1 / (SELECT count(*) FROM "User"); CREATE TABLE "Tariff" (id int);'
    driver = prepare(database, tmp_path, work, url=database.cluster.url(database.name), release_url=database.url)
    with pytest.raises(Refused, match="could not use what the migrations made") as refused:
        driver.deploy()
    assert "SELECT, INSERT, UPDATE, DELETE on public.Tariff (owner postgres)" in refused.value.found
    assert not database.has("Tariff")


def test_what_somebody_wrote_since_is(database, driver) -> None:
    database.execute("""UPDATE "Meter" SET "userId" = 'u2' WHERE "id" = 40; INSERT INTO "Tariff" VALUES (8)""")
    with pytest.raises(Refused) as refused:
        driver.revert()
    found = refused.value.found
    assert "public.Meter: " in found and "public.Tariff: 8 inserted" in found
    assert not [name for name in ("User", "Stale", "Old", "Still") if name in found]
    assert database.value('SELECT count(*) FROM "Tariff"') == 8


def says_what_it_destroys(driver) -> None:
    """It also reports every lock, although most are held too briefly to be observed."""
    found = driver.site.operation.done("rehearsal")
    assert found["destroys"] == [
        "drops the table Old (5 rows)",
        "updates 9 rows of Meter",
        "deletes 5 rows of Stale",
        "updates 30 rows of User",
    ]
    assert found["every_lock"] and found["locked"] == {
        "public.Meter": "RowExclusiveLock",
        "public.Old": "AccessExclusiveLock",
        "public.Stale": "RowExclusiveLock",
        "public.User": "AccessExclusiveLock",
    }
    assert found["summary"].startswith("adds public.Tariff; drops the table Old (5 rows); ")
