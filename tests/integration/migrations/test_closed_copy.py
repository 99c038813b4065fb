# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQL that is tried on a copy must not affect another database: connections out are closed, or named and refused."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.closed_copy import (
    CannotBeClosed,
    closed_copy,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.deploy import Limits
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.rehearse import rehearse_closed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import Deployed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import rehearse_down
from support.databases import OWNER, PASSWORD

MIGRATION = "20251109000000_remote"
OPTIONS = "SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'elsewhere'"


@pytest.fixture
def live(databases, plain):
    """As superuser, because no other role can restore these extensions."""
    plain.execute("UPDATE _prisma_migrations SET checksum = encode(sha256(''), 'hex')")
    return databases.existing(plain.name, user=None)


@pytest.fixture
def elsewhere(databases, live):
    """Another database of the same server, and a foreign table of the live one that points to it."""
    other = databases.make("other")
    other.execute("CREATE TABLE received (note text); ALTER TABLE received OWNER TO " + OWNER)
    with live.session() as cursor:
        cursor.execute("CREATE EXTENSION postgres_fdw")
        cursor.execute(
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %s, port %s, dbname %s)",
            ("127.0.0.1", str(live.site.connection.port), other.name),
        )
        cursor.execute(
            "CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS (user %s, password %s)", (OWNER, PASSWORD)
        )
        cursor.execute("CREATE FOREIGN TABLE received (note text) SERVER elsewhere")
        cursor.execute("INSERT INTO received VALUES ('live')")
    return other


def copy_of(live):
    run, place = live.begun("deploy"), live.backup()
    return run, verify(run, place, "restored", keep=True).database, place


def rehearsed(site, scratch, tmp_path, sql, place=None):
    """Rehearse one migration. Prisma's part is reduced to running the SQL and keeping the history."""
    migrations = tmp_path / "migrations"
    with site.connect() as session:
        applied = session.rows("SELECT migration_name FROM public._prisma_migrations")
    for name, text in [*((name, "") for (name,) in applied), (MIGRATION, sql)]:
        (migrations / name).mkdir(parents=True)
        (migrations / name / "migration.sql").write_text(text)

    def migrate(url, cursor, **_keywords):
        settings = Settings.from_url(url)
        connection = psycopg2.connect(
            host=settings.host, port=settings.port, user=settings.user, password=settings.password,
            dbname=settings.database,
        )  # fmt: skip
        try:
            with connection, connection.cursor() as there:
                there.execute(sql)
                there.execute(
                    "INSERT INTO public._prisma_migrations SELECT 'm2', checksum, now(), %s, NULL, NULL, now(), 1"
                    " FROM public._prisma_migrations LIMIT 1",
                    (MIGRATION,),
                )
        except psycopg2.Error as error:
            raise BackstopError("prisma migrate deploy failed", found=str(error)) from error
        finally:
            connection.close()
        return Deployed([MIGRATION], 0.1, "")

    prisma = SimpleNamespace(project=SimpleNamespace(migrations=lambda: str(migrations)), migrate_deploy=migrate)
    return rehearse_closed(site, scratch, prisma, place, Limits([MIGRATION], 5000))


def test_a_foreign_table_gets_no_row_from_a_rehearsal(live, elsewhere, tmp_path):
    site, scratch, _place = copy_of(live)
    with pytest.raises(BackstopError, match="the live one was not touched.*could not connect to server"):
        rehearsed(site, scratch, tmp_path / "a", "INSERT INTO received VALUES ('migration')")
    with pytest.raises(Refused, match="20251109000000_remote line 2: creates or changes a way"):
        rehearsed(site, scratch, tmp_path / "b", "SELECT 1;\nCREATE USER MAPPING FOR PUBLIC SERVER elsewhere")
    assert elsewhere.rows("SELECT note FROM received") == [("live",)]
    assert sorted(live.value(OPTIONS, scratch)) == sorted(live.value(OPTIONS))


