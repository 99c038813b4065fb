# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`prisma migrate deploy` through the library, on a real server: what it does, how it fails, what state it leaves."""

from __future__ import annotations

import random
import threading

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history, sessions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Prisma, ServerSession
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError, analyse
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.urls import with_database
from support.prisma_database import PASSWORD, ROLE, until
from support.prisma_project import SCHEMA, PrismaProject, tools

pytestmark = pytest.mark.prisma

INIT, SECOND, THIRD = "20250101000000_init", "20250102000000_second", "20250103000000_third"
TABLE_A, TABLE_B, TABLE_C = ('CREATE TABLE "%s" (id int);\n' % name for name in "ABC")


@pytest.fixture
def project(tmp_path):
    return PrismaProject.create(tmp_path / "release", {INIT: TABLE_A})


def deploy(project, database, **keywords):
    with database.session() as cursor:
        return project.prisma().migrate_deploy(database.url, cursor=cursor, **keywords)


def fails(project, database, **keywords):
    with pytest.raises(PrismaError) as caught:
        deploy(project, database, **keywords)
    assert PASSWORD not in str(caught.value) and caught.value.hint
    return caught.value


def prisma_says(project, database):
    """Prisma's own error for a case that the library refuses beforehand."""
    ended = project.run("migrate", "deploy", url=database.url)
    assert ended.returncode == 1
    return analyse("prisma migrate deploy", ended.stdout, ended.stderr)


# It works


def test_applies_what_is_pending(project, database):
    project.add(SECOND, TABLE_B)
    lines = []
    assert deploy(project, database, on_line=lines.append).applied == [INIT, SECOND]
    assert "Applying migration `%s`" % SECOND in lines
    state = database.state(project)
    assert state.up_to_date and state.applied == [INIT, SECOND]
    [first, second] = database.rows()
    assert first.checksum == history.read_folder(str(project.migrations))[0].checksum
    assert second.applied_steps_count == 1 and second.finished_at


def test_nothing_pending(project, database):
    deploy(project, database)
    before = database.rows()
    assert deploy(project, database).applied == []
    assert database.rows() == before


def test_the_session_has_the_settings_and_the_name(project, database):
    project.add(
        INIT,
        """CREATE TABLE "A" AS SELECT current_setting('lock_timeout') AS lock,
        current_setting('statement_timeout') AS statement, current_setting('application_name') AS name;""",
    )
    deploy(project, database, session=ServerSession("backstop_x1", 1500, 61000))
    assert database.value("""SELECT lock || ' ' || statement || ' ' || name FROM "A" """) == "1500ms 61s backstop_x1"


def test_another_schema(project, database):
    database.execute("CREATE SCHEMA other")
    url = database.url.replace("schema=public", "schema=other")
    with database.session() as cursor:
        project.prisma().migrate_deploy(url, cursor=cursor)
        assert history.read_rows(cursor) is None
        assert [row.migration_name for row in history.read_rows(cursor, "other")] == [INIT]


def test_hundreds_of_migrations(project, database):
    for number in range(300):
        project.add("2025%010d_step" % number, 'CREATE TABLE "T%d" (id int);' % number)
    assert len(database.state(project).pending) == 301
    assert len(deploy(project, database).applied) == 301
    state = database.state(project)
    assert state.up_to_date and len(state.applied) == 301


def test_the_order_is_prismas_own(project, database, seed):
    """Names of every form, applied by Prisma in the order that the library predicts."""
    generator = random.Random(seed)
    project.remove(INIT)
    names = {"0_init", "1_a", "10_a", "2_A", "2_a"}
    while len(names) < 60:
        name = "".join(generator.choice("aAbBzZ019_-. ") for _time in range(generator.randrange(1, 6)))
        names.add(name.strip(". ") or "x")
    for name in names:
        project.add(name, "SELECT 1;")
    foretold = database.state(project).pending
    assert deploy(project, database).applied == foretold
    assert [row.migration_name for row in database.rows()] == foretold


def waits_for_a_table(cursor):
    """The session of a migration that waits for a lock on a table."""
    return [one for one in sessions.running_backends(cursor) if one.holds_lock and '"A"' in one.query]


