# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runbook's commands for test restores and rollbacks: what they leave, and what this collection leaves.

Each docstring quotes the command; the test runs it unchanged.
"""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database, compare
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import leftovers
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests, impact
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.database_properties import (
    create_database,
    drop_scratch_database,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from support.databases import OWNER

DUMP = (
    "mkdir -p backups; pg_dump -h localhost -U postgres -d electricity_tokens --format=custom --file=backups/good.dump"
)
RESTORE = "pg_restore -h localhost -U postgres -d electricity_tokens --clean --if-exists --verbose backups/good.dump"


def went_back(live, place, accept=0):
    """Run our complete revert; whether every table is as it was."""
    run = live.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    revert(run, place, LossPolicy(accept, objects=1))  # no rehearsed migration made what the shell made
    with live.site.connect() as session:
        return not compare_tables(session, load(place)).tables


def ids(live, table='"TokenPurchase"'):
    return {name for (name,) in live.rows('SELECT "id" FROM %s' % table)}


def test_restore_over_a_migrated_database(live, shell):
    """pg_restore ... --clean --if-exists --verbose backups/backup-<pre-migration-timestamp>.dump"""
    place = live.backup()
    shell.run(DUMP)
    before = ids(live)
    live.run("receipts.sql")
    live.execute("INSERT INTO \"TokenPurchase\" VALUES ('new', 9999, 1, now(), 'u1')")
    live.execute("INSERT INTO \"ReceiptData\" VALUES ('r1', 'new', NULL, 1, now())")
    said = shell.run(RESTORE)
    assert said.returncode == 1 and "errors ignored on restore: " in said.stderr
    assert "other objects depend on it" in said.stderr
    # Only half is restored: the new row and the new table stay, but the history says the migration was never applied.
    assert "new" in ids(live)
    assert live.value("SELECT to_regclass('\"ReceiptData\"') IS NOT NULL")
    assert live.value("SELECT count(*) FROM _prisma_migrations") == 1
    assert went_back(live, place, accept=10**6)
    assert ids(live) == before and live.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")


def test_restore_loses_a_foreign_key(live, shell):
    """pg_restore ... --clean --if-exists: after rows were deleted, what it left and what it restored clash."""
    place = live.backup()
    shell.run(DUMP)
    live.run("receipts.sql")
    live.execute('DELETE FROM "TokenPurchase" WHERE "id" = \'p000007\'')
    shell.run(RESTORE)
    constraint = "SELECT count(*) FROM pg_constraint WHERE conname = 'UserContribution_purchaseId_fkey'"
    orphans = 'SELECT count(*) FROM "UserContribution" WHERE "purchaseId" NOT IN (SELECT "id" FROM "TokenPurchase")'
    assert (live.value(constraint), live.value(orphans)) == (0, 1)
    assert went_back(live, place, accept=10**6)
    assert (live.value(constraint), live.value(orphans)) == (1, 0)


def test_restore_doubles_the_rows_of_a_table_without_key(live, shell):
    """pg_restore ... --clean --if-exists: the DROP fails for a newer view, the COPY appends."""
    live.as_owner("CREATE TABLE log AS SELECT g FROM generate_series(1, 100) g")
    place = live.backup()
    shell.run(DUMP)
    live.execute("CREATE VIEW newer AS SELECT * FROM log")
    shell.run(RESTORE)
    assert live.value("SELECT count(*) FROM log") == 200
    assert went_back(live, place, accept=100)
    assert live.value("SELECT count(*) FROM log") == 100


def test_restore_of_a_truncated_dump(live, shell):
    """pg_restore ... --clean --if-exists --verbose backups/backup-<timestamp>.dump, its last bytes missing"""
    place = live.backup()
    shell.run(DUMP)
    (dump,) = shell.files()
    dump.write_bytes(dump.read_bytes()[:-200])
    said = shell.run(RESTORE)
    assert said.returncode == 1
    keys = "SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f') AND conrelid >= 16384"
    assert live.value(keys) == 0, "rows without any key"
    with open(place.file("archive.dump"), "r+b") as stream:
        stream.truncate(1000)
    run = live.begun("rollback")
    before = live.rows("SELECT oid, datname FROM pg_database ORDER BY 1")
    with pytest.raises(BackstopError, match="was changed"):
        build_successor(run, place)
    assert live.rows("SELECT oid, datname FROM pg_database ORDER BY 1") == before


def test_clean_and_create_of_a_bad_dump_leaves_no_database(live, shell):
    """pg_restore --clean --create, which many take for the safe variant: it drops the database first."""
    place = live.backup()
    shell.run(DUMP)
    (dump,) = shell.files()
    dump.write_bytes(dump.read_bytes()[:-200])
    former = live.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    said = shell.run("pg_restore -h localhost -U postgres -d postgres --clean --create backups/good.dump")
    assert said.returncode == 1
    assert live.value("SELECT oid FROM pg_database WHERE datname = current_database()") != former
    assert live.value("SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid >= 16384") == 0
    # Our revert from the intact backup counts the 400 rows that are missing and requires consent to the loss.
    with pytest.raises(Refused, match="400 rows would be lost"):
        went_back(live, place)
    assert went_back(live, place, accept=400)


HEREDOC = """psql -h localhost -U postgres -d electricity_tokens << EOF
-- Remove foreign key constraint first
ALTER TABLE "ReceiptData" DROP CONSTRAINT IF EXISTS "ReceiptData_purchaseId_fkey";

