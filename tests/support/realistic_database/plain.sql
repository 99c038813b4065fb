-- What Prisma makes, with the names of the runbook. Run as shop_owner, who is no superuser.
CREATE TABLE "User" (
  "id" text NOT NULL, "email" text NOT NULL, "name" text, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "User_pkey" PRIMARY KEY ("id"));
CREATE UNIQUE INDEX "User_email_key" ON "User" ("email");
CREATE TABLE "TokenPurchase" (
  "id" text NOT NULL, "number" serial NOT NULL, "totalTokens" double precision NOT NULL, "purchaseDate" timestamp(3) NOT NULL,
  "createdBy" text NOT NULL, CONSTRAINT "TokenPurchase_pkey" PRIMARY KEY ("id"));
CREATE INDEX "TokenPurchase_purchaseDate_idx" ON "TokenPurchase" ("purchaseDate");
CREATE TABLE "UserContribution" (
  "id" text NOT NULL, "purchaseId" text NOT NULL, "userId" text NOT NULL, "contributionAmount" double precision NOT NULL,
  CONSTRAINT "UserContribution_pkey" PRIMARY KEY ("id"));
CREATE UNIQUE INDEX "UserContribution_purchaseId_key" ON "UserContribution" ("purchaseId");
ALTER TABLE "TokenPurchase" ADD CONSTRAINT "TokenPurchase_createdBy_fkey" FOREIGN KEY ("createdBy") REFERENCES "User" ("id")
  ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "UserContribution" ADD CONSTRAINT "UserContribution_purchaseId_fkey" FOREIGN KEY ("purchaseId") REFERENCES "TokenPurchase" ("id")
  ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "UserContribution" ADD CONSTRAINT "UserContribution_userId_fkey" FOREIGN KEY ("userId") REFERENCES "User" ("id")
  ON DELETE CASCADE ON UPDATE CASCADE;
CREATE TABLE _prisma_migrations (
  id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz, migration_name varchar(255) NOT NULL,
  logs text, rolled_back_at timestamptz, started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0);
INSERT INTO _prisma_migrations VALUES ('m1', repeat('a', 64), '2025-10-01', '20251001000000_init', NULL, NULL, '2025-10-01', 1);
INSERT INTO "User" SELECT 'u' || g, 'u' || g || '@example.org', 'user ' || g FROM generate_series(1, 20) g;
INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy")
  SELECT 'p' || lpad(g::text, 6, '0'), 0.1 * g, timestamp '2025-01-01' + g * interval '1 hour', 'u' || (1 + g % 20) FROM generate_series(1, 500) g;
INSERT INTO "UserContribution" SELECT 'c' || g, 'p' || lpad(g::text, 6, '0'), 'u' || (1 + g % 20), 0.3 * g FROM generate_series(1, 400) g;