def test_an_inherited_lock_lives_as_long_as_prisma(project, database, tmp_path):
    deploy(project, database)
    project.add(SECOND, 'SELECT count(*) FROM "A";')
    lock = FileLock(str(tmp_path / "lock"))
    lock.acquire()
    with database.table_lock("A"), database.session() as cursor:
        thread = threading.Thread(target=lambda: deploy(project, database, keep_open=[lock.descriptor]))
        thread.start()
        until(lambda: waits_for_a_table(cursor), "Prisma waits for the table")
        lock.release()
        assert not FileLock.is_free(lock.path)
    thread.join(30)
    assert FileLock.is_free(lock.path)
    assert database.state(project).up_to_date


# How it fails


@pytest.mark.fault("deploy", "SQL error in mid-file without own transaction", by="Prisma's history and exit status")
def test_a_failing_statement(project, database):
    project.add(SECOND, TABLE_B + TABLE_A + TABLE_C)
    error = fails(project, database)
    assert (error.failure.prisma_code, error.failure.migration, error.sqlstate) == ("P3018", SECOND, "42P07")
    assert error.failure.database_message == 'ERROR: relation "A" already exists'
    assert error.failure.started == [INIT, SECOND] and not error.failure.nothing_changed
    assert error.details["prisma_code"] == "P3018"
    state = database.state(project)
    assert (state.applied, state.failed, state.pending) == ([INIT], [SECOND], [])
    assert not database.has("B"), "one file is one transaction"
    assert "A migration failed" in database.rows()[-1].logs


def test_the_next_deploy_after_a_failure(project, database):
    project.add(SECOND, "SELECT 1/0;")
    fails(project, database)
    before = database.rows()
    project.add(THIRD, TABLE_C)
    error = fails(project, database)
    assert (error.failure.prisma_code, error.failure.migration, error.failure.nothing_changed) == (
        "P3009",
        SECOND,
        True,
    )
    assert database.rows() == before


def test_a_syntax_error(project, database):
    project.add(INIT, TABLE_A + "CREATE TABEL oops;\n")
    error = fails(project, database)
    assert (error.failure.prisma_code, error.sqlstate, error.failure.database_message) == (
        "P3018",
        "42601",
        'ERROR: syntax error at or near "TABEL"',
    )
    assert not database.has("A")


@pytest.mark.fault("deploy", "SQL error in mid-file within its own transaction", by="Prisma's history and exit status")
def test_own_transaction_that_fails_inside(project, database):
    project.add(INIT, "BEGIN;\n" + TABLE_A + "SELECT 1/0;\nCOMMIT;\n")
    error = fails(project, database)
    assert (error.failure.prisma_code, error.sqlstate, error.failure.migration) == (None, "25P02", INIT)
    assert "BEGIN of its own" in error.hint
    assert database.state(project).failed == [INIT] and not database.has("A")


@pytest.mark.fault("deploy", "SQL error behind an own transaction", by="Prisma's history and exit status")
def test_own_transaction_and_a_failure_after_it(project, database):
    project.add(INIT, "BEGIN;\n" + TABLE_A + "COMMIT;\n" + TABLE_B + "SELECT 1/0;\n")
    error = fails(project, database)
    assert (error.failure.prisma_code, error.sqlstate) == ("P3018", "22012")
    assert database.has("A") and not database.has("B"), "what was committed stays"
    assert database.state(project).failed == [INIT]


def test_index_concurrently_beside_another_statement(project, database):
    project.add(INIT, TABLE_A + 'CREATE INDEX CONCURRENTLY "I" ON "A" (id);\n')
    error = fails(project, database)
    assert (error.failure.prisma_code, error.sqlstate) == ("P3018", "25001")
    assert "file of its own" in error.hint


@pytest.mark.fault("deploy", "lock timeout in a migration", by="the server's error")
def test_lock_timeout_on_a_table(project, database):
    deploy(project, database)
    project.add(SECOND, 'ALTER TABLE "A" ADD COLUMN more int;')
    with database.table_lock("A"):
        error = fails(project, database, session=ServerSession(lock_timeout_ms=300))
    assert (error.failure.prisma_code, error.sqlstate, error.failure.migration) == ("P3018", "55P03", SECOND)
    assert error.failure.database_message == "ERROR: canceling statement due to lock timeout"
    assert database.state(project).failed == [SECOND]


