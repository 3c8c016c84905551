//! Behavior while the store is unavailable, slow or loses responses.

use std::time::Duration;

use bulkman_core::BulkheadError;
use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{
    Fault, FleetCountPolicy, FleetState, OnOutage, SharingMode, StoreSettings,
};

use crate::world::{World, assert_all, drain, outcomes};

/// Hazard P12.
#[test]
fn an_outage_loses_no_decision_and_blocks_no_call() {
    let world = World::new();
    let processes = world.start_processes(3);
    let mut events = processes[0].fleet.events();
    world.set_fault(&processes, &Fault::Down);
    world.run();
    assert!(!processes[0].fleet.snapshot().connected);
    // Two processes decide: what a single one decides without the store is only a vote.
    for process in &processes[..2] {
        process.fail(5);
        assert_eq!(process.state(), CircuitState::Open, "local rules apply");
    }
    world.advance(5);
    assert_eq!(processes[2].state(), CircuitState::Closed);
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
    assert_eq!(outcomes(&events).len(), 1, "{events:?}");
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

/// Until then it stays in effect in this process, whose own probes close the circuit.
#[test]
fn an_opening_expires_once_the_store_accepts_changes() {
    for (fault, by_operator) in [
        (Fault::Down, false),
        (Fault::Down, true),
        (Fault::ReadOnly, false),
        (Fault::ReadOnly, true),
    ] {
        let world = World::new();
        let processes = world.start_processes(1);
        let process = &processes[0];
        let mut events = process.fleet.events();
        world.set_fault(&processes, &fault);
        if by_operator {
            process.bulkhead.circuit_breaker().unwrap().open();
        } else {
            process.fail(5);
        }
        world.advance(40);
        assert_eq!(
            process.state(),
            CircuitState::HalfOpen,
            "{fault:?}: not closed by a stale state"
        );
        assert_eq!(process.fleet.snapshot().pending, 1, "{fault:?}");
        assert_eq!(outcomes(&drain(&mut events)), [], "{fault:?}");
        world.clear_faults(&processes);
        world.advance(3);
        assert_eq!(
            outcomes(&drain(&mut events)),
            [DecisionOutcome::Expired],
            "{fault:?}"
        );
        assert_eq!(process.state(), CircuitState::Closed, "{fault:?}");
        assert_eq!(process.fleet.snapshot().pending, 0, "{fault:?}");
    }
}

/// The process has not opened its circuit: it waits for the store to confirm the opening.
#[test]
fn an_opening_by_counts_expires_once_the_store_is_back() {
    let world = World::new();
    let policy = FleetCountPolicy::new(Duration::from_secs(10), 5).failure_count_threshold(4);
    let settings = StoreSettings::new().share(SharingMode::Counts(policy));
    let processes = world.start_processes_with(1, &settings);
    let process = &processes[0];
    let mut events = process.fleet.events();
    let payments = BulkheadName::new("payments").unwrap();
    process.store.reject_circuit(payments, false);
    process.fail(4);
    process.call(Ok(())).unwrap();
    world.advance(3);
    assert_eq!(process.fleet.snapshot().pending, 1, "it can't be published");
    process.store.set(Fault::Down);
    world.advance(40);
    assert_eq!(process.fleet.snapshot().pending, 1);
    assert_eq!(outcomes(&drain(&mut events)), []);
    world.clear_faults(&processes);
    world.advance(3);
    assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Superseded]);
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    assert_eq!(process.state(), CircuitState::Closed);
    assert_eq!(process.fleet.snapshot().pending, 0);
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
    world.advance(1);
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
        assert_all(&processes, CircuitState::Open);
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

/// Fault C03.
#[test]
fn a_short_outage_keeps_the_agreed_number_of_probes() {
    // With the backoff of up to 2 s, the last one ends just before an outage may begin.
    for lost_for in [50, 1_000, 1_900] {
        let world = World::new();
        let processes = world.start_processes(8);
        processes[0].fail(5);
        world.advance(30);
        let mut running = Vec::new();
        let mut most = 0;
        // Each probe takes 2.5 s, and every process calls every 50 ms.
        for tick in 0..480_u64 {
            if tick == 40 {
                for process in &processes {
                    process.store.set(Fault::Down);
                }
            }
            if tick * 50 == 2_000 + lost_for {
                world.clear_faults(&processes);
            }
            for process in &processes {
                if let Ok(permit) = process.bulkhead.try_acquire() {
                    if process.state() == CircuitState::HalfOpen {
                        running.push((tick + 50, permit));
                    }
                }
            }
            most = most.max(running.len());
            world.runtime.advance(Duration::from_millis(50));
            world.run();
            while running.first().is_some_and(|(end, _)| *end <= tick) {
                running.remove(0).1.succeed();
            }
            world.run();
        }
        assert_eq!(most, 1, "lost for {lost_for} ms");
        assert_eq!(world.store_view().0, FleetState::Closed);
    }
}

/// Fault C03.
#[test]
fn in_a_long_outage_the_processes_start_to_probe_one_by_one() {
    let world = World::new();
    let processes = world.start_processes(100);
    processes[0].fail(5);
    world.run();
    world.set_fault(&processes, &Fault::Down);
    world.advance(24);
    let mut probing_at = Vec::new();
    let mut waiting: Vec<_> = processes.iter().collect();
    let mut permits = Vec::new();
    for tick in 0..400 {
        waiting.retain(|process| match process.bulkhead.try_acquire() {
            Ok(permit) => {
                permits.push(permit);
                probing_at.push(tick);
                false
            }
            Err(_) => true,
        });
        world.runtime.advance(Duration::from_millis(100));
        world.run();
    }
    assert_eq!(probing_at.len(), 100, "each process probes in the end");
    // The isolation elapses 30 s after the loss, when most delays have elapsed as well.
    assert!(probing_at[0] < 10);
}

