v.name, v.state, v.epoch, v.rev, v.open_count, v.wait_us,
       CASE WHEN v.state = 1 AND "bulkman".clock() >= v.changed_at
            THEN greatest(0, least(v.wait_us, extract(epoch FROM v.open_until - "bulkman".clock()) * 1e6))::bigint
            ELSE 0 END AS remaining_us,
       greatest(0, extract(epoch FROM "bulkman".clock() - v.changed_at) * 1e6)::bigint AS age_us,
       v.probe_limit, v.probe_need, v.probe_calls, v.probe_max_failed, v.probe_max_slow,
       v.probe_ok, v.probe_failed, v.op_id, v.changed_by, v.reason
