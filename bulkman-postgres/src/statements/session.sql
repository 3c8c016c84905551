-- $1 namespace
SELECT current_setting('transaction_isolation') AS isolation,
       current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery() AS read_only,
       m.version, m.oldest_client, m.incarnation, "bulkman".channel($1) AS channel
  FROM "bulkman".meta m
