# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hundreds of migrations, then squashed ones, with real Prisma: the library predicts what Prisma does."""

from __future__ import annotations

import shutil

import pytest
from support.prisma_project import PrismaProject

pytestmark = pytest.mark.prisma

NAMES = ["%d_step" % (20200101000000 + number) for number in range(300)]
NEXT, SQUASHED = "20300101000000_next", "000000000000_squashed_migrations"


def sql(number):
    return 'CREATE TABLE "T%d" ("id" int PRIMARY KEY);\nCREATE INDEX "I%d" ON "T%d" ("id");\n' % ((number,) * 3)


def deploy(project, database):
    with database.session() as cursor:
        return project.prisma().migrate_deploy(database.url, cursor=cursor)


def resolve(project, database, name, state):
    with database.session() as cursor:
        project.prisma().migrate_resolve(database.url, cursor=cursor, **{state: name})


def test_three_hundred_migrations_and_their_squash(tmp_path, database):
    scripts = {name: sql(number) for number, name in enumerate(NAMES)}
    project = PrismaProject.create(tmp_path / "release", scripts)
    assert database.state(project).pending == NAMES
    assert deploy(project, database).applied == NAMES
    assert database.state(project).up_to_date

    # One name fails and is rolled back twice before it succeeds.
    for text in ("SELECT 1/0;", "SELECT 1/0; -- again"):
        project.add(NEXT, text)
        with pytest.raises(Exception, match=NEXT):
            deploy(project, database)
        assert database.state(project).failed == [NEXT]
        resolve(project, database, NEXT, "rolled_back")
        assert database.state(project).pending == [NEXT]
    project.add(NEXT, 'CREATE TABLE "Next" ("id" int);')
    assert deploy(project, database).applied == [NEXT]
    assert [row.state for row in database.rows() if row.migration_name == NEXT] == ["rolled_back"] * 2 + ["applied"]
    assert database.state(project).up_to_date

    # All are squashed into one, which is marked as applied; Prisma has nothing to do, and the library agrees.
    shutil.rmtree(project.migrations)
    project.migrations.mkdir()
    (project.migrations / "migration_lock.toml").write_text('provider = "postgresql"\n')
    project.add(SQUASHED, "".join(scripts.values()))
    assert database.state(project).unknown == [*NAMES, NEXT]
    resolve(project, database, SQUASHED, "applied")
    state = database.state(project)
    assert (state.squashed, state.unknown, state.pending) == ([*NAMES, NEXT], [], []) and state.up_to_date
    assert deploy(project, database).applied == []
    project.add(NEXT + "_2", 'CREATE TABLE "After" ("id" int);')
    assert database.state(project).problems([NEXT + "_2"]) == []
    assert deploy(project, database).applied == [NEXT + "_2"]
    assert database.state(project).up_to_date
