SELECT inner_key FROM "bulkman".announcer
