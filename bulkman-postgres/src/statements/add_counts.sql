-- $1 namespace, $2 names[], $3 epochs[], $4 successes[], $5 failures[], $6 bucket length,
-- $7 buckets
--
-- Rows are locked in the order of names, so that concurrent statements don't deadlock.
WITH newest AS (
  SELECT floor(extract(epoch FROM "bulkman".clock()) * 1e6 / $6)::bigint AS bucket
), added AS (
  INSERT INTO "bulkman".count_bucket AS b
         (namespace, name, bucket_us, buckets, slot, bucket, epoch, successes, failures)
  SELECT $1, d.name, $6, $7, (newest.bucket % $7)::smallint, newest.bucket, d.epoch,
         d.successes, d.failures
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
           AS d (name, epoch, successes, failures)
    JOIN "bulkman".circuit c ON c.namespace = $1 AND c.name = d.name AND c.epoch <= d.epoch,
         newest
   ORDER BY d.name
  ON CONFLICT (namespace, name, bucket_us, buckets, slot) DO UPDATE
     SET successes = excluded.successes
           + CASE WHEN b.bucket = excluded.bucket AND b.epoch = excluded.epoch THEN b.successes
                  ELSE 0 END,
         failures = excluded.failures
           + CASE WHEN b.bucket = excluded.bucket AND b.epoch = excluded.epoch THEN b.failures
                  ELSE 0 END,
         bucket = excluded.bucket, epoch = excluded.epoch
   WHERE excluded.epoch >= b.epoch
  RETURNING b.name, b.slot, b.bucket, b.epoch, b.successes, b.failures
)
SELECT a.name, a.epoch, (a.successes + coalesce(sum(o.successes), 0))::bigint AS successes,
       (a.failures + coalesce(sum(o.failures), 0))::bigint AS failures
  FROM added a
  LEFT JOIN "bulkman".count_bucket o
    ON o.namespace = $1 AND o.name = a.name AND o.bucket_us = $6 AND o.buckets = $7
   AND o.slot <> a.slot AND o.epoch = a.epoch AND o.bucket > a.bucket - $7 AND o.bucket < a.bucket
 GROUP BY a.name, a.epoch, a.successes, a.failures
