-- $1 namespace, $2 name, $3 to state, $4 reset, $5 author, $6 reason, $7 operation,
-- $8 not after (microseconds, null: no limit)
SELECT 'applied' AS result, @view
  FROM "bulkman".apply_command($1, $2, $3, $4, $5, $6, $7,
                               'epoch'::timestamptz + $8 * interval '1 microsecond') v
