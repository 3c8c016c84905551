//! Notifications of the store, and polling without them.

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{Fault, FleetAction, FleetState, StoreSettings};
use bulkman_core::{Bulkhead, BulkheadConfig};

use crate::world::{Process, World, assert_all, drain, outcomes};

#[test]
fn a_later_local_opening_is_superseded_by_the_stored_one() {
    let world = World::new();
    let processes = world.start_processes(2);
    let mut events = processes[1].fleet.events();
    let other = world.bulkhead("z");
    processes[0].fleet.attach(&other).unwrap();
    world.run();
    processes[1].store.drop_notifications(true);
    processes[0].fail(5);
    world.run();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    processes[1].store.drop_notifications(false);
    processes[1]
        .store
        .set(Fault::Slow(Duration::from_millis(500)));
    other.circuit_breaker().unwrap().open();
    world.run();
    // One notification is missing, so it polls, but has no response yet.
    assert_eq!(processes[1].state(), CircuitState::Closed);
    processes[1].fail(5);
    assert_eq!(processes[1].state(), CircuitState::Open);
    world.advance(5);
    assert_eq!(
        world.store_view(),
        (FleetState::Open, 1),
        "one opening, not a second and longer one"
    );
    assert_eq!(outcomes(&drain(&mut events)), [DecisionOutcome::Superseded]);
    world.advance(24);
    assert_all(&processes, CircuitState::Open);
    world.advance(1);
    assert_all(&processes, CircuitState::HalfOpen);
}

#[test]
fn a_notification_is_applied_without_a_poll() {
    let world = World::new();
    let processes = world.start_processes(2);
    let before = processes[1].store.operations();
    processes[0].fail(5);
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Open);
    assert_eq!(processes[1].store.operations(), before);
    // A missed notification is detected at the next one.
    processes[1].store.drop_notifications(true);
    processes[0].bulkhead.circuit_breaker().unwrap().close();
    world.run();
    processes[1].store.drop_notifications(false);
    assert_eq!(processes[1].state(), CircuitState::Open);
    processes[0].bulkhead.circuit_breaker().unwrap().open();
    world.run();
    assert_eq!(
        (processes[1].state(), processes[1].store.operations()),
        (CircuitState::Open, before + 1)
    );
    processes[0].bulkhead.circuit_breaker().unwrap().close();
    world.run();
    assert_eq!(
        (processes[1].state(), processes[1].store.operations()),
        (CircuitState::Closed, before + 1)
    );
}

#[test]
fn the_delay_of_a_notification_is_subtracted() {
    let world = World::new();
    let processes = world.start_processes(2);
    let other = world.bulkhead("z");
    processes[1].fleet.attach(&other).unwrap();
    world.run();
    // The driver waits for a response before it reads notifications.
    processes[1]
        .store
        .set(Fault::Slow(Duration::from_millis(1500)));
    other.circuit_breaker().unwrap().open();
    world.run();
    processes[0].fail(5);
    world.advance(1);
    assert_eq!(processes[1].state(), CircuitState::Closed);
    world.advance(1);
    assert_eq!(processes[1].state(), CircuitState::Open);
    world.advance(27);
    assert_all(&processes, CircuitState::Open);
    world.advance(1);
    assert_all(&processes, CircuitState::HalfOpen); // at the same time
}

#[test]
fn simultaneous_remote_openings_are_read_together() {
    let world = World::new();
    let processes = world.start_processes(2);
    let attach = |process: &Process| {
        let bulkheads = (0..50).map(|index| {
            let config = BulkheadConfig::new(format!("c{index}").as_str());
            let bulkhead = Bulkhead::new(config, world.runtime.clone()).unwrap();
            process.fleet.attach(&bulkhead).unwrap();
            bulkhead
        });
        bulkheads.collect::<Vec<_>>()
    };
    let (local, remote) = (attach(&processes[0]), attach(&processes[1]));
    world.run();
    let before = processes[1].store.operations();
    processes[1]
        .store
        .set(Fault::Slow(Duration::from_millis(10)));
    for bulkhead in remote.iter().chain(&local) {
        bulkhead.circuit_breaker().unwrap().open();
    }
    world.advance(1);
    let executed = processes[1].store.operations() - before;
    assert!(
        executed <= 4,
        "remote openings were read one by one: {executed} operations"
    );
    assert!(
        local
            .iter()
            .chain(&remote)
            .all(|bulkhead| !bulkhead.is_healthy())
    );
    assert_eq!(processes[1].fleet.snapshot().pending, 0);
}

#[test]
fn lost_notifications_cause_a_fallback_to_polling() {
    let world = World::new();
    let processes = world.start_processes(2);
    let mut events = processes[1].fleet.events();
    processes[1].store.drop_notifications(true);
    processes[0].fail(5);
    world.run();
    assert_eq!(
        processes[1].state(),
        CircuitState::Closed,
        "no notification arrived"
    );
    world.advance(6);
    assert_eq!(processes[1].state(), CircuitState::Open, "found by polling");
    world.command(FleetAction::Close);
    world.advance(6);
    let events = drain(&mut events);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, FleetEvent::FellBackToPolling)),
        "{events:?}"
    );
    assert!(processes[1].fleet.snapshot().polling);
    world.command(FleetAction::ForceOpen);
    world.advance(2);
    assert_eq!(
        processes[1].state(),
        CircuitState::ForcedOpen,
        "within a poll interval and its jitter"
    );
    // It relies on notifications again once they arrive before its polls.
    processes[1].store.drop_notifications(false);
    for action in [FleetAction::Close, FleetAction::ForceOpen] {
        world.command(action);
        world.run();
        assert!(processes[1].fleet.snapshot().polling);
    }
    world.command(FleetAction::Close);
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Closed);
    assert!(!processes[1].fleet.snapshot().polling);
}

#[test]
fn an_idle_process_only_polls() {
    let world = World::new();
    let process = world.start("x", StoreSettings::new());
    for name in 0..199 {
        let other = Bulkhead::new(
            BulkheadConfig::new(format!("other {name}")),
            world.runtime.clone(),
        )
        .unwrap();
        process.fleet.attach(&other).unwrap();
        std::mem::forget(other);
    }
    world.advance(10);
    let before = process.store.operations();
    world.advance(100);
    let executed = process.store.operations() - before;
    assert!(
        (16..=26).contains(&executed),
        "one poll per five seconds, regardless of the number of circuits: {executed}"
    );
}
