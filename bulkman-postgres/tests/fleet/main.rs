//! Fleets on a real server that is stopped, frozen and disconnected, on Tokio and on smol.
//!
//! Each process has a separate session.

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod failures;
mod floods;
mod lost_history;
mod outages;
mod read_only;
mod rejections;

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::DecisionOutcome;
use bulkman_core::store::{FleetState, Push, SharingMode};
use bulkman_core::{BulkheadError, Runtime};
use bulkman_smol::SmolRuntime;
use bulkman_test_support::Postgres;
use bulkman_tokio::TokioRuntime;

use common::processes::{
    LONG, Process, Processes, SHORT, decision_outcome, pause, settings, store, store_with,
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
use lost_history::{lost_history_is_detected, lost_history_is_detected_after_other_changes};
use outages::{
    fleet_recovers_from_killed_connections, frozen_server_delays_no_call,
    process_starts_during_an_open_transaction, revoked_privilege_is_reported,
    server_restart_loses_no_decision,
};
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
