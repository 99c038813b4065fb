# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single changes of a database, of every kind of object that pg_dump knows: a comparison must notice each.

Each case makes its own object and changes it in one way. The object's name (``@``) is made from the case's title, so a
reported name identifies one case; for objects without a name of their own the case says what must be reported.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union


class Sabotage(NamedTuple):
    title: str
    made: str
    changed: str
    #: what must occur in what is reported
    told: str


#: SQL that several cases use to make objects.
_TABLE = "CREATE TABLE @ (a text)"
_CHECKED = "CREATE TABLE @ (a integer, CONSTRAINT @c CHECK (a > 0))"
_KEYED = (
    "CREATE TABLE @p (a integer PRIMARY KEY); CREATE TABLE @ (a integer, CONSTRAINT @k FOREIGN KEY (a) REFERENCES @p)"
)
_PARTITION = "CREATE TABLE @p (a integer) PARTITION BY LIST (a); CREATE TABLE @ PARTITION OF @p FOR VALUES IN (1)"
_INDEX = "CREATE TABLE @t (a text); CREATE INDEX @ ON @t (a)"
_UNIQUE = "CREATE TABLE @ (a integer CONSTRAINT @k UNIQUE)"
_TRIGGER = "CREATE TABLE @ (a text); CREATE TRIGGER @t AFTER INSERT ON @ FOR EACH ROW EXECUTE FUNCTION touch()"
_RULE = "CREATE TABLE @ (a text); CREATE RULE @r AS ON DELETE TO @ DO INSTEAD NOTHING"
_POLICY = "CREATE TABLE @ (a text); CREATE POLICY @p ON @ USING (true)"
_VIEW = "CREATE VIEW @ AS SELECT 1 AS a"
_MATERIALIZED = "CREATE MATERIALIZED VIEW @ AS SELECT 1 AS a"
_FUNCTION = "CREATE FUNCTION @() RETURNS integer LANGUAGE sql AS 'SELECT 1'"
_AGGREGATE = "CREATE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer)"
_OPERATOR = "CREATE SCHEMA @; CREATE OPERATOR @.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq)"
_FAMILY = "CREATE OPERATOR FAMILY @ USING btree"
_CLASS = "CREATE OPERATOR CLASS @ FOR TYPE integer USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(integer)"
_CAST = "CREATE TYPE @ AS ENUM (); CREATE CAST (@ AS integer) WITH INOUT"
_CONVERSION = "CREATE CONVERSION @ FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8"
_COLLATION = "CREATE COLLATION @ (provider = libc, locale = 'C')"
_DICTIONARY = "CREATE TEXT SEARCH DICTIONARY @ (TEMPLATE = simple)"
_CONFIGURATION = "CREATE TEXT SEARCH CONFIGURATION @ (COPY = simple)"
_PARSER = (
    "CREATE TEXT SEARCH PARSER @ (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES ="
    " prsd_lextype)"
)
_SERVER = "CREATE SERVER @ FOREIGN DATA WRAPPER plain"
_STATISTICS = "CREATE TABLE @t (a integer, b integer); CREATE STATISTICS @ ON a, b FROM @t"
_TRANSFORM = (
    "CREATE TYPE @ AS ENUM (); CREATE TRANSFORM FOR @ LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal))"
)
_LANGUAGE = "CREATE TRUSTED LANGUAGE @ HANDLER handler"
_EVENT_TRIGGER = "CREATE EVENT TRIGGER @ ON sql_drop EXECUTE FUNCTION notice_ddl()"
_OWN_TYPE = (
    "CREATE TYPE @; CREATE FUNCTION @in(cstring) RETURNS @ LANGUAGE internal IMMUTABLE STRICT AS 'textin';CREATE"
    " FUNCTION @out(@) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';"
)
_ACCESS_METHOD = "CREATE ACCESS METHOD @ TYPE INDEX HANDLER bthandler"

