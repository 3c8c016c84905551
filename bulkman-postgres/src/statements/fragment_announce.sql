"bulkman".announce(v::"bulkman".circuit, (SELECT fingerprint FROM bump))::text AS announced
