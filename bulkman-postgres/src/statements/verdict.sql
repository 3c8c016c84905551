-- $1 namespace, $2 name, $3 epoch, $4 holder, $5 term, $6 slot, $7 token, $8 success, $9 slow,
-- $10 wait, $11 operation, $12 by, $13 reason. Locks go from the lease to the circuit to the
-- namespace, as everywhere.
WITH mine AS (
  SELECT token, token = $7 AND expires_at > "bulkman".clock() AS fresh, token = $7 + 1 AS repeated
    FROM "bulkman".probe
   WHERE namespace = $1 AND name = $2 AND slot = $6 AND epoch = $3 AND holder = $4
     FOR NO KEY UPDATE
), was AS (
  SELECT * FROM "bulkman".circuit
   WHERE namespace = $1 AND name = $2 AND EXISTS (SELECT FROM mine WHERE fresh OR repeated)
     FOR NO KEY UPDATE
), tried AS (
  SELECT was.*, mine.fresh,
         was.probe_ok + (mine.fresh AND $8)::int AS ok,
         was.probe_failed + (mine.fresh AND NOT $8)::int AS failed,
         was.probe_slow + (mine.fresh AND $9)::int AS slow
    FROM was, mine
   WHERE was.epoch = $3 AND was.state = 2
), judged AS (
  -- 2 is to stay half-open.
  SELECT tried.*,
         CASE WHEN probe_calls = 0 AND failed > 0 THEN 1
              WHEN probe_calls = 0 AND ok >= probe_need THEN 0
              WHEN probe_calls = 0 OR ok + failed < probe_calls THEN 2
              WHEN failed >= probe_max_failed OR slow >= probe_max_slow THEN 1
              ELSE 0 END AS becomes
    FROM tried
), renewed AS (
  UPDATE "bulkman".probe
     SET token = $7 + 1, ttl = $5 * interval '1 microsecond',
         expires_at = "bulkman".clock() + $5 * interval '1 microsecond'
   WHERE namespace = $1 AND name = $2 AND slot = $6 AND EXISTS (SELECT FROM judged)
  RETURNING token
), bump AS (
  UPDATE "bulkman".namespace n SET rev = n.rev + 1, fingerprint = n.fingerprint # judged.op_id # $11
    FROM judged
   WHERE n.namespace = $1 AND judged.becomes <> 2
  RETURNING n.rev, n.fingerprint
), counted AS (
  UPDATE "bulkman".circuit c
     SET probe_ok = judged.ok, probe_failed = judged.failed, probe_slow = judged.slow
    FROM judged
   WHERE c.namespace = $1 AND c.name = $2 AND judged.becomes = 2
  RETURNING c.*
), moved AS (
  UPDATE "bulkman".circuit c
     SET state = judged.becomes, epoch = c.epoch + 1, rev = bump.rev,
         changed_at = "bulkman".clock(),
         open_until = CASE WHEN judged.becomes = 1 THEN "bulkman".clock() + $10 * interval '1 microsecond' END,
         wait_us = CASE WHEN judged.becomes = 1 THEN $10 ELSE 0 END,
         open_count = CASE WHEN judged.becomes = 1 THEN c.open_count + 1 ELSE 0 END,
         probe_ok = 0, probe_failed = 0, probe_slow = 0, voters = '{}', voted_at = '{}',
         op_id = $11, changed_by = $12, reason = $13
    FROM judged, bump
   WHERE c.namespace = $1 AND c.name = $2
  RETURNING c.*
), logged AS (
  @log
)
SELECT 'decided' AS verdict, NULL::bigint AS token, @view,
       @announce
  FROM moved v
UNION ALL
SELECT 'counted', (SELECT token FROM renewed), @view, NULL FROM counted v
UNION ALL
SELECT CASE WHEN v.op_id = $11 AND $11 <> 0 THEN 'decided' ELSE 'lost' END, NULL, @view, NULL
  FROM (SELECT * FROM was
        UNION ALL
        SELECT * FROM "bulkman".circuit
         WHERE namespace = $1 AND name = $2 AND NOT EXISTS (SELECT FROM was)) v
 WHERE NOT EXISTS (SELECT FROM judged)
