v.name, v.state, v.epoch, v.rev, v.open_count, v.open_for_us,
       CASE WHEN v.state = 1 AND "bulkman".clock() >= v.changed_at
            THEN greatest(0, least(v.open_for_us,
                                   extract(epoch FROM v.open_until - "bulkman".clock()) * 1e6))::bigint
            ELSE 0 END AS remaining_us,
       greatest(0, extract(epoch FROM "bulkman".clock() - v.changed_at) * 1e6)::bigint AS age_us,
       v.probe_limit, v.probe_success_threshold, v.probe_sample_size, v.probe_failure_threshold,
       v.probe_slow_threshold, v.probes_succeeded, v.probes_failed, v.op_id, v.author, v.reason
