-- $1 namespace, $2 name, $3 epoch, $4 holder, $5 ttl, $6 slot, $7 token, $8 success, $9 slow,
-- $10 open for, $11 operation, $12 author, $13 reason
--
-- Locks are taken in the order lease, circuit, namespace, as in every statement.
WITH lease AS (
  SELECT token, token = $7 AND expires_at > "bulkman".clock() AS fresh, token = $7 + 1 AS repeated
    FROM "bulkman".probe
   WHERE namespace = $1 AND name = $2 AND slot = $6 AND epoch = $3 AND holder = $4
     FOR NO KEY UPDATE
), old_row AS (
  SELECT * FROM "bulkman".circuit
   WHERE namespace = $1 AND name = $2 AND EXISTS (SELECT FROM lease WHERE fresh OR repeated)
     FOR NO KEY UPDATE
), tallied AS (
  SELECT old_row.*, lease.fresh,
         old_row.probes_succeeded + (lease.fresh AND $8)::int AS succeeded,
         old_row.probes_failed + (lease.fresh AND NOT $8)::int AS failed,
         old_row.probes_slow + (lease.fresh AND $9)::int AS slow
    FROM old_row, lease
   WHERE old_row.epoch = $3 AND old_row.state = 2
), evaluated AS (
  -- A new state of 2 means that the circuit stays half-open.
  SELECT tallied.*,
         CASE WHEN probe_sample_size = 0 AND failed > 0 THEN 1
              WHEN probe_sample_size = 0 AND succeeded >= probe_success_threshold THEN 0
              WHEN probe_sample_size = 0 OR succeeded + failed < probe_sample_size THEN 2
              WHEN failed >= probe_failure_threshold OR slow >= probe_slow_threshold THEN 1
              ELSE 0 END AS new_state
    FROM tallied
), renewed AS (
  UPDATE "bulkman".probe
     SET token = $7 + 1, ttl = $5 * interval '1 microsecond',
         expires_at = "bulkman".clock() + $5 * interval '1 microsecond'
   WHERE namespace = $1 AND name = $2 AND slot = $6 AND EXISTS (SELECT FROM evaluated)
  RETURNING token
), revised AS (
  UPDATE "bulkman".namespace n SET rev = n.rev + 1, fingerprint = n.fingerprint # evaluated.op_id # $11
    FROM evaluated
   WHERE n.namespace = $1 AND evaluated.new_state <> 2
  RETURNING n.rev, n.fingerprint
), counted AS (
  UPDATE "bulkman".circuit c
     SET probes_succeeded = evaluated.succeeded, probes_failed = evaluated.failed,
         probes_slow = evaluated.slow
    FROM evaluated
   WHERE c.namespace = $1 AND c.name = $2 AND evaluated.new_state = 2
  RETURNING c.*
), changed AS (
  UPDATE "bulkman".circuit c
     SET state = evaluated.new_state, epoch = c.epoch + 1, rev = revised.rev,
         changed_at = "bulkman".clock(),
         open_until = CASE WHEN evaluated.new_state = 1
                           THEN "bulkman".clock() + $10 * interval '1 microsecond' END,
         open_for_us = CASE WHEN evaluated.new_state = 1 THEN $10 ELSE 0 END,
         open_count = CASE WHEN evaluated.new_state = 1 THEN c.open_count + 1 ELSE 0 END,
         probes_succeeded = 0, probes_failed = 0, probes_slow = 0, voters = '{}', voted_at = '{}',
         op_id = $11, author = $12, reason = $13
    FROM evaluated, revised
   WHERE c.namespace = $1 AND c.name = $2
  RETURNING c.*
), recorded AS (
  @history
)
SELECT 'decided' AS result, NULL::bigint AS token, @view,
       @notify
  FROM changed v
UNION ALL
SELECT 'counted', (SELECT token FROM renewed), @view, NULL FROM counted v
UNION ALL
SELECT CASE WHEN v.op_id = $11 AND $11 <> 0 THEN 'decided' ELSE 'lost' END, NULL, @view, NULL
  FROM (SELECT * FROM old_row
        UNION ALL
        SELECT * FROM "bulkman".circuit
         WHERE namespace = $1 AND name = $2 AND NOT EXISTS (SELECT FROM old_row)) v
 WHERE NOT EXISTS (SELECT FROM evaluated)
