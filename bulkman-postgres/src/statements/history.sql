-- $1 namespace, $2 name (null: all), $3 limit
SELECT h.name, h.epoch, h.rev, h.from_state, h.to_state, h.open_for_us, h.author, h.reason,
       greatest(0, extract(epoch FROM "bulkman".clock() - h.at) * 1e6)::bigint AS age_us
  FROM "bulkman".history h
 WHERE h.namespace = $1 AND ($2::text IS NULL OR h.name = $2)
 ORDER BY h.rev DESC
 LIMIT $3
