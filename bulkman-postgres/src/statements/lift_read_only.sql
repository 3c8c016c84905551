-- $1 namespace (unused)
--
-- A session keeps a setting of its database or role that was changed since it began. If a new session
-- could write, this one can from its next statement on.
SELECT set_config('default_transaction_read_only', 'off', false) AS lifted
  FROM pg_settings s
 WHERE $1 IS NOT NULL AND s.name = 'default_transaction_read_only'
   AND s.source IN ('database', 'user', 'database user', 'global')
   AND NOT EXISTS (
         SELECT FROM pg_db_role_setting d, unnest(d.setconfig) AS given (setting)
          WHERE d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND d.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
            AND given.setting ~* '^default_transaction_read_only=(on?|t(r(ue?)?)?|y(es?)?|1)$')
