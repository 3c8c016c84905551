-- The start times and addresses of other roles are null without the role pg_read_all_stats.
SELECT a.application_name, count(*) AS connections, min(host(a.client_addr)) AS address,
       (extract(epoch FROM clock_timestamp() - min(a.backend_start)) * 1e6)::bigint AS age_us
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.application_name LIKE 'bulkman %'
   AND a.pid <> pg_backend_pid()
 GROUP BY a.application_name
 ORDER BY a.application_name
