# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules prisma_migrate_info and prisma_migrate_resolve, run by Ansible on a real database."""

from __future__ import annotations

import urllib.parse

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from support.module_runner import run_module
from support.prisma_database import PASSWORD, ROLE
from support.prisma_project import PrismaProject, tools

pytestmark = pytest.mark.prisma

INIT, RECEIPTS = "20251001000000_init", "20251108000000_add_receipt_data"


@pytest.fixture
def project(tmp_path):
    return PrismaProject.create(tmp_path / "release", {INIT: 'CREATE TABLE "A" (id int);', RECEIPTS: "SELECT 1/0;"})


@pytest.fixture
def info(tmp_path, project, database):
    def run(check=False, **arguments):
        where = {} if {"migrations", "migrations_path"} & set(arguments) else {"project": str(project.path)}
        return run_module(
            tmp_path, "prisma_migrate_info", {"connection": {"url": database.url}, **where, **arguments}, check=check
        )

    return run


@pytest.fixture
def resolve(tmp_path, project, database):
    def run(migration, state, check=False, **arguments):
        given = {
            "connection": {"url": database.url},
            "project": str(project.path),
            "migration": migration,
            "state": state,
            "node_bin_dir": str(tools().node.bin_dir),
            "prisma_environment": tools().environment,
            **arguments,
        }
        answer = run_module(tmp_path, "prisma_migrate_resolve", given, check=check, diff=True)
        for secret in (PASSWORD, urllib.parse.quote(PASSWORD, safe=""), urllib.parse.quote(PASSWORD)):
            assert secret not in answer.printed and secret not in str(answer.result)
        return answer

    return run


def fail(project, database):
    with database.session() as cursor, pytest.raises(PrismaError):
        project.prisma().migrate_deploy(database.url, cursor=cursor)


# prisma_migrate_info


def test_info_on_a_new_database(info):
    answer = info(check=True)
    result = answer.result
    assert (result["table_exists"], result["pending"], result["up_to_date"]) == (False, [INIT, RECEIPTS], False)
    assert (result["changed"], result["problems"], result["running"], result["lock_holders"]) == (False, [], False, [])


def test_info_on_a_failed_migration(info, project, database):
    fail(project, database)
    answer = info()
    result = answer.result
    assert not answer.failed
    assert (result["applied"], result["failed_migrations"], result["pending"]) == ([INIT], [RECEIPTS], [])
    assert [problem["kind"] for problem in result["problems"]] == ["failed"]
    [failure] = result["failures"]
    assert failure["name"] == RECEIPTS and "division by zero" in failure["logs"]
    assert [effect["state"] for effect in result["effective_state"]] == ["applied", "failed"]


def test_info_while_a_migration_runs(info, database):
    with database.migration_lock():
        result = info().result
    assert result["running"] and result["lock_holders"][0]["user"] == ROLE


def test_info_from_the_text_of_the_migrations(info, project):
    scripts = {name: project.script(name).read_text() for name in (INIT, RECEIPTS)}
    scripts["20260101000000_roles"] = "SELECT 1;\nCREATE ROLE reporting PASSWORD 'open sesame';"
    result = info(migrations=scripts, expected=[RECEIPTS, "20251108000000_add_recipt_data"]).result
    assert result["pending"] == [INIT, RECEIPTS, "20260101000000_roles"]
    problems = {problem["kind"]: problem["names"] for problem in result["problems"]}
    assert problems == {"unexpected": [INIT, "20260101000000_roles"], "missing": ["20251108000000_add_recipt_data"]}
    [statement] = result["cluster_statements"]
    assert (statement["migration"], statement["line"]) == ("20260101000000_roles", 2)
    assert "sesame" not in str(statement)


def test_info_says_what_is_wrong_with_the_folder(info, project):
    assert "no migrations folder" in info(migrations_path=str(project.path / "none")).result["msg"]
    project.script(RECEIPTS).unlink()
    answer = info()
    assert answer.failed and "P3015" in answer.result["msg"] and answer.result["hint"]