def test_what_cannot_be_closed_is_rehearsed_in_a_server_that_connects_to_nothing(live, elsewhere, tmp_path):
    live.execute("CREATE EXTENSION dblink")
    port = live.site.connection.port
    reaching = "PERFORM dblink_connect('host=127.0.0.1 port=%d dbname=other user=%s password=x')" % (port, OWNER)
    program = "COPY (SELECT 1) TO PROGRAM 'python3 -c \"import socket; socket.create_connection((''127.0.0.1'', %d))\"'"
    no_server = "sqlclient_unable_to_establish_sqlconnection"
    sql = 'CREATE TABLE "New" (id int);' + "".join(
        "DO $$ BEGIN %s; RAISE 'it reached the server'; EXCEPTION WHEN %s THEN END $$;" % attempt
        for attempt in (
            (reaching, no_server),
            (program % port, "external_routine_exception"),
            ("INSERT INTO received VALUES ('x')", no_server),
        )
    )
    site, scratch, place = copy_of(live)
    with pytest.raises(CannotBeClosed, match="extension dblink reaches other databases"):
        rehearsed(site, scratch, tmp_path / "refused", "SELECT 1")
    # The SQL is encoded, because a scratch database refuses outgoing statements that it can recognize.
    hidden = "DO $x$ BEGIN EXECUTE convert_from(decode('%s', 'hex'), 'UTF8'); END $x$" % sql.encode().hex()
    facts = rehearsed(site, scratch, tmp_path, hidden, place)
    assert facts.closed_server == "extension dblink reaches other databases or servers"
    assert facts.added_tables == ["public.New"]
    assert elsewhere.rows("SELECT note FROM received") == [("live",)]
    assert scratch not in live.names(), "it is not migrated, so nothing may be tried on it"


def test_down_sql_is_not_tried_on_another_database(live, elsewhere):
    before = live.backup()
    live.run("receipts.sql")
    run, now = live.begun("rollback", {"scenario": "application_errors"}), live.backup("emergency")
    sql = "INSERT INTO received VALUES ('down'); DROP TABLE \"ReceiptData\""
    facts = rehearse_down(run, before, now, given=sql)
    assert not facts.proved and "could not connect to server" in "; ".join(facts.reasons), facts
    assert elsewhere.rows("SELECT note FROM received") == [("live",)]
    proved = rehearse_down(run, before, now, given='DROP TABLE "ReceiptData"')
    assert proved.proved, "the closed server is open again before the copy is compared: %s" % proved.reasons


def test_what_only_a_superuser_can_close_is_named(plain):
    """As the owner, a REVOKE on dblink's functions only warns; a REVOKE by its superuser takes effect."""
    plain.execute(r"""
        CREATE EXTENSION dblink;
        CREATE LANGUAGE anything HANDLER plpgsql_call_handler;
        CREATE FUNCTION able() RETURNS void LANGUAGE anything AS 'BEGIN END';
        CREATE FUNCTION runs() RETURNS void LANGUAGE plpgsql AS $$BEGIN COPY (SELECT 1) TO PROGRAM 'true'; END$$;
        CREATE EXTENSION file_fdw;
        CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE FOREIGN TABLE program (line text) SERVER files OPTIONS (program 'true');
    """)
    name = "backstop_scratch_20251109T000000Z-000000_drill"
    plain.execute('CREATE DATABASE "%s" TEMPLATE %s OWNER %s' % (name, plain.name, OWNER))

    def refused():
        with pytest.raises(CannotBeClosed) as caught, closed_copy(plain.site, name):
            raise AssertionError("it is open")
        return str(caught.value)

    said = refused()
    for words in ("extension dblink", "1 functions in anything", "public.runs() runs a program", "server files"):
        assert words in said
    plain.execute("DROP FUNCTION able(), runs(); DROP SERVER files CASCADE", name)
    with plain.session(user=OWNER, database=name) as cursor:
        cursor.execute("REVOKE EXECUTE ON FUNCTION dblink(text, text) FROM PUBLIC")
    assert refused().count("reaches") == 1
    plain.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC", name)
    with closed_copy(plain.site, name):
        pass
    with pytest.raises(Refused, match="Only a scratch database"), closed_copy(plain.site, plain.name):
        raise AssertionError("the live database would be closed")
