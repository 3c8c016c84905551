//! Fleets on a real server that is stopped, frozen and disconnected, on Tokio and on smol.
//!
//! Each process has a separate session.

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod failures;
mod floods;
mod read_only;
mod rejections;

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::StoreError;
use bulkman_core::store::{FleetState, Push, SharingMode};
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, Connection, Executor};
use bulkman_smol::SmolRuntime;
use bulkman_test_support::{Postgres, StopMode};
use bulkman_tokio::TokioRuntime;

use common::processes::{
    LONG, Process, Processes, SHORT, decision_outcome, next, patient_settings, pause, settings,
    store, store_with,
};
use common::{Database, on_smol, on_tokio};
use connections::{
    blocked_statements_hold_two_connections, lost_answers_leave_no_connection_behind,
};
use failures::{
    clock_step_is_reported, crash_clears_counts_but_keeps_state,
    dropped_driver_leaves_no_open_transaction, forged_notifications_change_nothing,
    too_new_schema_is_reported, unknown_result_is_resolved_by_operation_id,
};
use floods::flood_of_notifications_suspends_push;
use read_only::{
    read_only_database_is_read, sessions_survive_a_read_only_server,
    standby_is_read_until_it_is_promoted,
};
use rejections::{
    denied_operations_keep_the_session, session_that_fails_at_once_backs_off,
    unstorable_name_disconnects_no_other,
};

/// Generates a test of each scenario on each runtime.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod with_tokio {
            $(
                #[test]
                fn $scenario() {
                    super::on_tokio(super::$scenario(super::TokioRuntime::new()));
                }
            )*
        }
        mod with_smol {
            $(
                #[test]
                fn $scenario() {
                    super::on_smol(super::$scenario(super::SmolRuntime::new()));
                }
            )*
        }
    };
}

on_both! {
    first_opening_opens_the_fleet
    fleet_recovers_with_one_concurrent_probe
    late_process_starts_from_the_stored_state
    quorum_opens
    fleet_works_with_polling
    operator_command_reaches_every_process
    server_restart_loses_no_decision
    process_starts_during_an_open_transaction
    frozen_server_delays_no_call
    fleet_recovers_from_killed_connections
    sessions_survive_a_read_only_server
    read_only_database_is_read
    standby_is_read_until_it_is_promoted
    revoked_privilege_is_reported
    lost_history_is_detected
    lost_history_is_detected_after_other_changes
    unknown_result_is_resolved_by_operation_id
    dropped_driver_leaves_no_open_transaction
    crash_clears_counts_but_keeps_state
    clock_step_is_reported
    too_new_schema_is_reported
    forged_notifications_change_nothing
    blocked_statements_hold_two_connections
    lost_answers_leave_no_connection_behind
    flood_of_notifications_suspends_push
    unstorable_name_disconnects_no_other
    denied_operations_keep_the_session
    session_that_fails_at_once_backs_off
}

async fn first_opening_opens_the_fleet(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(5, &runtime, LONG, || store(&database)).await;
    fleet[0].fail();
    fleet.all_reach(CircuitState::Open).await;
    let rejection = fleet[4].call(Ok(())).await.unwrap_err();
    assert!(
        matches!(
            rejection,
            BulkheadError::CircuitOpen {
                reason: RejectionReason::Open,
                ..
            }
        ),
        "{rejection}"
    );
    let status = store(&database)
        .build()
        .unwrap()
        .admin()
        .status()
        .await
        .unwrap();
    assert_eq!(
        (status[0].state, status[0].open_count),
        (FleetState::Open, 1)
    );
    assert_eq!(&*status[0].reason, "consecutive_failures");
}

