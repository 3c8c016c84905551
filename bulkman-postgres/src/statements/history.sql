-- $1 namespace, $2 name (or null), $3 limit
SELECT h.name, h.epoch, h.rev, h.from_state, h.to_state, h.wait_us, h.by, h.reason,
       greatest(0, extract(epoch FROM "bulkman".clock() - h.at) * 1e6)::bigint AS age_us
  FROM "bulkman".history h
 WHERE h.namespace = $1 AND ($2::text IS NULL OR h.name = $2)
 ORDER BY h.rev DESC
 LIMIT $3
