# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates' predictions about pending migrations: what they destroy and lock, and who may use the new objects."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import evaluation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import evaluate
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.inputs import GateInputs
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from support.databases import APP, OWNER

NEXT = "20251108000000_add_receipt_data"
ET_100 = """
CREATE TABLE "ReceiptData" ("id" serial PRIMARY KEY, "purchaseId" text NOT NULL);
ALTER TABLE "ReceiptData" ADD CONSTRAINT "ReceiptData_purchaseId_fkey" FOREIGN KEY ("purchaseId")
  REFERENCES "TokenPurchase" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
"""


@pytest.fixture
def gates(monkeypatch):
    """Evaluate the gates of these tests."""
    wanted = ("restorable", "destruction", "application_rights")
    monkeypatch.setattr(evaluation, "GATES", [gate for gate in evaluation.GATES if gate[0] in wanted])

    def ask(live, sql, user=None, **changes):
        release = dataclasses.replace(live.site.connection, user=user) if user else live.site.connection
        question = GateInputs(
            files=history.from_mapping({NEXT: sql.encode()}),
            expected=[NEXT],
            release_connections=lambda: {"DATABASE_URL": release},
            **changes,
        )
        return {gate.name: gate for gate in evaluate(live.site, question)}

    return ask


def test_every_lock_is_named_that_of_a_foreign_key_too(untouched, gates):
    assert gates(untouched, ET_100)["destruction"].found == (
        "drops nothing; locks public.TokenPurchase: ShareRowExclusiveLock"
    )


@pytest.fixture(scope="module")
def untouched(shared_databases):
    """No gate changes it."""
    return shared_databases.make("foresight")


def test_what_goes_is_counted_in_the_live_database(untouched, gates):
    sql = """ALTER TABLE "User" DROP COLUMN "name"; DROP TABLE "UserContribution";
             ALTER TABLE "TokenPurchase" ALTER "totalTokens" TYPE int; UPDATE "User" SET "email" = 'x';"""
    found = gates(untouched, sql)["destruction"].found
    locks = ", ".join("public.%s: AccessExclusiveLock" % name for name in ("TokenPurchase", "User", "UserContribution"))
    assert found.split("; ") == [
        "drops the table UserContribution (400 rows)",
        "drops User.name (20 values)",
        "changes the type of TokenPurchase.totalTokens from double precision to integer (500 values)",
        "locks " + locks,
    ]
    assert untouched.value('SELECT count("name") FROM "User"') == 20


@pytest.mark.parametrize(
    "sql",
    [
        'CREATE INDEX CONCURRENTLY "u" ON "User" ("name")',
        'BEGIN; ALTER TABLE "User" ADD COLUMN "x" int; COMMIT; CREATE TABLE "X" (id int);',
        'CREATE TABLE "X" (id int); COMMIT; CREATE TABLE "Y" (id int);',
    ],
    ids=["concurrently", "own transaction", "commit between"],
)
def test_locks_that_could_not_all_be_seen(untouched, gates, sql):
    assert "lock was seen longer than 10 ms" in gates(untouched, sql)["destruction"].found


def test_a_script_that_needs_rows_is_left_to_the_rehearsal(untouched, gates):
    found = gates(untouched, 'SELECT 1 / (SELECT count(*) FROM "User");')
    assert found["destruction"].passed and "not known before the rehearsal" in found["destruction"].found
    assert "division by zero" in found["destruction"].found
    assert "tried in the rehearsal" in found["application_rights"].found


def test_nothing_that_reaches_other_servers_is_run(databases, gates):
    live = databases.make("shop", user=None)
    live.execute("CREATE EXTENSION postgres_fdw; CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw")
    found = gates(live, 'CREATE TABLE "X" (id int);')["destruction"].found
    assert "can reach other servers" in found and "postgres_fdw" in found
    found = gates(databases.make("other", user=None), "CREATE EXTENSION IF NOT EXISTS dblink;")["destruction"].found
    assert "can reach other servers" in found and "dblink" in found


@pytest.fixture(scope="module")
def of_superuser(shared_databases):
    """Its tables belong to another role than the one that will migrate. No gate changes it."""
    return shared_databases.make("rights", user=None)


def test_migrations_of_a_superuser_lock_the_application_out(of_superuser, gates):
    """The gate on what a role may restore advises a superuser."""
    gate = gates(of_superuser, ET_100, user=OWNER)["application_rights"]
    assert not gate.passed
    assert "SELECT, INSERT, UPDATE, DELETE on public.ReceiptData (owner postgres)" in gate.found
    assert "USAGE on public.ReceiptData_id_seq" in gate.found
    assert "tables belong to %s, migrations run as postgres, the release connects as %s" % (OWNER, OWNER) in gate.found
    assert "run the migrations as %s" % OWNER in gate.hint and "ALTER DEFAULT PRIVILEGES" in gate.hint
    waived = gates(of_superuser, ET_100, user=OWNER, waivers={"application_rights": "by hand"})["application_rights"]
    assert waived.passed and waived.waived


GRANTED = """GRANT SELECT, INSERT, UPDATE, DELETE ON "ReceiptData" TO {0};
GRANT USAGE ON "ReceiptData_id_seq" TO {0};"""
BY_DEFAULT = (
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {0}; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {0};"
)


@pytest.mark.parametrize(
    "sql,lacks",
    [
        (ET_100 + GRANTED, ""),
        (ET_100 + 'ALTER TABLE "ReceiptData" OWNER TO {0};', ""),
        (BY_DEFAULT + ET_100, ""),
        (ET_100 + 'GRANT SELECT ON "ReceiptData" TO {0};', "INSERT, UPDATE, DELETE on public.ReceiptData"),
        ('CREATE SCHEMA more; CREATE TABLE more."T" (id int); GRANT ALL ON more."T" TO {0};', "USAGE on schema more"),
        ('ALTER TABLE "User" OWNER TO postgres;', "SELECT, INSERT, UPDATE, DELETE on public.User"),
        ('REVOKE DELETE ON "User" FROM {0};', "DELETE on public.User"),
        ('ALTER TABLE "User" ADD COLUMN "x" int;', ""),
    ],
    ids=["granted", "owner given", "default privileges", "only SELECT", "schema", "owner taken", "revoked", "no table"],
)
def test_who_may_use_what_is_new(of_superuser, gates, sql, lacks):
    gate = gates(of_superuser, sql.format(OWNER), user=OWNER)["application_rights"]
    assert gate.passed == (not lacks) and lacks in gate.found, gate.found


def test_who_only_reads_needs_only_that(databases, gates):
    live = databases.make("shop")
    live.execute('GRANT SELECT ON "User", "TokenPurchase", "UserContribution" TO %s' % APP)
    gate = gates(live, ET_100, user=APP)["application_rights"]
    assert not gate.passed and "lack SELECT on public.ReceiptData" in gate.found
    assert gates(live, ET_100 + 'GRANT SELECT ON "ReceiptData" TO %s' % APP, user=APP)["application_rights"].passed
