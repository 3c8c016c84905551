-- $1 namespace, $2 name, $3 base epoch, $4 to state (open), $5 by hand, $6 not after, $7 wait,
-- $8 operation, $9 by, $10 reason, $11 voter, $12 quorum, $13 window
WITH was AS (
  SELECT * FROM "bulkman".circuit WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE
), wanted AS (
  SELECT $3::bigint AS base, $4::smallint AS to_state, $5::boolean AS by_hand, $6::bigint AS not_after,
         $8::bigint AS operation
), judged AS (
  SELECT was.*, @judge AS verdict FROM was, wanted w
), votes AS (
  SELECT array_agg(voter ORDER BY at, voter) AS voters, array_agg(at ORDER BY at, voter) AS voted_at,
         count(*) AS votes
    FROM (
      SELECT u.voter, u.at
        FROM judged, unnest(judged.voters, judged.voted_at) AS u (voter, at)
       WHERE u.voter <> $11 AND u.at <= "bulkman".clock()
         AND u.at > "bulkman".clock() - $13 * interval '1 microsecond'
      UNION ALL
      SELECT $11, "bulkman".clock()
    ) AS all_votes
   WHERE EXISTS (SELECT FROM judged WHERE verdict = 'go')
), bump AS (
  UPDATE "bulkman".namespace n SET rev = n.rev + 1, fingerprint = n.fingerprint # judged.op_id # $8
    FROM judged, votes
   WHERE n.namespace = $1 AND votes.votes >= $12
  RETURNING n.rev, n.fingerprint
), moved AS (
  UPDATE "bulkman".circuit c
     SET state = 1, epoch = c.epoch + 1, rev = bump.rev, changed_at = "bulkman".clock(),
         open_until = "bulkman".clock() + $7 * interval '1 microsecond', wait_us = $7,
         open_count = c.open_count + 1,
         probe_ok = 0, probe_failed = 0, probe_slow = 0, voters = '{}', voted_at = '{}',
         op_id = $8, changed_by = $9, reason = $10
    FROM bump
   WHERE c.namespace = $1 AND c.name = $2
  RETURNING c.*
), counted AS (
  UPDATE "bulkman".circuit c
     SET voters = votes.voters, voted_at = votes.voted_at
    FROM votes
   WHERE c.namespace = $1 AND c.name = $2 AND votes.votes BETWEEN 1 AND $12 - 1
  RETURNING votes.votes
), logged AS (
  @log
)
SELECT 'made' AS verdict, NULL::bigint AS votes, @view,
       @announce
  FROM moved v
UNION ALL
SELECT v.verdict, (SELECT votes FROM counted), @view, NULL
  FROM judged v WHERE NOT EXISTS (SELECT FROM moved)
