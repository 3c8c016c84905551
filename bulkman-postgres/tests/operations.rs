//! What operators see: names of connections, processes, leases, namespaces, checks, warnings.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::store::{CircuitStore, FleetState, StoreError, StoreSession, StoreSettings};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use bulkman_postgres::{CheckRole, Diagnostic, PostgresStore, WarningThresholds};
use bulkman_test_support::Postgres;
use bulkman_tokio::TokioRuntime;

use common::processes::{LONG, Processes, TIMEOUT, settings, store};
use common::{Database, on_smol, on_tokio};

#[test]
fn connections_are_named_after_their_process() {
    on_smol(async {
        let database = Database::new().await;
        let schema = database.schema.name();
        // A long name contains the end of the schema.
        let end = &schema[schema.len() - 12..];
        let names = async || -> Vec<String> {
            let query = "SELECT application_name FROM pg_stat_activity \
                          WHERE application_name ~ ($1 || '\\M') ORDER BY 1";
            sqlx::query_scalar(query)
                .bind(end)
                .fetch_all(&mut database.connection().await)
                .await
                .unwrap()
        };
        let build = || database.builder().namespace("shop");
        let default = session(&build().build().unwrap()).await;
        let named = build().settings(StoreSettings::new().instance("blue-7"));
        let named = session(&named.build().unwrap()).await;
        let set = build().application_name(format!("set/{schema}"));
        let set = session(&set.build().unwrap()).await;
        let url = format!("{}&application_name=url%2F{schema}", database.url);
        let url = PostgresStore::builder(url).schema(schema);
        let url = session(&url.build().unwrap()).await;
        let found = names().await;
        assert_eq!(found.len(), 4, "{found:?}");
        let process = format!(":{}", std::process::id());
        assert!(found[1].contains(&format!("{end}.shop ")), "{found:?}");
        assert!(found[1].ends_with(&process), "{found:?}");
        assert_eq!(found[0], format!("bulkman {schema}.shop blue-7"));
        assert_eq!(found[2], format!("set/{schema}"));
        assert_eq!(found[3], format!("url/{schema}"));
        drop((default, named, set, url));
    });
}

#[test]
fn processes_of_other_schemas_are_not_listed() {
    on_smol(async {
        let databases = [Database::new().await, Database::new().await];
        let [shop, other] = databases.each_ref().map(|database| {
            let settings = common::settings().instance("shop@node-1:12");
            database.builder().settings(settings).build().unwrap()
        });
        let _session = session(&shop).await;
        let listed = databases[0].builder().application_name("psql").build();
        assert_eq!(listed.unwrap().admin().processes().await.unwrap().len(), 1);
        assert_eq!(other.admin().processes().await.unwrap(), []);
    });
}

#[test]
fn processes_are_listed_with_their_leases() {
    on_smol(async {
        let database = Database::new().await;
        let namespace = database.schema.name();
        let store_of = |instance: &str| {
            let settings = common::settings().instance(instance);
            database.builder().namespace(namespace).settings(settings)
        };
        let admin = store_of("operator")
            .application_name("psql")
            .build()
            .unwrap()
            .admin();
        assert_eq!(admin.processes().await.unwrap(), []);
        let long = format!("{}@node-7:4121", "p".repeat(90));
        let payments = BulkheadName::new("payments").unwrap();
        let first = store_of("shop@node-1:12").build().unwrap();
        let first = CircuitStore::open_session(&first, &[payments])
            .await
            .unwrap();
        let second = session(&store_of(&long).build().unwrap()).await;
        database
            .execute(&format!(
                "UPDATE \"bulkman\".circuit SET state = 2, epoch = 4; \
                 INSERT INTO \"bulkman\".probe (namespace, name, slot, epoch, holder, expires_at) VALUES \
                   ('{namespace}', 'payments', 0, 4, '{long} 00000000000000ff 1', \"bulkman\".clock() + '10 s'), \
                   ('{namespace}', 'payments', 1, 4, 'expired 00000000000000ff 1', \"bulkman\".clock() - interval '1 s'), \
                   ('{namespace}', 'payments', 2, 3, 'earlier 00000000000000ff 1', \"bulkman\".clock() + '10 s')"
            ))
            .await;
        let processes = admin.processes().await.unwrap();
        assert_eq!(processes.len(), 2, "{processes:?}");
        let long_process = &processes[0];
        assert!(
            long_process.instance.ends_with("@node-7:4121") && long_process.instance.len() > 20,
            "{processes:?}"
        );
        assert_eq!(processes[1].instance, "shop@node-1:12");
        let leases: Vec<_> = processes.iter().map(|process| process.leases).collect();
        assert_eq!(leases, [1, 0]);
        for process in &processes {
            assert_eq!(process.connections, 1);
            assert_eq!(process.address.as_deref(), Some("127.0.0.1"));
            assert!(process.connected_for.is_some_and(|age| age < LONG));
        }

        let leases = admin.leases().await.unwrap();
        assert_eq!(leases.len(), 1, "{leases:?}");
        let lease = &leases[0];
        assert_eq!(
            (lease.circuit.as_str(), lease.slot, &lease.instance),
            ("payments", 0, &long)
        );
        assert!(lease.remaining <= Duration::from_secs(10), "{lease:?}");
        drop((first, second));
    });
}

