# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`prisma migrate resolve` through the library, on a real server."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import (
    APPLIED,
    FAILED,
    ROLLED_BACK,
    effective_state,
)
from support.prisma_project import PrismaProject

pytestmark = pytest.mark.prisma

INIT, BAD = "20250101000000_init", "20250102000000_bad"


@pytest.fixture
def project(tmp_path):
    return PrismaProject.create(tmp_path / "release", {INIT: 'CREATE TABLE "A" (id int);', BAD: "SELECT 1/0;"})


def deploy(project, database):
    with database.session() as cursor:
        return project.prisma().migrate_deploy(database.url, cursor=cursor).applied


def resolve(project, database, **keywords):
    with database.session() as cursor:
        project.prisma().migrate_resolve(database.url, cursor=cursor, **keywords)


def fail(project, database):
    with pytest.raises(PrismaError):
        deploy(project, database)


def states(database, name):
    return [row.state for row in database.rows() if row.migration_name == name]


def refused(project, database, **keywords):
    with pytest.raises(PrismaError) as caught:
        resolve(project, database, **keywords)
    assert caught.value.failure.nothing_changed
    return caught.value


def test_rolled_back_then_corrected(project, database):
    fail(project, database)
    resolve(project, database, rolled_back=BAD)
    assert states(database, BAD) == [ROLLED_BACK]
    assert database.state(project).pending == [BAD]
    project.add(BAD, 'CREATE TABLE "B" (id int);')
    assert deploy(project, database) == [BAD]
    assert states(database, BAD) == [ROLLED_BACK, APPLIED]
    assert database.state(project).up_to_date


def test_rolled_back_twice(project, database):
    """The same migration fails, is corrected wrongly, fails again, and is rolled back again."""
    for _attempt in range(2):
        fail(project, database)
        resolve(project, database, rolled_back=BAD)
    assert states(database, BAD) == [ROLLED_BACK, ROLLED_BACK]
    assert database.state(project).pending == [BAD]
    before = database.rows()
    resolve(project, database, rolled_back=BAD)
    assert database.rows() == before
    project.add(BAD, "SELECT 1;")
    assert deploy(project, database) == [BAD]
    assert [effect.state for effect in effective_state(database.rows())] == [APPLIED, APPLIED]


def test_failed_again_after_it_was_rolled_back(project, database):
    fail(project, database)
    resolve(project, database, rolled_back=BAD)
    fail(project, database)
    assert states(database, BAD) == [ROLLED_BACK, FAILED]
    assert database.state(project).failed == [BAD]


def test_a_failed_one_marked_as_applied(project, database):
    fail(project, database)
    resolve(project, database, applied=BAD)
    assert states(database, BAD) == [ROLLED_BACK, APPLIED]
    assert database.state(project).up_to_date


def test_baseline(project, database):
    database.execute('CREATE TABLE "A" (id int)')
    resolve(project, database, applied=INIT)
    assert [(row.migration_name, row.applied_steps_count) for row in database.rows()] == [(INIT, 0)]
    state = database.state(project)
    assert (state.applied, state.pending) == ([INIT], [BAD])


def test_a_succeeded_one_cannot_be_rolled_back(project, database):
    project.remove(BAD)
    deploy(project, database)
    error = refused(project, database, rolled_back=INIT)
    assert (error.failure.prisma_code, error.failure.migration) == ("P3012", INIT)


def test_an_unknown_one_cannot_be_rolled_back(project, database):
    project.remove(BAD)
    deploy(project, database)
    error = refused(project, database, rolled_back="20990101000000_none")
    assert (error.failure.prisma_code, error.failure.migration) == ("P3011", "20990101000000_none")


def test_applied_twice(project, database):
    resolve(project, database, applied=INIT)
    error = refused(project, database, applied=INIT)
    assert (error.failure.prisma_code, error.failure.migration) == ("P3008", INIT)


def test_applied_without_a_folder(project, database):
    error = refused(project, database, applied="20990101000000_none")
    assert (error.failure.prisma_code, error.failure.migration) == ("P3017", "20990101000000_none")


def test_no_history_at_all(project, database):
    with pytest.raises(PrismaError, match="without migrations table"):
        resolve(project, database, rolled_back=INIT)


def test_a_migration_is_running(project, database):
    fail(project, database)
    with database.migration_lock():
        error = refused(project, database, rolled_back=BAD)
    assert (error.failure.prisma_code, error.message) == ("P1002", "Another Prisma migration holds the migration lock")
    assert states(database, BAD) == [FAILED]


def test_exactly_one_mark(project, database):
    for marks in ({}, {"applied": INIT, "rolled_back": INIT}):
        with pytest.raises(AssertionError):
            resolve(project, database, **marks)
