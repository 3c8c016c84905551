//! A store that can only be read, such as a standby.

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{Fault, FleetAction, FleetState, OnOutage, StoreSettings};

use crate::world::{Process, World, assert_all, drain, outcomes};

fn set_read_only(world: &World, processes: &[Process]) {
    for process in processes {
        process.store.set(Fault::ReadOnly);
    }
    world.advance(6);
}

/// Fault C11.
#[test]
fn states_are_adopted_from_a_read_only_store() {
    let world = World::new();
    let processes = world.start_processes(2);
    let mut events = processes[0].fleet.events();
    set_read_only(&world, &processes);
    world.command(FleetAction::ForceOpen);
    world.advance(1);
    assert_all(&processes, CircuitState::ForcedOpen);
    let snapshot = processes[0].fleet.snapshot();
    assert!(snapshot.connected && snapshot.read_only && snapshot.polling);
    assert!(snapshot.error.unwrap().contains("read-only"));
    let late = world.store_of("late", StoreSettings::new());
    late.set(Fault::ReadOnly);
    let late = world.start_on(late);
    world.run();
    assert_eq!(late.state(), CircuitState::ForcedOpen);
    world.command(FleetAction::Close);
    world.advance(1);
    assert_all(&processes, CircuitState::Closed);
    assert_eq!(late.state(), CircuitState::Closed);

    world.clear_faults(&processes);
    world.advance(1);
    let snapshot = processes[0].fleet.snapshot();
    assert!(!snapshot.read_only && !snapshot.polling && snapshot.error.is_none());
    let events = drain(&mut events);
    assert!(
        matches!(
            events[..],
            [FleetEvent::ReadOnly { .. }, FleetEvent::WritesResumed]
        ),
        "{events:?}"
    );
    assert_eq!(processes[0].store.connects(), 1);
}

/// Fault C11.
#[test]
fn a_circuit_is_registered_once_the_store_accepts_changes() {
    let world = World::new();
    let store = world.store_of("first", StoreSettings::new());
    store.set(Fault::ReadOnly);
    let process = world.start_on(store);
    world.run();
    let snapshot = process.fleet.snapshot();
    assert!(snapshot.connected && snapshot.read_only);
    // Nothing but reads: one, and then one for each interval of polling.
    let operations = process.store.operations();
    assert!(operations <= 2, "{operations}");
    process.store.clear();
    world.advance(2);
    world.command(FleetAction::ForceOpen);
    world.run();
    assert_eq!(process.state(), CircuitState::ForcedOpen);
}

/// Fault C11.
#[test]
fn decisions_wait_until_the_store_accepts_changes() {
    for found_by_polling in [true, false] {
        let world = World::new();
        let processes = world.start_processes(3);
        let mut events = processes[0].fleet.events();
        if found_by_polling {
            set_read_only(&world, &processes);
        } else {
            processes[0].store.set(Fault::ReadOnly);
        }
        processes[0].fail(5);
        let payments = processes[0].bulkhead.circuit_breaker().unwrap();
        assert_eq!(payments.state(), CircuitState::Open);
        world.advance(10);
        let snapshot = processes[0].fleet.snapshot();
        assert_eq!((snapshot.pending, snapshot.connected), (1, true));
        assert_eq!(processes[1].state(), CircuitState::Closed);
        world.clear_faults(&processes);
        // One poll finds it. The process was never cut off, so that it opens for the whole fleet.
        world.advance(1);
        assert_all(&processes, CircuitState::Open);
        let events = drain(&mut events);
        let pending = |event: &&FleetEvent| matches!(event, FleetEvent::Pending { .. });
        assert_eq!(events.iter().filter(pending).count(), 1, "{events:?}");
        assert_eq!(outcomes(&events), [DecisionOutcome::Published]);
        assert_eq!(processes[0].fleet.snapshot().pending, 0);
        assert_eq!(processes[0].store.connects(), 1);
    }
}

