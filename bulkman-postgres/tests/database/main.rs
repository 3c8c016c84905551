//! Behavior specific to PostgreSQL: privileges, versions, clocks, notifications, failures, secrets.

mod commands;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod notifications;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::conformance::Harness;
use bulkman_core::store::{
    CircuitStore, Epoch, OperationId, ProbePolicy, StoreChange, StoreError, StoreSession,
    StoreSettings, StoreTransition, TransitionResult,
};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};

use common::{Database, on_tokio};

/// Opens a session with one circuit.
async fn session_of(store: &PostgresStore, circuit: &str) -> (BulkheadName, Box<dyn StoreSession>) {
    let circuit = BulkheadName::new(circuit).unwrap();
    let session = CircuitStore::open_session(store, std::slice::from_ref(&circuit)).await;
    (circuit, session.unwrap())
}

/// Hazard P14.
#[test]
fn clock_steps_are_clamped() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let (circuit, mut session) = session_of(&store, "a").await;
        let hour = Duration::from_secs(3_600);
        let opening = StoreTransition::new(
            circuit.clone(),
            Epoch(0),
            StoreChange::Open { open_for: hour },
            OperationId(1),
        );
        session.transition(&opening).await.unwrap();
        database.shift_clock(60_000_000).await;
        // A step back by 30 s prolongs the isolation, but never beyond its initial length.
        database.shift_clock(-30_000_000).await;
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert!(
            view.remaining <= hour && view.remaining > hour - Duration::from_secs(60),
            "{view:?}"
        );
        // A step back to before the opening: the end is unknown, so the isolation has elapsed.
        database.shift_clock(-86_400_000_000).await;
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert!(view.isolation_elapsed(), "{view:?}");
        let probe_policy = ProbePolicy::default();
        let half_open = StoreTransition::new(
            circuit.clone(),
            Epoch(1),
            StoreChange::HalfOpen { probe_policy },
            OperationId(2),
        );
        let applied = session.transition(&half_open).await.unwrap();
        assert!(
            matches!(applied, TransitionResult::Applied(_)),
            "{applied:?}"
        );

        // A lease from before the step is available, since its expiry is unknown.
        database.shift_clock(86_400_000_000).await;
        let request = |holder: &str| {
            bulkman_core::store::ProbeRequest::new(circuit.clone(), Epoch(2), holder.into(), hour)
        };
        session.acquire_probe(&request("x")).await.unwrap().unwrap();
        assert!(
            session
                .acquire_probe(&request("y"))
                .await
                .unwrap()
                .is_none()
        );
        database.shift_clock(-86_400_000_000).await;
        assert!(
            session
                .acquire_probe(&request("y"))
                .await
                .unwrap()
                .is_some()
        );
    });
}

#[test]
fn huge_durations_are_clamped() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let (circuit, mut session) = session_of(&store, "a").await;
        let longest = StoreChange::Open {
            open_for: Duration::MAX,
        };
        let opening = StoreTransition::new(circuit, Epoch(0), longest, OperationId(u64::MAX));
        let TransitionResult::Applied(view) = session.transition(&opening).await.unwrap() else {
            panic!()
        };
        assert!(
            view.remaining > Duration::from_secs(50 * 365 * 86_400),
            "{view:?}"
        );
        assert_eq!(view.operation, OperationId(u64::MAX), "all bits are stored");
    });
}

#[test]
fn secrets_are_never_printed() {
    on_tokio(async {
        const SECRET: &str = "hunter2-topsecret";
        let check = |text: String| assert!(!text.contains(SECRET), "{text}");
        // Invalid URLs, with the secret in every component.
        for url in [
            format!("postgres://u:{SECRET}@[::1"),
            format!("postgres://u:{SECRET}@host:99999/x"),
            format!("mysql://u:{SECRET}@host/x"),
            format!("postgres://u:{SECRET}@host/x?sslmode={SECRET}"),
            SECRET.to_owned(),
        ] {
            let builder = PostgresStore::builder(&url);
            check(format!("{builder:?}"));
            if let Err(error) = builder.build() {
                check(format!("{error} {error:?}"));
            }
        }
        let database = Database::new().await;
        let wrong: PgConnectOptions = database.url.parse().unwrap();
        let builder = PostgresStore::builder(wrong.password(SECRET)).schema(database.schema.name());
        check(format!("{builder:?}"));
        let store = builder.build().unwrap();
        check(format!("{store:?} {:?}", store.admin()));
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        check(format!(
            "{error} {error:?} {:?}",
            std::error::Error::source(&error)
        ));
        let error = CircuitStore::open_session(&store, &[]).await.err().unwrap();
        check(format!("{error} {error:?}"));
    });
}

#[test]
fn invalid_settings_are_rejected() {
    let build = |builder: PostgresStoreBuilder| builder.build().unwrap_err().to_string();
    let url = "postgres://u@localhost/x";
    assert!(build(PostgresStore::builder(url).schema("a\"b")).contains("schema"));
    assert!(build(PostgresStore::builder(url).namespace("")).contains("namespace"));
    assert!(build(PostgresStore::builder(url).namespace("n".repeat(201))).contains("namespace"));
    assert!(build(PostgresStore::builder(url).namespace("a\0b")).contains("namespace"));
    assert!(
        build(
            PostgresStore::builder(url)
                .settings(StoreSettings::new().poll_interval(Duration::ZERO))
        )
        .contains("poll_interval")
    );
    let no_tls = PostgresStore::builder(format!("{url}?sslmode=disable")).require_tls(true);
    assert!(build(no_tls).contains("require_tls"));
}

/// A harness with the privileges of the application, and a separate namespace for each case.
struct AsApp<'a, F>(&'a Database, F, &'static str);

impl<F> Harness for AsApp<'_, F>
where
    F: Fn() -> PostgresStoreBuilder + Sync,
{
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        Arc::new(
            (self.1)()
                .namespace(format!("{namespace} {}", self.2))
                .build()
                .unwrap(),
        )
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.0.advance(by)
    }
}
