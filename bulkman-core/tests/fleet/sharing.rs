//! How an opening reaches the other processes: by transition, quorum or counts.

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::DecisionOutcome;
use bulkman_core::store::{FleetCountPolicy, FleetState, MemoryStore, SharingMode, StoreSettings};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError};

use crate::world::{World, assert_all, drain, outcomes};

/// Hazard P13.
#[test]
fn one_opening_opens_every_process() {
    let world = World::new();
    let processes = world.start_processes(5);
    processes[0].fail(5);
    world.run();
    for process in &processes {
        assert_eq!(process.state(), CircuitState::Open);
        let rejected = process.call(Ok(())).unwrap_err();
        assert!(
            matches!(
                &rejected,
                BulkheadError::CircuitOpen {
                    reason: RejectionReason::Open,
                    ..
                }
            ),
            "{rejected}"
        );
        assert_eq!(
            rejected.retry_after(),
            Some(Duration::from_secs(30)),
            "the same in every process"
        );
    }
    assert_eq!(world.store_view(), (FleetState::Open, 1));
}

/// Hazard P13.
#[test]
fn a_late_success_does_not_close_a_remote_opening() {
    let world = World::new();
    let processes = world.start_processes(2);
    let permit = processes[1].bulkhead.try_acquire().unwrap();
    processes[0].fail(5);
    world.run();
    permit.succeed();
    world.run();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    assert_all(&processes, CircuitState::Open);
}

#[test]
fn an_opening_before_the_first_connection_is_published() {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    let join = || {
        let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone()).unwrap();
        bulkhead.share_through(store.clone()).unwrap();
        bulkhead
    };
    let (first, second) = (join(), join());
    first.circuit_breaker().unwrap().open();
    runtime.advance(Duration::from_secs(1));
    for bulkhead in [&first, &second] {
        assert_eq!(
            bulkhead.circuit_breaker().unwrap().state(),
            CircuitState::Open
        );
    }
}

#[test]
fn below_the_quorum_only_the_voter_opens() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(60)));
    let processes = world.start_processes_with(4, &settings);
    processes[0].fail(5);
    world.run();
    assert_eq!(
        processes[0].state(),
        CircuitState::Open,
        "protected by its local rules"
    );
    assert_all(&processes[1..], CircuitState::Closed);
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    // Below the quorum it recovers with local probes.
    world.advance(30);
    for _ in 0..3 {
        processes[0].call(Ok(())).unwrap();
    }
    assert_eq!(processes[0].state(), CircuitState::Closed);
    // A vote is valid for a minute.
    processes[1].fail(5);
    world.run();
    assert_all(&processes, CircuitState::Open); // two votes of four processes
    assert_eq!(world.store_view(), (FleetState::Open, 1));
}

#[test]
fn a_vote_outside_the_window_does_not_count() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(10)));
    let processes = world.start_processes_with(2, &settings);
    processes[0].fail(5);
    world.advance(11);
    processes[1].fail(5);
    world.run();
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
}

/// Hazard P13.
#[test]
fn fleet_counts_open_below_every_local_threshold() {
    let world = World::new();
    let policy = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(8);
    let settings = StoreSettings::new().share(SharingMode::Counts(policy));
    let processes = world.start_processes_with(2, &settings);
    // Four failures in each process, but never five in a row.
    for process in &processes {
        process.fail(4);
        process.call(Ok(())).unwrap();
    }
    world.advance(3);
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    assert_all(&processes, CircuitState::Open);
}

#[test]
fn simultaneous_decisions_are_published_in_one_operation() {
    let world = World::new();
    let processes = world.start_processes(1);
    let bulkheads: Vec<_> = (0..100)
        .map(|index| {
            let config = BulkheadConfig::new(format!("c{index}").as_str());
            let bulkhead = Bulkhead::new(config, world.runtime.clone()).unwrap();
            processes[0].fleet.attach(&bulkhead).unwrap();
            bulkhead
        })
        .collect();
    world.run();
    let mut events = processes[0].fleet.events();
    let before = processes[0].store.operations();
    for bulkhead in &bulkheads {
        bulkhead.circuit_breaker().unwrap().open();
    }
    world.run();
    assert_eq!(processes[0].store.operations(), before + 1);
    assert_eq!(
        outcomes(&drain(&mut events)),
        [DecisionOutcome::Published; 100]
    );
}

#[test]
fn simultaneous_openings_are_one_transition() {
    let world = World::new();
    let processes = world.start_processes(20);
    let mut events: Vec<_> = processes
        .iter()
        .map(|process| process.fleet.events())
        .collect();
    for process in &processes {
        process.fail(5);
    }
    world.run();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    let outcomes: Vec<_> = events
        .iter_mut()
        .flat_map(|events| outcomes(&drain(events)))
        .collect();
    assert_eq!(
        outcomes.len(),
        20,
        "every decision has an outcome: {outcomes:?}"
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == DecisionOutcome::Published)
            .count(),
        1
    );
    assert_all(&processes, CircuitState::Open);
}