def test_statement_timeout(project, database):
    project.add(INIT, TABLE_A + "SELECT pg_sleep(30);")
    error = fails(project, database, session=ServerSession(statement_timeout_ms=300))
    assert (error.failure.prisma_code, error.sqlstate) == ("P3018", "57014")
    assert not database.has("A")


def test_rights_are_missing(project, database, cluster):
    cluster.sql("CREATE SCHEMA closed; CREATE TABLE closed.t (id int)", database=database.name)
    project.add(INIT, "DROP TABLE closed.t;")
    error = fails(project, database)
    assert (error.failure.prisma_code, error.sqlstate) == ("P3018", "42501")


def test_non_empty_database_without_history(project, database):
    database.execute("CREATE TABLE other (id int)")
    error = fails(project, database)
    assert (error.failure.prisma_code, error.failure.nothing_changed) == ("P3005", True)
    assert database.rows() is None and not database.has("A")


def test_a_migration_without_sql(project, database):
    """Prisma notices it only when it reaches that migration, so the library checks first."""
    project.add(SECOND, "x")
    project.script(SECOND).unlink()
    with pytest.raises(Refused, match="P3015"):
        deploy(project, database)
    assert database.rows() is None
    error = prisma_says(project, database)
    assert error.failure.prisma_code == "P3015" and not error.failure.nothing_changed
    assert [row.migration_name for row in database.rows()] == [INIT]


def test_another_provider(project, database):
    (project.migrations / "migration_lock.toml").write_text('provider = "mysql"\n')
    with pytest.raises(Refused, match="P3019"):
        deploy(project, database)
    error = prisma_says(project, database)
    assert (error.failure.prisma_code, error.failure.nothing_changed) == ("P3019", True)
    assert database.rows() is None


def test_edited_and_unknown_are_not_noticed_by_prisma_but_by_us(project, database):
    project.add(SECOND, TABLE_B)
    deploy(project, database)
    project.add(INIT, TABLE_A + "-- changed\n")
    project.remove(SECOND)
    assert deploy(project, database).applied == []
    state = database.state(project)
    assert (state.edited, state.unknown) == ([INIT], [SECOND])


def test_line_ends_of_another_system(project, database):
    deploy(project, database)
    project.add(INIT, TABLE_A.replace("\n", "\r\n"))
    assert database.state(project).up_to_date


# Where it connects


def prisma_fails(project, url, cursor):
    with pytest.raises(PrismaError) as caught:
        project.prisma().migrate_deploy(url, cursor=cursor)
    return caught.value


def test_wrong_password(project, database):
    url = database.cluster.url(database.name, user=ROLE, password="wr@ng $x/")
    with database.session() as cursor:
        error = prisma_fails(project, url, cursor)
    assert (error.failure.prisma_code, error.failure.nothing_changed) == ("P1000", True)
    assert "wr@ng" not in str(error) and "wr%40ng" not in str(error)


def test_unreachable(project, database):
    url = database.url.replace(":%d/" % database.cluster.port, ":1/")
    with database.session() as cursor:
        error = prisma_fails(project, url, cursor)
    assert (error.failure.prisma_code, error.failure.nothing_changed) == ("P1001", True)


def test_a_missing_database_is_not_made(project, database):
    """Prisma would create it: see test_runbook_commands.py."""
    with database.session() as cursor, pytest.raises(Refused, match="another database"):
        project.prisma().migrate_deploy(with_database(database.url, "typo"), cursor=cursor)
    assert database.value("SELECT count(*) FROM pg_database WHERE datname = 'typo'") == 0


class SaysItIsIn:
    """A cursor that reports another database than the one that it is connected to."""

    def __init__(self, cursor, name):
        self._cursor, self._name = cursor, name

    def __getattr__(self, name):
        return getattr(self._cursor, name)

    def fetchone(self):
        self._cursor.fetchone()
        return (self._name,)


def test_the_guard_keeps_prisma_from_making_a_database(project, database):
    with database.session() as cursor:
        error = prisma_fails(project, with_database(database.url, "typo"), SaysItIsIn(cursor, "typo"))
    assert (error.failure.prisma_code, error.failure.nothing_changed) == ("P1003", True)
    assert database.value("SELECT count(*) FROM pg_database WHERE datname = 'typo'") == 0


