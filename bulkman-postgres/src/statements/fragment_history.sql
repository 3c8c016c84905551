INSERT INTO "bulkman".history AS h
         (namespace, name, slot, epoch, rev, from_state, to_state, open_for_us, at, author, reason)
  SELECT changed.namespace, changed.name, changed.epoch % m.history_limit, changed.epoch, changed.rev,
         old_row.state, changed.state, changed.open_for_us, changed.changed_at, changed.author,
         changed.reason
    FROM changed JOIN old_row ON old_row.name = changed.name, "bulkman".meta m
  ON CONFLICT (namespace, name, slot) DO UPDATE
     SET epoch = excluded.epoch, rev = excluded.rev, from_state = excluded.from_state,
         to_state = excluded.to_state, open_for_us = excluded.open_for_us, at = excluded.at,
         author = excluded.author, reason = excluded.reason
