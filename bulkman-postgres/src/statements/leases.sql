-- $1 namespace
--
-- The leases of an earlier half-open period are void.
SELECT p.name, p.slot, p.holder,
       (extract(epoch FROM p.expires_at - "bulkman".clock()) * 1e6)::bigint AS remaining_us
  FROM "bulkman".probe p
  JOIN "bulkman".circuit c ON c.namespace = p.namespace AND c.name = p.name
 WHERE p.namespace = $1 AND c.state = 2 AND p.epoch = c.epoch AND p.holder IS NOT NULL
   AND p.expires_at > "bulkman".clock()
 ORDER BY p.name, p.slot
