SELECT n.namespace, n.rev, count(c.name) AS circuits,
       count(c.name) FILTER (WHERE c.state IN (1, 2)) AS open,
       count(c.name) FILTER (WHERE c.state IN (3, 4)) AS forced,
       (extract(epoch FROM "bulkman".clock()
                             - max(c.changed_at) FILTER (WHERE c.epoch > 0)) * 1e6)::bigint AS age_us
  FROM "bulkman".namespace n
  LEFT JOIN "bulkman".circuit c ON c.namespace = n.namespace
 GROUP BY n.namespace, n.rev
 ORDER BY n.namespace
