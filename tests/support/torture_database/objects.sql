-- What real databases have that breaks tools: run as a superuser. Each part was seen to break some backup or migration tool.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE EXTENSION IF NOT EXISTS citext;
SET ROLE shop_owner;

-- Keys that refer to each other, to themselves, and to partitions.
CREATE TABLE chicken (id integer PRIMARY KEY, egg integer);
CREATE TABLE egg (id integer PRIMARY KEY, chicken integer REFERENCES chicken (id) DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg (id) DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO chicken VALUES (1, 1); INSERT INTO egg VALUES (1, 1); COMMIT;
CREATE TABLE staff (id integer PRIMARY KEY, boss integer REFERENCES staff (id), name text);
INSERT INTO staff VALUES (1, NULL, 'a'); INSERT INTO staff SELECT g, g - 1, 'n' || g FROM generate_series(2, 50) g;
CREATE TABLE event (tenant integer, at timestamptz, id bigint GENERATED ALWAYS AS IDENTITY, body jsonb, PRIMARY KEY (tenant, at, id))
  PARTITION BY LIST (tenant);
CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1) PARTITION BY RANGE (at);
CREATE TABLE event_1_old PARTITION OF event_1 FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
CREATE TABLE event_1_new (at timestamptz NOT NULL, body jsonb, gone text, id bigint NOT NULL, tenant integer NOT NULL);
ALTER TABLE event_1_new DROP COLUMN gone;
ALTER TABLE event_1 ATTACH PARTITION event_1_new FOR VALUES FROM ('2025-01-01') TO (MAXVALUE);
CREATE TABLE event_rest PARTITION OF event DEFAULT;
INSERT INTO event (tenant, at, body) SELECT g % 3, '2024-12-30'::timestamptz + g * interval '1 hour', jsonb_build_object('n', g) FROM generate_series(1, 100) g;
CREATE TABLE event_note (tenant integer, at timestamptz, id bigint, note text, FOREIGN KEY (tenant, at, id) REFERENCES event (tenant, at, id) ON DELETE CASCADE);
INSERT INTO event_note SELECT tenant, at, id, 'note' FROM event LIMIT 10;

