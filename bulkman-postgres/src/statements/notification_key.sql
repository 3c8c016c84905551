SELECT inner_key FROM "bulkman".notification_key