#[test]
fn namespaces_count_their_circuits() {
    on_smol(async {
        let database = Database::new().await;
        let admin = database.store("shop").admin();
        assert_eq!(admin.namespaces().await.unwrap(), []);
        for (namespace, circuits) in [("shop", "a b c d"), ("bank", "a")] {
            for circuit in circuits.split(' ') {
                let admin = database.store(namespace).admin();
                admin.register(circuit).await.unwrap();
            }
        }
        for (circuit, state) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            let state = format!(
                "UPDATE \"bulkman\".circuit SET state = {state}, epoch = 1 \
                  WHERE namespace = 'shop' AND name = '{circuit}'"
            );
            database.execute(&state).await;
        }
        let found = admin.namespaces().await.unwrap();
        let counts: Vec<_> = found
            .iter()
            .map(|it| (it.namespace.as_str(), it.circuits, it.open, it.forced))
            .collect();
        assert_eq!(counts, [("bank", 1, 0, 0), ("shop", 4, 2, 2)]);
        assert_eq!(found[0].last_change, None, "it never changed");
        assert!(found[1].last_change.is_some());
    });
}

#[test]
fn check_names_what_each_role_lacks() {
    on_tokio(async {
        let database = Database::new().await;
        // The namespace is unique, since other tests use the same server.
        let namespace = database.schema.name();
        let payments = [BulkheadName::new("payments").unwrap()];
        let settings = common::settings().instance("shop@node-1:12");
        let process = database.builder().namespace(namespace).settings(settings);
        let process = process.build().unwrap();
        let _session = CircuitStore::open_session(&process, &payments)
            .await
            .unwrap();
        for kind in [CheckRole::Operator, CheckRole::ReadOnly] {
            let role = format!("{}_{}", database.schema.name(), kind.as_str());
            database
                .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"))
                .await;
            let options: PgConnectOptions = database.url.parse().unwrap();
            let options = options.username(&role).password("x");
            let store = PostgresStore::builder(options).schema(database.schema.name());
            let store = store.namespace(namespace).application_name("psql");
            let store = store.settings(common::settings()).build().unwrap();
            let lacking = store.check_as(kind).await.unwrap();
            assert!(lacking[0].fix.starts_with("GRANT USAGE"), "{lacking:?}");
            for _ in 0..3 {
                for diagnostic in store.check_as(kind).await.unwrap() {
                    database.execute(&diagnostic.fix).await;
                }
            }
            assert_eq!(store.check_as(kind).await.unwrap(), []);
            // They suffice, and are no more than necessary.
            let admin = store.admin();
            assert_eq!(admin.status().await.unwrap().len(), 1);
            assert_eq!(admin.namespaces().await.unwrap().len(), 1);
            assert_eq!(admin.leases().await.unwrap(), []);
            // Another role's sessions are listed, without what the server hides.
            let processes = admin.processes().await.unwrap();
            assert_eq!(processes.len(), 1, "{processes:?}");
            assert_eq!(processes[0].instance, "shop@node-1:12");
            assert_eq!(
                (&processes[0].address, processes[0].connected_for),
                (&None, None)
            );
            assert!(admin.history(None, 1).await.is_ok());
            let forced = admin.force_open("payments", "ada", "").await;
            if kind == CheckRole::Operator {
                assert_eq!(forced.unwrap().state, FleetState::ForcedOpen);
                admin.register("mail").await.unwrap();
                admin.reset("mail", "ada", "").await.unwrap();
                assert_eq!(admin.prune_history(Duration::ZERO).await.unwrap(), 2);
                assert!(admin.forget("mail").await.unwrap());
                let functions = format!(
                    "SELECT {0}.disable('{0}', 'payments'), {0}.close('{0}', 'payments')",
                    namespace
                );
                let mut connection = role_connection(&database, &role).await;
                connection.execute(AssertSqlSafe(functions)).await.unwrap();
                let lacking = store.check().await.unwrap();
                assert!(!lacking.is_empty(), "a process needs more");
            } else {
                assert!(
                    matches!(forced, Err(StoreError::Denied { .. })),
                    "{forced:?}"
                );
                for refused in [
                    admin.register("mail").await,
                    admin.forget("mail").await.map(drop),
                    admin.prune_history(Duration::ZERO).await.map(drop),
                ] {
                    let refused = refused.unwrap_err();
                    assert!(refused.to_string().contains("42501"), "{refused}");
                }
            }
            database
                .execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
                .await;
        }
    });
}

