-- $1 namespace, $2 name, $3 epoch, $4 holder, $5 ttl, $6 slot, $7 token
UPDATE "bulkman".probe
   SET ttl = $5 * interval '1 microsecond',
       expires_at = "bulkman".clock() + $5 * interval '1 microsecond'
 WHERE namespace = $1 AND name = $2 AND slot = $6 AND epoch = $3 AND token = $7 AND holder = $4
   AND expires_at > "bulkman".clock()
RETURNING slot