@pytest.mark.parametrize("given", [{}, {"project": "/x", "migrations_path": "/y"}, {"schema_path": "x"}])
def test_info_wants_one_source_of_migrations(tmp_path, given):
    answer = run_module(tmp_path, "prisma_migrate_info", {"connection": {"url": "postgresql://h/d"}, **given})
    assert answer.failed and "project" in answer.result["msg"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"password": "open sesame"}, "password for the database is wrong"),
        ({"port": 1}, "No PostgreSQL server answers"),
        ({"database": "shoq"}, "There is no database shoq"),
        ({"user": "nobody_of_ours"}, "wrong"),
    ],
)
def test_info_without_a_connection(tmp_path, project, database, change, said):
    connection = {"url": database.url, **change}
    answer = run_module(tmp_path, "prisma_migrate_info", {"connection": connection, "project": str(project.path)})
    assert answer.failed and said in answer.result["msg"], answer.result["msg"]
    assert PASSWORD not in answer.printed


# prisma_migrate_resolve


def test_resolve_a_failed_migration(resolve, project, database):
    fail(project, database)
    foretold = resolve(RECEIPTS, "rolled_back", check=True).result
    assert foretold["changed"] and database.state(project).failed == [RECEIPTS]
    done = resolve(RECEIPTS, "rolled_back").result
    for answer in (foretold, done):
        assert (answer["before"], answer["after"]) == (["failed"], ["rolled_back"])
        assert (answer["diff"]["before"], answer["diff"]["after"]) == ("failed\n", "rolled_back\n")
    assert database.state(project).pending == [RECEIPTS]
    again = resolve(RECEIPTS, "rolled_back").result
    assert (again["changed"], again["after"]) == (False, ["rolled_back"])


def test_resolve_as_applied(resolve, project, database):
    fail(project, database)
    foretold = resolve(RECEIPTS, "applied", check=True).result
    done = resolve(RECEIPTS, "applied").result
    assert foretold["changed"] and done["changed"]
    assert foretold["after"] == done["after"] == ["rolled_back", "applied"]
    assert not resolve(RECEIPTS, "applied").result["changed"]
    assert database.state(project).up_to_date


def test_baseline(resolve, project, database):
    database.execute('CREATE TABLE "A" (id int)')
    assert resolve(INIT, "applied", check=True).result["changed"] and database.rows() is None
    assert resolve(INIT, "applied").result["after"] == ["applied"]
    assert database.state(project).applied == [INIT]


def test_resolve_refuses_before_prisma_would(resolve, project, database):
    unknown = resolve(INIT, "rolled_back")
    assert unknown.failed and "P3011" in unknown.result["msg"]
    fail(project, database)
    succeeded = resolve(INIT, "rolled_back")
    assert succeeded.failed and "P3012" in succeeded.result["msg"]
    mistyped = resolve("20251108000000_add_recipt_data", "rolled_back")
    assert "P3011" in mistyped.result["msg"] and RECEIPTS in mistyped.result["hint"]
    missing = resolve("20251108000000_add_recipt_data", "applied")
    assert "P3017" in missing.result["msg"] and RECEIPTS in missing.result["hint"]
    assert [answer.result["error"] for answer in (unknown, succeeded, mistyped, missing)] == ["Refused"] * 4
    assert database.state(project).failed == [RECEIPTS]


def test_resolve_does_not_touch_a_migration_that_runs(resolve, project, database):
    fail(project, database)
    with database.migration_lock():
        answer = resolve(RECEIPTS, "rolled_back")
    assert answer.failed and answer.result["error"] == "Locked"
    assert database.state(project).failed == [RECEIPTS]


def test_resolve_without_prisma(resolve, project):
    (project.path / "node_modules").unlink()
    answer = resolve(INIT, "applied")
    assert answer.failed and "npm ci" in answer.result["hint"]