async fn fleet_recovers_with_one_concurrent_probe(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(3, &runtime, SHORT, || store(&database)).await;
    fleet[0].fail();
    fleet.all_reach(CircuitState::HalfOpen).await;
    // All processes call. One probe is admitted at a time, and three successes close the circuit.
    let mut admitted = 0;
    while fleet
        .iter()
        .any(|process| process.state() != CircuitState::Closed)
    {
        // A call admitted by a circuit that is half-open afterwards is a probe.
        let half_open = |process: &&Process| process.state() == CircuitState::HalfOpen;
        let probe =
            |process: &Process| Some((process.bulkhead.try_acquire().ok()?, half_open(&process)));
        let permits: Vec<_> = fleet.iter().filter(half_open).filter_map(probe).collect();
        let probes = permits.iter().filter(|(_, is_probe)| *is_probe).count();
        assert!(probes <= 1, "the fleet has one lease");
        admitted += probes;
        permits.into_iter().for_each(|(permit, _)| permit.succeed());
        pause(&runtime).await;
    }
    assert_eq!(admitted, 3);
}

async fn late_process_starts_from_the_stored_state(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(1, &runtime, LONG, || store(&database)).await;
    fleet[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(3_600));
    assert!(
        fleet[0].fleet.shutdown().await,
        "the decision was published"
    );
    drop(fleet);
    let late = Processes::start(1, &runtime, LONG, || store(&database)).await;
    let rejection = late[0].call(Ok(())).await.unwrap_err();
    assert!(
        rejection.retry_after().unwrap() > Duration::from_secs(3_500),
        "{rejection}"
    );
}

async fn quorum_opens(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let quorum = settings().share(SharingMode::quorum(2, Duration::from_secs(60)));
    let fleet = Processes::start(3, &runtime, LONG, || store_with(&database, quorum.clone())).await;
    let mut events = fleet[0].fleet.events();
    fleet[0].fail();
    assert_eq!(decision_outcome(&mut events).await, DecisionOutcome::Voted);
    assert_eq!(fleet[0].state(), CircuitState::Open);
    assert_eq!(fleet[2].state(), CircuitState::Closed);
    fleet[1].fail();
    fleet.all_reach(CircuitState::Open).await;
}

async fn fleet_works_with_polling(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let polling = || {
        let settings = settings()
            .push(Push::Off)
            .poll_interval(Duration::from_millis(50));
        store_with(&database, settings)
    };
    let fleet = Processes::start(3, &runtime, LONG, polling).await;
    assert!(fleet[0].fleet.snapshot().polling);
    fleet[0].fail();
    fleet.all_reach(CircuitState::Open).await;
}

