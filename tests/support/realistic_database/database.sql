-- What belongs to a database and not to its contents. %(name)s is its quoted name.
ALTER DATABASE %(name)s OWNER TO shop_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE %(name)s FROM PUBLIC;
GRANT CONNECT ON DATABASE %(name)s TO shop_app, "odd ""role"" é";
GRANT CREATE ON DATABASE %(name)s TO shop_report WITH GRANT OPTION;
ALTER DATABASE %(name)s SET timezone = 'Africa/Harare';
ALTER DATABASE %(name)s SET search_path = "$user", public, "odd schema.with ""dot""";
ALTER DATABASE %(name)s SET app.mode = 'it''s, "on"';
ALTER DATABASE %(name)s SET datestyle = 'German';
ALTER DATABASE %(name)s SET extra_float_digits = -3;
ALTER ROLE shop_app IN DATABASE %(name)s SET statement_timeout = '30s';
ALTER ROLE "odd ""role"" é" IN DATABASE %(name)s SET search_path = '';
ALTER DATABASE %(name)s CONNECTION LIMIT 77;
COMMENT ON DATABASE %(name)s IS 'it''s \ the "shop" 电';