-- Drop table
DROP TABLE IF EXISTS "ReceiptData" CASCADE;

-- Mark migration as rolled back in Prisma
DELETE FROM "_prisma_migrations"
WHERE migration_name LIKE '%receipt_data%'
ORDER BY finished_at DESC LIMIT 1;
EOF"""


def test_drop_table_and_history_in_a_heredoc(live, shell):
    """DELETE FROM "_prisma_migrations" WHERE migration_name LIKE '%receipt_data%' ORDER BY finished_at DESC LIMIT 1;"""
    place = live.backup()
    live.run("receipts.sql")
    said = shell.run(HEREDOC)
    assert said.returncode == 0 and 'syntax error at or near "ORDER"' in said.stderr
    # The table is dropped, but the history says that it exists: the next deploy does not create it again.
    assert live.value("SELECT to_regclass('\"ReceiptData\"') IS NULL")
    assert live.value("SELECT count(*) FROM _prisma_migrations WHERE migration_name LIKE '%receipt_data'") == 1
    assert went_back(live, place)
    assert live.value("SELECT count(*) FROM _prisma_migrations") == 1


def test_drop_cascade_takes_more_than_was_added(live, shell):
    """psql ... -c "DROP TABLE IF EXISTS \\"ReceiptData\\" CASCADE;"  when the migration also changed another table"""
    place = live.backup()
    live.run("receipts.sql")
    live.as_owner('CREATE VIEW of_both AS SELECT p."id" FROM "TokenPurchase" p, "ReceiptData" r')
    live.execute('UPDATE "User" SET "name" = upper("name")')
    with live.site.connect() as session:
        found = leftovers(live.site, session, place)
    # Our rollback shows what dropping would not restore, and drops nothing.
    assert found.reasons == ["table public.User has 20 rows with other contents"]
    assert "view public.of_both" in found.added
    drop = 'psql -h localhost -U postgres -d electricity_tokens -c "DROP TABLE IF EXISTS \\"ReceiptData\\" CASCADE;"'
    assert shell.run(drop).returncode == 0
    assert live.value("SELECT to_regclass('of_both') IS NULL")


def test_truncate_cascade_empties_more_tables(live, shell):
    """TRUNCATE TABLE "TokenPurchase" CASCADE;"""
    live.run("receipts.sql")
    with live.site.connect() as session:
        table = catalog.find_table(session, "TokenPurchase")
        graph = impact.ForeignKeyGraph(session)
        assert graph.reached_by_truncate(table) == ["public.ReceiptData", "public.UserContribution"]
        assert {entry["effect"] for entry in graph.reached_by_delete(table)} == {"deletes rows"}
    heredoc = '<< EOF\nTRUNCATE TABLE "TokenPurchase" CASCADE;\nEOF'
    said = shell.run("psql -h localhost -U postgres -d electricity_tokens " + heredoc)
    assert said.returncode == 0 and live.value('SELECT count(*) FROM "UserContribution"') == 0


# Test restore

MAKE = """psql -h localhost -U postgres << EOF
DROP DATABASE IF EXISTS electricity_tokens_test;
CREATE DATABASE electricity_tokens_test;
EOF"""
TEST_DUMP = (
    "mkdir -p backups; pg_dump -h localhost -U postgres -d electricity_tokens --format=custom"
    ' --file="backups/test-backup-%s.dump"'
)
TEST_RESTORE = """pg_restore -h localhost -U postgres -d electricity_tokens_test \\
  --clean --if-exists \\
  --verbose \\
  backups/test-backup-*.dump"""
COUNTS = """psql -h localhost -U postgres << EOF
\\c electricity_tokens
SELECT 'electricity_tokens' AS database, (SELECT COUNT(*) FROM "TokenPurchase") AS purchases,
  (SELECT COUNT(*) FROM "User") AS users;
\\c electricity_tokens_test
SELECT 'electricity_tokens_test' AS database, (SELECT COUNT(*) FROM "TokenPurchase") AS purchases,
  (SELECT COUNT(*) FROM "User") AS users;
