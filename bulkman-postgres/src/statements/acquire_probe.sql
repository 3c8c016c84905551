-- $1 namespace, $2 name, $3 epoch, $4 holder, $5 ttl
--
-- A lease that expires later than its ttl from now was acquired before the clock stepped back: it
-- is available. Epochs are compared by order, since a statement of an earlier epoch that waited for
-- the row must not acquire a lease of a later one.
UPDATE "bulkman".probe p
   SET holder = $4, epoch = $3, token = p.token + 2, ttl = $5 * interval '1 microsecond',
       expires_at = "bulkman".clock() + $5 * interval '1 microsecond'
 WHERE (p.namespace, p.name, p.slot) = (
   SELECT q.namespace, q.name, q.slot
     FROM "bulkman".probe q
     JOIN "bulkman".circuit c ON c.namespace = q.namespace AND c.name = q.name
    WHERE q.namespace = $1 AND q.name = $2 AND c.state = 2 AND c.epoch = $3
      AND q.slot < c.probe_limit AND q.epoch <= $3
      AND (q.epoch < $3 OR q.holder IS NULL OR q.holder = $4
           OR q.expires_at <= "bulkman".clock() OR q.expires_at > "bulkman".clock() + q.ttl)
    ORDER BY q.epoch = $3 AND q.holder IS NOT DISTINCT FROM $4 DESC, q.slot
    LIMIT 1
      FOR NO KEY UPDATE OF q SKIP LOCKED)
RETURNING p.slot, p.token
