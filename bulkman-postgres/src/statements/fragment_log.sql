INSERT INTO "bulkman".history AS h
         (namespace, name, slot, epoch, rev, from_state, to_state, wait_us, at, by, reason)
  SELECT moved.namespace, moved.name, moved.epoch % m.history_limit, moved.epoch, moved.rev,
         was.state, moved.state, moved.wait_us, moved.changed_at, moved.changed_by, moved.reason
    FROM moved JOIN was ON was.name = moved.name, "bulkman".meta m
  ON CONFLICT (namespace, name, slot) DO UPDATE
     SET epoch = excluded.epoch, rev = excluded.rev, from_state = excluded.from_state,
         to_state = excluded.to_state, wait_us = excluded.wait_us, at = excluded.at,
         by = excluded.by, reason = excluded.reason
