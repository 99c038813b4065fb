# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Receipts on a site that has ET-100, and what corrupts them."""

from __future__ import annotations

import dataclasses

from .demo_site import Condition, DemoSite

RECEIPTS = """
INSERT INTO "ReceiptData" ("id", "purchaseId", "kwhPurchased", "energyCostZWG", "debtZWG", "reaZWG", "vatZWG",
  "totalAmountZWG", "tenderedZWG", "transactionDateTime")
SELECT 'r' || "id", "id", 1, 2, 3, 4, 5, 6.1, 7, now() FROM "TokenPurchase" ORDER BY "id" LIMIT 200
"""
CORRUPT = """
UPDATE "ReceiptData" SET "totalAmountZWG" = 'NaN', "tokenNumber" = 'wrong' WHERE "kwhPurchased" = 1 AND "id" IN
  (SELECT "id" FROM "ReceiptData" ORDER BY "id" LIMIT 30);
DELETE FROM "ReceiptData" WHERE "id" IN (SELECT "id" FROM "ReceiptData" ORDER BY "id" DESC LIMIT 5);
"""


def with_receipts(site: DemoSite) -> Condition:
    """The site's state, whatever the physical order of the receipts."""
    rows = site.sql('SELECT md5(string_agg(r::text, chr(10) ORDER BY "id")) FROM "ReceiptData" r')
    return dataclasses.replace(site.condition(), contents=rows)
