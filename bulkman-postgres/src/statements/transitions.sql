-- $1 namespace. The others are arrays with one element per circuit, and no circuit twice: $2 names,
-- $3 base epochs, $4 new states, $5 manual (0, 1), $6 not after (microseconds), $7 open for,
-- $8 operations, $9 authors, $10 reasons, $11 probe limits, $12 success thresholds, $13 sample
-- sizes, $14 failure thresholds (-1: none), $15 slow thresholds (-1: none)
--
-- Rows are locked in the order of names, so that concurrent statements don't deadlock.
WITH request AS (
  SELECT w.name, w.base, w.to_state::smallint AS to_state, w.manual = 1 AS manual, w.not_after,
         w.open_for, w.operation, w.author, w.reason, w.probe_limit::smallint AS probe_limit,
         w.success_threshold::smallint AS success_threshold,
         w.sample_size::smallint AS sample_size,
         nullif(w.failure_threshold, -1)::smallint AS failure_threshold,
         nullif(w.slow_threshold, -1)::smallint AS slow_threshold
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
                $14::bigint[], $15::bigint[])
      AS w (name, base, to_state, manual, not_after, open_for, operation, author, reason, probe_limit,
            success_threshold, sample_size, failure_threshold, slow_threshold)
), old_row AS (
  SELECT * FROM "bulkman".circuit WHERE namespace = $1 AND name = ANY ($2::text[])
   ORDER BY name FOR NO KEY UPDATE
), evaluated AS (
  SELECT old_row.*, w.operation, @evaluate AS result
    FROM old_row JOIN request w ON w.name = old_row.name
), accepted AS (
  -- Each change has its own revision and fingerprint.
  SELECT name, row_number() OVER in_order AS nth,
         "bulkman".xor_agg(op_id # operation) OVER in_order AS xor_agg
    FROM evaluated
   WHERE result = 'accepted'
  WINDOW in_order AS (ORDER BY name)
), revised AS (
  UPDATE "bulkman".namespace n
     SET rev = n.rev + total.changes, fingerprint = n.fingerprint # total.xor_agg
    FROM (SELECT count(*) AS changes, "bulkman".xor_agg(op_id # operation) AS xor_agg
            FROM evaluated WHERE result = 'accepted') total
   WHERE n.namespace = $1 AND total.changes > 0
  RETURNING n.rev - total.changes AS rev, n.fingerprint # total.xor_agg AS fingerprint
), changed AS (
  UPDATE "bulkman".circuit c
     SET state = w.to_state, epoch = c.epoch + 1, rev = revised.rev + accepted.nth,
         changed_at = "bulkman".clock(),
         open_until = CASE WHEN w.to_state = 1
                           THEN "bulkman".clock() + w.open_for * interval '1 microsecond' END,
         open_for_us = CASE WHEN w.to_state = 1 THEN w.open_for ELSE 0 END,
         open_count = CASE w.to_state WHEN 1 THEN c.open_count + 1 WHEN 0 THEN 0
                      ELSE c.open_count END,
         probe_limit = CASE WHEN w.to_state = 2 THEN w.probe_limit ELSE c.probe_limit END,
         probe_success_threshold = CASE WHEN w.to_state = 2 THEN w.success_threshold
                                        ELSE c.probe_success_threshold END,
         probe_sample_size = CASE WHEN w.to_state = 2 THEN w.sample_size
                                  ELSE c.probe_sample_size END,
         probe_failure_threshold = CASE WHEN w.to_state = 2 THEN w.failure_threshold
                                        ELSE c.probe_failure_threshold END,
         probe_slow_threshold = CASE WHEN w.to_state = 2 THEN w.slow_threshold
                                     ELSE c.probe_slow_threshold END,
         probes_succeeded = 0, probes_failed = 0, probes_slow = 0, voters = '{}', voted_at = '{}',
         op_id = w.operation, author = w.author, reason = w.reason
    FROM revised, accepted, request w
   WHERE c.namespace = $1 AND c.name = accepted.name AND w.name = accepted.name
  RETURNING c.*
), slots AS (
  -- Leases of earlier periods have an earlier epoch, so that their rows need no update.
  INSERT INTO "bulkman".probe (namespace, name, slot)
  SELECT namespace, name, slot
    FROM changed, generate_series(0, changed.probe_limit - 1) AS slot
   WHERE changed.state = 2
   ORDER BY name, slot
  ON CONFLICT DO NOTHING
), recorded AS (
  @history
)
SELECT * FROM (
  SELECT 'applied' AS result, @view,
         "bulkman".notify_change(v::"bulkman".circuit,
                                 revised.fingerprint # accepted.xor_agg)::text AS notified
    FROM changed v JOIN accepted ON accepted.name = v.name, revised
   ORDER BY v.rev
) applied
UNION ALL
SELECT v.result, @view, NULL
  FROM evaluated v WHERE NOT EXISTS (SELECT FROM changed c WHERE c.name = v.name)