/// Fault C11.
#[test]
fn a_half_open_circuit_on_a_read_only_store_is_in_an_outage() {
    for on_outage in [OnOutage::ProbeLocally { probes: 1 }, OnOutage::HoldOpen] {
        let world = World::new();
        let settings = StoreSettings::new().on_outage(on_outage);
        let processes = world.start_processes_with(20, &settings);
        processes[0].fail(5);
        world.run();
        set_read_only(&world, &processes);
        world.advance(24);
        // The outage begins after the delay, in one process after the other.
        let mut probing = Vec::new();
        for second in 0..40 {
            let count = |process: &&Process| process.bulkhead.try_acquire().is_ok();
            probing.push(processes.iter().filter(count).count());
            if second == 39 && on_outage == OnOutage::HoldOpen {
                let rejection = processes[0].call(Ok(())).unwrap_err();
                let reason = RejectionReason::NoProbeLease;
                assert!(format!("{rejection:?}").contains(&format!("{reason:?}")));
            }
            world.advance(1);
        }
        let expected = if on_outage == OnOutage::HoldOpen {
            0
        } else {
            20
        };
        assert_eq!(probing[39], expected, "{on_outage:?}: {probing:?}");
        assert_eq!(world.store_view(), (FleetState::Open, 1));
        world.clear_faults(&processes);
        world.advance(1);
        // Leases again.
        for process in &processes {
            let _demand = process.bulkhead.try_acquire().map(drop);
        }
        world.advance(1);
        let leased = processes
            .iter()
            .filter(|process| process.bulkhead.try_acquire().is_ok());
        assert_eq!(leased.count(), 1);
    }
}

/// A server that is replaced can only be read for a moment.
///
/// Fault C11.
#[test]
fn an_outage_on_a_read_only_store_begins_after_a_delay() {
    let world = World::new();
    let processes = world.start_processes(20);
    processes[0].fail(5);
    world.advance(31);
    for process in &processes {
        process.store.set(Fault::ReadOnly);
        process.call(Ok(())).unwrap_err();
    }
    let admits = |process: &Process| process.bulkhead.try_acquire().is_ok();
    for _ in 0..15 {
        world.runtime.advance(Duration::from_millis(100));
        world.run();
        assert!(!processes.iter().any(admits), "the fleet's probes only");
    }
    assert!(processes[0].fleet.snapshot().read_only);
    world.advance(24);
    assert!(processes.iter().all(admits), "each process probes");
}

/// A standby that has not received the last changes.
///
/// Fault C11.
#[test]
fn a_lagging_standby_loses_no_history() {
    let world = World::new();
    let processes = world.start_processes(2);
    world.command(FleetAction::Disable);
    world.run();
    let standby = world.memory.backup();
    world.command(FleetAction::ForceOpen);
    world.run();
    let primary = world.memory.backup();
    let mut events = processes[0].fleet.events();
    world.memory.restore(&standby);
    for process in &processes {
        process.store.set(Fault::ReadOnly);
        process.store.break_sessions();
    }
    world.advance(6);
    assert!(processes[0].fleet.snapshot().read_only);
    assert_all(&processes, CircuitState::ForcedOpen);
    // It follows.
    world.memory.restore(&primary);
    world.command(FleetAction::Close);
    world.advance(1);
    assert_all(&processes, CircuitState::Closed);
    world.clear_faults(&processes);
    world.advance(2);
    let events = drain(&mut events);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, FleetEvent::HistoryLost)),
        "{events:?}"
    );
}

/// Fault C11.
#[test]
fn a_shutdown_on_a_read_only_store_ends_at_once() {
    let world = World::new();
    let processes = world.start_processes(1);
    set_read_only(&world, &processes);
    processes[0].fail(5);
    world.run();
    let (before, operations) = (world.runtime.elapsed(), processes[0].store.operations());
    assert!(!world.runtime.block_on(processes[0].fleet.shutdown()));
    assert_eq!(processes[0].store.operations(), operations);
    assert!(world.runtime.elapsed() - before < Duration::from_millis(500));
}
