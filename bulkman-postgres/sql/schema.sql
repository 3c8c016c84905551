-- The tables and functions with which bulkman shares the circuits of a fleet. PostgreSQL 13 or
-- newer.
--
-- Run it in one transaction, as the role that will own the schema:
--
--     psql --single-transaction --set ON_ERROR_STOP=1 --file schema.sql
--
-- `bulkman-pg migrate` and `PostgresStore::migrate` send this same text. It can be run repeatedly,
-- concurrently, and over an older version: existing objects are kept. For a schema with another
-- name, replace the quoted name "bulkman" throughout, as the library does.
--
-- `roles.sql` grants the application's role all that it needs.

DO $version$
BEGIN
  IF current_setting('server_version_num')::int < 130000 THEN
    RAISE EXCEPTION 'this server is too old: use PostgreSQL 13 or newer';
  END IF;
END
$version$;

-- Concurrent migrations wait here, and then find nothing left to do.
SELECT pg_advisory_xact_lock(hashtextextended('bulkman migrate "bulkman"', 0));

DO $migrate$
BEGIN
  -- CREATE SCHEMA IF NOT EXISTS requires the privilege even if the schema exists.
  IF to_regnamespace('"bulkman"') IS NULL THEN
    CREATE SCHEMA "bulkman";
    REVOKE ALL ON SCHEMA "bulkman" FROM PUBLIC;
  END IF;

  IF to_regclass('"bulkman".meta') IS NULL THEN
    CREATE TABLE "bulkman".meta (
      only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
      -- The version of this schema.
      version       int     NOT NULL,
      -- The oldest schema version of a library that can work with it.
      oldest_client int     NOT NULL,
      -- Identifies this data: a recreated schema has another value.
      incarnation   bigint  NOT NULL DEFAULT hashtextextended(gen_random_uuid()::text, 0),
      -- The number of history entries kept for each circuit.
      history_limit int     NOT NULL DEFAULT 100 CHECK (history_limit BETWEEN 1 AND 10000)
    );
    INSERT INTO "bulkman".meta (version, oldest_client) VALUES (0, 1);
  END IF;

  IF (SELECT version FROM "bulkman".meta) < 1 THEN
    -- The only clock that is used. It is a function so that tests can shift it; the planner inlines
    -- it.
    CREATE FUNCTION "bulkman".clock() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT pg_catalog.clock_timestamp()';

    -- The notification channel of a namespace. Every role that can connect can send notifications
    -- there: see notify_change().
    CREATE FUNCTION "bulkman".channel(namespace text) RETURNS text
      LANGUAGE sql IMMUTABLE PARALLEL SAFE
      AS $$SELECT 'bulkman_' || to_hex(hashtextextended('"bulkman"/' || namespace, 0))$$;

    -- Combines values by exclusive or.
    CREATE AGGREGATE "bulkman".xor_agg(bigint) (
      SFUNC = int8xor, STYPE = bigint, INITCOND = '0', PARALLEL = safe
    );

    -- Every change locks the row until it is committed. So the order of revisions is the order in
    -- which changes become visible, and a reader of later revisions misses none.
    CREATE TABLE "bulkman".namespace (
      namespace text   PRIMARY KEY CHECK (octet_length(namespace) BETWEEN 1 AND 200),
      rev       bigint NOT NULL DEFAULT 0,
      -- The last operations of all circuits, combined by exclusive or. It distinguishes histories
      -- that have reached the same revision.
      fingerprint bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 10);

    -- No index on rev: with one, no update would be heap-only (HOT).
    CREATE TABLE "bulkman".circuit (
      namespace               text        NOT NULL REFERENCES "bulkman".namespace ON DELETE CASCADE,
      name                    text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
      -- 0 closed, 1 open, 2 half_open, 3 forced_open, 4 disabled
      state                   smallint    NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 4),
      epoch                   bigint      NOT NULL DEFAULT 0,
      rev                     bigint      NOT NULL DEFAULT 0,
      changed_at              timestamptz NOT NULL DEFAULT "bulkman".clock(),
      open_until              timestamptz,
      open_for_us             bigint      NOT NULL DEFAULT 0,
      open_count              int         NOT NULL DEFAULT 0,
      -- The number of concurrent probes. If probe_sample_size is 0, probe_success_threshold
      -- consecutive successes close. Otherwise a complete sample decides: failures or slow calls
      -- at a threshold reopen (null: never).
      probe_limit             smallint    NOT NULL DEFAULT 1,
      probe_success_threshold smallint    NOT NULL DEFAULT 1,
      probe_sample_size       smallint    NOT NULL DEFAULT 0,
      probe_failure_threshold smallint,
      probe_slow_threshold    smallint,
      probes_succeeded        int         NOT NULL DEFAULT 0,
      probes_failed           int         NOT NULL DEFAULT 0,
      probes_slow             int         NOT NULL DEFAULT 0,
      -- Votes are stored in the row: its lock makes concurrent voters see each other's votes.
      voters                  text[]        NOT NULL DEFAULT '{}',
      voted_at                timestamptz[] NOT NULL DEFAULT '{}',
      op_id                   bigint      NOT NULL DEFAULT 0,
      author                  text        NOT NULL DEFAULT '',
      reason                  text        NOT NULL DEFAULT '',
      PRIMARY KEY (namespace, name)
    ) WITH (fillfactor = 50);

    -- Probe leases: one row per slot, so that the limit can't be exceeded.
    CREATE TABLE "bulkman".probe (
      namespace  text        NOT NULL,
      name       text        NOT NULL,
      slot       smallint    NOT NULL,
      -- The epoch of the half-open period in which the slot was last acquired.
      epoch      bigint      NOT NULL DEFAULT 0,
      -- Raised by two for a new holder, and by one for each counted result.
      token      bigint      NOT NULL DEFAULT 0,
      holder     text,
      ttl        interval    NOT NULL DEFAULT '0',
      expires_at timestamptz NOT NULL DEFAULT '-infinity',
      PRIMARY KEY (namespace, name, slot),
      FOREIGN KEY (namespace, name) REFERENCES "bulkman".circuit ON DELETE CASCADE
    ) WITH (fillfactor = 50);

    -- A ring for each circuit: epoch e + history_limit overwrites the row of epoch e.
    CREATE TABLE "bulkman".history (
      namespace   text        NOT NULL,
      name        text        NOT NULL,
      slot        int         NOT NULL,
      epoch       bigint      NOT NULL,
      rev         bigint      NOT NULL,
      from_state  smallint    NOT NULL,
      to_state    smallint    NOT NULL,
      open_for_us bigint      NOT NULL,
      at          timestamptz NOT NULL,
      author      text        NOT NULL,
      reason      text        NOT NULL,
      PRIMARY KEY (namespace, name, slot),
      FOREIGN KEY (namespace, name) REFERENCES "bulkman".circuit ON DELETE CASCADE
    ) WITH (fillfactor = 80);

    -- Call counts, in a ring of buckets per window that the whole fleet shares. Unlogged: after a
    -- crash the window restarts.
    CREATE UNLOGGED TABLE "bulkman".count_bucket (
      namespace text     NOT NULL,
      name      text     NOT NULL,
      -- The shape of the window: processes with another shape count separately.
      bucket_us bigint   NOT NULL,
      buckets   smallint NOT NULL,
      slot      smallint NOT NULL,
      bucket    bigint   NOT NULL,
      epoch     bigint   NOT NULL,
      successes bigint   NOT NULL,
      failures  bigint   NOT NULL,
      PRIMARY KEY (namespace, name, bucket_us, buckets, slot)
    ) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

    -- The key that authenticates notifications. Only roles that may change circuits may read it.
    CREATE TABLE "bulkman".notification_key (
      only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
      -- 64 random bytes, combined with the two constants of HMAC (RFC 2104).
      inner_key bytea NOT NULL CHECK (length(inner_key) = 64),
      outer_key bytea NOT NULL CHECK (length(outer_key) = 64)
    );
    DECLARE
      inner_key bytea := sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
                      || sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));
      outer_key bytea := inner_key;
    BEGIN
      FOR i IN 0..63 LOOP
        outer_key := set_byte(outer_key, i, get_byte(outer_key, i) # 54 # 92);
      END LOOP;
      INSERT INTO "bulkman".notification_key (inner_key, outer_key) VALUES (inner_key, outer_key);
    END;

    -- Notifies all listeners of one change: the new row, and the fingerprint of the namespace. A
    -- listener without the key treats the notification as a hint, and reads the tables.
    --
    -- Bars separate the fields of the payload. The texts are last, concatenated, after the lengths
    -- of the first two in bytes of UTF-8, which do not depend on the database's encoding.
    CREATE FUNCTION "bulkman".notify_change(v "bulkman".circuit, fingerprint bigint)
    RETURNS void LANGUAGE plpgsql AS $notify_change$
    DECLARE
      channel text := "bulkman".channel(v.namespace);
      change  text := concat_ws('|',
        fingerprint, (extract(epoch FROM v.changed_at) * 1e6)::bigint, v.state, v.epoch, v.open_count,
        v.open_for_us, v.probe_limit, v.probe_success_threshold, v.probe_sample_size,
        coalesce(v.probe_failure_threshold, -1), coalesce(v.probe_slow_threshold, -1), v.op_id,
        octet_length(convert_to(v.name, 'UTF8')), octet_length(convert_to(v.author, 'UTF8')),
        v.name || v.author || v.reason);
      -- Bound to the channel, so that it is not valid on another one.
      message bytea := convert_to(channel || '|' || v.rev || '|' || change, 'UTF8');
      mac     bytea;
    BEGIN
      SELECT sha256(k.outer_key || sha256(k.inner_key || message)) INTO STRICT mac
        FROM "bulkman".notification_key k;
      PERFORM pg_notify(channel, concat_ws('|', '1', v.rev, encode(mac, 'hex'), change));
    END
    $notify_change$;

    -- Applies an operator's command in every state, and starts a new epoch. Returns no row if the
    -- circuit does not exist. After in_not_after, which is compared once the row is locked, the
    -- command fails, since its sender has already reported a timeout.
    CREATE FUNCTION "bulkman".apply_command(
      in_namespace text, in_circuit text, in_state smallint, in_reset boolean,
      in_author text, in_reason text, in_op_id bigint, in_not_after timestamptz DEFAULT NULL
    ) RETURNS SETOF "bulkman".circuit LANGUAGE plpgsql AS $apply_command$
    DECLARE
      old_row "bulkman".circuit;
      new_row "bulkman".circuit;
      new_rev bigint;
      new_fingerprint bigint;
    BEGIN
      SELECT * INTO old_row FROM "bulkman".circuit c
       WHERE c.namespace = in_namespace AND c.name = in_circuit FOR NO KEY UPDATE;
      IF NOT FOUND THEN
        RETURN;
      END IF;
      IF in_op_id <> 0 AND old_row.op_id = in_op_id THEN
        RETURN NEXT old_row;
        RETURN;
      END IF;
      IF "bulkman".clock() > in_not_after THEN
        RAISE EXCEPTION 'the command was delayed for too long and is not applied'
          USING ERRCODE = 'query_canceled';
      END IF;
      UPDATE "bulkman".namespace n
         SET rev = n.rev + 1, fingerprint = n.fingerprint # old_row.op_id # in_op_id
       WHERE n.namespace = in_namespace
      RETURNING n.rev, n.fingerprint INTO new_rev, new_fingerprint;
      UPDATE "bulkman".circuit c
         SET state = in_state, epoch = c.epoch + 1, rev = new_rev, changed_at = "bulkman".clock(),
             open_until = NULL, open_for_us = 0, open_count = 0,
             probes_succeeded = 0, probes_failed = 0, probes_slow = 0, voters = '{}', voted_at = '{}',
             op_id = in_op_id, author = in_author, reason = in_reason
       WHERE c.namespace = in_namespace AND c.name = in_circuit
      RETURNING * INTO new_row;
      INSERT INTO "bulkman".history AS h
             (namespace, name, slot, epoch, rev, from_state, to_state, open_for_us, at, author, reason)
      SELECT in_namespace, in_circuit, new_row.epoch % m.history_limit, new_row.epoch, new_rev,
             old_row.state, in_state, 0, new_row.changed_at, in_author, in_reason
        FROM "bulkman".meta m
      ON CONFLICT (namespace, name, slot) DO UPDATE
         SET epoch = excluded.epoch, rev = excluded.rev, from_state = excluded.from_state,
             to_state = excluded.to_state, open_for_us = excluded.open_for_us, at = excluded.at,
             author = excluded.author, reason = excluded.reason;
      IF in_reset THEN
        UPDATE "bulkman".count_bucket b SET successes = 0, failures = 0
         WHERE b.namespace = in_namespace AND b.name = in_circuit;
      END IF;
      PERFORM "bulkman".notify_change(new_row, new_fingerprint);
      RETURN NEXT new_row;
    END
    $apply_command$;

    -- The functions for operators. Each returns the new epoch.
    CREATE FUNCTION "bulkman".run_command(
      in_namespace text, in_circuit text, in_state smallint, in_reset boolean,
      in_reason text, in_author text
    ) RETURNS bigint LANGUAGE plpgsql AS $run_command$
    DECLARE
      new_epoch bigint;
    BEGIN
      SELECT a.epoch INTO new_epoch
        FROM "bulkman".apply_command(in_namespace, in_circuit, in_state, in_reset,
                                     left(coalesce(in_author, ''), 200),
                                     left(coalesce(in_reason, ''), 200),
                                     hashtextextended(gen_random_uuid()::text, 0)) a;
      IF new_epoch IS NULL THEN
        RAISE EXCEPTION 'namespace "%" has no circuit "%"', in_namespace, in_circuit
          USING ERRCODE = 'no_data_found',
                HINT = 'select * from "bulkman".status() lists the circuits';
      END IF;
      RETURN new_epoch;
    END
    $run_command$;

    CREATE FUNCTION "bulkman".force_open(
      namespace text, circuit text, reason text DEFAULT '', author text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".run_command($1, $2, 3::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".disable(
      namespace text, circuit text, reason text DEFAULT '', author text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".run_command($1, $2, 4::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".close(
      namespace text, circuit text, reason text DEFAULT '', author text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".run_command($1, $2, 0::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".reset(
      namespace text, circuit text, reason text DEFAULT '', author text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".run_command($1, $2, 0::smallint, true, $3, $4)$$;

    -- Deletes a circuit that no process shares any more, with its history. Returns whether it existed.
    --
    -- The revision and the fingerprint of the namespace remain: for other processes nothing changed.
    -- A process that still shares the circuit registers it again, as after a loss of history.
    CREATE FUNCTION "bulkman".forget(in_namespace text, in_circuit text) RETURNS boolean
      LANGUAGE plpgsql AS $forget$
    BEGIN
      DELETE FROM "bulkman".circuit c WHERE c.namespace = in_namespace AND c.name = in_circuit;
      IF NOT FOUND THEN
        RETURN false;
      END IF;
      DELETE FROM "bulkman".count_bucket b
       WHERE b.namespace = in_namespace AND b.name = in_circuit;
      RETURN true;
    END
    $forget$;

    CREATE FUNCTION "bulkman".state_name(state smallint) RETURNS text
      LANGUAGE sql IMMUTABLE PARALLEL SAFE
      AS $$SELECT ('{closed,open,half_open,forced_open,disabled}'::text[])[state + 1]$$;

    CREATE FUNCTION "bulkman".status(in_namespace text DEFAULT NULL)
    RETURNS TABLE (
      namespace text, circuit text, state text, since timestamptz, remaining interval,
      open_count int, probes_leased bigint, epoch bigint, author text, reason text
    ) LANGUAGE sql STABLE AS $status$
      SELECT c.namespace, c.name, "bulkman".state_name(c.state), c.changed_at,
             CASE WHEN c.state = 1 THEN greatest(interval '0', c.open_until - "bulkman".clock()) END,
             c.open_count,
             (SELECT count(*) FROM "bulkman".probe p
               WHERE p.namespace = c.namespace AND p.name = c.name AND p.epoch = c.epoch
                 AND c.state = 2 AND p.holder IS NOT NULL AND p.expires_at > "bulkman".clock()),
             c.epoch, c.author, c.reason
        FROM "bulkman".circuit c
       WHERE in_namespace IS NULL OR c.namespace = in_namespace
       ORDER BY c.namespace, c.name
    $status$;

    CREATE FUNCTION "bulkman".changes(
      in_namespace text DEFAULT NULL, in_circuit text DEFAULT NULL, max_rows int DEFAULT 50
    )
    RETURNS TABLE (
      at timestamptz, namespace text, circuit text, from_state text, to_state text, epoch bigint,
      author text, reason text
    ) LANGUAGE sql STABLE AS $changes$
      SELECT h.at, h.namespace, h.name, "bulkman".state_name(h.from_state),
             "bulkman".state_name(h.to_state), h.epoch, h.author, h.reason
        FROM "bulkman".history h
       WHERE (in_namespace IS NULL OR h.namespace = in_namespace)
         AND (in_circuit IS NULL OR h.name = in_circuit)
       ORDER BY h.at DESC, h.rev DESC
       LIMIT max_rows
    $changes$;

    UPDATE "bulkman".meta SET version = 1, oldest_client = 1;
  END IF;

  IF (SELECT version FROM "bulkman".meta) < 2 THEN
    -- The processes of the fleet, each as of its last report. Processes remove rows that are an hour
    -- old. Unlogged: after a crash the processes report again, and no report waits for a standby.
    CREATE UNLOGGED TABLE "bulkman".process (
      namespace           text        NOT NULL,
      instance            text        NOT NULL,
      -- Distinguishes processes of the same name.
      id                  bigint      NOT NULL,
      application_version text,
      library_version     text        NOT NULL,
      -- When the process last read the store.
      read_at             timestamptz NOT NULL,
      -- Whether it could only read the store, until then.
      read_only           boolean     NOT NULL,
      -- The number of circuits with something that is not yet published.
      pending             bigint      NOT NULL,
      -- Since when the store was unavailable to it, or rejected an operation.
      degraded_since      timestamptz,
      PRIMARY KEY (namespace, instance, id)
    ) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

    -- Libraries of version 1 work with it, and report nothing.
    UPDATE "bulkman".meta SET version = 2;
  END IF;
END
$migrate$;
