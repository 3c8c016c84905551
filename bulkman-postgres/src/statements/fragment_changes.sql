n.rev AS namespace_rev, n.fingerprint,
       (extract(epoch FROM "bulkman".clock()) * 1e6)::bigint AS now_us,
       @access,
       @view
  FROM (SELECT $1::text AS namespace) given
  LEFT JOIN "bulkman".namespace n ON n.namespace = given.namespace
  LEFT JOIN LATERAL (
         SELECT * FROM "bulkman".circuit c
          WHERE c.namespace = n.namespace AND ($2::bigint IS NULL OR (c.rev > $2 AND n.rev > $2))
         OFFSET 0
       ) v ON true
