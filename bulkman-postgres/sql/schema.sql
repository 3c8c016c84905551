-- The tables and functions in which bulkman keeps the circuits of a fleet. PostgreSQL 13 or newer.
--
-- Run it as the role that is to own them, in one transaction:
--
--     psql --single-transaction --set ON_ERROR_STOP=1 --file schema.sql
--
-- or by `bulkman-pg migrate`, or `PostgresStore::migrate`, which send this very text. It may be run
-- again, by many at once, and over an older version: what is there already stays. For another
-- schema than "bulkman" replace that quoted name throughout, as the library does.
--
-- The role that the application uses needs no more than `roles.sql` grants.

-- Whoever comes second waits here and then finds everything done.
SELECT pg_advisory_xact_lock(hashtextextended('bulkman migrate "bulkman"', 0));

DO $migrate$
BEGIN
  -- CREATE SCHEMA IF NOT EXISTS wants the right to create one even where it is there.
  IF to_regnamespace('"bulkman"') IS NULL THEN
    CREATE SCHEMA "bulkman";
    REVOKE ALL ON SCHEMA "bulkman" FROM PUBLIC;
  END IF;

  IF to_regclass('"bulkman".meta') IS NULL THEN
    CREATE TABLE "bulkman".meta (
      only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
      -- What this file has made so far.
      version       int     NOT NULL,
      -- The oldest version of the library's own that can work with it.
      oldest_client int     NOT NULL,
      -- Tells this data from any other that was ever here.
      incarnation   bigint  NOT NULL DEFAULT hashtextextended(gen_random_uuid()::text, 0),
      -- Changes that are remembered for each circuit.
      history_limit int     NOT NULL DEFAULT 100 CHECK (history_limit BETWEEN 1 AND 10000)
    );
    INSERT INTO "bulkman".meta (version, oldest_client) VALUES (0, 1);
  END IF;

  IF (SELECT version FROM "bulkman".meta) < 1 THEN
    -- The only clock that counts. A function, so that a test can let it go on or step back; the
    -- planner inlines it.
    CREATE FUNCTION "bulkman".clock() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT pg_catalog.clock_timestamp()';

    -- Where changes of a namespace are announced. Anybody who may connect can announce something
    -- there: see announce().
    CREATE FUNCTION "bulkman".channel(namespace text) RETURNS text
      LANGUAGE sql IMMUTABLE PARALLEL SAFE
      AS $$SELECT 'bulkman_' || to_hex(hashtextextended('"bulkman"/' || namespace, 0))$$;

    -- By exclusive or.
    CREATE AGGREGATE "bulkman".combined(bigint) (
      SFUNC = int8xor, STYPE = bigint, INITCOND = '0', PARALLEL = safe
    );

    -- Its row is locked by every change, until that is committed: so the order of revisions is the
    -- order in which changes become visible, and a reader that asks for later ones misses none.
    CREATE TABLE "bulkman".namespace (
      namespace text   PRIMARY KEY CHECK (octet_length(namespace) BETWEEN 1 AND 200),
      rev       bigint NOT NULL DEFAULT 0,
      -- The last operations of all its circuits, combined by exclusive or: tells one history from
      -- another that has come to the same revision.
      fingerprint bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 10);

    -- No index on rev: with one, no update would be heap-only.
    CREATE TABLE "bulkman".circuit (
      namespace        text        NOT NULL REFERENCES "bulkman".namespace ON DELETE CASCADE,
      name             text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
      -- 0 closed, 1 open, 2 half-open, 3 forced open, 4 disabled
      state            smallint    NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 4),
      epoch            bigint      NOT NULL DEFAULT 0,
      rev              bigint      NOT NULL DEFAULT 0,
      changed_at       timestamptz NOT NULL DEFAULT "bulkman".clock(),
      open_until       timestamptz,
      wait_us          bigint      NOT NULL DEFAULT 0,
      open_count       int         NOT NULL DEFAULT 0,
      -- How many may probe at once; then, of a streak, how many successes close (probe_calls = 0),
      -- or, of a sample of probe_calls, how many failures or slow calls reopen (null: never).
      probe_limit      smallint    NOT NULL DEFAULT 1,
      probe_need       smallint    NOT NULL DEFAULT 1,
      probe_calls      smallint    NOT NULL DEFAULT 0,
      probe_max_failed smallint,
      probe_max_slow   smallint,
      probe_ok         int         NOT NULL DEFAULT 0,
      probe_failed     int         NOT NULL DEFAULT 0,
      probe_slow       int         NOT NULL DEFAULT 0,
      -- Votes are kept in the row, because its lock is what lets two voters at once see each other.
      voters           text[]        NOT NULL DEFAULT '{}',
      voted_at         timestamptz[] NOT NULL DEFAULT '{}',
      op_id            bigint      NOT NULL DEFAULT 0,
      changed_by       text        NOT NULL DEFAULT '',
      reason           text        NOT NULL DEFAULT '',
      PRIMARY KEY (namespace, name)
    ) WITH (fillfactor = 50);

    -- Leases: there are as many as may be out at once, so that there can't be more.
    CREATE TABLE "bulkman".probe (
      namespace  text        NOT NULL,
      name       text        NOT NULL,
      slot       smallint    NOT NULL,
      -- The half-open stay in which it was last taken.
      epoch      bigint      NOT NULL DEFAULT 0,
      -- Goes on by two when the lease changes hands, by one with each verdict.
      token      bigint      NOT NULL DEFAULT 0,
      holder     text,
      ttl        interval    NOT NULL DEFAULT '0',
      expires_at timestamptz NOT NULL DEFAULT '-infinity',
      PRIMARY KEY (namespace, name, slot),
      FOREIGN KEY (namespace, name) REFERENCES "bulkman".circuit ON DELETE CASCADE
    ) WITH (fillfactor = 50);

    -- A ring for each circuit: the row of epoch e is overwritten by that of e + history_limit.
    CREATE TABLE "bulkman".history (
      namespace  text        NOT NULL,
      name       text        NOT NULL,
      slot       int         NOT NULL,
      epoch      bigint      NOT NULL,
      rev        bigint      NOT NULL,
      from_state smallint    NOT NULL,
      to_state   smallint    NOT NULL,
      wait_us    bigint      NOT NULL,
      at         timestamptz NOT NULL,
      by         text        NOT NULL,
      reason     text        NOT NULL,
      PRIMARY KEY (namespace, name, slot),
      FOREIGN KEY (namespace, name) REFERENCES "bulkman".circuit ON DELETE CASCADE
    ) WITH (fillfactor = 80);

    -- Counts, in rings of buckets that the whole fleet adds to. Unlogged: after a crash the window
    -- starts again.
    CREATE UNLOGGED TABLE "bulkman".tally (
      namespace text     NOT NULL,
      name      text     NOT NULL,
      -- The window's shape: those who use another don't count here.
      bucket_us bigint   NOT NULL,
      buckets   smallint NOT NULL,
      slot      smallint NOT NULL,
      bucket    bigint   NOT NULL,
      epoch     bigint   NOT NULL,
      ok        bigint   NOT NULL,
      fail      bigint   NOT NULL,
      PRIMARY KEY (namespace, name, bucket_us, buckets, slot)
    ) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

    -- The key by which announcements are told from what others say on the channel. Whoever may
    -- change circuits must be able to read it, and nobody else.
    CREATE TABLE "bulkman".announcer (
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
      INSERT INTO "bulkman".announcer (inner_key, outer_key) VALUES (inner_key, outer_key);
    END;

    -- Tells all listeners of one change: what its row is now, and what the namespace's fingerprint.
    -- A listener without the key takes it for a hint, and looks into the tables.
    --
    -- In the payload, fields are separated by bars. The texts are the last, one after the other,
    -- behind the lengths of the first two in characters.
    CREATE FUNCTION "bulkman".announce(v "bulkman".circuit, fingerprint bigint)
    RETURNS void LANGUAGE plpgsql AS $announce$
    DECLARE
      channel text := "bulkman".channel(v.namespace);
      change  text := concat_ws('|',
        fingerprint, (extract(epoch FROM v.changed_at) * 1e6)::bigint, v.state, v.epoch, v.open_count,
        v.wait_us, v.probe_limit, v.probe_need, v.probe_calls, coalesce(v.probe_max_failed, -1),
        coalesce(v.probe_max_slow, -1), v.op_id, length(v.name), length(v.changed_by),
        v.name || v.changed_by || v.reason);
      -- Bound to the channel, so that it is of no use on another.
      said    bytea := convert_to(channel || '|' || v.rev || '|' || change, 'UTF8');
      seal    bytea;
    BEGIN
      SELECT sha256(a.outer_key || sha256(a.inner_key || said)) INTO STRICT seal FROM "bulkman".announcer a;
      PERFORM pg_notify(channel, concat_ws('|', '1', v.rev, encode(seal, 'hex'), change));
    END
    $announce$;

    -- What an operator says. Wins over every state, and starts a new epoch. No row: no such circuit.
    CREATE FUNCTION "bulkman".act(
      in_namespace text, in_circuit text, in_state smallint, in_reset boolean,
      in_by text, in_reason text, in_op_id bigint
    ) RETURNS SETOF "bulkman".circuit LANGUAGE plpgsql AS $act$
    DECLARE
      was     "bulkman".circuit;
      becomes "bulkman".circuit;
      new_rev bigint;
      new_fingerprint bigint;
    BEGIN
      SELECT * INTO was FROM "bulkman".circuit c
       WHERE c.namespace = in_namespace AND c.name = in_circuit FOR NO KEY UPDATE;
      IF NOT FOUND THEN
        RETURN;
      END IF;
      IF in_op_id <> 0 AND was.op_id = in_op_id THEN
        RETURN NEXT was;
        RETURN;
      END IF;
      UPDATE "bulkman".namespace n
         SET rev = n.rev + 1, fingerprint = n.fingerprint # was.op_id # in_op_id
       WHERE n.namespace = in_namespace
      RETURNING n.rev, n.fingerprint INTO new_rev, new_fingerprint;
      UPDATE "bulkman".circuit c
         SET state = in_state, epoch = c.epoch + 1, rev = new_rev, changed_at = "bulkman".clock(),
             open_until = NULL, wait_us = 0, open_count = 0,
             probe_ok = 0, probe_failed = 0, probe_slow = 0, voters = '{}', voted_at = '{}',
             op_id = in_op_id, changed_by = in_by, reason = in_reason
       WHERE c.namespace = in_namespace AND c.name = in_circuit
      RETURNING * INTO becomes;
      INSERT INTO "bulkman".history AS h
             (namespace, name, slot, epoch, rev, from_state, to_state, wait_us, at, by, reason)
      SELECT in_namespace, in_circuit, becomes.epoch % m.history_limit, becomes.epoch, new_rev,
             was.state, in_state, 0, becomes.changed_at, in_by, in_reason
        FROM "bulkman".meta m
      ON CONFLICT (namespace, name, slot) DO UPDATE
         SET epoch = excluded.epoch, rev = excluded.rev, from_state = excluded.from_state,
             to_state = excluded.to_state, wait_us = excluded.wait_us, at = excluded.at,
             by = excluded.by, reason = excluded.reason;
      IF in_reset THEN
        UPDATE "bulkman".tally t SET ok = 0, fail = 0
         WHERE t.namespace = in_namespace AND t.name = in_circuit;
      END IF;
      PERFORM "bulkman".announce(becomes, new_fingerprint);
      RETURN NEXT becomes;
    END
    $act$;

    -- For operators, in psql. Each returns the new epoch.
    CREATE FUNCTION "bulkman".act_or_fail(
      in_namespace text, in_circuit text, in_state smallint, in_reset boolean,
      in_reason text, in_by text
    ) RETURNS bigint LANGUAGE plpgsql AS $act_or_fail$
    DECLARE
      new_epoch bigint;
    BEGIN
      SELECT a.epoch INTO new_epoch
        FROM "bulkman".act(in_namespace, in_circuit, in_state, in_reset,
                           left(coalesce(in_by, ''), 200), left(coalesce(in_reason, ''), 200),
                           hashtextextended(gen_random_uuid()::text, 0)) a;
      IF new_epoch IS NULL THEN
        RAISE EXCEPTION 'namespace "%" has no circuit "%"', in_namespace, in_circuit
          USING ERRCODE = 'no_data_found',
                HINT = 'select * from "bulkman".status() lists the circuits';
      END IF;
      RETURN new_epoch;
    END
    $act_or_fail$;

    CREATE FUNCTION "bulkman".force_open(
      namespace text, circuit text, reason text DEFAULT '', by text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".act_or_fail($1, $2, 3::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".disable(
      namespace text, circuit text, reason text DEFAULT '', by text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".act_or_fail($1, $2, 4::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".close(
      namespace text, circuit text, reason text DEFAULT '', by text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".act_or_fail($1, $2, 0::smallint, false, $3, $4)$$;
    CREATE FUNCTION "bulkman".reset(
      namespace text, circuit text, reason text DEFAULT '', by text DEFAULT session_user
    ) RETURNS bigint LANGUAGE sql
      AS $$SELECT "bulkman".act_or_fail($1, $2, 0::smallint, true, $3, $4)$$;

    CREATE FUNCTION "bulkman".state_name(state smallint) RETURNS text
      LANGUAGE sql IMMUTABLE PARALLEL SAFE
      AS $$SELECT ('{closed,open,half-open,forced-open,disabled}'::text[])[state + 1]$$;

    CREATE FUNCTION "bulkman".status(in_namespace text DEFAULT NULL)
    RETURNS TABLE (
      namespace text, circuit text, state text, since timestamptz, remaining interval,
      open_count int, probes_out bigint, epoch bigint, changed_by text, reason text
    ) LANGUAGE sql STABLE AS $status$
      SELECT c.namespace, c.name, "bulkman".state_name(c.state), c.changed_at,
             CASE WHEN c.state = 1 THEN greatest(interval '0', c.open_until - "bulkman".clock()) END,
             c.open_count,
             (SELECT count(*) FROM "bulkman".probe p
               WHERE p.namespace = c.namespace AND p.name = c.name AND p.epoch = c.epoch
                 AND c.state = 2 AND p.holder IS NOT NULL AND p.expires_at > "bulkman".clock()),
             c.epoch, c.changed_by, c.reason
        FROM "bulkman".circuit c
       WHERE in_namespace IS NULL OR c.namespace = in_namespace
       ORDER BY c.namespace, c.name
    $status$;

    CREATE FUNCTION "bulkman".changes(
      in_namespace text DEFAULT NULL, in_circuit text DEFAULT NULL, most int DEFAULT 50
    )
    RETURNS TABLE (
      at timestamptz, namespace text, circuit text, from_state text, to_state text, epoch bigint,
      by text, reason text
    ) LANGUAGE sql STABLE AS $changes$
      SELECT h.at, h.namespace, h.name, "bulkman".state_name(h.from_state),
             "bulkman".state_name(h.to_state), h.epoch, h.by, h.reason
        FROM "bulkman".history h
       WHERE (in_namespace IS NULL OR h.namespace = in_namespace)
         AND (in_circuit IS NULL OR h.name = in_circuit)
       ORDER BY h.at DESC, h.rev DESC
       LIMIT most
    $changes$;

    UPDATE "bulkman".meta SET version = 1, oldest_client = 1;
  END IF;
END
$migrate$;
