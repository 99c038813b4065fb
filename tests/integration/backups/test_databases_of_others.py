# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases as other people have them, strange ones too: there and back, compared by what pg_dump writes."""

from __future__ import annotations

import pathlib
import shutil
from typing import Dict

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import quote_identifier
from support.databases import OWNER, run_sql
from support.reliability import FULL
from support.round_trips import there_and_back

SQL = pathlib.Path(__file__).resolve().parents[2] / "support" / "databases_of_others"
SHAPES = sorted(path.stem for path in SQL.glob("*.sql"))


@pytest.mark.fault("databases", "schemas of whole applications", by="compared by pg_dump")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_application(databases, shape):
    live = databases.make(shape, "template0", user=None)
    live.execute((SQL / (shape + ".sql")).read_text("utf-8"))
    there_and_back(live)


def strange() -> Dict[str, str]:
    """The parts of a file, by their names."""
    parts = (SQL / "strange.parts").read_text("utf-8").split("\n--== ")[1:]
    return {name: sql for name, _newline, sql in (part.partition("\n") for part in parts)}


STRANGE = strange()
#: Not in one database with the others.
ALONE = ("nothing at all", "not even public", "event triggers")


@pytest.mark.fault("databases", "strange but legal objects and rows", by="compared by pg_dump")
def test_strange_but_legal(databases, tried):
    """All in one database."""
    live = databases.make("strange", "template0", user=None)
    together = {name: sql for name, sql in STRANGE.items() if name not in ALONE}
    for sql in together.values():
        live.execute(sql)
    there_and_back(live)
    tried(len(together))


@pytest.mark.fault("databases", "strange databases, each alone", by="compared by pg_dump")
@pytest.mark.parametrize("what", STRANGE if FULL else ALONE)
def test_each_alone(databases, what):
    live = databases.make("strange", "template0", user=None)
    if STRANGE[what].strip():
        live.execute(STRANGE[what])
    there_and_back(live)


NAMES = [
    "select",
    "UPPER",
    "a.b",
    "-x",
    "dbname=postgres",
    "postgresql://x",
    "é" * 20,
    "new\nline",
    "%s %(a)s '\"\\",
    " ",
]


@pytest.mark.fault("databases", "odd names of databases", by="compared by pg_dump")
@pytest.mark.parametrize("name", NAMES if FULL else NAMES[-2:])
def test_names_of_databases(databases, name):
    live = databases.make(name)
    there_and_back(live)


SETTINGS = {
    "datestyle": "'German, DMY'",
    "intervalstyle": "'iso_8601'",
    "timezone": "'Asia/Kathmandu'",
    "search_path": "nowhere",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "backslash_quote": "off",
    "default_transaction_deferrable": "on",
    "default_tablespace": "''",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "'64kB'",
    "temp_file_limit": "'1GB'",
    "log_statement": "'all'",
    "lo_compat_privileges": "on",
    "constraint_exclusion": "on",
    "exit_on_error": "on",
    "client_min_messages": "log",
    "application_name": "'theirs'",
    "password_encryption": "md5",
    "vacuum_freeze_min_age": "0",
    "app.tenant": "'it''s'",
}


@pytest.mark.fault("databases", "settings of a database for its sessions", by="compared by pg_dump")
def test_settings_of_a_database(databases):
    live = databases.make("settings", user=None)
    live.execute("CREATE TABLE moments (t timestamptz PRIMARY KEY, d date, i interval, f float8)")
    live.execute("INSERT INTO moments VALUES ('2025-03-04 05:06+00', '2025-03-04', '1 mon 2 days 3:04', 0.1 + 0.2)")
    for name, value in SETTINGS.items():
        run_sql(databases.cluster, "postgres", "ALTER DATABASE settings SET %s = %s" % (name, value))
    run_sql(databases.cluster, "postgres", "ALTER ROLE postgres IN DATABASE settings SET datestyle = 'SQL, MDY'")
    there_and_back(live)


@pytest.mark.fault("databases", "a tablespace", by="compared by pg_dump")
def test_a_tablespace(databases, tmp_path):
    """Tables, indexes and the database itself in one."""
    folder = pathlib.Path(databases.cluster.home) / "tablespace"
    folder.mkdir(mode=0o700)
    shutil.chown(folder, databases.cluster.os_user)
    run_sql(databases.cluster, "postgres", "CREATE TABLESPACE beside LOCATION '%s'" % folder)
    try:
        create = "CREATE DATABASE spaced TEMPLATE template0 TABLESPACE beside OWNER " + OWNER
        run_sql(databases.cluster, "postgres", create)
        live = databases.existing("spaced", user=None)
        live.execute(
            "CREATE TABLE here (a int PRIMARY KEY USING INDEX TABLESPACE pg_default); INSERT INTO here VALUES (1)"
        )
        live.execute("CREATE TABLE there (a int) TABLESPACE pg_default; CREATE INDEX ON there (a)")
        there_and_back(live)
        space = (
            "SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = 'spaced'"
        )
        assert live.value(space) == "beside"
    finally:
        for name in [name for name in live.names() if "spaced" in name]:
            run_sql(databases.cluster, "postgres", "DROP DATABASE %s WITH (FORCE)" % quote_identifier(name))
        run_sql(databases.cluster, "postgres", "DROP TABLESPACE beside")
