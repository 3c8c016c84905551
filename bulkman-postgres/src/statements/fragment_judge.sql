CASE
    WHEN op_id = $8 AND $8 <> 0 THEN 'made'
    WHEN epoch <> $3 THEN 'stale'
    WHEN state > 2 THEN 'forced'
    WHEN extract(epoch FROM "bulkman".clock()) * 1e6 >= $6 THEN 'late'
    WHEN $5 THEN 'go'
    WHEN state = $4 THEN 'there'
    -- The clock before the opening began: it has stepped back, and nobody knows how far.
    WHEN $4 = 2 AND NOT (state = 1 AND (open_until <= "bulkman".clock() OR "bulkman".clock() < changed_at))
    THEN 'early'
    ELSE 'go' END