-- Functions that look for tables by search_path, in views, defaults, generated columns, checks and indexes.
CREATE FUNCTION price_of(text) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT max("price") FROM "TokenPurchase" WHERE "id" = $1';
CREATE FUNCTION clean(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(btrim($1)); END $$;
CREATE TABLE cleaned (id serial PRIMARY KEY, name text CHECK (clean(name) <> ''), low text GENERATED ALWAYS AS (clean(name)) STORED,
  born date DEFAULT CURRENT_DATE, tag hstore, mail citext UNIQUE);
CREATE INDEX cleaned_low ON cleaned (clean(name) text_pattern_ops) WHERE clean(name) LIKE 'a%';
INSERT INTO cleaned (name, tag, mail) SELECT ' Name ' || g, hstore('k"' || g, NULL), 'Mail' || g || '@Example.org' FROM generate_series(1, 20) g;
CREATE VIEW prices AS SELECT "id", price_of("id") FROM "TokenPurchase";
CREATE MATERIALIZED VIEW never_filled AS SELECT * FROM prices WITH NO DATA;
CREATE MATERIALIZED VIEW of_a_matview AS SELECT count(*) FROM by_month WITH NO DATA;
CREATE RECURSIVE VIEW chain (id, depth) AS SELECT id, 1 FROM staff WHERE boss IS NULL UNION ALL SELECT s.id, c.depth + 1 FROM staff s JOIN chain c ON c.id = s.boss;

-- Values at the edge.
CREATE TABLE edge (id integer PRIMARY KEY, t timestamptz, d date, n numeric, i interval, m macaddr, u uuid, p path, o oid, r regclass, x bit(3),
  c "char", nm name, j jsonpath);
INSERT INTO edge VALUES
  (1, 'infinity', '-infinity', 'NaN', '-178000000 years', '08:00:2b:01:02:03', '00000000-0000-0000-0000-000000000000', '[(0,0),(1,1)]', 4294967295, '"TokenPurchase"', B'101', 'x', 'name', '$.a[*] ? (@ > 1)'),
  (2, '4714-11-24 00:00:00+00 BC', '5874897-12-31', 1e-1000, '1 mon -1 day 00:00:00.000001', NULL, NULL, NULL, 0, NULL, B'000', '', '', NULL),
  (3, '294276-12-31 23:59:59.999999+00', '4713-01-01 BC', repeat('9', 1000)::numeric, '0', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE nested (id integer, a integer[][], r int4multirange, rs tstzrange[], c reading[], d positive[], e "MeterStatus"[], deep jsonb, tree xml[]);
INSERT INTO nested VALUES (1, '[0:1][-1:0]={{1,2},{3,NULL}}', '{[1,3),[5,9)}', ARRAY[tstzrange('2025-01-01', NULL)], ARRAY[ROW (1, NULL)::reading], '{1,2}',
  ARRAY['it''s retired', NULL]::"MeterStatus"[], (repeat('[', 500) || repeat(']', 500))::jsonb, ARRAY['<a/>'::xml]);
CREATE TABLE large (id integer PRIMARY KEY, body bytea, words text);
INSERT INTO large SELECT g, decode(repeat(md5(g::text), 60000), 'hex'), repeat('wörter ', 100000) FROM generate_series(1, 3) g;
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg(format('%I integer', 'c' || g), ', ') FROM generate_series(1, 1500) g) || ')'; END $$;
INSERT INTO wide (c1) VALUES (1), (2);

-- Types, collations, constraints and triggers of every sort.
CREATE COLLATION numeric_aware (provider = icu, locale = 'en-u-kn-true');
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE sorted (name text COLLATE numeric_aware PRIMARY KEY, other text COLLATE any_case UNIQUE);
INSERT INTO sorted SELECT 'n' || g, 'O' || g FROM generate_series(1, 12) g;
CREATE TABLE booking (room integer, during tstzrange, note text, UNIQUE NULLS NOT DISTINCT (note), EXCLUDE USING gist (during WITH &&));
INSERT INTO booking VALUES (1, '[2025-01-01,2025-01-02)', NULL);
CREATE FUNCTION check_booking() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.room IS NULL THEN RAISE EXCEPTION 'no room'; END IF; RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON booking DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_booking();
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'this table is read-only'; END $$;
CREATE TABLE frozen (id integer PRIMARY KEY);
INSERT INTO frozen VALUES (1);
CREATE TRIGGER frozen_rows BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON frozen FOR EACH STATEMENT EXECUTE FUNCTION forbid();
ALTER TABLE frozen ENABLE ALWAYS TRIGGER frozen_rows;
CREATE TABLE not_yet (id integer, CONSTRAINT later CHECK (id > 0) NOT VALID);
INSERT INTO not_yet VALUES (1);
CREATE TEXT SEARCH CONFIGURATION plainly (COPY = simple);
CREATE CAST ("MeterStatus" AS text) WITH INOUT AS ASSIGNMENT;
CREATE TYPE "Empty" AS ENUM ();
CREATE SEQUENCE small AS smallint MAXVALUE 5 CYCLE;
SELECT setval('small', 5);
CREATE TABLE of_type OF reading (kwh WITH OPTIONS NOT NULL);
INSERT INTO of_type VALUES (1, NULL);
CREATE TABLE public."Robert'); DROP TABLE ""User"";--" ("id' OR 1=1" integer PRIMARY KEY, "%s %(x)s {}" text, "a	tab
newline" text, "back\slash" text);
INSERT INTO public."Robert'); DROP TABLE ""User"";--" VALUES (1, '%s %(x)s', E'\\.', E'\\N');
CREATE SCHEMA "schema;--'";
CREATE TABLE "schema;--'".t (id integer PRIMARY KEY);
INSERT INTO "schema;--'".t VALUES (1);
CREATE SCHEMA pgtemp_not; CREATE TABLE pgtemp_not.t (id integer); INSERT INTO pgtemp_not.t VALUES (1);
CREATE TABLE tombstone (xmin_ text, ctid_ text, "oid" integer); INSERT INTO tombstone VALUES ('a', 'b', 1);
RESET ROLE;

-- What only a superuser makes: foreign tables, roles as owners, security definer.
CREATE TYPE shell;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'none');
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'u', password 'not a secret');
CREATE FOREIGN TABLE far (id integer, what text) SERVER elsewhere;
CREATE TABLE partly_far (id integer) PARTITION BY LIST (id);
CREATE TABLE partly_far_1 PARTITION OF partly_far FOR VALUES IN (1);
CREATE FOREIGN TABLE partly_far_2 PARTITION OF partly_far FOR VALUES IN (2) SERVER elsewhere;
INSERT INTO partly_far VALUES (1);
CREATE TABLE of_another (id integer PRIMARY KEY); INSERT INTO of_another VALUES (1); ALTER TABLE of_another OWNER TO shop_report;
CREATE FUNCTION elevated() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT current_user::text';
SELECT lo_from_bytea(g, convert_to('large object ' || g, 'UTF8')) FROM generate_series(500000, 500200) g;
