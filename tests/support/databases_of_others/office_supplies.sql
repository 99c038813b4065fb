-- Shapes like Northwind and Chinook: quoted names of mixed case, keys over several columns, self references, pictures as
-- bytea and as large objects, a table without key, and a second schema with the same table names.
CREATE TABLE "Employee" ("EmployeeId" int NOT NULL, "LastName" varchar(20) NOT NULL, "ReportsTo" int, "BirthDate" timestamp, "Photo" bytea, "PhotoPath" varchar(255), CONSTRAINT "PK_Employee" PRIMARY KEY ("EmployeeId"));
ALTER TABLE "Employee" ADD CONSTRAINT "FK_EmployeeReportsTo" FOREIGN KEY ("ReportsTo") REFERENCES "Employee" ("EmployeeId");
CREATE INDEX "IFK_EmployeeReportsTo" ON "Employee" ("ReportsTo");
INSERT INTO "Employee" SELECT g, 'Fuller ' || g, NULLIF(g / 2, 0), timestamp '1952-02-19' + g * interval '1 day', decode('151c2f00020000', 'hex'), E'C:\\photos\\' || g FROM generate_series(1, 40) g;
CREATE TABLE "Order Details" ("OrderID" int, "ProductID" smallint, "UnitPrice" real NOT NULL, "Quantity" smallint NOT NULL DEFAULT 1, "Discount" real NOT NULL, CONSTRAINT "PK_Order_Details" PRIMARY KEY ("OrderID", "ProductID"), CONSTRAINT "CK_Discount" CHECK ("Discount" >= 0 AND "Discount" <= 1));
INSERT INTO "Order Details" SELECT g / 3, g % 3, g * 1.1, g % 5, 0.05 FROM generate_series(1, 600) g;
CREATE TABLE "Alphabetical list of products" ("ProductName" varchar(40), "Discontinued" bit(1), "Price" money, "Where" point, "Net" inet, "Mac" macaddr8, "Span" interval, "Doc" xml, "Raw" json, "Uid" uuid DEFAULT gen_random_uuid());
INSERT INTO "Alphabetical list of products" VALUES ('Chai', B'0', 18.00, '(1,2)', '192.168.0.1/24', '08:00:2b:01:02:03:04:05', '1 mon -2 days', '<a b="c">&lt;</a>', '{"b": 1, "a":  [1.10, null], "b": 2}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), ('Chai', B'1', -0.01, NULL, '::1', NULL, '-1 year', NULL, '"\u00e9"', NULL);
CREATE TABLE "Playlist" ("PlaylistId" int PRIMARY KEY, "Name" varchar(120) COLLATE "C"); CREATE TABLE "PlaylistTrack" ("PlaylistId" int NOT NULL REFERENCES "Playlist", "TrackId" int NOT NULL, PRIMARY KEY ("PlaylistId", "TrackId")) WITH (fillfactor = 70);
INSERT INTO "Playlist" VALUES (1, 'Música'), (2, '''90s'), (3, NULL); INSERT INTO "PlaylistTrack" SELECT 1 + g % 3, g FROM generate_series(1, 300) g;
CREATE VIEW "Quarterly Orders" AS SELECT "OrderID", sum("UnitPrice" * "Quantity") AS "Sub""total" FROM "Order Details" GROUP BY 1;
CREATE SCHEMA "Archive 2024" AUTHORIZATION shop_owner; CREATE TABLE "Archive 2024"."Employee" (LIKE "Employee" INCLUDING ALL); INSERT INTO "Archive 2024"."Employee" SELECT * FROM "Employee" WHERE "EmployeeId" < 9;
CREATE VIEW "Archive 2024"."All" AS SELECT * FROM "Archive 2024"."Employee" UNION ALL SELECT * FROM public."Employee";
CREATE TABLE "Archive 2024".pictures (id int PRIMARY KEY, lo oid); INSERT INTO "Archive 2024".pictures SELECT g, lo_from_bytea(0, decode(repeat('00ff', g), 'hex')) FROM generate_series(1, 20) g;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA "Archive 2024" GRANT ALL ON TABLES TO shop_report;
CREATE TABLE _prisma_migrations (id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz, migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz, started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0);
INSERT INTO _prisma_migrations VALUES ('1', repeat('0', 64), now(), '0_init', NULL, NULL, now(), 1);
CREATE TABLE "_OrderToTag" ("A" int NOT NULL, "B" text NOT NULL); CREATE UNIQUE INDEX "_OrderToTag_AB_unique" ON "_OrderToTag" ("A", "B"); CREATE INDEX "_OrderToTag_B_index" ON "_OrderToTag" ("B"); INSERT INTO "_OrderToTag" VALUES (1, 'a'), (1, 'b');
