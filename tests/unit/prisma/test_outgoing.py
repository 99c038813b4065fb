# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to other servers, writes and notifications in a migration, found in its text."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.outgoing import (
    notifies,
    openings,
    written_names,
)

REACHING = ("dblink", "http")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1;\ncreate server s foreign data wrapper w", "line 2: creates or changes a way"),
        ("CREATE SERVER IF NOT EXISTS s FOREIGN DATA WRAPPER w", "a way to a foreign server"),
        ("ALTER SERVER s OPTIONS (SET host 'x')", "a way to a foreign server"),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s", "a way to a foreign server"),
        ("CREATE FOREIGN DATA WRAPPER w", "a way to a foreign server"),
        ("IMPORT FOREIGN SCHEMA x FROM SERVER s INTO y", "asks a foreign server"),
        ('CREATE EXTENSION IF NOT EXISTS "dblink"', "installs extension dblink"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS 'return 1'", "code in plpython3u"),
        ("DO LANGUAGE 'plperlu' $$ system('x') $$", "code in plperlu"),
        ("DO $$ BEGIN EXECUTE 'ALTER SERVER s OPTIONS (SET port ''1'')'; END $$", "a way to a foreign server"),
    ],
)
def test_openings(sql, words):
    [found] = openings(sql, REACHING)
    assert words in found


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE server (id int); ALTER TABLE x ADD COLUMN server text",
        "CREATE EXTENSION pg_trgm",
        "INSERT INTO notes VALUES ('CREATE SERVER s')",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$",
        "CREATE FOREIGN TABLE t (id int) SERVER s",
        "DROP SERVER s; -- CREATE SERVER s",
    ],
)
def test_no_openings(sql):
    assert openings(sql, REACHING) == []


def test_what_it_writes_and_sends():
    sql = """CREATE TABLE made (id int); INSERT INTO shop."Order" SELECT * FROM Source;
        DO $$ BEGIN UPDATE "Deep" SET a = 1; PERFORM pg_notify('x', 'y'); END $$"""
    assert {"Order", "source", "Deep"} <= written_names(sql)
    assert "made" not in written_names(sql)
    assert notifies(sql) and notifies("NOTIFY x") and not notifies("SELECT 'NOTIFY x'")
