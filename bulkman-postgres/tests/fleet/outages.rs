//! Servers that restart, freeze, end connections or revoke privileges.

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{FleetState, StoreError};
use bulkman_core::{Bulkhead, BulkheadConfig, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, Connection, Executor};
use bulkman_test_support::{Postgres, StopMode};

use crate::common::Database;
use crate::common::processes::{
    LONG, Processes, decision_outcome, next, patient_settings, settings, store, store_with,
};

pub(crate) async fn server_restart_loses_no_decision(runtime: impl Runtime + Clone) {
    for mode in [StopMode::Immediate, StopMode::Fast] {
        let server = Postgres::start(&[]);
        let database = Database::on(&server);
        database.store("fleet").migrate().await.unwrap();
        // Twenty processes connect at once: on a slow machine that takes seconds.
        let patient = || store_with(&database, patient_settings());
        let fleet = Processes::start(20, &runtime, LONG, patient).await;
        server.stop(mode);
        for process in fleet.iter() {
            process
                .until(|process| !process.fleet.snapshot().connected)
                .await;
        }
        let mut events = fleet[0].fleet.events();
        // Two processes decide: what a single one decides without the store is only a vote.
        for process in &fleet[..2] {
            process.fail();
            assert_eq!(
                process.state(),
                CircuitState::Open,
                "the local circuit breaker decides"
            );
        }
        assert_eq!(
            fleet[2].call(Ok(())).await,
            Ok(()),
            "other calls are not delayed"
        );
        fleet[0]
            .until(|process| process.fleet.snapshot().pending == 1)
            .await;
        server.restart();
        fleet.all_reach(CircuitState::Open).await;
        let outcome = decision_outcome(&mut events).await;
        let resolved = [
            DecisionOutcome::Published,
            DecisionOutcome::Voted,
            DecisionOutcome::Superseded,
        ];
        assert!(resolved.contains(&outcome), "{outcome:?}");
    }
}

/// An operator has updated the namespace, and leaves the transaction open.
///
/// Fault C09.
pub(crate) async fn process_starts_during_an_open_transaction(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(1, &runtime, LONG, || store(&database)).await;
    let admin = database.store("fleet").admin();
    admin
        .force_open("payments", "ada", "a drill")
        .await
        .unwrap();
    let mut open = database.connection().await;
    let command = "BEGIN; SELECT \"bulkman\".force_open('fleet', 'payments', 'a second one')";
    let command = command.replace("\"bulkman\"", database.schema.name());
    open.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(command)))
        .await
        .unwrap();
    // One circuit is registered, and its next change is not committed. The other one is new.
    let late = Processes::start(1, &runtime, LONG, || store(&database)).await;
    let search = BulkheadConfig::new("search");
    let search = Bulkhead::new(search, runtime.clone()).unwrap();
    late[0].fleet.attach(&search).unwrap();
    late.all_reach(CircuitState::ForcedOpen).await;
    late[0]
        .until(|process| {
            let circuits = process.fleet.snapshot().circuits;
            circuits.len() == 2 && circuits.iter().all(|circuit| circuit.state.is_some())
        })
        .await;
    open.close().await.unwrap();
    drop(fleet);
}

/// Hazard P12.
pub(crate) async fn frozen_server_delays_no_call(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    // Prepares the statement, so that the next one is sent completely to the frozen server.
    fleet[0].bulkhead.circuit_breaker().unwrap().open();
    fleet.all_reach(CircuitState::Open).await;
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    fleet.all_reach(CircuitState::Closed).await;
    server.freeze();
    fleet[0].fail();
    assert_eq!(fleet[0].state(), CircuitState::Open);
    fleet[0]
        .until(|process| !process.fleet.snapshot().connected)
        .await;
    assert_eq!(fleet[1].call(Ok(())).await, Ok(()));
    // A later decision must not be overridden by the abandoned statement.
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    server.thaw();
    for process in fleet.iter() {
        process
            .until(|process| {
                let snapshot = process.fleet.snapshot();
                snapshot.connected
                    && snapshot.pending == 0
                    && process.state() == CircuitState::Closed
            })
            .await;
    }
    let status = database.store("fleet").admin().status().await.unwrap();
    assert_eq!(status[0].state, FleetState::Closed);
    // The resumed server rejected the statement after its time limit.
    let history = database
        .store("fleet")
        .admin()
        .history(None, 10)
        .await
        .unwrap();
    assert_eq!(
        history.len(),
        2,
        "an abandoned statement was executed: {history:?}"
    );
}

pub(crate) async fn fleet_recovers_from_killed_connections(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    for round in 0..3 {
        let mut events: Vec<_> = fleet.iter().map(|process| process.fleet.events()).collect();
        // A change that no session receives is found in the tables.
        database
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid <> pg_backend_pid() AND query LIKE '%\"bulkman\"%'; \
                 SELECT \"bulkman\".force_open('fleet', 'payments')",
            )
            .await;
        fleet.all_reach(CircuitState::ForcedOpen).await;
        // The same error is reported once a minute.
        for events in events.iter_mut().filter(|_| round == 0) {
            let degraded = next(events, |event| matches!(event, FleetEvent::Degraded { .. })).await;
            assert!(
                matches!(degraded, FleetEvent::Degraded { error } if error.is_transient()),
                "round {round}"
            );
            next(events, |event| {
                matches!(event, FleetEvent::Synchronized { after: Some(_) })
            })
            .await;
        }
        database
            .execute("SELECT \"bulkman\".close('fleet', 'payments')")
            .await;
        fleet.all_reach(CircuitState::Closed).await;
    }
}

pub(crate) async fn revoked_privilege_is_reported(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let role = format!(
        "{}_{}",
        database.schema.name(),
        std::any::type_name_of_val(&runtime).len()
    );
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'only for this test'; GRANT USAGE ON SCHEMA \"bulkman\" TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA \"bulkman\" TO {role}"
        ))
        .await;
    let options: PgConnectOptions = database.url.parse().unwrap();
    let options = options.username(&role).password("only for this test");
    let as_role = || {
        PostgresStore::builder(options.clone())
            .schema(database.schema.name())
            .namespace("fleet")
            .settings(settings())
    };
    let fleet = Processes::start(1, &runtime, LONG, as_role).await;
    let mut events = fleet[0].fleet.events();
    database
        .execute(&format!("REVOKE UPDATE ON \"bulkman\".circuit FROM {role}"))
        .await;
    fleet[0].fail();
    let denied = next(&mut events, |event| {
        matches!(
            event,
            FleetEvent::OperationRejected {
                error: StoreError::Denied { .. },
                ..
            }
        )
    })
    .await;
    assert!(format!("{denied:?}").contains("GRANT"), "{denied:?}");
    assert_eq!(
        fleet[0].state(),
        CircuitState::Open,
        "the local circuit breaker decides"
    );
    database
        .execute(&format!("GRANT UPDATE ON \"bulkman\".circuit TO {role}"))
        .await;
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
    drop(fleet);
    database
        .execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
