# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The databases that are measured: the example's shape, wide text, many tables, large objects."""

from __future__ import annotations

#: Rows of TokenPurchase for 1 GB with indexes; half as many contributions, a tenth as many receipts.
ROWS_OF_A_GIGABYTE = 3_800_000
EXAMPLE = """
CREATE TABLE "User" (id text PRIMARY KEY, email text NOT NULL UNIQUE, name text);
CREATE TABLE "TokenPurchase" (id text PRIMARY KEY, "userId" text NOT NULL REFERENCES "User"(id) ON DELETE CASCADE,
  "totalTokens" float8 NOT NULL, "totalPayment" float8 NOT NULL, "purchaseDate" timestamp(3) NOT NULL, note text);
CREATE INDEX ON "TokenPurchase" ("purchaseDate");
CREATE TABLE "UserContribution" (id text PRIMARY KEY, "purchaseId" text NOT NULL UNIQUE
  REFERENCES "TokenPurchase"(id) ON DELETE CASCADE, "contributionAmount" float8 NOT NULL);
CREATE TABLE "ReceiptData" (id text PRIMARY KEY, "purchaseId" text NOT NULL UNIQUE
  REFERENCES "TokenPurchase"(id) ON DELETE CASCADE, "tokenNumber" text, "totalAmount" float8,
  "transactionDateTime" timestamp(3) NOT NULL);
INSERT INTO "User" SELECT 'u' || g, g || '@example.org', 'User ' || g FROM generate_series(1, 1000) g;
INSERT INTO "TokenPurchase" SELECT 'p' || g, 'u' || (1 + g % 1000), g * 0.1, g * 1.1,
  timestamp '2025-01-01' + g * interval '1 minute', md5(g::text) FROM generate_series(1, {rows}) g;
INSERT INTO "UserContribution" SELECT 'c' || g, 'p' || g, g * 0.3 FROM generate_series(1, {rows}, 2) g;
INSERT INTO "ReceiptData" SELECT 'r' || g, 'p' || g, md5(g::text), g * 1.1,
  timestamp '2025-01-01' + g * interval '1 minute' FROM generate_series(1, {rows}, 10) g;
ANALYZE;
"""
#: Rows of about 2.5 kB, which compress by half.
WIDE_TEXT = """
CREATE TABLE documents (id bigint PRIMARY KEY, body text NOT NULL);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents SELECT g, (SELECT string_agg(md5((g * 100 + n)::text), '') FROM generate_series(1, 80) n)
  FROM generate_series(1, {rows}) g;
ANALYZE;
"""
#: {tables} tables of {rows} rows each; in steps, so that a small lock table is enough.
MANY_TABLES = """
DO $$ BEGIN
  FOR number IN {first}..{last} LOOP
    EXECUTE format('CREATE TABLE part_%s (id integer PRIMARY KEY, note text)', number);
    EXECUTE format('INSERT INTO part_%s SELECT g, md5(g::text) FROM generate_series(1, {rows}) g', number);
  END LOOP;
END $$;
"""
LARGE_OBJECTS = """
SELECT count(lo_from_bytea(0, convert_to(repeat(md5(g::text), 256), 'UTF8'))) FROM generate_series(1, {rows}) g;
"""


def example(gigabytes: float) -> str:
    return EXAMPLE.format(rows=max(1000, int(gigabytes * ROWS_OF_A_GIGABYTE)))


def wide_text(gigabytes: float) -> str:
    return WIDE_TEXT.format(rows=max(50, int(gigabytes * 370_000)))


def large_objects(gigabytes: float) -> str:
    return LARGE_OBJECTS.format(rows=max(20, int(gigabytes * 125_000)))


def many_tables(count: int, rows: int = 50, step: int = 20) -> str:
    parts = [
        MANY_TABLES.format(first=first, last=min(first + step, count + 1) - 1, rows=rows)
        for first in range(1, count + 1, step)
    ]
    return "".join(parts) + "ANALYZE;"
