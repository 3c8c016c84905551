-- In hexadecimal, so that the result does not depend on bytea_output.
SELECT encode(inner_key, 'hex') AS inner_key FROM "bulkman".notification_key
