-- Three roles to be granted to those that log in, with no more than each needs.
--
-- Run it after `schema.sql`, as a role that may create roles and owns the schema or is a superuser:
--
--     psql --single-transaction --set ON_ERROR_STOP=1 --file roles.sql
--
-- then, for each service, operator and dashboard:
--
--     GRANT bulkman_app TO shop_service;
--     GRANT bulkman_operator TO ada;
--     GRANT bulkman_readonly TO grafana;
--
-- It may be run again. For another schema than "bulkman" replace that quoted name throughout.

DO $roles$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY '{bulkman_app,bulkman_operator,bulkman_readonly}'::text[] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
    END IF;
  END LOOP;
END
$roles$;

REVOKE ALL ON SCHEMA "bulkman" FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA "bulkman" FROM PUBLIC;

GRANT USAGE ON SCHEMA "bulkman" TO bulkman_app, bulkman_operator, bulkman_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA "bulkman" TO bulkman_app, bulkman_operator;
-- Not the key to announcements: whoever has it can make the whole fleet believe in a change.
GRANT SELECT ON "bulkman".meta, "bulkman".namespace, "bulkman".circuit, "bulkman".probe,
  "bulkman".history, "bulkman".tally TO bulkman_readonly;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "bulkman" TO bulkman_app, bulkman_operator;
GRANT EXECUTE ON FUNCTION "bulkman".clock(), "bulkman".channel(text),
  "bulkman".state_name(smallint), "bulkman".status(text), "bulkman".changes(text, text, int)
  TO bulkman_readonly;

-- The application: no DDL, and no DELETE.
GRANT INSERT, UPDATE ON "bulkman".namespace, "bulkman".circuit, "bulkman".probe,
  "bulkman".history, "bulkman".tally TO bulkman_app;

-- Operators: what their functions do, and pruning the history.
GRANT UPDATE ON "bulkman".namespace, "bulkman".circuit, "bulkman".tally TO bulkman_operator;
GRANT INSERT, UPDATE, DELETE ON "bulkman".history TO bulkman_operator;

-- Settings are not inherited by members: give these to each role that logs in. The library does
-- not depend on them, they bound what a statement that it gave up can still do.
--
--     ALTER ROLE shop_service SET statement_timeout = '2s';
--     ALTER ROLE shop_service SET lock_timeout = '1s';
--     ALTER ROLE shop_service SET idle_in_transaction_session_timeout = '5s';
--     ALTER ROLE shop_service SET default_transaction_isolation = 'read committed';
