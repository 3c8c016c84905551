-- At least one row. The reports of processes exist from version 2 of the schema on, and can't be read
-- on a standby.
--
-- The start times and addresses of other roles are null without the role pg_read_all_stats.
SELECT NOT pg_is_in_recovery()
       AND coalesce(has_table_privilege(to_regclass('"bulkman".process'), 'SELECT'), false) AS reports,
       connected.*
  FROM (SELECT) AS one_row
  LEFT JOIN (
         SELECT a.application_name, count(*) AS connections, min(host(a.client_addr)) AS address,
                (extract(epoch FROM clock_timestamp() - min(a.backend_start)) * 1e6)::bigint AS age_us
           FROM pg_stat_activity a
          WHERE a.datname = current_database() AND a.application_name LIKE 'bulkman %'
            AND a.pid <> pg_backend_pid()
          GROUP BY a.application_name
       ) connected ON true
 ORDER BY connected.application_name
