# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore that fails names the object, the cause and a fix; with the fix the next one succeeds."""

from __future__ import annotations

import re

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    CouldNotVerify,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import archive, restore_failures
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from support.databases import OWNER

#: SQL run as a superuser; what the error must say; the statement that the hint means if it does not contain it.
FAILURES = {
    "generated column": (
        (
            "CREATE FUNCTION up(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';CREATE"
            " FUNCTION also(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN up($1); END';CREATE"
            " TABLE t (a text, b text GENERATED ALWAYS AS (also(a)) STORED); INSERT INTO t VALUES ('x')"
        ),
        ["the rows of table t", "function up(text) does not exist", "function public.also(text) finds it only by"],
        None,
    ),
    "domain": (
        (
            "CREATE FUNCTION up(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';CREATE"
            " FUNCTION also(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN up($1); END';CREATE"
            " DOMAIN loud AS text CHECK (also(VALUE) = VALUE); CREATE TABLE t (a loud); INSERT INTO t VALUES ('X')"
        ),
        ["the rows of table t", "function public.also(text) finds it only by"],
        None,
    ),
    "index": (
        (
            "CREATE FUNCTION up(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';CREATE"
            " FUNCTION also(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN up($1); END';CREATE"
            " TABLE t (a text); CREATE INDEX by_it ON t (also(a)); INSERT INTO t VALUES ('x')"
        ),
        ["CREATE INDEX by_it ON public.t", "function public.also(text) finds it only by"],
        None,
    ),
    "materialized view": (
        (
            "CREATE FUNCTION up(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';CREATE"
            " FUNCTION also(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN up($1); END';CREATE"
            " MATERIALIZED VIEW m AS SELECT also('x')"
        ),
        ["REFRESH MATERIALIZED VIEW public.m", "function public.also(text) finds it only by"],
        None,
    ),
    "function in SQL": (
        (
            'CREATE SCHEMA "Odd"; CREATE TABLE "Odd".a_allowed (a integer); INSERT INTO "Odd".a_allowed VALUES'
            ' (1); SET search_path = "Odd", public; CREATE FUNCTION public.is_allowed(integer) RETURNS boolean'
            " LANGUAGE sql STABLE AS 'SELECT $1 IN (SELECT a FROM a_allowed)'; CREATE TABLE public.t (a"
            " integer, CONSTRAINT c CHECK (is_allowed(a)) NOT VALID); INSERT INTO public.t VALUES (1); ALTER"
            " TABLE public.t VALIDATE CONSTRAINT c"
        ),
        [
            "the rows of table t",
            'relation "a_allowed" does not exist',
            "function public.is_allowed(integer) finds it only by",
            'SET search_path = "Odd"',
        ],
        "ALTER TABLE public.t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (is_allowed(a)) NOT VALID",
    ),
    "check that reads another table": (
        (
            "CREATE TABLE z_allowed (a integer); INSERT INTO z_allowed VALUES (1);CREATE FUNCTION"
            " is_allowed(integer) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 IN (SELECT a"
            " FROM public.z_allowed); END'; CREATE TABLE t (a integer CONSTRAINT c CHECK (is_allowed(a)));"
            " INSERT INTO t VALUES (1)"
        ),
        ["the rows of table t", 'violates check constraint "c"', "reads what is only loaded after it", "NOT VALID"],
        "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (is_allowed(a)) NOT VALID",
    ),
    "check that was not checked": (
        (
            "CREATE TABLE t (a integer); INSERT INTO t VALUES (-1); ALTER TABLE t ADD CONSTRAINT c CHECK (a >"
            " 0) NOT VALID;UPDATE pg_constraint SET convalidated = true WHERE conname = 'c'"
        ),
        ["the rows of table t", 'violates check constraint "c"', "does not hold for a row"],
        "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
    ),
    "orphans": (
        (
            "CREATE TABLE p (a integer PRIMARY KEY); CREATE TABLE t (a integer CONSTRAINT k REFERENCES p);SET"
            " session_replication_role = replica;INSERT INTO t VALUES (7)"
        ),
        ["ALTER TABLE ONLY public.t ADD CONSTRAINT k", "Key (a)=(7) is not present", "its checks were off"],
        "ALTER TABLE t DROP CONSTRAINT k, ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES p NOT VALID",
    ),
    "duplicates": (
        (
            "CREATE TABLE t (a integer); CREATE UNIQUE INDEX i ON t (a); INSERT INTO t VALUES (1);UPDATE"
            " pg_index SET indisunique = false WHERE indexrelid = 'i'::regclass; INSERT INTO t VALUES"
            " (1);UPDATE pg_index SET indisunique = true WHERE indexrelid = 'i'::regclass"
        ),
        ["CREATE UNIQUE INDEX i ON public.t", "Key (a)=(1) is duplicated", "is corrupt", "REINDEX INDEX i"],
        "DELETE FROM t WHERE ctid = '(0,1)'; REINDEX INDEX i",
    ),
    "taken out of its extension": (
        "CREATE EXTENSION citext; ALTER EXTENSION citext DROP FUNCTION citext_eq(citext, citext)",
        ["CREATE FUNCTION public.citext_eq", "taken out of"],
        "ALTER EXTENSION citext ADD FUNCTION citext_eq(citext, citext)",
    ),
    "NULL in a domain": (
        (
            "CREATE DOMAIN d AS integer; CREATE TABLE t (a d); INSERT INTO t VALUES (NULL); UPDATE pg_type SET"
            " typnotnull = true WHERE typname = 'd'"
        ),
        ["the rows of table t", "domain public.d does not allow null values"],
        "UPDATE t SET a = 1",
    ),
}
#: The same for a role that is no superuser.
REFUSED = {
    "extension": (
        "CREATE EXTENSION postgres_fdw",
        ["CREATE EXTENSION IF NOT EXISTS postgres_fdw", "only a superuser may create extension"],
        "DROP EXTENSION postgres_fdw",
    ),
    "owner": (
        "CREATE TABLE t (a integer); ALTER TABLE t OWNER TO shop_report",
        ["ALTER TABLE public.t OWNER TO shop_report", "GRANT shop_report TO shop_owner"],
        "ALTER TABLE t OWNER TO shop_owner",
    ),
    "language": (
        "CREATE FUNCTION f(text) RETURNS text LANGUAGE internal IMMUTABLE AS 'upper'",
        ["CREATE FUNCTION public.f(text)", "shop_owner may not create this object"],
        "DROP FUNCTION f",
    ),
    "publication": (
        "CREATE PUBLICATION p FOR ALL TABLES",
        ["CREATE PUBLICATION p", "shop_owner may not create this object"],
        "DROP PUBLICATION p",
    ),
}


