-- $1 namespace. The others have an element for each circuit, and no circuit twice: $2 names, $3 base
-- epochs, $4 to states, $5 by hand (0, 1), $6 not after (microseconds), $7 waits, $8 operations, $9 by,
-- $10 reasons, $11 probe limits, $12 needs, $13 calls, $14 failed at most (-1: any), $15 slow at most.
-- In the order of names, so that two that lock several at once don't deadlock.
WITH wanted AS (
  SELECT w.name, w.base, w.to_state::smallint AS to_state, w.by_hand = 1 AS by_hand, w.not_after, w.wait,
         w.operation, w.by, w.why, w.most::smallint AS most, w.need::smallint AS need,
         w.calls::smallint AS calls, nullif(w.failed, -1)::smallint AS failed,
         nullif(w.slow, -1)::smallint AS slow
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
                $14::bigint[], $15::bigint[])
      AS w (name, base, to_state, by_hand, not_after, wait, operation, by, why, most, need, calls, failed, slow)
), was AS (
  SELECT * FROM "bulkman".circuit WHERE namespace = $1 AND name = ANY ($2::text[])
   ORDER BY name FOR NO KEY UPDATE
), judged AS (
  SELECT was.*, w.operation, @judge AS verdict FROM was JOIN wanted w ON w.name = was.name
), going AS (
  -- Each is a change of its own, with a revision and a fingerprint after it.
  SELECT name, row_number() OVER in_order AS nth,
         "bulkman".combined(op_id # operation) OVER in_order AS combined
    FROM judged
   WHERE verdict = 'go'
  WINDOW in_order AS (ORDER BY name)
), bump AS (
  UPDATE "bulkman".namespace n
     SET rev = n.rev + g.changes, fingerprint = n.fingerprint # g.combined
    FROM (SELECT count(*) AS changes, "bulkman".combined(op_id # operation) AS combined
            FROM judged WHERE verdict = 'go') g
   WHERE n.namespace = $1 AND g.changes > 0
  RETURNING n.rev - g.changes AS rev, n.fingerprint # g.combined AS fingerprint
), moved AS (
  UPDATE "bulkman".circuit c
     SET state = w.to_state, epoch = c.epoch + 1, rev = bump.rev + going.nth,
         changed_at = "bulkman".clock(),
         open_until = CASE WHEN w.to_state = 1 THEN "bulkman".clock() + w.wait * interval '1 microsecond' END,
         wait_us = CASE WHEN w.to_state = 1 THEN w.wait ELSE 0 END,
         open_count = CASE w.to_state WHEN 1 THEN c.open_count + 1 WHEN 0 THEN 0 ELSE c.open_count END,
         probe_limit = CASE WHEN w.to_state = 2 THEN w.most ELSE c.probe_limit END,
         probe_need = CASE WHEN w.to_state = 2 THEN w.need ELSE c.probe_need END,
         probe_calls = CASE WHEN w.to_state = 2 THEN w.calls ELSE c.probe_calls END,
         probe_max_failed = CASE WHEN w.to_state = 2 THEN w.failed ELSE c.probe_max_failed END,
         probe_max_slow = CASE WHEN w.to_state = 2 THEN w.slow ELSE c.probe_max_slow END,
         probe_ok = 0, probe_failed = 0, probe_slow = 0, voters = '{}', voted_at = '{}',
         op_id = w.operation, changed_by = w.by, reason = w.why
    FROM bump, going, wanted w
   WHERE c.namespace = $1 AND c.name = going.name AND w.name = going.name
  RETURNING c.*
), slots AS (
  -- Leases of an earlier stay are told by their epoch, so that nothing of them need be touched.
  INSERT INTO "bulkman".probe (namespace, name, slot)
  SELECT namespace, name, g FROM moved, generate_series(0, moved.probe_limit - 1) AS g
   WHERE moved.state = 2
   ORDER BY name, g
  ON CONFLICT DO NOTHING
), logged AS (
  @log
)
SELECT * FROM (
  SELECT 'made' AS verdict, @view,
         "bulkman".announce(v::"bulkman".circuit, bump.fingerprint # going.combined)::text AS announced
    FROM moved v JOIN going ON going.name = v.name, bump
   ORDER BY v.rev
) made
UNION ALL
SELECT v.verdict, @view, NULL FROM judged v WHERE NOT EXISTS (SELECT FROM moved m WHERE m.name = v.name)
