-- $1 namespace. The others are arrays with one element per result, and no circuit twice: $2 names,
-- $3 epochs, $4 holders, $5 ttls, $6 slots, $7 tokens, $8 successes (0, 1), $9 slow (0, 1),
-- $10 open for, $11 operations, $12 authors, $13 reasons
--
-- Locks are taken in the order leases, circuits, namespace, as in every statement, and rows are
-- locked in the order of names, so that concurrent statements don't deadlock.
WITH request AS MATERIALIZED (
  SELECT w.name, w.epoch, w.holder, w.ttl * interval '1 microsecond' AS ttl,
         w.slot::smallint AS slot, w.token, w.success = 1 AS success, w.slow = 1 AS slow, w.open_for,
         w.operation, w.author, w.reason
    FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::text[])
      AS w (name, epoch, holder, ttl, slot, token, success, slow, open_for, operation, author, reason)
), lease AS MATERIALIZED (
  SELECT p.name, p.token = w.token AND p.expires_at > "bulkman".clock() AS fresh,
         p.token = w.token + 1 AS repeated
    FROM request w
    JOIN "bulkman".probe p ON p.namespace = $1 AND p.name = w.name AND p.slot = w.slot
                          AND p.epoch = w.epoch AND p.holder = w.holder
   ORDER BY p.name, p.slot
     FOR NO KEY UPDATE OF p
), old_row AS (
  -- The array is complete, with all leases locked, before the first circuit is.
  SELECT * FROM "bulkman".circuit
   WHERE namespace = $1
     AND name = ANY ((SELECT array_agg(name) FROM lease WHERE fresh OR repeated)::text[])
   ORDER BY name FOR NO KEY UPDATE
), tallied AS (
  SELECT old_row.*, w.slot, w.token, w.ttl, w.open_for, w.operation,
         w.author AS new_author, w.reason AS new_reason,
         old_row.probes_succeeded + (lease.fresh AND w.success)::int AS succeeded,
         old_row.probes_failed + (lease.fresh AND NOT w.success)::int AS failed,
         old_row.probes_slow + (lease.fresh AND w.slow)::int AS slow
    FROM old_row JOIN lease ON lease.name = old_row.name JOIN request w ON w.name = old_row.name
   WHERE old_row.epoch = w.epoch AND old_row.state = 2
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
  UPDATE "bulkman".probe p
     SET token = e.token + 1, ttl = e.ttl, expires_at = "bulkman".clock() + e.ttl
    FROM evaluated e
   WHERE p.namespace = $1 AND p.name = e.name AND p.slot = e.slot
  RETURNING p.name, p.slot, p.token
), decided AS (
  -- Each change has its own revision and fingerprint.
  SELECT name, row_number() OVER in_order AS nth,
         "bulkman".xor_agg(op_id # operation) OVER in_order AS xor_agg
    FROM evaluated
   WHERE new_state <> 2
  WINDOW in_order AS (ORDER BY name)
), revised AS (
  UPDATE "bulkman".namespace n
     SET rev = n.rev + total.changes, fingerprint = n.fingerprint # total.xor_agg
    FROM (SELECT count(*) AS changes, "bulkman".xor_agg(op_id # operation) AS xor_agg
            FROM evaluated WHERE new_state <> 2) total
   WHERE n.namespace = $1 AND total.changes > 0
  RETURNING n.rev - total.changes AS rev, n.fingerprint # total.xor_agg AS fingerprint
), counted AS (
  UPDATE "bulkman".circuit c
     SET probes_succeeded = e.succeeded, probes_failed = e.failed, probes_slow = e.slow
    FROM evaluated e
   WHERE c.namespace = $1 AND c.name = e.name AND e.new_state = 2
  RETURNING c.*
), changed AS (
  UPDATE "bulkman".circuit c
     SET state = e.new_state, epoch = c.epoch + 1, rev = revised.rev + decided.nth,
         changed_at = "bulkman".clock(),
         open_until = CASE WHEN e.new_state = 1
                           THEN "bulkman".clock() + e.open_for * interval '1 microsecond' END,
         open_for_us = CASE WHEN e.new_state = 1 THEN e.open_for ELSE 0 END,
         open_count = CASE WHEN e.new_state = 1 THEN c.open_count + 1 ELSE 0 END,
         probes_succeeded = 0, probes_failed = 0, probes_slow = 0, voters = '{}', voted_at = '{}',
         op_id = e.operation, author = e.new_author, reason = e.new_reason
    FROM revised, decided JOIN evaluated e ON e.name = decided.name
   WHERE c.namespace = $1 AND c.name = decided.name
  RETURNING c.*
), recorded AS (
  @history
)
SELECT * FROM (
  SELECT 'decided' AS result, NULL::smallint AS slot, NULL::bigint AS token, @view,
         "bulkman".notify_change(v::"bulkman".circuit,
                                 revised.fingerprint # decided.xor_agg)::text AS notified
    FROM changed v JOIN decided ON decided.name = v.name, revised
   ORDER BY v.rev
) decided
UNION ALL
SELECT 'counted', renewed.slot, renewed.token, @view, NULL
  FROM counted v JOIN renewed ON renewed.name = v.name
UNION ALL
SELECT CASE WHEN v.op_id = w.operation AND w.operation <> 0 THEN 'decided' ELSE 'lost' END, NULL,
       NULL, @view, NULL
  FROM request w
  JOIN (SELECT * FROM old_row
        UNION ALL
        SELECT * FROM "bulkman".circuit c
         WHERE namespace = $1 AND name = ANY ($2::text[])
           AND NOT EXISTS (SELECT FROM old_row WHERE old_row.name = c.name)) v ON v.name = w.name
 WHERE NOT EXISTS (SELECT FROM evaluated e WHERE e.name = v.name)