def restored(live, settings, tmp_path):
    """Dump the database as a superuser, and restore it as the role of the settings."""
    path = tmp_path / "archive.dump"
    path.unlink(missing_ok=True)
    name = scratch_name(new_id(), "failing")
    with live.site.connect() as session:
        tools = live.site.tools(session)
    superuser = live.site.connection
    with archive.start_dump(tools, superuser, str(path), archive.DumpOptions()) as dump:
        dump.check("no dump")
    live.execute('CREATE DATABASE "%s" OWNER %s' % (name, OWNER), "postgres")
    try:
        # With one job, in the order of names: with several jobs the order of loading is random.
        archive.restore(tools, settings.with_database(name), str(path), jobs=1)
    finally:
        live.execute('DROP DATABASE "%s" WITH (FORCE)' % name, "postgres")


def make(live, made):
    live.execute("SET allow_system_table_mods = on; " + made)


def fails_and_is_put_right(live, settings, tmp_path, told, remedy):
    with pytest.raises(BackstopError) as caught:
        restored(live, settings, tmp_path)
    error = caught.value
    text = "%s | %s" % (error.found, error.hint)
    assert [words for words in told if words not in text] == [], text
    assert "Failing row" not in text and "COPY t" not in text, text
    for statement in re.findall(r"ALTER FUNCTION .*? SET search_path = [^;]*?(?=, or |; )", error.hint):
        live.execute(statement)
    if remedy:
        live.execute("SET allow_system_table_mods = on; SET enable_indexscan = off; " + remedy)
    restored(live, settings, tmp_path)


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_loaded_again(databases, tmp_path, case):
    made, told, remedy = FAILURES[case]
    live = databases.make("shop", template="template0", user=None)
    if case == "materialized view" and live.cluster.major >= 17:
        with pytest.raises(psycopg2.errors.UndefinedFunction):
            make(live, made)  # since 17 the source does not allow it either
        return
    make(live, made)
    fails_and_is_put_right(live, live.site.connection, tmp_path, told, remedy)


@pytest.mark.parametrize("case", REFUSED)
def test_what_this_role_may_not_make(databases, tmp_path, case):
    made, told, remedy = REFUSED[case]
    live = databases.make("shop", template="template0", user=None)
    # As an ordinary role would restore it: it owns all existing objects.
    live.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
    make(live, made)
    owner = databases.existing("shop").site.connection
    fails_and_is_put_right(live, owner, tmp_path, told, remedy)


def test_a_drill_says_so_and_keeps_it(databases):
    live = databases.make("shop", template="template0", user=None)
    make(live, FAILURES["orphans"][0])
    place = live.backup()
    with pytest.raises(BackstopError, match="ADD CONSTRAINT k .* is not present .* NOT VALID"):
        verify(live.site, place, "restored")
    assert "ADD CONSTRAINT k" in manifests.verification(place)["levels"]["restored"]["reason"]


def test_what_the_server_lacked_says_nothing_against_the_backup(plain):
    said = (
        'pg_restore: error: COPY failed for table "t": ERROR:  could not extend file "b/1": No space left on device\n'
        "HINT:  Check free disk space.\n"
    )
    error = restore_failures.explain(said, plain.site.connection, "pg_restore ended with status 1")
    assert isinstance(error, CouldNotVerify) and "the backup is not the cause" in error.found
    error = restore_failures.explain("pg_restore: Absturz", plain.site.connection, "pg_restore ended with status 1")
    assert error.found == "pg_restore ended with status 1" and not isinstance(error, CouldNotVerify)
    said = "pg_restore: error: could not execute query: FEHLER:  Relation fehlt\nCommand was: CREATE VIEW v;\n"
    error = restore_failures.explain(said, plain.site.connection, "pg_restore ended with status 1")
    assert error.found == "CREATE VIEW v: Relation fehlt" and "would fail in the same way" in error.hint


def test_a_value_that_its_domain_does_not_allow(plain):
    """From a fixed text: with several jobs, the constraint is added while the rows are loaded, or after them."""
    said = (
        'pg_restore: error: COPY failed for table "t": ERROR:  value for domain d violates check constraint "c"\n'
        'CONTEXT:  COPY t, line 1, column a: "-1"\n'
    )
    error = restore_failures.explain(said, plain.site.connection, "pg_restore ended with status 1")
    assert "domain d does not allow a value in column a" in error.found and "-1" not in error.found
