-- $1 namespace
SELECT current_setting('transaction_isolation') AS isolation,
       @access,
       m.version, m.oldest_client, m.incarnation, "bulkman".channel($1) AS channel,
       (extract(epoch FROM "bulkman".clock()) * 1e6)::bigint AS now_us,
       has_table_privilege('"bulkman".notification_key', 'SELECT') AS may_read_key,
       -- Version 1 of the schema has no such table.
       (SELECT coalesce(bool_and(has_table_privilege(to_regclass('"bulkman".process'), wanted)), false)
          FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS wanted) AS may_report
  FROM "bulkman".meta m