def test_the_open_session_keeps_the_database(database):
    with database.session(), pytest.raises(psycopg2.errors.ObjectInUse):
        database.elsewhere('DROP DATABASE "%s"' % database.name)


def test_the_environment_file_of_the_project_does_not_count(project, database):
    (project.path / ".env").write_text("DATABASE_URL=postgresql://nobody:wrong@127.0.0.1:1/elsewhere\n")
    (project.path / "prisma" / ".env").write_text("OTHER=1\n")
    assert deploy(project, database).applied == [INIT]


def test_schema_with_a_pooled_and_a_direct_url(tmp_path, database):
    schema = SCHEMA.replace('env("DATABASE_URL")', 'env("POOLED_URL")\n  directUrl = env("DIRECT_URL")')
    project = PrismaProject.create(tmp_path / "release", {INIT: TABLE_A}, schema=schema)
    (project.path / ".env").write_text("DIRECT_URL=postgresql://nobody:wrong@127.0.0.1:1/elsewhere\n")
    assert deploy(project, database).applied == [INIT]


SEVERAL = (
    SCHEMA.replace('env("DATABASE_URL")', 'env("DATABASE_URL")\n  schemas  = ["audit", "public"]')
    + """
model A {
  id Int @id
  @@schema("public")
}
model Note {
  id Int @id
  @@schema("audit")
}
"""
)
AUDIT = 'CREATE SCHEMA "audit";\nCREATE TABLE "public"."A" (id int PRIMARY KEY);\n'
AUDIT += 'CREATE TABLE "audit"."Note" (id int PRIMARY KEY);\n'


@pytest.mark.parametrize("schema", ["public", "audit"])
def test_several_schemas(tmp_path, database, schema):
    """The history is in the schema that the URL names, whatever other schemas exist."""
    script = AUDIT.replace('CREATE SCHEMA "audit";', 'CREATE SCHEMA IF NOT EXISTS "audit";')
    project = PrismaProject.create(tmp_path / "release", {INIT: script}, schema=SEVERAL)
    url = database.url.replace("schema=public", "schema=" + schema)
    with database.session() as cursor:
        assert project.prisma().migrate_deploy(url, cursor=cursor).applied == [INIT]
        assert [row.state for row in history.read_rows(cursor, schema)] == ["applied"]
        assert history.read_rows(cursor, {"public": "audit", "audit": "public"}[schema]) is None
        assert project.prisma().migrate_deploy(url, cursor=cursor).applied == []
    assert database.value("SELECT to_regclass('audit.\"Note\"') IS NOT NULL")


def test_the_schema_as_sql(tmp_path, database):
    project = PrismaProject.create(tmp_path / "release", {INIT: AUDIT}, schema=SEVERAL)
    script = project.prisma().schema_script(database.url).decode()
    assert 'CREATE TABLE "audit"."Note"' in script
    database.execute(script)
    assert database.has("A")
    (project.path / "prisma" / "schema.prisma").write_text(SEVERAL.replace("Int @id", "Nothing @id"))
    with pytest.raises(PrismaError, match="schema is not valid"):
        project.prisma().schema_script(database.url)


def test_schema_with_a_fixed_url(tmp_path, database):
    schema = SCHEMA.replace('env("DATABASE_URL")', '"postgresql://nobody:wrong@127.0.0.1:1/elsewhere"')
    project = PrismaProject.create(tmp_path / "release", {INIT: TABLE_A}, schema=schema)
    with pytest.raises(Refused, match="fixed database"):
        deploy(project, database)


# Two at once, and cut off


@pytest.mark.fault("deploy", "two Prisma at once", by="Prisma's advisory lock")
def test_waits_for_another_migration(project, database):
    done = []
    with database.migration_lock():
        thread = threading.Thread(target=lambda: done.append(deploy(project, database).applied))
        thread.start()
        with database.session() as cursor:
            waiting = until(
                lambda: [one for one in sessions.running_backends(cursor) if one.waits_for_lock], "Prisma waits"
            )
            assert [one.holds_lock for one in waiting] == [False]
            [holder] = sessions.lock_holders(cursor)
            assert holder.user == ROLE and not holder.waits_for_lock
    thread.join(30)
    assert done == [[INIT]]