#: Title: SQL that makes it, SQL that changes it; then what must be reported if not the name, and the first major
#: version that has it.
_Row = Union[Tuple[str, str], Tuple[str, str, str], Tuple[str, str, str, int]]
ROWS: Dict[str, _Row] = {
    # Columns
    "column type": ("CREATE TABLE @ (a varchar(10))", "ALTER TABLE @ ALTER a TYPE varchar(11)"),
    "column scale": ("CREATE TABLE @ (a numeric(9, 2))", "ALTER TABLE @ ALTER a TYPE numeric(9, 3)"),
    "column precision of time": ("CREATE TABLE @ (a timestamp(3))", "ALTER TABLE @ ALTER a TYPE timestamp(6)"),
    "column not null": ("CREATE TABLE @ (a text NOT NULL)", "ALTER TABLE @ ALTER a DROP NOT NULL"),
    "column nullable": (_TABLE, "ALTER TABLE @ ALTER a SET NOT NULL"),
    "column default": ("CREATE TABLE @ (a integer DEFAULT 1)", "ALTER TABLE @ ALTER a SET DEFAULT 2"),
    "column default gone": ("CREATE TABLE @ (a integer DEFAULT 1)", "ALTER TABLE @ ALTER a DROP DEFAULT"),
    "column default new": ("CREATE TABLE @ (a integer)", "ALTER TABLE @ ALTER a SET DEFAULT 1"),
    "column order": ("CREATE TABLE @ (a integer, b text)", "ALTER TABLE @ DROP a, ADD a integer"),
    "column name": ("CREATE TABLE @ (a integer)", "ALTER TABLE @ RENAME a TO b"),
    "column added": ("CREATE TABLE @ (a integer)", "ALTER TABLE @ ADD b integer"),
    "column dropped": ("CREATE TABLE @ (a integer, b integer)", "ALTER TABLE @ DROP b"),
    "column collation": (_TABLE, 'ALTER TABLE @ ALTER a TYPE text COLLATE "C"'),
    "column storage": (_TABLE, "ALTER TABLE @ ALTER a SET STORAGE EXTERNAL"),
    "column compression": (_TABLE, "ALTER TABLE @ ALTER a SET COMPRESSION pglz", "", 14),
    "column statistics": (_TABLE, "ALTER TABLE @ ALTER a SET STATISTICS 500"),
    "column statistics gone": (
        _TABLE + "; ALTER TABLE @ ALTER a SET STATISTICS 500",
        "ALTER TABLE @ ALTER a SET STATISTICS -1",
    ),
    "column n distinct": (_TABLE, "ALTER TABLE @ ALTER a SET (n_distinct = 5)"),
    "column n distinct inherited": (_TABLE, "ALTER TABLE @ ALTER a SET (n_distinct_inherited = 5)"),
    "column comment": (_TABLE + "; COMMENT ON COLUMN @.a IS 'one'", "COMMENT ON COLUMN @.a IS 'two'"),
    "column comment gone": (_TABLE + "; COMMENT ON COLUMN @.a IS 'one'", "COMMENT ON COLUMN @.a IS NULL"),
    "column granted": (_TABLE, "GRANT SELECT (a) ON @ TO shop_app"),
    "column revoked": (_TABLE + "; GRANT UPDATE (a) ON @ TO shop_app", "REVOKE UPDATE (a) ON @ FROM shop_app"),
    "identity gone": ("CREATE TABLE @ (a integer GENERATED ALWAYS AS IDENTITY)", "ALTER TABLE @ ALTER a DROP IDENTITY"),
    "identity new": ("CREATE TABLE @ (a integer NOT NULL)", "ALTER TABLE @ ALTER a ADD GENERATED ALWAYS AS IDENTITY"),
    "identity sequence name": (
        "CREATE TABLE @ (a integer GENERATED ALWAYS AS IDENTITY)",
        "ALTER SEQUENCE @_a_seq RENAME TO @_other_seq",
    ),
    "identity by default": (
        "CREATE TABLE @ (a integer GENERATED ALWAYS AS IDENTITY)",
        "ALTER TABLE @ ALTER a SET GENERATED BY DEFAULT",
    ),
    "identity increment": (
        "CREATE TABLE @ (a integer GENERATED ALWAYS AS IDENTITY)",
        "ALTER TABLE @ ALTER a SET INCREMENT 5",
    ),
    "generated expression": (
        "CREATE TABLE @ (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED)",
        "ALTER TABLE @ DROP b, ADD b integer GENERATED ALWAYS AS (a + 2) STORED",
    ),
    "generated virtual": (
        "CREATE TABLE @ (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED)",
        "ALTER TABLE @ DROP b, ADD b integer GENERATED ALWAYS AS (a + 1) VIRTUAL",
        "",
        18,
    ),
    "generated gone": (
        "CREATE TABLE @ (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED)",
        "ALTER TABLE @ ALTER b DROP EXPRESSION",
    ),
    # Tables
    "table option": (_TABLE, "ALTER TABLE @ SET (fillfactor = 70)"),
    "table option gone": ("CREATE TABLE @ (a text) WITH (fillfactor = 70)", "ALTER TABLE @ RESET (fillfactor)"),
    "table autovacuum": (_TABLE, "ALTER TABLE @ SET (autovacuum_enabled = off)"),
    "table toast option": (_TABLE, "ALTER TABLE @ SET (toast.autovacuum_enabled = off)"),
    "table unlogged": (_TABLE, "ALTER TABLE @ SET UNLOGGED"),
    "table row security": (_TABLE, "ALTER TABLE @ ENABLE ROW LEVEL SECURITY"),
    "table row security forced": (_TABLE, "ALTER TABLE @ FORCE ROW LEVEL SECURITY"),
    "table replica identity": (_TABLE, "ALTER TABLE @ REPLICA IDENTITY FULL"),
    "table replica identity index": (
        "CREATE TABLE @ (a text NOT NULL); CREATE UNIQUE INDEX @i ON @ (a)",
        "ALTER TABLE @ REPLICA IDENTITY USING INDEX @i",
    ),
    "table clustered": (_TABLE + "; CREATE INDEX @i ON @ (a)", "ALTER TABLE @ CLUSTER ON @i"),
    "table not clustered": (
        _TABLE + "; CREATE INDEX @i ON @ (a); ALTER TABLE @ CLUSTER ON @i",
        "ALTER TABLE @ SET WITHOUT CLUSTER",
    ),
    "table owner": (_TABLE, "ALTER TABLE @ OWNER TO shop_app"),
    "table granted": (_TABLE, "GRANT TRUNCATE ON @ TO shop_app"),
    "table grant option": (
        _TABLE + "; GRANT SELECT ON @ TO shop_app",
        "GRANT SELECT ON @ TO shop_app WITH GRANT OPTION",
    ),
    "table revoked": (_TABLE + "; GRANT SELECT ON @ TO shop_app", "REVOKE SELECT ON @ FROM shop_app"),
    "table granted by another": (
        _TABLE + "; GRANT SELECT ON @ TO shop_app WITH GRANT OPTION; GRANT SELECT ON @ TO shop_report",
        "REVOKE SELECT ON @ FROM shop_report; SET ROLE shop_app; GRANT SELECT ON @ TO shop_report; RESET ROLE",
    ),
    "table everything revoked": (_TABLE, "REVOKE ALL ON @ FROM CURRENT_USER"),
    "table comment": (_TABLE, "COMMENT ON TABLE @ IS 'new'"),
    "table schema": (_TABLE, "CREATE SCHEMA @s; ALTER TABLE @ SET SCHEMA @s"),
    "table name": (_TABLE, "ALTER TABLE @ RENAME TO @2"),
    "table gone": (_TABLE, "DROP TABLE @"),
    "table added": ("SELECT 1", _TABLE),
    "table without columns added": ("SELECT 1", "CREATE TABLE @ ()"),
    "table of type": ("CREATE TYPE @t AS (a text); CREATE TABLE @ OF @t", "ALTER TABLE @ NOT OF"),
    "table parent gone": ("CREATE TABLE @p (a text); CREATE TABLE @ () INHERITS (@p)", "ALTER TABLE @ NO INHERIT @p"),
    "table parent new": ("CREATE TABLE @p (a text); CREATE TABLE @ (a text)", "ALTER TABLE @ INHERIT @p"),
    "table default of child": (
        "CREATE TABLE @p (a text DEFAULT 'p'); CREATE TABLE @ () INHERITS (@p)",
        "ALTER TABLE @ ALTER a SET DEFAULT 'c'",
    ),
    "table access method": (
        "CREATE ACCESS METHOD @m TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE @ (a text)",
        "DROP TABLE @; CREATE TABLE @ (a text) USING @m",
        "public.@ is changed",
    ),
    # Partitions
    "partition detached": (_PARTITION, "ALTER TABLE @p DETACH PARTITION @"),
    "partition bound": (
        _PARTITION,
        "ALTER TABLE @p DETACH PARTITION @; ALTER TABLE @p ATTACH PARTITION @ FOR VALUES IN (2)",
    ),
    "partition by default": (
        _PARTITION,
        "ALTER TABLE @p DETACH PARTITION @; ALTER TABLE @p ATTACH PARTITION @ DEFAULT",
    ),
    "partition attached": (
        "CREATE TABLE @p (a integer) PARTITION BY LIST (a); CREATE TABLE @ (a integer)",
        "ALTER TABLE @p ATTACH PARTITION @ FOR VALUES IN (1)",
    ),
    "partition column default": (
        (
            "CREATE TABLE @p (a integer DEFAULT 1) PARTITION BY LIST (a); CREATE TABLE @ PARTITION OF @p FOR VALUES"
            " IN (1)"
        ),
        "ALTER TABLE @ ALTER a SET DEFAULT 2",
    ),
    "partition trigger off": (
        (
            "CREATE TABLE @p (a integer) PARTITION BY LIST (a); CREATE TABLE @ PARTITION OF @p FOR VALUES IN"
            " (1);CREATE TRIGGER @t AFTER INSERT ON @p FOR EACH ROW EXECUTE FUNCTION touch()"
        ),
        "ALTER TABLE @ DISABLE TRIGGER @t",
    ),
    "partition index of its own": (
        (
            "CREATE TABLE @p (a integer) PARTITION BY LIST (a); CREATE TABLE @ PARTITION OF @p FOR VALUES IN"
            " (1);CREATE INDEX @pi ON ONLY @p (a); CREATE INDEX @i ON @ (a)"
        ),
        "ALTER INDEX @pi ATTACH PARTITION @i",
    ),
    # Constraints
    "check": (
        "CREATE TABLE @ (a integer CONSTRAINT @c CHECK (a > 0))",
        "ALTER TABLE @ DROP CONSTRAINT @c, ADD CONSTRAINT @c CHECK (a > 1)",
    ),
    "check gone": ("CREATE TABLE @ (a integer CONSTRAINT @c CHECK (a > 0))", "ALTER TABLE @ DROP CONSTRAINT @c"),
    "check not valid": (_CHECKED, "ALTER TABLE @ DROP CONSTRAINT @c, ADD CONSTRAINT @c CHECK (a > 0) NOT VALID"),
    "check validated": (
        "CREATE TABLE @ (a integer); ALTER TABLE @ ADD CONSTRAINT @c CHECK (a > 0) NOT VALID",
        "ALTER TABLE @ VALIDATE CONSTRAINT @c",
    ),
    "check no inherit": (_CHECKED, "ALTER TABLE @ DROP CONSTRAINT @c, ADD CONSTRAINT @c CHECK (a > 0) NO INHERIT"),
    "check not enforced": (
        _CHECKED,
        "ALTER TABLE @ DROP CONSTRAINT @c, ADD CONSTRAINT @c CHECK (a > 0) NOT ENFORCED",
        "",
        18,
    ),
    "not null constraint name": (
        "CREATE TABLE @ (a integer CONSTRAINT @c NOT NULL)",
        "ALTER TABLE @ RENAME CONSTRAINT @c TO @c2",
        "",
        18,
    ),
    "not null not valid": (
        "CREATE TABLE @ (a integer)",
        "ALTER TABLE @ ADD CONSTRAINT @c NOT NULL a NOT VALID",
        "",
        18,
    ),
    "foreign key action": (
        _KEYED,
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k FOREIGN KEY (a) REFERENCES @p ON DELETE CASCADE",
    ),
    "foreign key deferrable": (_KEYED, "ALTER TABLE @ ALTER CONSTRAINT @k DEFERRABLE INITIALLY DEFERRED"),
    "foreign key not valid": (
        _KEYED,
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k FOREIGN KEY (a) REFERENCES @p NOT VALID",
    ),
    "foreign key match full": (
        _KEYED,
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k FOREIGN KEY (a) REFERENCES @p MATCH FULL",
    ),
    "foreign key gone": (_KEYED, "ALTER TABLE @ DROP CONSTRAINT @k"),
    "foreign key off": (_KEYED, "ALTER TABLE @ DISABLE TRIGGER ALL"),
    "foreign key off at the other end": (_KEYED, "ALTER TABLE @p DISABLE TRIGGER ALL"),
    "primary key name": (
        "CREATE TABLE @ (a integer CONSTRAINT @k PRIMARY KEY)",
        "ALTER TABLE @ RENAME CONSTRAINT @k TO @k2",
    ),
    "primary key gone": ("CREATE TABLE @ (a integer CONSTRAINT @k PRIMARY KEY)", "ALTER TABLE @ DROP CONSTRAINT @k"),
    "primary key include": (
        "CREATE TABLE @ (a integer CONSTRAINT @k PRIMARY KEY, b integer)",
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k PRIMARY KEY (a) INCLUDE (b)",
    ),
    "unique deferrable": (_UNIQUE, "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k UNIQUE (a) DEFERRABLE"),
    "unique nulls": (
        _UNIQUE,
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k UNIQUE NULLS NOT DISTINCT (a)",
        "",
        15,
    ),
    "unique fillfactor": (_UNIQUE, "ALTER INDEX @k SET (fillfactor = 50)"),
    "exclusion": (
        "CREATE TABLE @ (a int4range, CONSTRAINT @k EXCLUDE USING gist (a WITH &&))",
        "ALTER TABLE @ DROP CONSTRAINT @k, ADD CONSTRAINT @k EXCLUDE USING gist (a WITH =)",
    ),
    "constraint comment": (_UNIQUE, "COMMENT ON CONSTRAINT @k ON @ IS 'new'"),
    # Indexes
    "index gone": (_INDEX, "DROP INDEX @"),
    "index added": ("CREATE TABLE @t (a text)", "CREATE INDEX @ ON @t (a)"),
    "index columns": (
        "CREATE TABLE @t (a text, b text); CREATE INDEX @ ON @t (a)",
        "DROP INDEX @; CREATE INDEX @ ON @t (b)",
    ),
    "index unique": (_INDEX, "DROP INDEX @; CREATE UNIQUE INDEX @ ON @t (a)"),
    "index order": (_INDEX, "DROP INDEX @; CREATE INDEX @ ON @t (a DESC)"),
    "index nulls": (_INDEX, "DROP INDEX @; CREATE INDEX @ ON @t (a NULLS FIRST)"),
    "index operator class": (_INDEX, "DROP INDEX @; CREATE INDEX @ ON @t (a text_pattern_ops)"),
    "index collation": (_INDEX, 'DROP INDEX @; CREATE INDEX @ ON @t (a COLLATE "C")'),
    "index predicate": (
        "CREATE TABLE @t (a integer); CREATE INDEX @ ON @t (a) WHERE a > 1",
        "DROP INDEX @; CREATE INDEX @ ON @t (a) WHERE a > 2",
    ),
    "index expression": (
        "CREATE TABLE @t (a text); CREATE INDEX @ ON @t (lower(a))",
        "DROP INDEX @; CREATE INDEX @ ON @t (upper(a))",
    ),
    "index method": (_INDEX, "DROP INDEX @; CREATE INDEX @ ON @t USING hash (a)"),
    "index include": (
        "CREATE TABLE @t (a text, b text); CREATE INDEX @ ON @t (a)",
        "DROP INDEX @; CREATE INDEX @ ON @t (a) INCLUDE (b)",
    ),
    "index option": (_INDEX, "ALTER INDEX @ SET (fillfactor = 50)"),
    "index statistics": (
        "CREATE TABLE @t (a text); CREATE INDEX @ ON @t (lower(a))",
        "ALTER INDEX @ ALTER COLUMN 1 SET STATISTICS 500",
    ),
    "index comment": (_INDEX, "COMMENT ON INDEX @ IS 'new'"),
    "index depends on extension": (_INDEX, "ALTER INDEX @ DEPENDS ON EXTENSION plpgsql"),
    "index name": (_INDEX, "ALTER INDEX @ RENAME TO @2"),
    "index not valid": (_INDEX, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '@'::regclass"),
    # Triggers, rules, policies
    "trigger gone": (_TRIGGER, "DROP TRIGGER @t ON @"),
    "trigger off": (_TRIGGER, "ALTER TABLE @ DISABLE TRIGGER @t"),
    "trigger always": (_TRIGGER, "ALTER TABLE @ ENABLE ALWAYS TRIGGER @t"),
    "trigger replica": (_TRIGGER, "ALTER TABLE @ ENABLE REPLICA TRIGGER @t"),
    "trigger condition": (
        _TABLE + "; CREATE TRIGGER @t BEFORE INSERT ON @ FOR EACH ROW WHEN (NEW.a = 'x') EXECUTE FUNCTION touch()",
        (
            "DROP TRIGGER @t ON @; CREATE TRIGGER @t BEFORE INSERT ON @ FOR EACH ROW WHEN (NEW.a = 'y') EXECUTE"
            " FUNCTION touch()"
        ),
    ),
    "trigger columns": (
        (
            "CREATE TABLE @ (a text, b text); CREATE TRIGGER @t BEFORE UPDATE OF a ON @ FOR EACH ROW EXECUTE"
            " FUNCTION touch()"
        ),
        "DROP TRIGGER @t ON @; CREATE TRIGGER @t BEFORE UPDATE OF b ON @ FOR EACH ROW EXECUTE FUNCTION touch()",
    ),
    "trigger argument": (
        _TABLE + "; CREATE TRIGGER @t BEFORE INSERT ON @ FOR EACH ROW EXECUTE FUNCTION touch('a')",
        "DROP TRIGGER @t ON @; CREATE TRIGGER @t BEFORE INSERT ON @ FOR EACH ROW EXECUTE FUNCTION touch('b')",
    ),
    "trigger comment": (_TRIGGER, "COMMENT ON TRIGGER @t ON @ IS 'new'"),
    "constraint trigger": (
        _TABLE + "; CREATE CONSTRAINT TRIGGER @t AFTER INSERT ON @ FOR EACH ROW EXECUTE FUNCTION touch()",
        (
            "DROP TRIGGER @t ON @; CREATE CONSTRAINT TRIGGER @t AFTER INSERT ON @ DEFERRABLE FOR EACH ROW EXECUTE"
            " FUNCTION touch()"
        ),
    ),
    "rule": (_RULE, "CREATE OR REPLACE RULE @r AS ON DELETE TO @ DO ALSO NOTHING"),
    "rule off": (_RULE, "ALTER TABLE @ DISABLE RULE @r"),
    "rule comment": (_RULE, "COMMENT ON RULE @r ON @ IS 'new'"),
    "policy using": (_TABLE + "; CREATE POLICY @p ON @ USING (a = 'x')", "ALTER POLICY @p ON @ USING (a = 'y')"),
    "policy check": (
        _TABLE + "; CREATE POLICY @p ON @ FOR INSERT WITH CHECK (a = 'x')",
        "ALTER POLICY @p ON @ WITH CHECK (a = 'y')",
    ),
    "policy roles": (_POLICY, "ALTER POLICY @p ON @ TO shop_app"),
    "policy command": (_POLICY, "DROP POLICY @p ON @; CREATE POLICY @p ON @ FOR SELECT USING (true)"),
    "policy restrictive": (_POLICY, "DROP POLICY @p ON @; CREATE POLICY @p ON @ AS RESTRICTIVE USING (true)"),
    "policy comment": (_POLICY, "COMMENT ON POLICY @p ON @ IS 'new'"),
    # Views
    "view query": (_VIEW, "CREATE OR REPLACE VIEW @ AS SELECT 2 AS a"),
    "view option": (_VIEW, "ALTER VIEW @ SET (security_barrier)"),
    "view invoker": (_VIEW, "ALTER VIEW @ SET (security_invoker)", "", 15),
    "view check option": (
        "CREATE TABLE @t (a integer); CREATE VIEW @ AS SELECT a FROM @t WHERE a > 0",
        "ALTER VIEW @ SET (check_option = local)",
    ),
    "view column default": (
        "CREATE TABLE @t (a integer); CREATE VIEW @ AS SELECT a FROM @t",
        "ALTER VIEW @ ALTER a SET DEFAULT 1",
    ),
    "view owner": (_VIEW, "ALTER VIEW @ OWNER TO shop_app"),
    "view granted": (_VIEW, "GRANT SELECT ON @ TO shop_app"),
    "view column comment": (_VIEW, "COMMENT ON COLUMN @.a IS 'new'"),
    "materialized view query": (_MATERIALIZED, "DROP MATERIALIZED VIEW @; CREATE MATERIALIZED VIEW @ AS SELECT 2 AS a"),
    "materialized view option": (_MATERIALIZED, "ALTER MATERIALIZED VIEW @ SET (fillfactor = 50)"),
    "materialized view emptied": (_MATERIALIZED, "REFRESH MATERIALIZED VIEW @ WITH NO DATA"),
    "materialized view filled": (
        "CREATE MATERIALIZED VIEW @ AS SELECT 1 AS a WITH NO DATA",
        "REFRESH MATERIALIZED VIEW @",
    ),
    "materialized view column statistics": (_MATERIALIZED, "ALTER MATERIALIZED VIEW @ ALTER a SET STATISTICS 7"),
    # Sequences
    "sequence increment": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ INCREMENT 7"),
    "sequence minimum": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ MINVALUE -5"),
    "sequence maximum": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ MAXVALUE 500"),
    "sequence start": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ START 50"),
    "sequence cache": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ CACHE 20"),
    "sequence cycle": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ CYCLE"),
    "sequence type": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ AS smallint"),
    "sequence owned by": ("CREATE TABLE @t (a integer); CREATE SEQUENCE @", "ALTER SEQUENCE @ OWNED BY @t.a"),
    "sequence owner": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ OWNER TO shop_app"),
    "sequence granted": ("CREATE SEQUENCE @", "GRANT UPDATE ON SEQUENCE @ TO shop_app"),
    "sequence unlogged": ("CREATE SEQUENCE @", "ALTER SEQUENCE @ SET UNLOGGED", "", 15),
    # Functions
    "function body": (_FUNCTION, "CREATE OR REPLACE FUNCTION @() RETURNS integer LANGUAGE sql AS 'SELECT 2'"),
    "function atomic body": (
        "CREATE FUNCTION @() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
        "CREATE OR REPLACE FUNCTION @() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 2; END",
        "",
        14,
    ),
    "function language": (
        _FUNCTION,
        "CREATE OR REPLACE FUNCTION @() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    ),
    "function volatility": (_FUNCTION, "ALTER FUNCTION @() IMMUTABLE"),
    "function strict": (
        "CREATE FUNCTION @(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION @(integer) STRICT",
    ),
    "function leakproof": (_FUNCTION, "ALTER FUNCTION @() LEAKPROOF"),
    "function definer": (_FUNCTION, "ALTER FUNCTION @() SECURITY DEFINER"),
    "function cost": (_FUNCTION, "ALTER FUNCTION @() COST 7"),
    "function rows": (
        "CREATE FUNCTION @() RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION @() ROWS 7",
    ),
    "function parallel": (_FUNCTION, "ALTER FUNCTION @() PARALLEL SAFE"),
    "function setting": (_FUNCTION, "ALTER FUNCTION @() SET work_mem = '1MB'"),
    "function support": (
        "CREATE FUNCTION @(integer) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION @(integer) SUPPORT generate_series_int4_support",
    ),
    "function owner": (_FUNCTION, "ALTER FUNCTION @() OWNER TO shop_app"),
    "function granted": (_FUNCTION, "GRANT EXECUTE ON FUNCTION @() TO shop_app"),
    "function revoked": (_FUNCTION, "REVOKE EXECUTE ON FUNCTION @() FROM PUBLIC"),
    "function everything revoked": (_FUNCTION, "REVOKE ALL ON FUNCTION @() FROM PUBLIC, CURRENT_USER"),
    "function comment": (_FUNCTION, "COMMENT ON FUNCTION @() IS 'new'"),
    "function default": (
        "CREATE FUNCTION @(a integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION @(a integer DEFAULT 2) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ),
    "function argument name": (
        "CREATE FUNCTION @(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION @; CREATE FUNCTION @(b integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ),
    "function depends on extension": (_FUNCTION, "ALTER FUNCTION @() DEPENDS ON EXTENSION plpgsql"),
    "function of a window": (
        "CREATE FUNCTION @() RETURNS bigint LANGUAGE internal WINDOW AS 'window_row_number'",
        "DROP FUNCTION @; CREATE FUNCTION @() RETURNS bigint LANGUAGE internal WINDOW AS 'window_rank'",
    ),
    "procedure body": (
        "CREATE PROCEDURE @() LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE PROCEDURE @() LANGUAGE sql AS 'SELECT 2'",
    ),
    "aggregate initial value": (
        "CREATE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0')",
        "CREATE OR REPLACE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '1')",
    ),
    "aggregate combine": (
        _AGGREGATE,
        "CREATE OR REPLACE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer, COMBINEFUNC = int4pl)",
    ),
    "aggregate parallel": (
        _AGGREGATE,
        "CREATE OR REPLACE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer, PARALLEL = SAFE)",
    ),
    "aggregate state space": (
        _AGGREGATE,
        "CREATE OR REPLACE AGGREGATE @(integer) (SFUNC = int4pl, STYPE = integer, SSPACE = 99)",
    ),
    "aggregate owner": (_AGGREGATE, "ALTER AGGREGATE @(integer) OWNER TO shop_app"),
    # Types
    "enum label added": ("CREATE TYPE @ AS ENUM ('a', 'b')", "ALTER TYPE @ ADD VALUE 'c'"),
    "enum label renamed": ("CREATE TYPE @ AS ENUM ('a', 'b')", "ALTER TYPE @ RENAME VALUE 'a' TO 'z'"),
    "enum order": ("CREATE TYPE @ AS ENUM ('a', 'b')", "DROP TYPE @; CREATE TYPE @ AS ENUM ('b', 'a')"),
    "composite attribute added": ("CREATE TYPE @ AS (a integer)", "ALTER TYPE @ ADD ATTRIBUTE b integer"),
    "composite attribute type": ("CREATE TYPE @ AS (a varchar(5))", "ALTER TYPE @ ALTER ATTRIBUTE a TYPE varchar(6)"),
    "composite attribute collation": (
        "CREATE TYPE @ AS (a text)",
        'ALTER TYPE @ ALTER ATTRIBUTE a TYPE text COLLATE "C"',
    ),
    "composite attribute comment": ("CREATE TYPE @ AS (a text)", "COMMENT ON COLUMN @.a IS 'new'"),
    "domain default": ("CREATE DOMAIN @ AS integer DEFAULT 1", "ALTER DOMAIN @ SET DEFAULT 2"),
    "domain not null": ("CREATE DOMAIN @ AS integer", "ALTER DOMAIN @ SET NOT NULL"),
    "domain collation": ("CREATE DOMAIN @ AS text", 'DROP DOMAIN @; CREATE DOMAIN @ AS text COLLATE "C"'),
    "domain base": ("CREATE DOMAIN @ AS varchar(5)", "DROP DOMAIN @; CREATE DOMAIN @ AS varchar(6)"),
    "domain check": (
        "CREATE DOMAIN @ AS integer CONSTRAINT @c CHECK (VALUE > 0)",
        "ALTER DOMAIN @ DROP CONSTRAINT @c; ALTER DOMAIN @ ADD CONSTRAINT @c CHECK (VALUE > 1)",
    ),
    "domain check not valid": (
        "CREATE DOMAIN @ AS integer",
        "ALTER DOMAIN @ ADD CONSTRAINT @c CHECK (VALUE > 1) NOT VALID",
    ),
    "domain check comment": (
        "CREATE DOMAIN @ AS integer CONSTRAINT @c CHECK (VALUE > 0)",
        "COMMENT ON CONSTRAINT @c ON DOMAIN @ IS 'new'",
    ),
    "range subtype": (
        "CREATE TYPE @ AS RANGE (subtype = float8)",
        "DROP TYPE @; CREATE TYPE @ AS RANGE (subtype = float4)",
    ),
    "range function": (
        "CREATE TYPE @ AS RANGE (subtype = float8)",
        "DROP TYPE @; CREATE TYPE @ AS RANGE (subtype = float8, subtype_diff = float8mi)",
    ),
    "range operator class": (
        "CREATE TYPE @ AS RANGE (subtype = text)",
        "DROP TYPE @; CREATE TYPE @ AS RANGE (subtype = text, subtype_opclass = text_pattern_ops)",
    ),
    "range collation": (
        "CREATE TYPE @ AS RANGE (subtype = text)",
        'DROP TYPE @; CREATE TYPE @ AS RANGE (subtype = text, collation = "C")',
    ),
    "range multirange name": (
        "CREATE TYPE @ AS RANGE (subtype = float8)",
        "DROP TYPE @; CREATE TYPE @ AS RANGE (subtype = float8, multirange_type_name = @m)",
        "",
        14,
    ),
    "type storage": (
        (
            "CREATE TYPE @; CREATE FUNCTION @in(cstring) RETURNS @ LANGUAGE internal IMMUTABLE STRICT AS"
            " 'textin';CREATE FUNCTION @out(@) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS"
            " 'textout';CREATE TYPE @ (INPUT = @in, OUTPUT = @out, STORAGE = extended)"
        ),
        "ALTER TYPE @ SET (STORAGE = external)",
    ),
    "type function": (
        (
            "CREATE TYPE @; CREATE FUNCTION @in(cstring) RETURNS @ LANGUAGE internal IMMUTABLE STRICT AS"
            " 'textin';CREATE FUNCTION @out(@) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS"
            " 'textout';CREATE TYPE @ (INPUT = @in, OUTPUT = @out); CREATE FUNCTION @send(@) RETURNS bytea LANGUAGE"
            " internal IMMUTABLE STRICT AS 'textsend'"
        ),
        "ALTER TYPE @ SET (SEND = @send)",
    ),
    "shell type gone": ("CREATE TYPE @", "DROP TYPE @"),
    "type owner": ("CREATE TYPE @ AS ENUM ()", "ALTER TYPE @ OWNER TO shop_app"),
    "type revoked": ("CREATE TYPE @ AS ENUM ()", "REVOKE USAGE ON TYPE @ FROM PUBLIC"),
    "domain granted": ("CREATE DOMAIN @ AS integer", "GRANT USAGE ON DOMAIN @ TO shop_app"),
    "type comment": ("CREATE TYPE @ AS ENUM ()", "COMMENT ON TYPE @ IS 'new'"),
    # Operators, their classes and families, casts, conversions, collations, access methods
    "operator function": (
        "CREATE SCHEMA @; CREATE OPERATOR @.<=> (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4pl)",
        (
            "DROP OPERATOR @.<=> (integer, integer); CREATE OPERATOR @.<=> (LEFTARG = integer, RIGHTARG = integer,"
            " FUNCTION = int4mi)"
        ),
    ),
    "operator estimator": (_OPERATOR, "ALTER OPERATOR @.=== (integer, integer) SET (RESTRICT = eqsel)"),
    "operator join estimator": (_OPERATOR, "ALTER OPERATOR @.=== (integer, integer) SET (JOIN = eqjoinsel)"),
    "operator hashes": (
        (
            "CREATE SCHEMA @; CREATE OPERATOR @.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq,"
            " COMMUTATOR = ===)"
        ),
        (
            "DROP OPERATOR @.=== (integer, integer); CREATE OPERATOR @.=== (LEFTARG = integer, RIGHTARG = integer,"
            " FUNCTION = int4eq, COMMUTATOR = ===, HASHES)"
        ),
    ),
    "operator owner": (_OPERATOR, "ALTER OPERATOR @.=== (integer, integer) OWNER TO shop_app"),
    "operator comment": (_OPERATOR, "COMMENT ON OPERATOR @.=== (integer, integer) IS 'new'"),
    "operator family member": (_FAMILY, "ALTER OPERATOR FAMILY @ USING btree ADD OPERATOR 1 < (integer, smallint)"),
    "operator family function": (
        _FAMILY,
        "ALTER OPERATOR FAMILY @ USING btree ADD FUNCTION 1 btint42cmp(integer, smallint)",
    ),
    "operator family member gone": (
        _FAMILY + "; ALTER OPERATOR FAMILY @ USING btree ADD OPERATOR 1 < (integer, smallint)",
        "ALTER OPERATOR FAMILY @ USING btree DROP OPERATOR 1 (integer, smallint)",
    ),
    "operator family owner": (_FAMILY, "ALTER OPERATOR FAMILY @ USING btree OWNER TO shop_app"),
    "operator family comment": (_FAMILY, "COMMENT ON OPERATOR FAMILY @ USING btree IS 'new'"),
    "operator class member": (
        _CLASS,
        (
            "DROP OPERATOR FAMILY @ USING hash; CREATE OPERATOR CLASS @ FOR TYPE integer USING hash AS OPERATOR 1 =,"
            " FUNCTION 1 hashint4(integer), FUNCTION 2 hashint4extended(integer, bigint)"
        ),
    ),
    "operator class owner": (_CLASS, "ALTER OPERATOR CLASS @ USING hash OWNER TO shop_app"),
    "operator class comment": (_CLASS, "COMMENT ON OPERATOR CLASS @ USING hash IS 'new'"),
    "cast context": (_CAST, "DROP CAST (@ AS integer); CREATE CAST (@ AS integer) WITH INOUT AS ASSIGNMENT"),
    "cast function": (
        (
            "CREATE TYPE @ AS ENUM (); CREATE FUNCTION @f(@) RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE CAST"
            " (@ AS integer) WITH INOUT"
        ),
        "DROP CAST (@ AS integer); CREATE CAST (@ AS integer) WITH FUNCTION @f(@)",
    ),
    "cast gone": (_CAST, "DROP CAST (@ AS integer)"),
    "cast comment": (_CAST, "COMMENT ON CAST (@ AS integer) IS 'new'"),
    "cast of built-in types": ("SELECT 1", "CREATE CAST (point AS integer) WITH INOUT", "CAST (point AS integer)"),
    "conversion default": (
        _CONVERSION,
        "DROP CONVERSION @; CREATE DEFAULT CONVERSION @ FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    ),
    "conversion encoding": (
        _CONVERSION,
        "DROP CONVERSION @; CREATE CONVERSION @ FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8",
    ),
    "conversion owner": (_CONVERSION, "ALTER CONVERSION @ OWNER TO shop_app"),
    "conversion comment": (_CONVERSION, "COMMENT ON CONVERSION @ IS 'new'"),
    "collation locale": (_COLLATION, "DROP COLLATION @; CREATE COLLATION @ (provider = libc, locale = 'POSIX')"),
    "collation provider": (_COLLATION, "DROP COLLATION @; CREATE COLLATION @ (provider = icu, locale = 'en')"),
    "collation deterministic": (
        "CREATE COLLATION @ (provider = icu, locale = 'en')",
        "DROP COLLATION @; CREATE COLLATION @ (provider = icu, locale = 'en', deterministic = false)",
    ),
    "collation owner": (_COLLATION, "ALTER COLLATION @ OWNER TO shop_app"),
    "collation comment": (_COLLATION, "COMMENT ON COLLATION @ IS 'new'"),
    "access method": (_ACCESS_METHOD, "DROP ACCESS METHOD @; CREATE ACCESS METHOD @ TYPE INDEX HANDLER hashhandler"),
    "access method gone": (_ACCESS_METHOD, "DROP ACCESS METHOD @"),
    "access method comment": (_ACCESS_METHOD, "COMMENT ON ACCESS METHOD @ IS 'new'"),
    # Text search
    "dictionary option": (_DICTIONARY, "ALTER TEXT SEARCH DICTIONARY @ (ACCEPT = false)"),
    "dictionary template": (
        _DICTIONARY,
        "DROP TEXT SEARCH DICTIONARY @; CREATE TEXT SEARCH DICTIONARY @ (TEMPLATE = snowball, LANGUAGE = english)",
    ),
    "dictionary owner": (_DICTIONARY, "ALTER TEXT SEARCH DICTIONARY @ OWNER TO shop_app"),
    "dictionary comment": (_DICTIONARY, "COMMENT ON TEXT SEARCH DICTIONARY @ IS 'new'"),
    "configuration mapping": (
        _CONFIGURATION,
        "ALTER TEXT SEARCH CONFIGURATION @ ALTER MAPPING FOR word WITH english_stem",
    ),
    "configuration mapping gone": (_CONFIGURATION, "ALTER TEXT SEARCH CONFIGURATION @ DROP MAPPING FOR email"),
    "configuration mapping order": (
        (
            "CREATE TEXT SEARCH CONFIGURATION @ (COPY = simple);ALTER TEXT SEARCH CONFIGURATION @ ALTER MAPPING FOR"
            " word WITH english_stem, simple"
        ),
        "ALTER TEXT SEARCH CONFIGURATION @ ALTER MAPPING FOR word WITH simple, english_stem",
    ),
    "configuration owner": (_CONFIGURATION, "ALTER TEXT SEARCH CONFIGURATION @ OWNER TO shop_app"),
    "configuration comment": (_CONFIGURATION, "COMMENT ON TEXT SEARCH CONFIGURATION @ IS 'new'"),
    "text search template": (
        "CREATE TEXT SEARCH TEMPLATE @ (INIT = dsimple_init, LEXIZE = dsimple_lexize)",
        "DROP TEXT SEARCH TEMPLATE @; CREATE TEXT SEARCH TEMPLATE @ (LEXIZE = dsimple_lexize)",
    ),
    "text search parser": (
        _PARSER,
        (
            "DROP TEXT SEARCH PARSER @; CREATE TEXT SEARCH PARSER @ (START = prsd_start, GETTOKEN = prsd_nexttoken,"
            " END = prsd_end, HEADLINE = prsd_headline, LEXTYPES = prsd_lextype)"
        ),
    ),
    "text search parser comment": (_PARSER, "COMMENT ON TEXT SEARCH PARSER @ IS 'new'"),
    # Foreign data
    "wrapper option": (
        "CREATE FOREIGN DATA WRAPPER @ OPTIONS (a '1')",
        "ALTER FOREIGN DATA WRAPPER @ OPTIONS (SET a '2')",
    ),
    "wrapper validator": (
        "CREATE FOREIGN DATA WRAPPER @",
        "ALTER FOREIGN DATA WRAPPER @ VALIDATOR postgresql_fdw_validator",
    ),
    "wrapper granted": ("CREATE FOREIGN DATA WRAPPER @", "GRANT USAGE ON FOREIGN DATA WRAPPER @ TO shop_app"),
    "wrapper comment": ("CREATE FOREIGN DATA WRAPPER @", "COMMENT ON FOREIGN DATA WRAPPER @ IS 'new'"),
    "server option": (
        "CREATE SERVER @ FOREIGN DATA WRAPPER plain OPTIONS (host 'a')",
        "ALTER SERVER @ OPTIONS (SET host 'b')",
    ),
    "server version": (_SERVER, "ALTER SERVER @ VERSION '9'"),
    "server type": (_SERVER, "DROP SERVER @; CREATE SERVER @ TYPE 'x' FOREIGN DATA WRAPPER plain"),
    "server owner": (_SERVER, "ALTER SERVER @ OWNER TO shop_owner"),
    "server granted": (_SERVER, "GRANT USAGE ON FOREIGN SERVER @ TO shop_app"),
    "server comment": (_SERVER, "COMMENT ON SERVER @ IS 'new'"),
    "user mapping option": (
        _SERVER + "; CREATE USER MAPPING FOR shop_app SERVER @ OPTIONS (user 'a')",
        "ALTER USER MAPPING FOR shop_app SERVER @ OPTIONS (SET user 'b')",
    ),
    "user mapping gone": (
        _SERVER + "; CREATE USER MAPPING FOR PUBLIC SERVER @",
        "DROP USER MAPPING FOR PUBLIC SERVER @",
    ),
    "user mapping new": (_SERVER, "CREATE USER MAPPING FOR shop_app SERVER @"),
    "foreign table option": (
        "CREATE FOREIGN TABLE @ (a text) SERVER other OPTIONS (x '1')",
        "ALTER FOREIGN TABLE @ OPTIONS (SET x '2')",
    ),
    "foreign table column option": (
        "CREATE FOREIGN TABLE @ (a text OPTIONS (y '1')) SERVER other",
        "ALTER FOREIGN TABLE @ ALTER a OPTIONS (SET y '2')",
    ),
    "foreign table check": (
        "CREATE FOREIGN TABLE @ (a integer) SERVER other",
        "ALTER FOREIGN TABLE @ ADD CONSTRAINT @c CHECK (a > 0)",
    ),
    "foreign table owner": (
        "CREATE FOREIGN TABLE @ (a integer) SERVER other",
        "ALTER FOREIGN TABLE @ OWNER TO shop_app",
    ),
    # Publications, event triggers, statistics, transforms
    "publication table": ("CREATE TABLE @t (a integer); CREATE PUBLICATION @", "ALTER PUBLICATION @ ADD TABLE @t"),
    "publication table gone": (
        "CREATE TABLE @t (a integer); CREATE PUBLICATION @ FOR TABLE @t",
        "ALTER PUBLICATION @ DROP TABLE @t",
    ),
    "publication operations": ("CREATE PUBLICATION @", "ALTER PUBLICATION @ SET (publish = 'insert')"),
    "publication via root": ("CREATE PUBLICATION @", "ALTER PUBLICATION @ SET (publish_via_partition_root)"),
    "publication of all tables": ("CREATE PUBLICATION @", "DROP PUBLICATION @; CREATE PUBLICATION @ FOR ALL TABLES"),
    "publication row filter": (
        "CREATE TABLE @t (a integer PRIMARY KEY); CREATE PUBLICATION @ FOR TABLE @t WHERE (a > 1)",
        "ALTER PUBLICATION @ SET TABLE @t WHERE (a > 2)",
        "",
        15,
    ),
    "publication columns": (
        "CREATE TABLE @t (a integer PRIMARY KEY, b integer); CREATE PUBLICATION @ FOR TABLE @t (a)",
        "ALTER PUBLICATION @ SET TABLE @t (a, b)",
        "",
        15,
    ),
    "publication schema": (
        "CREATE SCHEMA @s; CREATE PUBLICATION @ FOR TABLES IN SCHEMA @s",
        "ALTER PUBLICATION @ DROP TABLES IN SCHEMA @s",
        "",
        15,
    ),
    "publication owner": ("CREATE PUBLICATION @", "ALTER PUBLICATION @ OWNER TO shop_owner"),
    "publication comment": ("CREATE PUBLICATION @", "COMMENT ON PUBLICATION @ IS 'new'"),
    "event trigger off": (_EVENT_TRIGGER, "ALTER EVENT TRIGGER @ DISABLE"),
    "event trigger tags": (
        "CREATE EVENT TRIGGER @ ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION notice_ddl()",
        (
            "DROP EVENT TRIGGER @; CREATE EVENT TRIGGER @ ON sql_drop WHEN TAG IN ('DROP VIEW') EXECUTE FUNCTION"
            " notice_ddl()"
        ),
    ),
    "event trigger event": (
        _EVENT_TRIGGER,
        "DROP EVENT TRIGGER @; CREATE EVENT TRIGGER @ ON ddl_command_end EXECUTE FUNCTION notice_ddl()",
    ),
    "event trigger comment": (_EVENT_TRIGGER, "COMMENT ON EVENT TRIGGER @ IS 'new'"),
    "statistics kinds": (
        "CREATE TABLE @t (a integer, b integer); CREATE STATISTICS @ (ndistinct) ON a, b FROM @t",
        "DROP STATISTICS @; CREATE STATISTICS @ (mcv) ON a, b FROM @t",
    ),
    "statistics columns": (
        "CREATE TABLE @t (a integer, b integer, c integer); CREATE STATISTICS @ ON a, b FROM @t",
        "DROP STATISTICS @; CREATE STATISTICS @ ON a, c FROM @t",
    ),
    "statistics expression": (
        "CREATE TABLE @t (a integer); CREATE STATISTICS @ ON (a + 1) FROM @t",
        "DROP STATISTICS @; CREATE STATISTICS @ ON (a + 2) FROM @t",
        "",
        14,
    ),
    "statistics target": (_STATISTICS, "ALTER STATISTICS @ SET STATISTICS 500"),
    "statistics owner": (_STATISTICS, "ALTER STATISTICS @ OWNER TO shop_app"),
    "statistics comment": (_STATISTICS, "COMMENT ON STATISTICS @ IS 'new'"),
    "transform": (_TRANSFORM, "DROP TRANSFORM FOR @ LANGUAGE sql"),
    "transform function": (
        _TRANSFORM,
        (
            "DROP TRANSFORM FOR @ LANGUAGE sql; CREATE TRANSFORM FOR @ LANGUAGE sql (FROM SQL WITH FUNCTION"
            " dsimple_init(internal))"
        ),
    ),
    # Languages
    "language handler": (
        "CREATE LANGUAGE @ HANDLER handler",
        "CREATE OR REPLACE LANGUAGE @ HANDLER handler INLINE handler_inline",
    ),
    "language trusted": ("CREATE LANGUAGE @ HANDLER handler", "CREATE OR REPLACE TRUSTED LANGUAGE @ HANDLER handler"),
    "language owner": (_LANGUAGE, "ALTER LANGUAGE @ OWNER TO shop_app"),
    "language granted": (_LANGUAGE, "GRANT USAGE ON LANGUAGE @ TO shop_app"),
    "language comment": (_LANGUAGE, "COMMENT ON LANGUAGE @ IS 'new'"),
    "privileges of a language": (
        "SELECT 1",
        "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
        "privileges on LANGUAGE plpgsql",
    ),
    "privileges of a built-in language": (
        "SELECT 1",
        "REVOKE USAGE ON LANGUAGE sql FROM PUBLIC",
        "privileges on language sql",
    ),
    "privileges in information_schema": (
        "SELECT 1",
        "GRANT SELECT ON information_schema.sql_features TO shop_app",
        "information_schema.sql_features",
    ),
    "privileges of information_schema": (
        "SELECT 1",
        "REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC",
        "schema information_schema",
    ),
    # Schemas and privileges
    "schema owner": ("CREATE SCHEMA @", "ALTER SCHEMA @ OWNER TO shop_app"),
    "schema granted": ("CREATE SCHEMA @", "GRANT USAGE ON SCHEMA @ TO shop_app"),
    "schema everything revoked": ("CREATE SCHEMA @", "REVOKE ALL ON SCHEMA @ FROM CURRENT_USER"),
    "schema comment": ("CREATE SCHEMA @", "COMMENT ON SCHEMA @ IS 'new'"),
    "schema name": ("CREATE SCHEMA @", "ALTER SCHEMA @ RENAME TO @2"),
    "empty schema added": ("SELECT 1", "CREATE SCHEMA @"),
    "empty schema gone": ("CREATE SCHEMA @", "DROP SCHEMA @"),
    "comment on public": ("SELECT 1", "COMMENT ON SCHEMA public IS 'ours'", "comment on schema public"),
    "privileges of public": ("SELECT 1", "REVOKE USAGE ON SCHEMA public FROM PUBLIC", "privileges on schema public"),
    "default privileges of a schema": (
        "CREATE SCHEMA @",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA @ GRANT SELECT ON TABLES TO shop_app",
    ),
    "default privileges gone": (
        "CREATE SCHEMA @; ALTER DEFAULT PRIVILEGES IN SCHEMA @ GRANT USAGE ON SEQUENCES TO shop_app",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA @ REVOKE USAGE ON SEQUENCES FROM shop_app",
    ),
    "default privileges everywhere": (
        "SELECT 1",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        "DEFAULT PRIVILEGES FOR FUNCTIONS",
    ),
    "default privileges on types": (
        "SELECT 1",
        "ALTER DEFAULT PRIVILEGES FOR ROLE shop_app REVOKE USAGE ON TYPES FROM PUBLIC",
        "DEFAULT PRIVILEGES FOR TYPES",
    ),
    "system function granted": (
        "SELECT 1",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO shop_app",
        "pg_read_file",
    ),
    "system table revoked": ("SELECT 1", "REVOKE SELECT ON pg_catalog.pg_stats FROM PUBLIC", "pg_stats"),
    "system column granted": ("SELECT 1", "GRANT SELECT (rolname) ON pg_catalog.pg_authid TO shop_app", "pg_authid"),
    "system schema": ("SELECT 1", "GRANT CREATE ON SCHEMA pg_catalog TO shop_app", "privileges on schema pg_catalog"),
    # Extensions
    "extension gone": ("CREATE EXTENSION postgres_fdw", "DROP EXTENSION postgres_fdw", "postgres_fdw"),
    "extension schema": (
        "CREATE SCHEMA @; CREATE EXTENSION hstore SCHEMA public",
        "ALTER EXTENSION hstore SET SCHEMA @",
        "hstore",
    ),
    "extension member granted": (
        "CREATE EXTENSION citext",
        "REVOKE EXECUTE ON FUNCTION citext_eq(citext, citext) FROM PUBLIC",
        "citext_eq",
    ),
    "extension comment": ("SELECT 1", "COMMENT ON EXTENSION citext IS 'ours'", "extension citext"),
    # Large objects
    "large object owner": ("SELECT lo_create(9001)", "ALTER LARGE OBJECT 9001 OWNER TO shop_app", "large object 9001"),
    "large object granted": (
        "SELECT lo_create(9002)",
        "GRANT SELECT ON LARGE OBJECT 9002 TO shop_app",
        "large object 9002",
    ),
    "large object comment": ("SELECT lo_create(9003)", "COMMENT ON LARGE OBJECT 9003 IS 'new'", "large object 9003"),
    "large object everything revoked": (
        "SELECT lo_create(9004)",
        "REVOKE ALL ON LARGE OBJECT 9004 FROM CURRENT_USER",
        "large object 9004",
    ),
}

#: Objects that cases share.
COMMON = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION notice_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION handler_inline(internal) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FOREIGN DATA WRAPPER plain;
CREATE SERVER other FOREIGN DATA WRAPPER plain;
"""


def name_of(title: str) -> str:
    """A name that is not part of another case's name."""
    return "z_%s_z" % re.sub(r"\W", "_", title)


def sabotages(major: int) -> Sequence[Sabotage]:
    """The cases that a server of this major version supports."""
    found: List[Sabotage] = []
    for title, (made, changed, *rest) in ROWS.items():
        told, since = (*rest, "", 0)[:2] if len(rest) < 2 else rest
        if major >= int(since or 0):
            name = name_of(title)
            found.append(Sabotage(title, *(str(text).replace("@", name) for text in (made, changed, told or "@"))))
    return found