/// Fault C03.
#[test]
fn processes_that_are_cut_off_at_once_probe_at_different_times() {
    let world = World::new();
    let processes = world.start_processes(100);
    processes[0].fail(5);
    world.advance(31);
    for process in &processes {
        process.store.set(Fault::Down);
        process.call(Ok(())).unwrap_err();
    }
    let mut permits = Vec::new();
    for _ in 0..25 {
        world.advance(1);
        let before = permits.len();
        permits.extend(
            processes
                .iter()
                .filter_map(|process| process.bulkhead.try_acquire().ok()),
        );
        // The delays differ by up to 20 s.
        let begun = permits.len() - before;
        assert!(begun <= 25, "{begun} of 100 processes in one second");
    }
    assert_eq!(permits.len(), 100, "each process probes in the end");
}

/// Fault C03.
#[test]
fn a_lease_outlives_its_session() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    world.advance(1);
    for process in &processes {
        process.store.break_sessions();
    }
    let before = processes[0].bulkhead.try_acquire().unwrap();
    world.advance(1);
    assert!(processes[1].bulkhead.try_acquire().is_err());
    // The report finds the session lost, and is repeated on the next one.
    before.succeed();
    let mut probes = 1;
    while world.store_view().0 == FleetState::HalfOpen {
        probes += usize::from(processes[0].call(Ok(())).is_ok());
        world.runtime.advance(Duration::from_millis(20));
        assert!(world.runtime.elapsed() < Duration::from_secs(34));
    }
    assert_eq!(probes, 3);
    assert_eq!(world.store_view().0, FleetState::Closed);
}

/// Fault C08.
#[test]
fn a_process_that_was_cut_off_opens_only_its_own_circuit() {
    let world = World::new();
    let processes = world.start_processes(8);
    let mut events = processes[0].fleet.events();
    // Half of the failures occur before the loss is noticed.
    processes[0].fail(2);
    processes[0].store.set(Fault::Hang);
    processes[0].fail(3);
    world.advance(10);
    processes[0].store.clear();
    // An attempt to connect that hangs takes 7 s.
    world.advance(10);
    assert!(processes[0].fleet.snapshot().connected);
    assert_eq!(processes[0].state(), CircuitState::Open);
    for process in &processes[1..] {
        assert_eq!(process.state(), CircuitState::Closed);
    }
    assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Voted]);
    assert_eq!(processes[0].fleet.snapshot().pending, 0);
    // It recovers with its own probes.
    world.advance(30);
    for _ in 0..3 {
        processes[0].call(Ok(())).unwrap();
    }
    assert_eq!(processes[0].state(), CircuitState::Closed);
    assert_eq!(world.store_view().0, FleetState::Closed);
}

/// Fault C08.
#[test]
fn two_processes_that_were_cut_off_open_the_circuit_for_all() {
    let world = World::new();
    let processes = world.start_processes(8);
    for process in &processes[..2] {
        process.store.set(Fault::Hang);
    }
    world.advance(8);
    for process in &processes[..2] {
        process.fail(5);
    }
    world.clear_faults(&processes);
    // An attempt to connect that hangs takes 7 s.
    world.advance(10);
    for process in &processes {
        assert_eq!(process.state(), CircuitState::Open);
    }
}

/// Connecting to a store that does not respond takes up to 7 s.
///
/// Fault C20.
#[test]
fn an_outage_begins_while_the_driver_connects() {
    let world = World::new();
    let settings = StoreSettings::new().outage_after(Duration::from_secs(1));
    let processes = world.start_processes_with(1, &settings);
    processes[0].fail(5);
    world.advance(25);
    processes[0].store.set(Fault::Hang);
    let is_connected = || processes[0].fleet.snapshot().connected;
    while is_connected() || processes[0].state() == CircuitState::Open {
        assert!(is_connected() || world.runtime.elapsed() < Duration::from_secs(40));
        world.runtime.advance(Duration::from_millis(50));
    }
    // The delay is at most six times `outage_after`.
    world.runtime.advance(Duration::from_millis(6_100));
    world.run();
    assert!(processes[0].bulkhead.try_acquire().is_ok());
}

/// Fault C20.
#[test]
fn a_lease_expires_while_the_driver_connects() {
    let world = World::new();
    let settings = StoreSettings::new().outage_after(Duration::from_secs(60));
    let processes = world.start_processes_with(2, &settings);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    // An unused lease is held for longer each time.
    while world.runtime.elapsed() < Duration::from_secs(42) {
        world.runtime.advance(Duration::from_millis(100));
    }
    assert!(processes[0].bulkhead.try_acquire().is_ok());
    let operations = processes[0].store.operations();
    processes[0].store.set(Fault::Hang);
    while processes[0].store.operations() == operations {
        world.runtime.advance(Duration::from_millis(50));
    }
    // The renewal that hangs was sent at most 2 s after the lease was acquired or renewed.
    let mut probed_elsewhere = false;
    for _ in 0..120 {
        world.runtime.advance(Duration::from_millis(100));
        let elsewhere = processes[1].bulkhead.try_acquire();
        if elsewhere.is_ok() {
            let here = processes[0].bulkhead.try_acquire();
            assert!(here.is_err(), "two probes at once");
            probed_elsewhere = true;
        }
    }
    assert!(processes[0].bulkhead.try_acquire().is_err());
    // None of its probes had an outcome, so it does not hold the lease all the time.
    assert!(probed_elsewhere);
}
