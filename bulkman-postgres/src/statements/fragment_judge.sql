CASE
    WHEN op_id = w.operation AND w.operation <> 0 THEN 'made'
    WHEN epoch <> w.base THEN 'stale'
    WHEN state > 2 THEN 'forced'
    WHEN extract(epoch FROM "bulkman".clock()) * 1e6 >= w.not_after THEN 'late'
    WHEN w.by_hand THEN 'go'
    WHEN state = w.to_state THEN 'there'
    -- The clock before the opening began: it has stepped back, and nobody knows how far.
    WHEN w.to_state = 2 AND NOT (state = 1 AND (open_until <= "bulkman".clock() OR "bulkman".clock() < changed_at))
    THEN 'early'
    ELSE 'go' END
