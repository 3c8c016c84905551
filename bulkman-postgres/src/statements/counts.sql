-- $1 namespace, $2 names[], $3 epochs[], $4 successes[], $5 failures[], $6 bucket, $7 buckets. In the
-- order of names, so that two that count at once don't deadlock.
WITH number AS (
  SELECT floor(extract(epoch FROM "bulkman".clock()) * 1e6 / $6)::bigint AS bucket
), added AS (
  INSERT INTO "bulkman".tally AS t (namespace, name, bucket_us, buckets, slot, bucket, epoch, ok, fail)
  SELECT $1, d.name, $6, $7, (number.bucket % $7)::smallint, number.bucket, d.epoch, d.ok, d.fail
    FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS d (name, epoch, ok, fail)
    JOIN "bulkman".circuit c ON c.namespace = $1 AND c.name = d.name AND c.epoch <= d.epoch,
         number
   ORDER BY d.name
  ON CONFLICT (namespace, name, bucket_us, buckets, slot) DO UPDATE
     SET ok = excluded.ok
           + CASE WHEN t.bucket = excluded.bucket AND t.epoch = excluded.epoch THEN t.ok ELSE 0 END,
         fail = excluded.fail
           + CASE WHEN t.bucket = excluded.bucket AND t.epoch = excluded.epoch THEN t.fail ELSE 0 END,
         bucket = excluded.bucket, epoch = excluded.epoch
   WHERE excluded.epoch >= t.epoch
  RETURNING t.name, t.slot, t.bucket, t.epoch, t.ok, t.fail
)
SELECT a.name, a.epoch, (a.ok + coalesce(sum(o.ok), 0))::bigint AS ok,
       (a.fail + coalesce(sum(o.fail), 0))::bigint AS fail
  FROM added a
  LEFT JOIN "bulkman".tally o
    ON o.namespace = $1 AND o.name = a.name AND o.bucket_us = $6 AND o.buckets = $7
   AND o.slot <> a.slot AND o.epoch = a.epoch AND o.bucket > a.bucket - $7 AND o.bucket < a.bucket
 GROUP BY a.name, a.epoch, a.ok, a.fail
