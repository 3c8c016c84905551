-- $1 namespace, $2 names[]. In the order of names, so that two that register at once don't deadlock.
WITH home AS (
  INSERT INTO "bulkman".namespace (namespace) VALUES ($1) ON CONFLICT DO NOTHING
)
INSERT INTO "bulkman".circuit (namespace, name)
SELECT $1, n FROM unnest($2::text[]) AS n ORDER BY n
ON CONFLICT DO NOTHING
