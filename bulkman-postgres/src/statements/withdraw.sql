-- $1 namespace, $2 instance, $3 id
DELETE FROM "bulkman".process WHERE namespace = $1 AND instance = $2 AND id = $3
