-- The migration of ET-100, without the index that the runbook makes twice, and some receipts.
CREATE TABLE "ReceiptData" (
  "id" text NOT NULL, "purchaseId" text NOT NULL, "tokenNumber" text, "totalAmountZWG" double precision NOT NULL,
  "transactionDateTime" timestamp(3) NOT NULL, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "ReceiptData_pkey" PRIMARY KEY ("id"));
CREATE UNIQUE INDEX "ReceiptData_purchaseId_key" ON "ReceiptData" ("purchaseId");
ALTER TABLE "ReceiptData" ADD CONSTRAINT "ReceiptData_purchaseId_fkey" FOREIGN KEY ("purchaseId") REFERENCES "TokenPurchase" ("id")
  ON DELETE CASCADE ON UPDATE CASCADE;
INSERT INTO _prisma_migrations VALUES
  ('m2', repeat('c', 64), '2025-11-08', '20251108000000_add_receipt_data', NULL, NULL, '2025-11-08', 1);
