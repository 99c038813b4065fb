# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements with effects outside the database are found, others are not."""

from __future__ import annotations

import itertools
import random
import string

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sql_text import (
    cluster_statements,
    statements,
    tokens,
)
from hypothesis import given
from hypothesis import strategies as some

REACHING = [
    "CREATE ROLE reporting",
    "create user reporting with password 'x'",
    "ALTER ROLE app SET statement_timeout = '5s'",
    "DROP ROLE IF EXISTS reporting",
    "DROP GROUP g",
    "CREATE DATABASE other",
    "ALTER DATABASE \"electricity-tokens\" SET timezone = 'UTC'",
    "DROP DATABASE other",
    "CREATE TABLESPACE fast LOCATION '/x'",
    "ALTER SYSTEM SET wal_level = logical",
    "GRANT admin TO app",
    "REVOKE admin FROM app",
    "GRANT CONNECT ON DATABASE shop TO app",
    "REVOKE ALL ON TABLESPACE fast FROM app",
    "COMMENT ON DATABASE shop IS 'live'",
    "COMMENT ON ROLE app IS 'application'",
    "REASSIGN OWNED BY a TO b",
    "DROP OWNED BY a",
    "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p",
    "COPY t FROM PROGRAM 'cat /etc/passwd'",
    "SELECT pg_reload_conf()",
    'SELECT pg_catalog."pg_terminate_backend" (pid) FROM pg_stat_activity',
    "SELECT dblink_exec('dbname=postgres', 'DROP TABLE t')",
    "/* a /* nested */ comment */ CREATE ROLE x",
    "-- a line\nCREATE ROLE x",
    "DO $$ BEGIN CREATE ROLE x; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles) THEN CREATE ROLE x; END IF; END$$ LANGUAGE plpgsql",
    "DO LANGUAGE plpgsql $body$ BEGIN EXECUTE format('CREATE ROLE %I', 'x'); END $body$",
    "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET x.y = 1'; END $$",
    "DO 'BEGIN CREATE ROLE x; END'",
    "CREATE OR REPLACE FUNCTION f() RETURNS void AS $f$ BEGIN DROP DATABASE other; END $f$ LANGUAGE plpgsql",
]
HARMLESS = [
    'CREATE TABLE "User" (id int)',
    "CREATE TABLE role (create_role text)",
    'ALTER TABLE t ADD COLUMN "user" text, DROP COLUMN "role"',
    "ALTER TABLE t DROP role",
    "CREATE USER MAPPING FOR app SERVER s",
    "DROP USER MAPPING IF EXISTS FOR app SERVER s",
    'GRANT SELECT ON "User" TO reporting',
    "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA database TO app",
    "INSERT INTO notes VALUES ('CREATE ROLE x; DROP DATABASE y')",
    "INSERT INTO notes VALUES ('it''s; DROP DATABASE y')",
    "INSERT INTO notes VALUES (E'it\\'s; DROP DATABASE y')",
    "INSERT INTO notes VALUES ($$; DROP DATABASE y;$$)",
    "COMMENT ON TABLE \"User\" IS 'CREATE ROLE'",
    'COMMENT ON COLUMN "User"."role" IS \'x\'',
    "SELECT 1 -- ; DROP DATABASE y",
    "SELECT 1 /* ; DROP DATABASE y */",
    'SELECT 1 AS "; DROP DATABASE y"',
    "CREATE INDEX CONCURRENTLY i ON t (a)",
    "DO $$ BEGIN UPDATE t SET a = 1; END $$",
    "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN NEW.role := 'x'; RETURN NEW; END $$ LANGUAGE plpgsql",
    "SET ROLE app",
    "COPY t FROM '/dev/null'",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "SELECT pg_reload_conf FROM t",
]


@pytest.mark.parametrize("sql", REACHING)
def test_found(sql):
    [statement] = cluster_statements("SELECT 1;\n\n" + sql + ";\nSELECT 2")
    assert statement.why
    assert statement.line >= 3


@pytest.mark.parametrize("sql", HARMLESS)
def test_not_found(sql):
    assert cluster_statements("SELECT 1;\n" + sql + ";\nSELECT 2;") == []


def test_what_is_shown_hides_strings():
    [found] = cluster_statements("CREATE ROLE \"Reporting\"\n  LOGIN PASSWORD 'open sesame';")
    assert found.text == "CREATE ROLE \"Reporting\" LOGIN PASSWORD '...'"
    assert (found.line, found.why) == (1, "acts on a role, which belongs to the whole server")


def test_long_statements_are_shortened():
    [found] = cluster_statements("GRANT %s TO app" % ", ".join("role%d" % number for number in range(100)))
    assert len(found.text) == 100 and found.text.endswith("...")


def test_statements_are_parted_only_outside_of_strings_and_comments():
    sql = "a ';' $$;$$ \";\" /* ; /* ; */ */ b; -- ;\n$x$ ; $$ ; $x$; c"
    assert [[token.kind for token in one] for one in statements(sql)] == [
        ["word", "string", "body", "quoted", "word"],
        ["body"],
        ["word"],
    ]


@given(some.text(alphabet=string.ascii_letters + "'\"$-/*;\\ \n\u00e9\u0130\u00df_0%()", max_size=60))
def test_no_text_is_too_odd(sql):
    """The tokens of any text are in order, and only spaces, comments or quotes are between them."""
    found = list(tokens(sql))
    positions = [token.position for token in found]
    assert positions == sorted(set(positions))
    cluster_statements(sql)


def test_every_short_text():
    for length in range(6):
        for letters in itertools.product("E'\"\\$;-", repeat=length):
            cluster_statements("".join(letters))


def test_hidden_in_random_migrations(seed):
    generator = random.Random(seed)
    noise = [one for one in HARMLESS if not one.startswith("SELECT 1 --")]
    for _round in range(200):
        parts = [generator.choice(noise) for _time in range(generator.randrange(6))]
        wanted = generator.choice(REACHING)
        parts.insert(generator.randrange(len(parts) + 1), wanted)
        assert len(cluster_statements(";\n".join(parts))) == 1, parts
