-- $1 namespace, $2 names[]
--
-- Rows are inserted in the order of names, so that concurrent statements don't deadlock.
WITH namespace_row AS (
  INSERT INTO "bulkman".namespace (namespace) VALUES ($1) ON CONFLICT DO NOTHING
)
INSERT INTO "bulkman".circuit (namespace, name)
SELECT $1, n FROM unnest($2::text[]) AS n ORDER BY n
ON CONFLICT DO NOTHING
