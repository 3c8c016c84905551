-- $1 namespace, $2 age
DELETE FROM "bulkman".history
 WHERE namespace = $1 AND at < "bulkman".clock() - $2 * interval '1 microsecond'
RETURNING 1
