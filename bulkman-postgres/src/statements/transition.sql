-- $1 namespace, $2 name, $3 base epoch, $4 to state, $5 by hand, $6 not after (microseconds, or null),
-- $7 wait, $8 operation, $9 by, $10 reason, $11 probe limit, $12 need, $13 calls,
-- $14 failed at most, $15 slow at most
WITH was AS (
  SELECT * FROM "bulkman".circuit WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE
), judged AS (
  SELECT was.*, @judge AS verdict FROM was
), bump AS (
  UPDATE "bulkman".namespace n SET rev = n.rev + 1, fingerprint = n.fingerprint # judged.op_id # $8
    FROM judged
   WHERE n.namespace = $1 AND judged.verdict = 'go'
  RETURNING n.rev, n.fingerprint
), moved AS (
  UPDATE "bulkman".circuit c
     SET state = $4, epoch = c.epoch + 1, rev = bump.rev, changed_at = "bulkman".clock(),
         open_until = CASE WHEN $4 = 1 THEN "bulkman".clock() + $7 * interval '1 microsecond' END,
         wait_us = CASE WHEN $4 = 1 THEN $7 ELSE 0 END,
         open_count = CASE $4 WHEN 1 THEN c.open_count + 1 WHEN 0 THEN 0 ELSE c.open_count END,
         probe_limit = CASE WHEN $4 = 2 THEN $11 ELSE c.probe_limit END,
         probe_need = CASE WHEN $4 = 2 THEN $12 ELSE c.probe_need END,
         probe_calls = CASE WHEN $4 = 2 THEN $13 ELSE c.probe_calls END,
         probe_max_failed = CASE WHEN $4 = 2 THEN $14 ELSE c.probe_max_failed END,
         probe_max_slow = CASE WHEN $4 = 2 THEN $15 ELSE c.probe_max_slow END,
         probe_ok = 0, probe_failed = 0, probe_slow = 0, voters = '{}', voted_at = '{}',
         op_id = $8, changed_by = $9, reason = $10
    FROM bump
   WHERE c.namespace = $1 AND c.name = $2
  RETURNING c.*
), slots AS (
  -- Leases of an earlier stay are told by their epoch, so that nothing of them need be touched.
  INSERT INTO "bulkman".probe (namespace, name, slot)
  SELECT namespace, name, g FROM moved, generate_series(0, moved.probe_limit - 1) AS g
   WHERE moved.state = 2
  ON CONFLICT DO NOTHING
), logged AS (
  @log
)
SELECT 'made' AS verdict, @view, @announce FROM moved v
UNION ALL
SELECT v.verdict, @view, NULL FROM judged v WHERE NOT EXISTS (SELECT FROM moved)
