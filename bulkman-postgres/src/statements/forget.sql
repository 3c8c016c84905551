-- $1 namespace, $2 name
SELECT "bulkman".forget($1, $2) AS forgotten
