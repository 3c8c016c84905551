-- $1 namespace, $2 since (null: all circuits)
--
-- Returns at least one row, without a circuit if nothing changed. The circuits are read only if the
-- namespace has a later revision.
SELECT n.rev AS namespace_rev, n.fingerprint,
       (extract(epoch FROM "bulkman".clock()) * 1e6)::bigint AS now_us,
       @view
  FROM "bulkman".namespace n
  LEFT JOIN LATERAL (
         SELECT * FROM "bulkman".circuit c
          WHERE c.namespace = n.namespace AND ($2::bigint IS NULL OR (c.rev > $2 AND n.rev > $2))
         OFFSET 0
       ) v ON true
 WHERE n.namespace = $1
