-- $1 namespace. The others are arrays with one element per lease: $2 names, $3 epochs, $4 holders,
-- $5 ttls, $6 slots, $7 tokens
UPDATE "bulkman".probe p
   SET ttl = w.ttl * interval '1 microsecond',
       expires_at = "bulkman".clock() + w.ttl * interval '1 microsecond'
  FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
         AS w (name, epoch, holder, ttl, slot, token)
 WHERE p.namespace = $1 AND p.name = w.name AND p.slot = w.slot AND p.epoch = w.epoch
   AND p.token = w.token AND p.holder = w.holder AND p.expires_at > "bulkman".clock()
RETURNING p.name, p.slot, p.token
