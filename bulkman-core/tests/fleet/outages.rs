//! Behavior while the store is unavailable, slow or loses responses.

use std::time::Duration;

use bulkman_core::BulkheadError;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{Fault, FleetState, OnOutage, StoreSettings};

use crate::world::{World, drain, outcomes};

/// Hazard P12.
#[test]
fn an_outage_loses_no_decision_and_blocks_no_call() {
    let world = World::new();
    let processes = world.start_processes(3);
    let mut events = processes[0].fleet.events();
    world.set_fault(&processes, &Fault::Down);
    world.run();
    assert!(!processes[0].fleet.snapshot().connected);
    processes[0].fail(5);
    assert_eq!(
        processes[0].state(),
        CircuitState::Open,
        "local rules apply"
    );
    world.advance(5);
    assert_eq!(processes[1].state(), CircuitState::Closed);
    assert_eq!(processes[0].fleet.snapshot().pending, 1);
    world.clear_faults(&processes);
    world.advance(3);
    for process in &processes {
        assert_eq!(process.state(), CircuitState::Open);
        let remaining = process.call(Ok(())).unwrap_err().retry_after().unwrap();
        assert!(
            remaining > Duration::from_secs(21) && remaining < Duration::from_secs(23),
            "{remaining:?} remain of 30 s"
        );
    }
    let events = drain(&mut events);
    assert!(
        matches!(events[0], FleetEvent::Degraded { .. }),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, FleetEvent::Synchronized { after: Some(_) })),
        "{events:?}"
    );
    assert_eq!(
        outcomes(&events),
        [DecisionOutcome::Published],
        "{events:?}"
    );
    assert_eq!(processes[0].fleet.snapshot().pending, 0);
}

#[test]
fn a_renewed_opening_is_published_on_the_same_epoch() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.run();
    let mut events = processes[0].fleet.events();
    processes[0].store.set(Fault::Down);
    processes[0].store.break_sessions();
    world.run();
    processes[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(3_600));
    world.advance(3);
    processes[0].store.clear();
    world.advance(5);
    // The session begins with a full snapshot: the same epoch, and open, but for a shorter time.
    assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Published]);
    assert_eq!(world.store_view(), (FleetState::Open, 2));
    let rejected = processes[1].call(Ok(())).unwrap_err();
    assert!(
        rejected.retry_after().unwrap() > Duration::from_secs(3_500),
        "{rejected}"
    );
}

#[test]
fn an_expired_opening_is_not_published() {
    let world = World::new();
    let processes = world.start_processes(2);
    let mut events = processes[0].fleet.events();
    world.set_fault(&processes, &Fault::Down);
    processes[0].fail(5);
    world.advance(40);
    assert_eq!(
        processes[0].state(),
        CircuitState::HalfOpen,
        "not closed by a stale state"
    );
    world.clear_faults(&processes);
    world.advance(3);
    assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Expired]);
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    assert_eq!(processes[0].state(), CircuitState::Closed);
}

#[test]
fn during_an_outage_each_process_probes_locally() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.run();
    world.set_fault(&processes, &Fault::Down);
    world.advance(31);
    for process in &processes {
        let probe = process.bulkhead.try_acquire().unwrap();
        assert!(
            process.bulkhead.try_acquire().is_err(),
            "one probe at a time"
        );
        probe.succeed();
    }
    for _ in 0..2 {
        processes[0].call(Ok(())).unwrap();
    }
    assert_eq!(processes[0].state(), CircuitState::Closed);
    world.clear_faults(&processes);
    world.advance(3);
    assert_eq!(
        world.store_view().0,
        FleetState::Closed,
        "the result of its probes is published"
    );
    assert_eq!(processes[1].state(), CircuitState::Closed);
}

#[test]
fn hold_open_admits_no_probe_during_an_outage() {
    let world = World::new();
    let settings = StoreSettings::new().on_outage(OnOutage::HoldOpen);
    let process = world.start("x", settings);
    world.run();
    process.fail(5);
    world.run();
    process.store.set(Fault::Down);
    world.advance(60);
    let rejected = process.call(Ok(())).unwrap_err();
    assert!(
        matches!(
            rejected,
            BulkheadError::CircuitOpen {
                reason: RejectionReason::NoProbeLease,
                ..
            }
        ),
        "{rejected}"
    );
    process.store.clear();
    world.advance(3);
    process.call(Ok(())).unwrap_err();
    world.advance(2);
    process.call(Ok(())).unwrap();
}

#[test]
fn a_frozen_store_is_detected_within_poll_and_timeout() {
    let world = World::new();
    let process = world.start("x", StoreSettings::new());
    world.run();
    process.store.set(Fault::Hang);
    // A poll starts within 5 s, and its operation times out after 2 s.
    world.advance(8);
    let snapshot = process.fleet.snapshot();
    assert!(!snapshot.connected);
    assert!(snapshot.staleness.unwrap() >= Duration::from_secs(2));
    assert!(snapshot.degraded_for.is_some() && snapshot.error.is_some());
    assert_eq!(process.call(Ok(())), Ok(()));
}

#[test]
fn a_lost_response_does_not_apply_a_change_twice() {
    for fault in [Fault::ResponseLost, Fault::DisconnectAfterApply] {
        let world = World::new();
        let processes = world.start_processes(2);
        let mut events = processes[0].fleet.events();
        processes[0].store.set(fault);
        processes[0].fail(5);
        world.advance(3);
        processes[0].store.clear();
        // An attempt to connect, which takes up to 7 s, may have lost its response as well.
        world.advance(9);
        assert_eq!(world.store_view(), (FleetState::Open, 1));
        assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Published]);
        assert!(
            processes
                .iter()
                .all(|process| process.state() == CircuitState::Open)
        );
    }
}

#[test]
fn attempts_to_reconnect_back_off() {
    let world = World::new();
    let processes = world.start_processes(20);
    world.set_fault(&processes, &Fault::Down);
    world.advance(60);
    let connects: usize = processes
        .iter()
        .map(|process| process.store.connects())
        .sum();
    // On average one attempt per second and process, once the backoff has reached two seconds.
    assert!(
        (20 * 30..20 * 100).contains(&connects),
        "{connects} attempts in a minute"
    );
}