/// Fault C17.
#[test]
fn warnings_name_what_endangers_the_fleet() {
    // A separate server, since transactions and slots belong to all tests of a server.
    let server = Postgres::start(&[("max_prepared_transactions", "2")]);
    on_tokio(async {
        let database = Database::on(&server);
        let store = database.store("fleet");
        store.migrate().await.unwrap();
        let prepare = "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; \
                       ALTER ROLE bulkman SET statement_timeout = '1h'; \
                       ALTER ROLE bulkman SET idle_in_transaction_session_timeout = '1h'";
        let all = WarningThresholds::new()
            .transaction_age(Duration::ZERO)
            .notification_queue(0.0);
        let expected = [
            "REVOKE CONNECT ON DATABASE \"postgres\" FROM PUBLIC",
            "ALTER ROLE \"bulkman\" SET statement_timeout = '2s'; \
             ALTER ROLE \"bulkman\" SET lock_timeout = '1s'; \
             ALTER ROLE \"bulkman\" SET idle_in_transaction_session_timeout = '5s'",
        ];
        warned(&store, all, &expected).await;
        database.execute(prepare).await;
        let lock = ["ALTER ROLE \"bulkman\" SET lock_timeout = '1s'"];
        warned(&store, all, &lock).await;
        database.execute(&lock[0].replace('"', "")).await;
        warned(&store, all, &[]).await;

        // A transaction that only reads, and one that has changed something.
        let mut reader = named(&database, "report").await;
        reader
            .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            .await
            .unwrap();
        let mut writer = named(&database, "import").await;
        let write = format!(
            "BEGIN; UPDATE {}.meta SET version = version",
            database.schema.name()
        );
        writer.execute(AssertSqlSafe(write)).await.unwrap();
        let warnings = warned(&store, all, &["pg_terminate_backend"; 2]).await;
        for (warning, name) in warnings.iter().zip(["report", "import"]) {
            let problem = &warning.problem;
            assert!(
                problem.contains(name) && problem.contains("idle in transaction"),
                "{problem}"
            );
        }
        // Neither is old enough for the default.
        assert_eq!(store.warnings(WarningThresholds::new()).await.unwrap(), []);
        let (_, terminate) = warnings[0].fix.split_once("or ").unwrap();
        database.execute(terminate).await;
        writer
            .execute("PREPARE TRANSACTION 'it''s prepared'")
            .await
            .unwrap();
        let warnings = warned(&store, all, &["COMMIT PREPARED 'it''s prepared'"]).await;
        let (_, rollback) = warnings[0].fix.split_once("or ").unwrap();
        database.execute(rollback).await;

        database
            .execute("SELECT pg_create_physical_replication_slot('gone', true)")
            .await;
        let warnings = warned(&store, all, &["start its consumer"]).await;
        let (_, drop_slot) = warnings[0].fix.split_once("or ").unwrap();
        database.execute(drop_slot).await;

        // A listener in a transaction reads no notifications, so the queue keeps them.
        let mut listener = named(&database, "listener").await;
        listener.execute("LISTEN x").await.unwrap();
        listener.execute("BEGIN").await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut listener)
            .await
            .unwrap();
        let notify = "SELECT pg_notify('x', i || repeat('x', 7000)) FROM generate_series(1, 40) i";
        database.execute(notify).await;
        let fix = format!("server process {pid} has the oldest");
        warned(&store, all, &[&fix]).await;
        drop(listener);

        // A role that sees less says so.
        database
            .execute(
                "CREATE ROLE shop LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE postgres TO shop; \
                 ALTER ROLE shop SET idle_in_transaction_session_timeout = '5s'; \
                 ALTER ROLE shop SET statement_timeout = '2s'; \
                 ALTER ROLE shop SET lock_timeout = '1s'",
            )
            .await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let shop = PostgresStore::builder(options.username("shop").password("x"));
        let shop = shop.schema(database.schema.name()).build().unwrap();
        let _other = named(&database, "other").await;
        let warnings = warned(&shop, all, &["GRANT pg_read_all_stats TO \"shop\""]).await;
        database.execute(&warnings[0].fix).await;
        warned(&shop, all, &[]).await;
    });
}

