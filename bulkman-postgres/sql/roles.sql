-- Three group roles with the minimal privileges, to be granted to login roles.
--
-- Run it after `schema.sql`, as a role that may create roles and owns the schema, or as a
-- superuser:
--
--     psql --single-transaction --set ON_ERROR_STOP=1 --file roles.sql
--
-- Then grant a role to each service, operator and dashboard:
--
--     GRANT bulkman_app TO shop_service;
--     GRANT bulkman_operator TO ada;
--     GRANT bulkman_readonly TO grafana;
--
-- It can be run repeatedly. For a schema with another name, replace "bulkman" throughout.

DO $roles$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY '{bulkman_app,bulkman_operator,bulkman_readonly}'::text[] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    END IF;
  END LOOP;
END
$roles$;

REVOKE ALL ON SCHEMA "bulkman" FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA "bulkman" FROM PUBLIC;

GRANT USAGE ON SCHEMA "bulkman" TO bulkman_app, bulkman_operator, bulkman_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA "bulkman" TO bulkman_app, bulkman_operator;
-- Without the notification key: a role that can read it can forge changes for the whole fleet.
GRANT SELECT ON "bulkman".meta, "bulkman".namespace, "bulkman".circuit, "bulkman".probe,
  "bulkman".history, "bulkman".count_bucket, "bulkman".process TO bulkman_readonly;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "bulkman" TO bulkman_app, bulkman_operator;
GRANT EXECUTE ON FUNCTION "bulkman".clock(), "bulkman".channel(text),
  "bulkman".state_name(smallint), "bulkman".status(text), "bulkman".changes(text, text, int)
  TO bulkman_readonly;

-- The application: no DDL, and DELETE only for processes that have ended.
GRANT INSERT, UPDATE ON "bulkman".namespace, "bulkman".circuit, "bulkman".probe,
  "bulkman".history, "bulkman".count_bucket TO bulkman_app;
GRANT INSERT, UPDATE, DELETE ON "bulkman".process TO bulkman_app;

-- Operators: what the commands need. INSERT is for circuits that are forced before they are shared,
-- DELETE for those that are forgotten, and for pruning the history.
GRANT INSERT, UPDATE ON "bulkman".namespace TO bulkman_operator;
GRANT INSERT, UPDATE, DELETE ON "bulkman".circuit, "bulkman".history TO bulkman_operator;
GRANT UPDATE, DELETE ON "bulkman".count_bucket TO bulkman_operator;

-- Members don't inherit settings, so set these for each login role. Direct connections set their own
-- limits; behind a pooler, these bound the time of statements that the library has abandoned.
--
--     ALTER ROLE shop_service SET statement_timeout = '2s';
--     ALTER ROLE shop_service SET lock_timeout = '1s';
--     ALTER ROLE shop_service SET idle_in_transaction_session_timeout = '5s';
--     ALTER ROLE shop_service SET default_transaction_isolation = 'read committed';
