-- $1 namespace, $2 since (null: all circuits), $3 instance, $4 id, $5 application version, $6 library
-- version, $7 read-only, $8 pending, $9 degraded for, $10 valid for
--
-- Reads as snapshot.sql does, and stores the status of a process.
WITH reported AS (
  INSERT INTO "bulkman".process AS p (namespace, instance, id, application_version, library_version,
                                      read_at, read_only, pending, degraded_since)
  VALUES ($1, $3, $4, $5, $6, "bulkman".clock(), $7, $8,
          "bulkman".clock() - $9::bigint * interval '1 microsecond')
  ON CONFLICT (namespace, instance, id) DO UPDATE
     SET application_version = excluded.application_version,
         library_version = excluded.library_version, read_at = excluded.read_at,
         read_only = excluded.read_only, pending = excluded.pending,
         degraded_since = excluded.degraded_since
), old AS (
  -- A full read is the first one of a session.
  SELECT p.instance, p.id FROM "bulkman".process p
   WHERE $2::bigint IS NULL AND p.namespace = $1 AND p.read_at < "bulkman".clock() - interval '1 hour'
     AND (p.instance, p.id) <> ($3, $4)
     FOR UPDATE SKIP LOCKED
), pruned AS (
  DELETE FROM "bulkman".process p USING old
   WHERE p.namespace = $1 AND p.instance = old.instance AND p.id = old.id
)
SELECT (SELECT count(*) + 1 FROM "bulkman".process p
         WHERE p.namespace = $1 AND (p.instance, p.id) <> ($3, $4)
           AND p.read_at > "bulkman".clock() - $10 * interval '1 microsecond') AS live_processes,
       @changes
