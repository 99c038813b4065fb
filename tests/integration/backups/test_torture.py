# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases with everything that breaks tools: backed up, drilled, reverted, and the revert undone."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import quote_identifier
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from support.databases import OWNER, REALISTIC, run_sql

SQL = pathlib.Path(__file__).resolve().parents[2] / "support" / "torture_database"
NAME = 'it\'s "the" shop; 电 %s'


def at_ease(live, statement: str):
    """The first column of a statement's result, with the database's own session settings overridden."""
    with live.session() as cursor:
        for setting in ("statement_timeout = 0", "lock_timeout = 0", "default_transaction_read_only = off"):
            cursor.execute("SET " + setting)
        cursor.execute(statement)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def there_and_back(live) -> None:
    """A backup, its drill, a change, the revert and its undo: nothing is lost, nothing is different afterwards."""
    place = live.backup()
    assert verify(live.site, place, "restored").level == "restored"
    with live.site.connect() as session:
        before = definitions.definitions(session)
    at_ease(live, "CREATE TABLE public.newer (id integer PRIMARY KEY)")
    run = live.begun("rollback", {"scenario": "complete", "backup": place.backup_id})
    build_successor(run, place)
    result = revert(run, place, LossPolicy(0, objects=1))
    assert result.changed and result.lost_rows == 0
    with live.site.connect() as session:
        found = definitions.compare(before, definitions.definitions(session))
    assert not found["missing"] and not found["added"]
    assert {definitions.kind_of(key) for key in found["changed"]} <= set(definitions.REPRINTED)
    run.operation.close("done")
    back = live.begun("undo", {"undoes": run.operation.id})
    assert undo(back, run.operation, LossPolicy(0)).changed
    assert at_ease(live, "SELECT to_regclass('public.newer') IS NOT NULL") == [True]
    assert not [name for name in live.names() if name.startswith("backstop_scratch_")]


@pytest.mark.fault("databases", "a database with odd objects of every kind", by="restored and compared, entry by entry")
def test_every_odd_object(databases):
    live = databases.make(NAME, REALISTIC, user=None)
    live.execute((SQL / "objects.sql").read_text("utf-8"))
    there_and_back(live)


SETTINGS = [
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '1s'",
    "session_replication_role = 'replica'",
    "search_path = ''",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "row_security = off",
    "lc_messages = 'C'",
    "default_table_access_method = 'heap'",
    "check_function_bodies = on",
    "bytea_output = 'escape'",
    "intervalstyle = 'sql_standard'",
    "xmloption = 'document'",
    "transform_null_equals = on",
    "array_nulls = off",
    "quote_all_identifiers = on",
    "jit = off",
    "role = '%s'" % OWNER,
]


def test_settings_of_the_database(databases):
    """A database may have any settings for its sessions; our own sessions and programs must not be affected."""
    live = databases.make("settings", user=None)
    for setting in SETTINGS:
        run_sql(live.cluster, "postgres", "ALTER DATABASE settings SET " + setting)
    there_and_back(live)


LOCALES = {
    "latin1": "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    "sql_ascii": "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
    "icu": "LOCALE_PROVIDER icu ICU_LOCALE 'de' ENCODING 'UTF8'",
}


@pytest.mark.fault("databases", "databases of other encodings and locales", by="restored and compared")
@pytest.mark.parametrize("locale", LOCALES)
def test_encodings_and_locales(databases, locale):
    # PostgreSQL stores database names without an encoding. Letters beyond ASCII are the same in both only where the
    # encoding is the maintenance database's.
    name = "wörter" if locale == "icu" else "words"
    create = "CREATE DATABASE %s TEMPLATE template0 OWNER %s " % (quote_identifier(name), OWNER)
    run_sql(databases.cluster, "postgres", create + LOCALES[locale])
    live = databases.existing(name, user=None)
    live.execute("CREATE TABLE words (id integer PRIMARY KEY, word text, raw bytea)")
    live.execute("INSERT INTO words SELECT g, chr(64 + g), decode('00ff', 'hex') FROM generate_series(1, 26) g")
    if locale == "sql_ascii":
        live.execute("INSERT INTO words VALUES (100, E'\\xff\\xfe\\x80', NULL)")
    else:
        live.execute("INSERT INTO words VALUES (100, U&'\\00e9\\00fc', NULL)")
    there_and_back(live)


def test_temporary_tables_of_other_sessions(plain):
    with plain.session() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE passing AS SELECT 1 AS a")
        place = plain.backup()
        assert verify(plain.site, place, "restored").level == "restored"


def test_an_event_trigger_that_forbids(databases):
    """Nothing may be created or dropped in the live database; all our changes are made in another one."""
    live = databases.make("strict", user=None)
    live.execute(
        "CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF current_setting('app.may_change', true) IS DISTINCT FROM 'yes' THEN"
        " RAISE EXCEPTION 'not here'; END IF; END $$;"
        "CREATE EVENT TRIGGER forbids ON ddl_command_start EXECUTE FUNCTION public.forbid()"
    )
    place = live.backup()
    assert verify(live.site, place, "restored").level == "restored"
    run = live.begun("rollback", {"scenario": "complete", "backup": place.backup_id})
    build_successor(run, place)
    assert revert(run, place, LossPolicy(0, objects=1)).changed
