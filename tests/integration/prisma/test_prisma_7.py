# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Prisma 7.10, whose URL comes from prisma.config.ts: it works, and shows no password to any user."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from urllib.parse import quote

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.rehearse import rehearse
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import sessions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import ServerSession
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.urls import without_password
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from support.prisma_database import PASSWORD, ROLE, until
from support.prisma_project import PrismaProject, tools_of_prisma_7

pytestmark = pytest.mark.prisma

INIT, SECOND = "20250101000000_init", "20250102000000_second"
TABLE_A, TABLE_B = ('CREATE TABLE "%s" (id int);\n' % name for name in "AB")
SCHEMA = 'datasource db {\n  provider = "postgresql"\n%s}\n'
#: As `prisma init` of 7 writes it; the project's .env sets the variable, as in an application.
CONFIG = """\
import "dotenv/config";
import { defineConfig } from "prisma/config";

export default defineConfig({
  schema: "%s",
  migrations: { path: "prisma/migrations" },
  datasource: { url: process.env["SHOP_URL"] },
});
"""


@pytest.fixture
def make(tmp_path, database):
    """Makes a project with Prisma 7 whose own environment file has the URL with its password."""

    def make(migrations, *, schema=SCHEMA % "", config=CONFIG % "prisma/schema.prisma", name="prisma.config.ts"):
        project = PrismaProject.create(tmp_path / "release", migrations, schema, tools_of_prisma_7())
        (project.path / name).parent.mkdir(exist_ok=True)
        (project.path / name).write_text(config, "utf-8")
        (project.path / ".env").write_text('SHOP_URL="%s"\n' % database.url, "utf-8")
        return project

    return make


def deploy(project, database, url=None, given=(), **keywords):
    with database.session() as cursor:
        return project.prisma(**dict(given)).migrate_deploy(url or database.url, cursor=cursor, **keywords)


def processes():
    """Arguments and environment of every visible process."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()


def waits_for_a_table(cursor):
    return [one for one in sessions.running_backends(cursor) if one.holds_lock and '"A"' in one.query]


# It works


def test_while_it_works_no_process_shows_the_password(make, database):
    project = make({INIT: TABLE_A})
    assert deploy(project, database).applied == [INIT]
    script = """SELECT * FROM "A"; CREATE TABLE "B" AS SELECT current_setting('lock_timeout') AS lock,
        current_setting('application_name') AS name, current_user::text AS "user";"""
    project.add(SECOND, script)
    applied = []

    def run():
        session = ServerSession("backstop x1", lock_timeout_ms=25000)
        applied.extend(deploy(project, database, session=session).applied)

    thread = threading.Thread(target=run)
    with database.table_lock("A"), database.session() as cursor:
        thread.start()
        until(lambda: waits_for_a_table(cursor), "Prisma waits for the table")
        seen = list(processes())
    thread.join(60)
    assert applied == [SECOND] and database.state(project).applied == [INIT, SECOND]
    assert database.value("""SELECT lock || ' ' || name || ' ' || "user" FROM "B" """) == "25s backstop x1 " + ROLE
    # The processes seen are the real ones: the CLI, and the engine with the URL among its arguments.
    # Other tests run Prisma at the same time: only processes that name this database belong to this test.
    ours = [both for both in seen if any(database.name.encode() in part for part in both)]
    assert any(b"--config" in arguments and b"deploy" in arguments for arguments, _environment in ours)
    assert any(b"--datasource" in arguments and database.name.encode() in arguments for arguments, _rest in ours)
    for form in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe="")):
        assert not any(form.encode() in part for both in ours for part in both)


def test_several_schemas_in_a_folder_and_a_configuration_elsewhere(make, database, tmp_path):
    model = '\nmodel %s {\n  id Int @id\n  @@schema("%s")\n}\n'
    models = model % ("A", "public") + model % ("Note", "audit")
    script = 'CREATE SCHEMA "audit";\nCREATE TABLE "public"."A" (id int PRIMARY KEY);\n'
    script += 'CREATE TABLE "audit"."Note" (id int PRIMARY KEY);\n'
    config = CONFIG.replace('"prisma/migrations"', '"../prisma/migrations"') % "../prisma/parts"
    project = make({INIT: script}, config=config, name="deploy/shop.config.ts")
    parts = project.path / "prisma" / "parts"
    parts.mkdir()
    (project.path / "prisma" / "schema.prisma").unlink()
    (parts / "base.prisma").write_text(SCHEMA % '  schemas  = ["audit", "public"]\n', "utf-8")
    (parts / "models.prisma").write_text(models, "utf-8")
    given = {"config_path": "deploy/shop.config.ts"}
    assert deploy(project, database, given=given).applied == [INIT]
    assert database.value("SELECT to_regclass('audit.\"Note\"') IS NOT NULL")
    sql = project.prisma(**given, offline=True).schema_script(database.url).decode()
    assert 'CREATE TABLE "audit"."Note"' in sql
    (parts / "models.prisma").write_text(models.replace("Note", "Memo"), "utf-8")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "schema.prisma").write_text(SCHEMA % '  schemas  = ["audit", "public"]\n' + models, "utf-8")
    back = project.prisma(**given).migrate_diff(database.url, str(tmp_path / "old" / "schema.prisma"))
    assert 'DROP TABLE "audit"."Memo"' in back and 'CREATE TABLE "audit"."Note"' in back


def test_rehearsed_on_a_scratch_database(make, database, cluster, tmp_path):
    scratch = "backstop_scratch_" + database.name
    project = make({INIT: TABLE_A, SECOND: 'ALTER TABLE "A" ADD COLUMN more int DEFAULT random() * 9; ' + TABLE_B})
    cluster.create_database(scratch, owner=ROLE)
    try:
        connection = Settings.from_url(database.url)
        store = Store(str(tmp_path / "store"))
        site = Site(connection, connection, store, str(cluster.bin_dir), None)
        found = rehearse(site, scratch, project.prisma(), Limits([INIT, SECOND], 5000))
    finally:
        cluster.sql('DROP DATABASE "%s" WITH (FORCE)' % scratch)
    assert [one["name"] for one in found.migrations] == [INIT, SECOND]
    assert "public.B" in found.added_tables and database.rows() is None


def test_a_url_without_a_password_needs_no_relay(make, database, cluster):
    rules = cluster.data / "pg_hba.conf"
    kept = rules.read_text("utf-8")
    rules.write_text("host %s %s 127.0.0.1/32 trust\n" % (database.name, ROLE) + kept, "utf-8")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        project = make({INIT: TABLE_A})
        assert deploy(project, database, without_password(database.url), given={"relay": None}).applied == [INIT]
    finally:
        rules.write_text(kept, "utf-8")
        cluster.sql("SELECT pg_reload_conf()")


def test_prisma_6_with_its_url_in_the_configuration(tmp_path, database):
    schema = SCHEMA % '  url = env("DATABASE_URL")\n'
    project = PrismaProject.create(tmp_path / "release", {INIT: TABLE_A}, schema)
    config = """\
