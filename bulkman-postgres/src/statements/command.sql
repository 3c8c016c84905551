-- $1 namespace, $2 name, $3 to state, $4 reset, $5 by, $6 reason, $7 operation
SELECT 'made' AS verdict, @view FROM "bulkman".act($1, $2, $3, $4, $5, $6, $7) v
