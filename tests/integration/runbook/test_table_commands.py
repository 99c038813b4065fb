# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runbook's commands for a corrupted table (scenario 3): what they leave, and what this collection leaves.

Each docstring quotes the command; the test runs it unchanged, except for the table's name where the runbook's own
name matches no table.
"""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests, references
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.table_summary import summary
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
)

SCENARIO = """
mkdir -p backups
pg_dump -h localhost -U postgres -d electricity_tokens \\
  --table=receipt_data \\
  --data-only \\
  --file="backups/corrupted-receipt-data-$(date +%Y%m%d-%H%M%S).sql"
psql -h localhost -U postgres -d electricity_tokens << EOF
SELECT COUNT(*) AS total_receipts FROM "ReceiptData";
TRUNCATE TABLE "ReceiptData" CASCADE;
SELECT COUNT(*) AS remaining_receipts FROM "ReceiptData";
EOF
psql -h localhost -U postgres -d electricity_tokens \\
  < backups/receipt_data-20251108-020000.sql
psql -h localhost -U postgres -d electricity_tokens << EOF
SELECT COUNT(*) AS total_receipts, MIN("transactionDateTime") AS earliest_receipt,
  MAX("transactionDateTime") AS latest_receipt, SUM("totalAmountZWG") AS total_zwg_amount FROM "ReceiptData";