EOF"""


def test_counts_do_not_see_a_lost_table(live, shell):
    """SELECT ... (SELECT COUNT(*) FROM "TokenPurchase") AS purchases, (SELECT COUNT(*) FROM "User") AS users; ..."""
    shell.run(MAKE)
    shell.run(TEST_DUMP % "1")
    shell.run(TEST_RESTORE)
    spoil = 'DELETE FROM "UserContribution"; UPDATE "TokenPurchase" SET "totalTokens" = 0'
    live.execute(spoil, "electricity_tokens_test")
    said = shell.run(COUNTS)
    assert said.returncode == 0 and said.stdout.count("500 |    20") == 2
    place = live.backup()
    name = scratch_name(new_id(), "drill")
    build_database(live.site, place, name)
    live.execute(spoil, name)
    with live.site.connect(name) as session, pytest.raises(BackstopError) as caught:
        compare(live.site, session, load(place))
    assert caught.value.found.split("; ") == [
        "table public.TokenPurchase has 500 rows with other contents",
        "table public.UserContribution has 0 rows, not 400",
    ]


def test_the_second_test_restore(live, shell):
    """pg_restore ... --clean --if-exists --verbose backups/test-backup-*.dump"""
    shell.run(MAKE)
    shell.run(TEST_DUMP % "1")
    shell.run(TEST_DUMP % "2")
    said = shell.run(TEST_RESTORE)
    assert said.returncode == 1 and "too many command-line arguments" in said.stderr
    assert live.value("SELECT count(*) FROM pg_class WHERE relname = 'User'", "electricity_tokens_test") == 0
    # This collection restores each backup by its name.
    assert live.backup().backup_id != live.backup().backup_id


def test_test_database_in_use(live, shell):
    """DROP DATABASE IF EXISTS electricity_tokens_test; CREATE DATABASE electricity_tokens_test;  in a heredoc"""
    shell.run(MAKE)
    with live.session(database="electricity_tokens_test"):
        said = shell.run(MAKE)
        assert said.returncode == 0 and "is being accessed by other users" in said.stderr
    name = scratch_name(new_id(), "drill")
    with live.site.administer() as admin:
        create_database(admin, name, load(live.backup()).properties)
        with live.session(database=name, user=OWNER):
            assert drop_scratch_database(admin, name)
    assert live.names() == ["electricity_tokens", "electricity_tokens_test"]


def test_sum_of_floats_as_a_check(live, shell):
    """SELECT COUNT(*) ..., SUM("totalAmountZWG") AS total_zwg_amount FROM "ReceiptData";"""
    live.run("receipts.sql")
    live.execute(
        "INSERT INTO \"ReceiptData\" SELECT 'r' || g, 'p' || lpad(g::text, 6, '0'), NULL,"
        " CASE WHEN g = 7 THEN 'NaN' ELSE g * 0.1 END, now(), now() FROM generate_series(1, 400) g"
    )
    check = (
        'psql -At -h localhost -U postgres -d electricity_tokens -c "SELECT COUNT(*), SUM(\\"totalAmountZWG\\")'
        ' FROM \\"ReceiptData\\";"'
    )
    before = shell.run(check).stdout

    def digest():
        with live.site.connect() as session:
            table = catalog.find_table(session, "ReceiptData")
            return digests.table_digest(session, table.source, table.columns)

    ours = digest()
    live.execute('UPDATE "ReceiptData" SET "totalAmountZWG" = 0 WHERE "id" <> \'r7\'')
    assert before == shell.run(check).stdout == "400|NaN\n"
    assert digest() != ours


def test_roles_that_are_missing(live, shell):
    """pg_restore ... --clean --if-exists on a server without the roles: policies are lost, row security stays on"""
    live.execute('CREATE ROLE clerk; GRANT SELECT ON "User" TO clerk; ALTER TABLE "User" ENABLE ROW LEVEL SECURITY')
    live.execute('CREATE POLICY seen ON "User" TO clerk USING (true)')
    place = live.backup()
    shell.run(MAKE)
    shell.run(TEST_DUMP % "1")
    live.execute('DROP POLICY seen ON "User"; DROP OWNED BY clerk; DROP ROLE clerk')
    said = shell.run(TEST_RESTORE)
    assert said.returncode == 1 and 'role "clerk" does not exist' in said.stderr
    policies = "SELECT c.relrowsecurity, (SELECT count(*) FROM pg_policy) FROM pg_class c WHERE c.relname = 'User'"
    assert live.rows(policies, "electricity_tokens_test") == [(True, 0)]
    before = live.names()
    with pytest.raises(BackstopError, match="could not be restored") as caught:
        build_database(live.site, place, scratch_name(new_id(), "drill"))
    assert 'role "clerk" does not exist' in caught.value.found and live.names() == before
