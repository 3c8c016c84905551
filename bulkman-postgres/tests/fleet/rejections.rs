//! Operations that the server rejects, for one circuit or for all.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{FleetCountPolicy, SharingMode, StoreError};
use bulkman_core::{Bulkhead, BulkheadConfig, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, PgConnection};
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{LONG, Processes, next, pause, settings, store_with};

/// Fault C13, F13.
pub(crate) async fn unstorable_name_disconnects_no_other(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let mut database = Database::on(&server);
        database
            .execute(&format!(
                "CREATE DATABASE {encoding} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            ))
            .await;
        database.url = database
            .url
            .replace("/postgres?", &format!("/{}?", encoding.to_lowercase()));
        let migrated = database.store("fleet");
        migrated.migrate().await.unwrap();
        let diagnostics = migrated.check().await.unwrap();
        assert!(
            diagnostics.len() == 1 && diagnostics[0].problem.contains(encoding),
            "{diagnostics:?}"
        );
        let fleet = Processes::start(2, &runtime, LONG, || store_with(&database, settings())).await;
        let mut events = fleet[0].fleet.events();
        let mut others = Vec::new();
        for name in ["búsqueda", "支払い"] {
            let config = BulkheadConfig::new(name).isolation_duration(LONG);
            for process in fleet.iter() {
                let other = Bulkhead::new(config.clone(), runtime.clone()).unwrap();
                process.fleet.attach(&other).unwrap();
                others.push(other);
            }
        }
        if encoding == "LATIN1" {
            let rejected = next(&mut events, |event| {
                matches!(event, FleetEvent::OperationRejected { .. })
            })
            .await;
            assert!(format!("{rejected:?}").contains("支払い"), "{rejected:?}");
        }
        let shared = if encoding == "LATIN1" { 2 } else { 3 };
        for process in fleet.iter() {
            let loaded = |process: &crate::common::processes::Process| {
                let circuits = process.fleet.snapshot().circuits;
                let loaded = circuits.iter().filter(|circuit| circuit.state.is_some());
                loaded.count() == shared
            };
            process.until(loaded).await;
        }
        // Announced by their names, whose length depends on the encoding.
        fleet[0].fail();
        for other in &others {
            let _ = other.circuit_breaker().map(|circuit| circuit.open());
        }
        fleet.all_reach(CircuitState::Open).await;
        fleet[1].bulkhead.circuit_breaker().unwrap().close();
        fleet.all_reach(CircuitState::Closed).await;
        let seen: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
        assert!(
            !seen.iter().any(|event| matches!(
                event,
                FleetEvent::HistoryLost | FleetEvent::Degraded { .. }
            )),
            "{seen:?}"
        );
    }
}

/// Fault C05, C18.
pub(crate) async fn denied_operations_keep_the_session(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    database
        .execute(
            "CREATE ROLE app LOGIN PASSWORD 'only for this test'; GRANT USAGE ON SCHEMA \"bulkman\" TO app; \
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA \"bulkman\" TO app",
        )
        .await;
    let options: PgConnectOptions = database.url.parse().unwrap();
    let options = options.username("app").password("only for this test");
    let policy = FleetCountPolicy::new(Duration::from_secs(60), 10).failure_count_threshold(100);
    let as_role = || {
        PostgresStore::builder(options.clone())
            .schema(database.schema.name())
            .namespace("fleet")
            .settings(
                settings()
                    .share(SharingMode::Counts(policy))
                    .flush_interval(Duration::from_millis(50)),
            )
    };
    let fleet = Processes::start(2, &runtime, LONG, as_role).await;
    let mut observer = database.connection().await;
    for (revoke, grant, names) in [
        // Publishing reads it; the session does not need it.
        (
            "REVOKE SELECT ON \"bulkman\".notification_key FROM app",
            "GRANT SELECT ON \"bulkman\".notification_key TO app",
            "transitions",
        ),
        (
            "REVOKE INSERT ON \"bulkman\".count_bucket FROM app",
            "GRANT INSERT ON \"bulkman\".count_bucket TO app",
            "add_counts",
        ),
    ] {
        let backends = backends(&mut observer).await;
        let mut events = fleet[0].fleet.events();
        database.execute(revoke).await;
        if names == "transitions" {
            fleet[0].bulkhead.circuit_breaker().unwrap().open();
        }
        let rejected = next(&mut events, |event| {
            matches!(event, FleetEvent::OperationRejected { .. })
        });
        // Counts of a state that has just ended are dropped, so there are always new ones.
        let counting = async {
            loop {
                if let Ok(permit) = fleet[0].bulkhead.try_acquire() {
                    permit.succeed();
                }
                pause(&runtime).await;
            }
        };
        let rejected = smol::future::or(rejected, counting).await;
        let FleetEvent::OperationRejected {
            circuit: None,
            error: error @ StoreError::Denied { .. },
        } = &rejected
        else {
            panic!("{rejected:?}")
        };
        let message = error.to_string();
        assert!(
            message.contains("42501") && message.contains(names) && message.contains("GRANT"),
            "{message}"
        );
        // Other changes are still read.
        let operator = database.store("fleet").admin();
        operator.disable("payments", "ada", "").await.unwrap();
        fleet.all_reach(CircuitState::Disabled).await;
        let until = runtime.now() + Duration::from_secs(2);
        while runtime.now() < until {
            pause(&runtime).await;
        }
        assert_eq!(
            self::backends(&mut observer).await,
            backends,
            "no reconnect"
        );
        database.execute(grant).await;
        operator.close("payments", "ada", "").await.unwrap();
        fleet.all_reach(CircuitState::Closed).await;
        fleet[0].bulkhead.circuit_breaker().unwrap().open();
        fleet.all_reach(CircuitState::Open).await;
        fleet[0].bulkhead.circuit_breaker().unwrap().close();
        fleet.all_reach(CircuitState::Closed).await;
        fleet[0]
            .until(|process| process.fleet.snapshot().error.is_none())
            .await;
        let seen = std::iter::from_fn(|| events.try_next());
        let again = seen.filter(|event| {
            matches!(
                event,
                FleetEvent::OperationRejected { .. } | FleetEvent::Degraded { .. }
            )
        });
        assert_eq!(again.count(), 0, "reported once");
    }
}

/// Fault C05.
pub(crate) async fn session_that_fails_at_once_backs_off(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(1, &runtime, LONG, || {
        store_with(
            &database,
            settings()
                .resync_interval(Duration::from_secs(5))
                .backoff(Duration::from_millis(100), Duration::from_secs(2)),
        )
    })
    .await;
    // Each publication ends its connection.
    database
        .execute(
            "CREATE SEQUENCE \"bulkman\".attempts; \
             CREATE FUNCTION \"bulkman\".fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               PERFORM nextval('\"bulkman\".attempts'); PERFORM pg_terminate_backend(pg_backend_pid()); \
               PERFORM pg_sleep(1); RETURN NULL; \
             END $$; \
             CREATE TRIGGER fail AFTER UPDATE ON \"bulkman\".circuit \
               FOR EACH ROW EXECUTE FUNCTION \"bulkman\".fail()",
        )
        .await;
    let mut events = fleet[0].fleet.events();
    fleet[0].fail();
    let until = runtime.now() + Duration::from_secs(8);
    while runtime.now() < until {
        pause(&runtime).await;
    }
    let attempts = format!("SELECT last_value FROM {}.attempts", database.schema.name());
    let attempts: i64 = sqlx::query_scalar(AssertSqlSafe(attempts))
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
    assert!(
        (2..=25).contains(&attempts),
        "{attempts} sessions in 8 s, where about 10 are expected"
    );
    // On a busy machine, an attempt may also fail for another reason, such as a timeout.
    let reports: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event {
            FleetEvent::Degraded { error } => Some(error.to_string()),
            _ => None,
        })
        .collect();
    let different: BTreeSet<_> = reports.iter().collect();
    assert!(!reports.is_empty());
    assert_eq!(different.len(), reports.len(), "{reports:?}");
    database
        .execute("DROP TRIGGER fail ON \"bulkman\".circuit")
        .await;
    fleet[0]
        .until(|process| process.fleet.snapshot().pending == 0)
        .await;
}

async fn backends(observer: &mut PgConnection) -> Vec<i32> {
    let clients = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY pid";
    sqlx::query_scalar(clients)
        .fetch_all(observer)
        .await
        .unwrap()
}
