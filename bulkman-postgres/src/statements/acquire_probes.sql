-- $1 namespace. The others are arrays with one element per circuit, and no circuit twice: $2 names,
-- $3 epochs, $4 holders, $5 ttls
--
-- It does not wait for the row of a lease, so the order of rows does not matter.
--
-- A lease that expires later than its ttl from now was acquired before the clock stepped back: it
-- is available. Epochs are compared by order, since a statement of an earlier epoch that waited for
-- the row must not acquire a lease of a later one.
WITH free AS MATERIALIZED (
  SELECT w.name, w.epoch, w.holder, w.ttl, slots.slot
    FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) AS w (name, epoch, holder, ttl)
   CROSS JOIN LATERAL (
         SELECT q.slot
           FROM "bulkman".probe q
           JOIN "bulkman".circuit c ON c.namespace = q.namespace AND c.name = q.name
          WHERE q.namespace = $1 AND q.name = w.name AND c.state = 2 AND c.epoch = w.epoch
            AND q.slot < c.probe_limit AND q.epoch <= w.epoch
            AND (q.epoch < w.epoch OR q.holder IS NULL OR q.holder = w.holder
                 OR q.expires_at <= "bulkman".clock()
                 OR q.expires_at > "bulkman".clock() + q.ttl)
          ORDER BY q.epoch = w.epoch AND q.holder IS NOT DISTINCT FROM w.holder DESC, q.slot
          LIMIT 1
            FOR NO KEY UPDATE OF q SKIP LOCKED
         ) slots
)
UPDATE "bulkman".probe p
   SET holder = free.holder, epoch = free.epoch, token = p.token + 2,
       ttl = free.ttl * interval '1 microsecond',
       expires_at = "bulkman".clock() + free.ttl * interval '1 microsecond'
  FROM free
 WHERE p.namespace = $1 AND p.name = free.name AND p.slot = free.slot
RETURNING p.name, p.slot, p.token
