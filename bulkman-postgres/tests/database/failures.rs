//! Servers that reject, freeze or end, and connections that are lost.

use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitStore, Epoch, FleetState, OperationId, StoreChange, StoreError, StoreSettings,
    StoreTransition, TransitionResult,
};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_test_support::{Postgres, StopMode};

use crate::common::{Database, on_tokio};

#[test]
fn wrong_isolation_and_read_only_are_distinguished() {
    on_tokio(async {
        let database = Database::new().await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let with = |name: &str, value: &str| {
            PostgresStore::builder(options.clone().options([(name, value)]))
                .schema(database.schema.name())
                .build()
                .unwrap()
        };
        let wrong = with("default_transaction_isolation", "serializable");
        let error = CircuitStore::open_session(&wrong, &[]).await.err().unwrap();
        assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("ALTER ROLE"), "{error}");
        assert!(
            wrong.check().await.unwrap()[0]
                .fix
                .contains("read committed")
        );

        let read_only = with("default_transaction_read_only", "on");
        let circuit = BulkheadName::new("payments").unwrap();
        let circuits = std::slice::from_ref(&circuit);
        let mut session = CircuitStore::open_session(&read_only, circuits)
            .await
            .unwrap();
        assert!(session.read_only_reason().is_some());
        assert!(session.snapshot(None).await.unwrap().circuits.is_empty());
        let error = session.register(circuits).await.unwrap_err();
        assert!(error.is_transient(), "a standby may be promoted: {error}");
        assert!(session.is_usable());
        assert!(
            read_only.check().await.unwrap()[0]
                .fix
                .contains("default_transaction_read_only")
        );
    });
}

#[test]
fn session_fails_with_its_connection() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        for waiting in [false, true] {
            let mut session = CircuitStore::open_session(&store, &[]).await.unwrap();
            let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                             WHERE pid <> pg_backend_pid() AND query LIKE '%\"bulkman\"%'";
            let terminate = terminate.replace("\"bulkman\"", database.schema.name());
            database.execute(&terminate).await;
            let error = if waiting {
                session.changed().await.err().unwrap()
            } else {
                session.snapshot(None).await.err().unwrap()
            };
            assert!(error.is_transient(), "{error}");
        }
        CircuitStore::open_session(&store, &[]).await.unwrap();
    });
}

#[test]
fn stopped_or_frozen_server_is_unavailable_in_time() {
    let server = Postgres::start(&[]);
    on_tokio(async {
        let database = Database::on(&server);
        let timeout = Duration::from_millis(500);
        let settings = StoreSettings::new()
            .connect_timeout(timeout)
            .operation_timeout(timeout);
        // A running server may need longer than that on a slow machine.
        let patient = database.store("x");
        patient.migrate().await.unwrap();
        let store = database
            .builder()
            .settings(settings)
            .namespace("x")
            .build()
            .unwrap();
        let circuit = BulkheadName::new("a").unwrap();
        let mut session = CircuitStore::open_session(&patient, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let opening = StoreChange::Open {
            open_for: Duration::from_secs(3_600),
        };
        let opening = StoreTransition::new(circuit.clone(), Epoch(0), opening, OperationId(7));
        session.transition(&opening).await.unwrap();

        server.stop(StopMode::Immediate);
        assert!(session.snapshot(None).await.unwrap_err().is_transient());
        assert!(
            CircuitStore::open_session(&store, &[])
                .await
                .err()
                .unwrap()
                .is_transient()
        );
        assert!(store.check().await.unwrap_err().is_transient());
        assert!(store.admin().status().await.unwrap_err().is_transient());

        server.restart();
        let mut session = CircuitStore::open_session(&patient, &[]).await.unwrap();
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert_eq!(
            (view.state, view.operation),
            (FleetState::Open, OperationId(7)),
            "the state survives a crash"
        );
        let again = session.transition(&opening).await.unwrap();
        assert!(matches!(again, TransitionResult::Applied(view) if view.epoch == Epoch(1)));

        server.freeze();
        #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
        let before = std::time::Instant::now();
        assert!(store.admin().status().await.unwrap_err().is_transient());
        assert!(store.check().await.unwrap_err().is_transient());
        assert!(store.migrate().await.unwrap_err().is_transient());
        assert!(
            before.elapsed() < Duration::from_secs(30),
            "each operation has a time limit: {:?}",
            before.elapsed()
        );
        server.thaw();
        assert_eq!(patient.admin().status().await.unwrap().len(), 1);
    });
}
