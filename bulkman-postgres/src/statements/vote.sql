-- $1 namespace, $2 name, $3 base epoch, $4 new state (open), $5 manual, $6 not after, $7 open for,
-- $8 operation, $9 author, $10 reason, $11 voter, $12 quorum, $13 window
WITH old_row AS (
  SELECT * FROM "bulkman".circuit WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE
), request AS (
  SELECT $3::bigint AS base, $4::smallint AS to_state, $5::boolean AS manual,
         $6::bigint AS not_after, $8::bigint AS operation
), evaluated AS (
  SELECT old_row.*, @evaluate AS result FROM old_row, request w
), votes AS (
  SELECT array_agg(voter ORDER BY at, voter) AS voters, array_agg(at ORDER BY at, voter) AS voted_at,
         count(*) AS votes
    FROM (
      SELECT u.voter, u.at
        FROM evaluated, unnest(evaluated.voters, evaluated.voted_at) AS u (voter, at)
       WHERE u.voter <> $11 AND u.at <= "bulkman".clock()
         AND u.at > "bulkman".clock() - $13 * interval '1 microsecond'
      UNION ALL
      SELECT $11, "bulkman".clock()
    ) AS all_votes
   WHERE EXISTS (SELECT FROM evaluated WHERE result = 'accepted')
), revised AS (
  UPDATE "bulkman".namespace n SET rev = n.rev + 1, fingerprint = n.fingerprint # evaluated.op_id # $8
    FROM evaluated, votes
   WHERE n.namespace = $1 AND votes.votes >= $12
  RETURNING n.rev, n.fingerprint
), changed AS (
  UPDATE "bulkman".circuit c
     SET state = 1, epoch = c.epoch + 1, rev = revised.rev, changed_at = "bulkman".clock(),
         open_until = "bulkman".clock() + $7 * interval '1 microsecond', open_for_us = $7,
         open_count = c.open_count + 1,
         probes_succeeded = 0, probes_failed = 0, probes_slow = 0, voters = '{}', voted_at = '{}',
         op_id = $8, author = $9, reason = $10
    FROM revised
   WHERE c.namespace = $1 AND c.name = $2
  RETURNING c.*
), counted AS (
  UPDATE "bulkman".circuit c
     SET voters = votes.voters, voted_at = votes.voted_at
    FROM votes
   WHERE c.namespace = $1 AND c.name = $2 AND votes.votes BETWEEN 1 AND $12 - 1
  RETURNING votes.votes
), recorded AS (
  @history
)
SELECT 'applied' AS result, NULL::bigint AS votes, @view,
       @notify
  FROM changed v
UNION ALL
SELECT v.result, (SELECT votes FROM counted), @view, NULL
  FROM evaluated v WHERE NOT EXISTS (SELECT FROM changed)