async fn operator_command_reaches_every_process(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(3, &runtime, LONG, || store(&database)).await;
    let psql = |statement: &str| {
        let statement = statement.replace("bulkman.", &format!("{}.", database.schema.name()));
        let output = Postgres::shared()
            .psql()
            .args(["-c", &statement])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let done = |epoch: &str| (true, epoch.to_owned(), String::new());
    assert_eq!(
        psql("select bulkman.force_open('fleet', 'payments', 'maintenance')"),
        done("1")
    );
    fleet.all_reach(CircuitState::ForcedOpen).await;
    assert_eq!(
        psql("select bulkman.disable('fleet', 'payments')"),
        done("2")
    );
    fleet.all_reach(CircuitState::Disabled).await;
    assert_eq!(
        psql("select bulkman.reset('fleet', 'payments', 'finished', 'ada')"),
        done("3")
    );
    fleet.all_reach(CircuitState::Closed).await;
    assert_eq!(
        psql("select bulkman.force_open('fleet', 'payments')"),
        done("4")
    );
    fleet.all_reach(CircuitState::ForcedOpen).await;
    assert_eq!(psql("select bulkman.close('fleet', 'payments')"), done("5"));
    fleet.all_reach(CircuitState::Closed).await;
    let (_, changes, _) = psql("select to_state, author, reason from bulkman.changes('fleet')");
    let (_, user, _) = psql("select session_user");
    let expected = [
        format!("closed|{user}|"),
        format!("forced_open|{user}|"),
        "closed|ada|finished".to_owned(),
        format!("disabled|{user}|"),
        format!("forced_open|{user}|maintenance"),
    ];
    assert_eq!(changes.lines().collect::<Vec<_>>(), expected);
    let (done, _, error) = psql("select bulkman.close('fleet', 'paiments')");
    assert!(
        !done && error.contains("has no circuit \"paiments\"") && error.contains("status()"),
        "{error}"
    );
}

async fn server_restart_loses_no_decision(runtime: impl Runtime + Clone) {
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
async fn process_starts_during_an_open_transaction(runtime: impl Runtime + Clone) {
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
async fn frozen_server_delays_no_call(runtime: impl Runtime + Clone) {
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

async fn fleet_recovers_from_killed_connections(runtime: impl Runtime + Clone) {
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

async fn revoked_privilege_is_reported(runtime: impl Runtime + Clone) {
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

async fn lost_history_is_detected(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    fleet[0].fail();
    fleet.all_reach(CircuitState::Open).await;
    let mut here = fleet[0].fleet.events();
    let mut there = fleet[1].fleet.events();
    // The effect of restoring a backup from before the opening.
    database
        .execute(
            "UPDATE \"bulkman\".namespace SET rev = 0; \
             UPDATE \"bulkman\".circuit SET state = 0, epoch = 0, rev = 0, open_count = 0, op_id = 0",
        )
        .await;
    // Only the process that reads first detects it, since it republishes the opening.
    let lost = |event: &FleetEvent| matches!(event, FleetEvent::HistoryLost);
    smol::future::or(next(&mut here, lost), next(&mut there, lost)).await;
    for process in fleet.iter() {
        process
            .until(|process| {
                let snapshot = process.fleet.snapshot();
                snapshot.pending == 0 && snapshot.circuits[0].state == Some(FleetState::Open)
            })
            .await;
        assert_eq!(
            process.state(),
            CircuitState::Open,
            "the unexpired opening was republished"
        );
    }
}

/// The tables are restored on a running server and changed before the next read, so that the
/// revision is the same or higher.
async fn lost_history_is_detected_after_other_changes(runtime: impl Runtime + Clone) {
    for others in [1, 5] {
        let database = Database::new().await;
        let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
        database
            .execute(
                "INSERT INTO \"bulkman\".circuit (namespace, name) VALUES ('fleet', 'search'); \
                 CREATE TABLE \"bulkman\".saved_namespace AS TABLE \"bulkman\".namespace; \
                 CREATE TABLE \"bulkman\".saved_circuit AS TABLE \"bulkman\".circuit",
            )
            .await;
        fleet[0].fail();
        fleet.all_reach(CircuitState::Open).await;
        let mut here = fleet[0].fleet.events();
        let mut there = fleet[1].fleet.events();
        database
            .execute(&format!(
                "BEGIN; \
                 DELETE FROM \"bulkman\".namespace; \
                 INSERT INTO \"bulkman\".namespace TABLE \"bulkman\".saved_namespace; \
                 INSERT INTO \"bulkman\".circuit TABLE \"bulkman\".saved_circuit; \
                 SELECT \"bulkman\".reset('fleet', 'search', 'change ' || n) \
                   FROM generate_series(1, {others}) AS n; \
                 COMMIT",
            ))
            .await;
        let lost = |event: &FleetEvent| matches!(event, FleetEvent::HistoryLost);
        smol::future::or(next(&mut here, lost), next(&mut there, lost)).await;
        for process in fleet.iter() {
            process
                .until(|process| {
                    let snapshot = process.fleet.snapshot();
                    let payments = snapshot
                        .circuits
                        .iter()
                        .find(|it| it.name.as_str() == "payments");
                    snapshot.pending == 0
                        && payments.is_some_and(|payments| payments.state == Some(FleetState::Open))
                })
                .await;
            assert_eq!(
                process.state(),
                CircuitState::Open,
                "the unexpired opening was republished"
            );
        }
        let status = database.store("fleet").admin().status().await.unwrap();
        assert_eq!(
            status[0].state,
            FleetState::Open,
            "after {others} other changes"
        );
        drop(fleet);
    }
}
