-- $1 namespace
SELECT p.instance, p.id, p.application_version, p.library_version, p.read_only, p.pending,
       (extract(epoch FROM "bulkman".clock() - p.read_at) * 1e6)::bigint AS read_us,
       (extract(epoch FROM "bulkman".clock() - p.degraded_since) * 1e6)::bigint AS degraded_us
  FROM "bulkman".process p
 WHERE p.namespace = $1 AND p.read_at > "bulkman".clock() - interval '1 hour'
 ORDER BY p.instance, p.read_at DESC, p.id