import { defineConfig } from "prisma/config";
export default defineConfig({
  schema: "prisma/schema.prisma",
  engine: "classic",
  datasource: { url: process.env.POOLED_URL!, directUrl: process.env.DIRECT_URL },
});
"""
    (project.path / "prisma.config.ts").write_text(config, "utf-8")
    assert deploy(project, database).applied == [INIT]


# How it fails


def test_a_failing_statement_leaves_those_before_it_and_can_be_resolved(make, database):
    """Prisma 7 sends a script statement by statement: each is committed separately."""
    project = make({INIT: TABLE_A, SECOND: TABLE_B + TABLE_A})
    with pytest.raises(PrismaError) as caught:
        deploy(project, database)
    error = caught.value
    assert (error.failure.prisma_code, error.failure.migration, error.sqlstate) == ("P3018", SECOND, "42P07")
    assert PASSWORD not in str(error)
    assert database.state(project).failed == [SECOND] and database.has("B")
    with database.session() as cursor:
        project.prisma().migrate_resolve(database.url, cursor=cursor, rolled_back=SECOND)
        project.add(SECOND, 'DROP TABLE "B";' + TABLE_B)
        assert project.prisma().migrate_deploy(database.url, cursor=cursor).applied == [SECOND]


def test_cut_off_by_the_timeout(make, database):
    project = make({INIT: TABLE_A, SECOND: "SELECT pg_sleep(600); " + TABLE_B})
    with pytest.raises(PrismaError, match="took too long.*session on the server was ended too"):
        deploy(project, database, timeout=8)
    assert database.state(project).failed == [SECOND] and not database.has("B")
    assert database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backstop_prisma%'") == 0


def test_a_configuration_whose_text_does_not_tell_its_folder(make, database):
    written = CONFIG.replace('path: "prisma/migrations"', '["pa" + "th"]: "prisma/other"') % "prisma/schema.prisma"
    project = make({INIT: TABLE_A}, config=written)
    project.migrations.rename(project.path / "prisma" / "other")
    assert deploy(project, database).applied == [INIT]