/// Fault C13, F13.
#[test]
fn check_names_circuits_that_the_encoding_lacks() {
    on_tokio(async {
        let server = Postgres::start(&[]);
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        connection
            .execute("CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
            .await
            .unwrap();
        let url = server.url().replace("/postgres?", "/latin1?");
        let build = |namespace: &str, simple| {
            let builder = PostgresStore::builder(&url).namespace(namespace);
            builder.simple_protocol(simple).build().unwrap()
        };
        for simple in [false, true] {
            let store = build("shop", simple);
            store.migrate().await.unwrap();
            let problems = store
                .check_circuits(&["payments", "漢字", "é"])
                .await
                .unwrap();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].problem.contains("circuit \"漢字\""),
                "{problems:?}"
            );
            let problems = build("店", simple).check_circuits(&[]).await.unwrap();
            assert!(
                problems[0].problem.contains("namespace \"店\""),
                "{problems:?}"
            );
            let problems = store.check().await.unwrap();
            assert!(problems[0].fix.contains("ENCODING 'UTF8'"), "{problems:?}");
        }
    });
}

#[test]
fn forgotten_circuit_is_registered_again() {
    on_tokio(async {
        let database = Database::new().await;
        let admin = database.store("fleet").admin();
        let runtime = TokioRuntime::new();
        let build = || store(&database).settings(settings());
        let fleet = Processes::start(2, &runtime, LONG, build).await;
        fleet[0].fail();
        fleet.all_reach(CircuitState::Open).await;
        fleet[0].bulkhead.circuit_breaker().unwrap().close();
        fleet.all_reach(CircuitState::Closed).await;
        assert!(admin.forget("payments").await.unwrap());
        assert_eq!(admin.status().await.unwrap(), []);
        assert_eq!(admin.history(None, 9).await.unwrap(), []);
        assert!(!admin.forget("payments").await.unwrap());
        // The processes share it again when it changes.
        fleet[1].fail();
        fleet.all_reach(CircuitState::Open).await;
        assert_eq!(admin.status().await.unwrap()[0].state, FleetState::Open);
    });
}

async fn session(store: &PostgresStore) -> Box<dyn StoreSession> {
    CircuitStore::open_session(store, &[]).await.unwrap()
}

async fn named(database: &Database, name: &str) -> PgConnection {
    let options: PgConnectOptions = database.url.parse().unwrap();
    PgConnection::connect_with(&options.application_name(name))
        .await
        .unwrap()
}

async fn role_connection(database: &Database, role: &str) -> PgConnection {
    let options: PgConnectOptions = database.url.parse().unwrap();
    let options = options.username(role).password("x");
    PgConnection::connect_with(&options).await.unwrap()
}

/// Waits until the warnings have these fixes: a session is listed until it has ended.
async fn warned(
    store: &PostgresStore,
    thresholds: WarningThresholds,
    fixes: &[&str],
) -> Vec<Diagnostic> {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let found = store.warnings(thresholds).await.unwrap();
        let pairs = || found.iter().zip(fixes);
        let expected = |(it, fix): (&Diagnostic, &&str)| it.fix.contains(fix);
        if found.len() == fixes.len() && pairs().all(expected) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?}");
        tokio::task::yield_now().await;
    }
}
