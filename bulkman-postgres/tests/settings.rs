//! Server settings, poolers, slow networks, refusing servers, credentials.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{
    CircuitStore, Epoch, OperationId, StoreChange, StoreError, StoreSettings, StoreTransition,
};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, PgConnection};
use bulkman_postgres::{ConnectTarget, PostgresStore};
use bulkman_test_support::Postgres;
use bulkman_tokio::TokioRuntime;

use common::processes::{LONG, Processes, next, pause, settings, store, store_at};
use common::proxy::Proxy;
use common::{Database, on_smol, on_tokio};

/// Fault F14, SUR05.
#[test]
fn server_settings_do_not_affect_sessions() {
    let server = Postgres::start(&[
        ("bytea_output", "escape"),
        ("idle_session_timeout", "300ms"),
        ("datestyle", "German"),
        ("intervalstyle", "sql_standard"),
        ("extra_float_digits", "-15"),
        ("timezone", "Asia/Kathmandu"),
    ]);
    on_tokio(async {
        let database = Database::on(&server);
        database.store("fleet").migrate().await.unwrap();
        assert_eq!(database.store("fleet").check().await.unwrap(), []);
        let runtime = TokioRuntime::new();
        for simple in [false, true] {
            let build = || store(&database).simple_protocol(simple).settings(idle());
            let fleet = Processes::start(2, &runtime, LONG, build).await;
            let mut events = fleet[0].fleet.events();
            let until = tokio::time::Instant::now() + Duration::from_secs(2);
            while tokio::time::Instant::now() < until {
                pause(&runtime).await;
            }
            fleet[0].fail();
            fleet.all_reach(CircuitState::Open).await;
            fleet[0].bulkhead.circuit_breaker().unwrap().close();
            fleet.all_reach(CircuitState::Closed).await;
            let lost = std::iter::from_fn(|| events.try_next())
                .filter(|event| matches!(event, FleetEvent::Degraded { .. }));
            assert_eq!(lost.count(), 0, "simple: {simple}");
        }
    });
}

/// Fault C01.
#[test]
fn session_limits_its_statements_unless_the_url_does() {
    on_smol(async {
        let database = Database::new().await;
        let explicit = format!("{}&options=-c%20statement_timeout%3D1234", database.url);
        for (url, statement) in [(&database.url, "900ms"), (&explicit, "1234ms")] {
            let store = store_at(url, &database).build().unwrap();
            let circuit = BulkheadName::new("a").unwrap();
            // The limits are read where the statements run.
            database
                .execute(
                    "CREATE TABLE IF NOT EXISTS \"bulkman\".seen (statement text, lock text); \
                     DELETE FROM \"bulkman\".seen; \
                     CREATE OR REPLACE FUNCTION \"bulkman\".see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                       INSERT INTO \"bulkman\".seen VALUES \
                         (current_setting('statement_timeout'), current_setting('lock_timeout')); \
                       RETURN NULL; \
                     END $$; \
                     CREATE OR REPLACE TRIGGER see AFTER UPDATE ON \"bulkman\".circuit \
                       FOR EACH ROW EXECUTE FUNCTION \"bulkman\".see()",
                )
                .await;
            let mut session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit))
                .await
                .unwrap();
            let view = session.snapshot(None).await.unwrap().circuits.remove(0);
            let change = StoreChange::Open { open_for: LONG };
            let mut opening =
                StoreTransition::new(circuit, view.epoch, change, OperationId::random());
            opening.manual = view.epoch != Epoch(0);
            session.transition(&opening).await.unwrap();
            let seen = format!(
                "SELECT statement, lock FROM {}.seen",
                database.schema.name()
            );
            let seen: (String, String) = sqlx::query_as(sqlx::AssertSqlSafe(seen))
                .fetch_one(&mut database.connection().await)
                .await
                .unwrap();
            assert_eq!(seen, (statement.to_owned(), "500ms".to_owned()));
        }
    });
}

/// Fault C12.
#[test]
fn mixed_prepared_statements_name_the_fix() {
    on_tokio(async {
        let database = Database::new().await;
        for code in ["42P05", "26000"] {
            database
                .execute(&format!(
                    "CREATE OR REPLACE FUNCTION \"bulkman\".channel(namespace text) RETURNS text \
                     LANGUAGE plpgsql AS $$ BEGIN \
                       RAISE EXCEPTION 'prepared statement \"sqlx_s_1\"' USING ERRCODE = '{code}'; \
                     END $$"
                ))
                .await;
            let opened = CircuitStore::open_session(&database.store("x"), &[]).await;
            let error = opened.err().unwrap();
            let message = error.to_string();
            assert!(
                matches!(error, StoreError::Incompatible { .. })
                    && ["simple_protocol", "PgBouncer 1.21", code]
                        .iter()
                        .all(|part| message.contains(part)),
                "{message}"
            );
        }
    });
}

