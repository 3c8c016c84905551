-- $1 namespace. The others are arrays with one element per lease: $2 names, $3 epochs, $4 holders,
-- $5 ttls, $6 slots, $7 tokens
--
-- Rows are locked in the order of names, so that concurrent statements don't deadlock.
WITH held AS (
  SELECT p.name, p.slot, w.ttl * interval '1 microsecond' AS ttl
    FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
           AS w (name, epoch, holder, ttl, slot, token)
    JOIN "bulkman".probe p ON p.namespace = $1 AND p.name = w.name AND p.slot = w.slot
                          AND p.epoch = w.epoch AND p.token = w.token AND p.holder = w.holder
   WHERE p.expires_at > "bulkman".clock()
   ORDER BY p.name, p.slot
     FOR NO KEY UPDATE OF p
)
UPDATE "bulkman".probe p
   SET ttl = held.ttl, expires_at = "bulkman".clock() + held.ttl
  FROM held
 WHERE p.namespace = $1 AND p.name = held.name AND p.slot = held.slot
RETURNING p.name, p.slot, p.token
