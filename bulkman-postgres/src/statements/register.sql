-- $1 namespace, $2 names[]
--
-- Only what is missing is inserted: an insertion of a row that exists waits for a transaction that
-- has updated it, even with ON CONFLICT. Rows are inserted in the order of names, so that concurrent
-- statements don't deadlock.
WITH namespace_row AS (
  INSERT INTO "bulkman".namespace (namespace)
  SELECT $1 WHERE NOT EXISTS (SELECT FROM "bulkman".namespace WHERE namespace = $1)
  ON CONFLICT DO NOTHING
)
INSERT INTO "bulkman".circuit (namespace, name)
SELECT $1, n FROM unnest($2::text[]) AS n
 WHERE NOT EXISTS (SELECT FROM "bulkman".circuit c WHERE c.namespace = $1 AND c.name = n)
 ORDER BY n
ON CONFLICT DO NOTHING