/// Fault C15.
#[test]
fn fleet_connects_over_a_slow_network() {
    on_tokio(async {
        let database = Database::new().await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let proxy = Proxy::start(([127, 0, 0, 1], options.get_port()).into());
        let url = proxy.url(&database.url, options.get_port());
        proxy.delay(Duration::from_millis(250));
        let through = || store_at(&url, &database).settings(StoreSettings::new());
        let runtime = TokioRuntime::new();
        let fleet = Processes::start(1, &runtime, LONG, through).await;
        let snapshot = fleet[0].fleet.snapshot();
        assert!(snapshot.connected, "{snapshot:?}");
    });
}

/// Fault C16, SUR04.
#[test]
fn refusing_server_is_reported_with_its_reason() {
    let server = Postgres::start(&[
        ("max_connections", "4"),
        ("superuser_reserved_connections", "1"),
    ]);
    on_tokio(async {
        let database = Database::on(&server);
        let admin = database.store("x").admin();
        let mut held: Vec<PgConnection> = Vec::new();
        while let Ok(connection) = <PgConnection as sqlx::Connection>::connect(&database.url).await
        {
            held.push(connection);
        }
        let error = admin.status().await.unwrap_err().to_string();
        assert!(
            error.contains("too many clients") && error.contains("53300"),
            "{error}"
        );
        // A session retries within its timeout, and then has the reason, too.
        let store = database.builder().namespace("x").settings(brief()).build();
        let error = CircuitStore::open_session(&store.unwrap(), &[])
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("too many clients"), "{error}");
        drop(held);

        server.stop(bulkman_test_support::StopMode::Fast);
        let options: PgConnectOptions = database.url.parse().unwrap();
        let address = format!("{}:{}", options.get_host(), options.get_port());
        let refused = |error: StoreError| {
            let message = error.to_string();
            assert!(
                message.contains(&address) && message.contains("refused"),
                "{message}"
            );
        };
        let began = tokio::time::Instant::now();
        refused(admin.status().await.unwrap_err());
        refused(admin.close("a", "ada", "").await.unwrap_err());
        refused(database.store("x").check().await.unwrap_err());
        refused(database.store("x").migrate().await.unwrap_err());
        // The timeout for connecting is a minute.
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

/// Fault SUR04.
#[test]
fn frozen_server_is_reported_as_not_responding() {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    let connecting = async || {
        let store = database.builder().settings(brief()).build().unwrap();
        let opened = CircuitStore::open_session(&store, &[]).await;
        opened.err().unwrap().to_string()
    };
    server.freeze();
    let errors = [on_tokio(connecting()), on_smol(connecting())];
    server.thaw();
    for error in errors {
        assert!(error.contains("the server does not respond"), "{error}");
    }
}

/// Fault GAP05.
#[test]
fn credentials_are_requested_at_each_connect() {
    let server = Postgres::start(&[]);
    on_tokio(async {
        let database = Database::on(&server);
        database.store("fleet").migrate().await.unwrap();
        database
            .execute(
                "CREATE ROLE rotating LOGIN PASSWORD 'password 0'; \
                 GRANT USAGE ON SCHEMA \"bulkman\" TO rotating; \
                 GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA \"bulkman\" TO rotating; \
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA \"bulkman\" TO rotating",
            )
            .await;
        let version = Arc::new(AtomicUsize::new(0));
        let options: PgConnectOptions = database.url.parse().unwrap();
        let target = || {
            let (options, version) = (options.clone(), Arc::clone(&version));
            ConnectTarget::requested(move || {
                let (options, version) = (options.clone(), version.load(Ordering::SeqCst));
                async move {
                    if version == 1 {
                        return Err("the vault is sealed".into());
                    }
                    let password = format!("password {version}");
                    Ok(options.username("rotating").password(&password))
                }
            })
        };
        let build = || {
            PostgresStore::builder(target())
                .schema(database.schema.name())
                .namespace("fleet")
                .settings(settings())
        };
        let runtime = TokioRuntime::new();
        let fleet = Processes::start(1, &runtime, LONG, build).await;
        let mut events = fleet[0].fleet.events();
        version.store(1, Ordering::SeqCst);
        database
            .execute(
                "ALTER ROLE rotating PASSWORD 'password 2'; \
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'",
            )
            .await;
        fleet[0]
            .until(|process| {
                let error = process.fleet.snapshot().error.unwrap_or_default();
                error.contains("the vault is sealed")
            })
            .await;
        version.store(2, Ordering::SeqCst);
        next(&mut events, |event| {
            matches!(event, FleetEvent::Synchronized { .. })
        })
        .await;
        let store = build().build().unwrap();
        assert_eq!(store.admin().status().await.unwrap().len(), 1);
        assert!(!format!("{store:?}").contains("password 2"), "{store:?}");
    });
}

/// Settings with which an idle session sends nothing for a while.
fn idle() -> StoreSettings {
    settings().resync_interval(Duration::from_millis(900))
}

fn brief() -> StoreSettings {
    settings()
        .connect_timeout(Duration::from_millis(300))
        .operation_timeout(Duration::from_millis(300))
}