EOF
"""
CLEAN = """mkdir -p backups; pg_dump -h localhost -U postgres -d electricity_tokens --table='public."ReceiptData"' \\
  --data-only --file=backups/receipt_data-clean.sql"""
LOAD = "psql -h localhost -U postgres -d electricity_tokens < backups/receipt_data-clean.sql"
TRUNCATE = 'psql -h localhost -U postgres -d electricity_tokens << EOF\nTRUNCATE TABLE "ReceiptData" CASCADE;\nEOF\n'
RECEIPTS = (
    "INSERT INTO \"ReceiptData\" SELECT 'r' || g, 'p' || lpad(g::text, 6, '0'), 't' || g, g * 0.1, timestamp"
    " '2025-03-01' + g * interval '1 hour' FROM generate_series(1, 400) g"
)
LINES = """CREATE TABLE "ReceiptLine" ("id" int PRIMARY KEY, "receiptId" text NOT NULL REFERENCES "ReceiptData");
INSERT INTO "ReceiptLine" SELECT g, 'r' || g FROM generate_series(1, 300) g"""
TOUCH = """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW."createdAt" := now(); RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON "ReceiptData" FOR EACH ROW EXECUTE FUNCTION touch()"""
SPOIL = 'UPDATE "ReceiptData" SET "totalAmountZWG" = 0 WHERE "id" LIKE \'r1%\''


@pytest.fixture
def receipts(live):
    live.run("receipts.sql")
    live.as_owner(RECEIPTS)
    return live


def digest(live):
    with live.site.connect() as session:
        table = catalog.find_table(session, "ReceiptData")
        return digests.table_digest(session, table.source, table.columns)


def number(live, table="ReceiptData"):
    return live.value('SELECT count(*) FROM "%s"' % table)


def test_the_scenario_literally(receipts, shell):
    """pg_dump ... --table=receipt_data; TRUNCATE TABLE "ReceiptData" CASCADE; psql ... < backups/receipt_data-..."""
    receipts.backup("daily", tables=["ReceiptData"])
    before = digest(receipts)
    said = shell.run(SCENARIO)
    # Every receipt is lost, there is no copy of any, and the script ends with 0.
    assert (said.returncode, number(receipts), shell.files()) == (0, 0, [])
    assert "no matching tables were found" in said.stderr and "No such file or directory" in said.stderr
    result = restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert digest(receipts) == before and result.now[0]["rows"] == 400
    emergency = manifests.load(receipts.store.find_backup(result.emergency))
    assert emergency.tables[0].digest.rows == 0


def test_truncate_cascade_empties_the_children(receipts, shell):
    """TRUNCATE TABLE "ReceiptData" CASCADE;  (preserves table structure, the runbook says)"""
    receipts.as_owner(LINES)
    receipts.backup()
    before = digest(receipts)
    receipts.as_owner(SPOIL)
    restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert (digest(receipts), number(receipts, "ReceiptLine")) == (before, 300)
    said = shell.run(TRUNCATE)
    assert (said.returncode, number(receipts, "ReceiptLine")) == (0, 0)


def test_data_into_a_table_with_rows(receipts, shell):
    """psql -h localhost -U postgres -d electricity_tokens < backups/receipt_data-<clean-backup-timestamp>.sql"""
    receipts.backup()
    before = digest(receipts)
    shell.run(CLEAN)
    receipts.as_owner(SPOIL)
    said = shell.run(LOAD)
    assert said.returncode == 0 and "duplicate key" in said.stderr and digest(receipts) != before
    restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert digest(receipts) == before


def test_data_whose_parent_is_gone(receipts, shell):
    """psql ... < backups/receipt_data-<clean-backup-timestamp>.sql  after a purchase was deleted"""
    receipts.backup()
    shell.run(CLEAN)
    receipts.as_owner('DELETE FROM "TokenPurchase" WHERE "id" = \'p000009\'; ' + SPOIL)
    before = digest(receipts)
    with pytest.raises(Refused, match="cannot be repaired"):
        restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert digest(receipts) == before
    # Our restore can leave that one out.
    done = restore_table(receipts.site, TableRestoreRequest("ReceiptData", mode="repair", where="\"id\" <> 'r9'"))
    assert done.changed and number(receipts) == 399
    said = shell.run(TRUNCATE + LOAD)
    assert said.returncode == 0 and "foreign key constraint" in said.stderr and number(receipts) == 0


def test_data_after_a_column_was_renamed(receipts, shell):
    """psql ... < backups/receipt_data-<clean-backup-timestamp>.sql: psql reads the rows as commands"""
    command = 'x; DELETE FROM public."UserContribution"; --'
    receipts.as_owner('UPDATE "ReceiptData" SET "id" = \'%s\' WHERE "id" = \'r7\'' % command)
    receipts.backup()
    shell.run(CLEAN)
    receipts.as_owner('ALTER TABLE "ReceiptData" RENAME "tokenNumber" TO "token"')
    with pytest.raises(Refused, match="other columns than in backup"):
        restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert (number(receipts), number(receipts, "UserContribution")) == (400, 400)
    said = shell.run(TRUNCATE + LOAD)
    assert (said.returncode, number(receipts), number(receipts, "UserContribution")) == (0, 0, 0)


def test_data_into_a_table_with_triggers(receipts, shell):
    """psql ... < backups/receipt_data-<clean-backup-timestamp>.sql: triggers change every row on its way in"""
    receipts.as_owner(TOUCH)
    receipts.backup()
    before = digest(receipts)
    shell.run(CLEAN)
    receipts.as_owner(
        'ALTER TABLE "ReceiptData" DISABLE TRIGGER touch; %s;ALTER TABLE "ReceiptData" ENABLE TRIGGER touch' % SPOIL,
    )
    restore_table(receipts.site, TableRestoreRequest("ReceiptData"))
    assert digest(receipts) == before
    said = shell.run(TRUNCATE + LOAD)
    assert (said.returncode, said.stderr, number(receipts)) == (0, "", 400) and digest(receipts) != before


def test_the_sum_of_the_runbook_and_an_exact_one(receipts, shell):
    """SELECT COUNT(*) ..., SUM("totalAmountZWG") AS total_zwg_amount FROM "ReceiptData";  in another order of rows"""
    amounts = "CASE WHEN \"id\" = 'r1' THEN 1e17 WHEN \"id\" = 'r2' THEN -1e17 ELSE 0.1 END"
    receipts.as_owner('UPDATE "ReceiptData" SET "totalAmountZWG" = ' + amounts)

    def theirs():
        said = shell.run('psql -At -d electricity_tokens -c "SELECT SUM(\\"totalAmountZWG\\") FROM \\"ReceiptData\\""')
        return said.stdout.strip()

    def ours():
        with receipts.site.connect() as session:
            table = catalog.find_table(session, "ReceiptData")
            return summary(session, 'public."ReceiptData"', references.columns(session, table.oid))

    first, exact = theirs(), ours()
    assert exact["sums"]["totalAmountZWG"] == "39.8" and exact["rows"] == 400
    receipts.as_owner(
        'CREATE TABLE kept AS SELECT * FROM "ReceiptData"; TRUNCATE "ReceiptData";'
        'INSERT INTO "ReceiptData" SELECT * FROM kept ORDER BY "totalAmountZWG"',
    )
    assert theirs() != first and ours() == exact
