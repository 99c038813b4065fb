# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma's errors, in its own words and colours, become an error with a code, a migration and a hint."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import (
    PrismaError,
    analyse,
    started_migrations,
)

NAME = "20251108000000_add_receipt_data"
STARTED = "2 migrations found\n\nApplying migration `20251001000000_init`\nApplying migration `%s`\n" % NAME
P3018 = (
    """\
Error: \x1b[1m\x1b[31mP3018

A migration failed to apply. New migrations cannot be applied before the error is recovered from. Read more about \
how to resolve migration issues in a production database: https://pris.ly/d/migrate-resolve

Migration name: %s

Database error code: 42P07

Database error:
ERROR: relation "ReceiptData" already exists

Position:
\x1b[1m  0\x1b[0m
\x1b[1m  1\x1b[1;31m CREATE TABLE "ReceiptData" (\x1b[0m

DbError { severity: "ERROR", parsed_severity: Some(Error), code: SqlState(E42P07), detail: None }

   0: sql_schema_connector::apply_migration::apply_script
             at schema-engine/connectors/sql-schema-connector/src/apply_migration.rs:113
"""
    % NAME
)
TRACE = "\n   0: schema_core::state::ApplyMigrations\n             at schema-engine/core/src/state.rs:236\n"


def said(stderr: str, stdout: str = "") -> PrismaError:
    return analyse("prisma migrate deploy", stdout, stderr)


def test_a_failed_migration():
    error = said(P3018, STARTED)
    assert (error.failure.prisma_code, error.failure.migration, error.sqlstate) == ("P3018", NAME, "42P07")
    assert error.failure.database_message == 'ERROR: relation "ReceiptData" already exists'
    assert error.found == 'ERROR: relation "ReceiptData" already exists [P3018, SQLSTATE 42P07]'
    assert error.failure.started == ["20251001000000_init", NAME] and not error.failure.nothing_changed
    assert said(P3018).failure.migration == NAME
    assert "exists already" in error.hint and "mark a migration" in error.hint
    assert error.details == {
        "prisma_code": "P3018",
        "migration": NAME,
        "sqlstate": "42P07",
        "nothing_changed": False,
        "database_message": error.failure.database_message,
        "started": error.failure.started,
    }


@pytest.mark.parametrize(
    "code, text, migration",
    [
        ("P1000", "Authentication failed, the provided database credentials for `a` are not valid.", None),
        ("P1001", "Can't reach database server at `db:5432`", None),
        ("P1003", "Database `shop` does not exist", None),
        ("P3005", "The database schema is not empty. Read more: https://pris.ly/d/migrate-baseline", None),
        ("P3008", "The migration `%s` is already recorded as applied in the database." % NAME, NAME),
        ("P3009", "migrate found failed migrations\nThe `%s` migration started at 2025 failed" % NAME, NAME),
        ("P3011", "Migration `%s` cannot be rolled back because it was never applied to the database." % NAME, NAME),
        ("P3012", "Migration `%s` cannot be rolled back because it is not in a failed state." % NAME, NAME),
        ("P3017", "The migration %s could not be found. Please make sure that the migration exists" % NAME, NAME),
        ("P3019", "The datasource provider `postgresql` does not match the one in migration_lock.toml, `mysql`.", None),
    ],
)
@pytest.mark.parametrize("form", ["Error: %s: %s\n", "Error: %s\n\n%s\n"])
def test_found_before_anything_was_done(form, code, text, migration):
    error = said(form % (code, text))
    assert (error.failure.prisma_code, error.failure.migration, error.failure.nothing_changed) == (
        code,
        migration,
        True,
    )
    assert error.message != "prisma migrate deploy failed" and error.hint
    assert not said(form % (code, text), STARTED).failure.nothing_changed, (
        "an earlier migration of this run is in force"
    )


@pytest.mark.parametrize("code", ["P1017", "P3015", "P3018", "P9999"])
def test_found_when_something_may_have_been_done(code):
    assert not said("Error: %s\n\nsomething\n" % code).failure.nothing_changed


def test_the_lock_of_another_migration():
    by_prisma = said(
        "Error: P1002\n\nThe database server was reached but timed out.\n\nContext: Timed out trying to acquire a "
        "postgres advisory lock (SELECT pg_advisory_lock(72707369)). Timeout: 10000ms."
    )
    by_us = said("Error: ERROR: canceling statement due to lock timeout" + TRACE)
    for error in (by_prisma, by_us):
        assert error.message == "Another Prisma migration holds the migration lock" and error.failure.nothing_changed
    assert (by_prisma.failure.prisma_code, by_us.failure.prisma_code, by_us.sqlstate) == ("P1002", None, "55P03")


def test_a_lock_timeout_within_a_migration():
    error = said("Error: ERROR: canceling statement due to lock timeout" + TRACE, STARTED)
    assert (error.message, error.failure.migration, error.sqlstate) == ("Migration %s failed" % NAME, NAME, "55P03")
    assert "lock timeout" in error.hint and not error.failure.nothing_changed
    # A user who fixes the database by hand needs only the first half.
    assert error.cause in error.hint and "rollback" not in error.cause


def test_an_own_transaction_hides_the_first_error():
    text = "Error: ERROR: current transaction is aborted, commands ignored until end of transaction block" + TRACE
    error = said(text, STARTED)
    assert (error.failure.prisma_code, error.sqlstate, error.failure.migration) == (None, "25P02", NAME)
    assert "BEGIN of its own" in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "Error: request to https://binaries.example/x.gz.sha256 failed, reason: getaddrinfo ENOTFOUND binaries.example",
        "Error: Schema engine exited. Error: Command failed with EACCES: /x/schema-engine cli can-connect-to-database",
        "Error: Env var PRISMA_SCHEMA_ENGINE_BINARY is provided but provided path /x can't be resolved.",
    ],
)
def test_no_engine(text):
    error = said(text)
    assert error.message == "Prisma's engine could not be started" and error.failure.nothing_changed
    assert "PRISMA_SCHEMA_ENGINE_BINARY" in error.hint


def test_a_pooler():
    error = said("Error: db error: FATAL: unsupported startup parameter: options" + TRACE)
    assert error.message == "The connection goes through a pooler" and "direct connection" in error.hint


def test_an_unknown_error_keeps_prismas_words():
    error = said("Error: something new\nsecond line" + TRACE)
    assert error.message == "prisma migrate deploy failed"
    assert "something new second line" in error.found and error.hint and not error.failure.nothing_changed
    assert said("", "Told on the other stream").found == "Told on the other stream"
    assert said("").found == "Prisma printed no error"
    assert len(said("Error: " + "x" * 5000).found) <= 1000


def test_started_migrations():
    assert started_migrations("\x1b[1mApplying migration `a b`\x1b[0m\nnot Applying migration `c`\n") == ["a b"]
