CASE WHEN pg_is_in_recovery() THEN 'standby'
            WHEN current_setting('transaction_read_only') = 'on' THEN 'setting' END AS read_only
