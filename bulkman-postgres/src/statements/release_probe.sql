-- $1 namespace, $2 name, $3 epoch, $4 holder, $5 slot, $6 token
UPDATE "bulkman".probe
   SET holder = NULL, expires_at = '-infinity'
 WHERE namespace = $1 AND name = $2 AND slot = $5 AND epoch = $3 AND token = $6 AND holder = $4
