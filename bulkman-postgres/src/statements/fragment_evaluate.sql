CASE
    WHEN op_id = w.operation AND w.operation <> 0 THEN 'applied'
    WHEN epoch <> w.base THEN 'stale'
    WHEN state > 2 THEN 'forced_by_operator'
    WHEN extract(epoch FROM "bulkman".clock()) * 1e6 >= w.not_after THEN 'expired'
    WHEN w.manual THEN 'accepted'
    WHEN state = w.to_state THEN 'already_in_state'
    -- A clock before the opening has stepped back by an unknown amount: the isolation has elapsed.
    WHEN w.to_state = 2
         AND NOT (state = 1 AND (open_until <= "bulkman".clock() OR "bulkman".clock() < changed_at))
    THEN 'not_due'
    ELSE 'accepted' END