def test_another_migration_takes_too_long_for_prisma(project, database):
    with database.migration_lock():
        error = fails(project, database)
    assert (error.failure.prisma_code, error.failure.nothing_changed, error.failure.started) == ("P1002", True, [])
    assert error.message == "Another Prisma migration holds the migration lock"
    assert database.rows() is None


@pytest.mark.fault("deploy", "Prisma's advisory lock held by another session", by="refused, the session named")
def test_another_migration_takes_longer_than_the_lock_timeout(project, database):
    with database.migration_lock():
        error = fails(project, database, session=ServerSession(lock_timeout_ms=300))
    assert (error.failure.prisma_code, error.sqlstate, error.failure.nothing_changed) == (None, "55P03", True)
    assert error.message == "Another Prisma migration holds the migration lock"
    assert database.rows() is None


@pytest.mark.fault(
    "deploy", "Prisma killed in a slow statement, by our timeout", by="its backend ended and history read"
)
def test_cut_off_by_the_timeout(project, database):
    """If its session were not ended, the server would continue and commit."""
    usual = deploy(project, database).seconds
    project.add(SECOND, TABLE_B + "SELECT pg_sleep(60);")
    error = fails(project, database, timeout=3 * usual + 2)
    assert "took too long" in error.message and "ended too" in error.found
    assert error.failure.started == [SECOND] and not error.failure.nothing_changed
    with database.session() as cursor:
        assert sessions.running_backends(cursor) == []
    assert database.state(project).failed == [SECOND] and not database.has("B")


@pytest.mark.fault("deploy", "Prisma interrupted in a slow statement", by="its backend ended and history read")
def test_cut_off_by_an_interruption(project, database):
    """Whatever exception occurs while Prisma works: neither its process nor its session is left behind."""
    project.add(INIT, TABLE_A + "SELECT pg_sleep(60);")

    def sleeps(cursor):
        return [one for one in sessions.running_backends(cursor, "backstop_stopped") if "pg_sleep" in one.query]

    def stop(line):
        if line.startswith("Applying"):
            with database.session() as cursor:
                until(lambda: sleeps(cursor), "the migration runs")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(project, database, on_line=stop, session=ServerSession("backstop_stopped"))
    with database.session() as cursor:
        assert sessions.running_backends(cursor, "backstop_stopped") == []
    assert not database.has("A")


def test_running_is_told_from_failed_by_the_lock(project, database):
    deploy(project, database)
    project.add(SECOND, 'SELECT count(*) FROM "A";')
    with database.table_lock("A"), database.session() as cursor:
        thread = threading.Thread(target=lambda: deploy(project, database, session=ServerSession("backstop_running")))
        thread.start()
        until(lambda: waits_for_a_table(cursor), "Prisma waits for the table")
        assert database.state(project).failed == [SECOND]
        [holder] = sessions.lock_holders(cursor)
        assert holder.application_name == "backstop_running"
    thread.join(30)
    assert database.state(project).up_to_date
    with database.session() as cursor:
        assert sessions.lock_holders(cursor) == []


# What must be installed


def test_not_installed(project):
    (project.path / "node_modules").unlink()
    with pytest.raises(Refused, match="npm ci"):
        project.prisma()


def test_no_node(project):
    with pytest.raises(Refused, match=r"Node\.js is missing"):
        Prisma(Project(str(project.path), node_bin_dir=str(project.path)))


@pytest.mark.parametrize("program", ["missing", "prisma"])
def test_no_engine(project, program):
    with pytest.raises(Refused, match="engine cannot be run"):
        project.prisma(environment={"PRISMA_SCHEMA_ENGINE_BINARY": program})


@pytest.mark.fault("deploy", "Prisma's engine dies", by="its exit status")
def test_an_engine_that_dies(project, database):
    """Prisma then ends with status 0 or 1, depending on what it notices first: its engine's end or the broken pipe."""
    prisma = project.prisma(environment={**tools().environment, "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/false"})
    with database.session() as cursor, pytest.raises(PrismaError) as caught:
        prisma.migrate_deploy(database.url, cursor=cursor)
    said = "prisma migrate deploy reported success without doing its work", "prisma migrate deploy failed"
    assert caught.value.message in said
    assert database.rows() is None


def test_version(project):
    assert project.prisma().version() == "6.19.3"
