"bulkman".notify_change(v::"bulkman".circuit, (SELECT fingerprint FROM revised))::text AS notified
