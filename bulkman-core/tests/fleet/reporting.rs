//! Events and snapshots.

use std::time::Duration;

use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{Fault, FleetState, MemoryStore, StoreError, StoreSettings};
use bulkman_core::testing::ManualRuntime;

use crate::world::{World, drain};

#[test]
fn a_clock_step_is_reported_and_moves_no_deadline() {
    let clock = ManualRuntime::new();
    let mut world = World::new();
    world.memory = MemoryStore::new(clock.clone());
    let process = &world.start_processes(1)[0];
    let mut events = process.fleet.events();
    let mut advance = |seconds: u64| {
        for _ in 0..seconds {
            clock.advance(Duration::from_secs(1));
            world.advance(1);
        }
        let step = |event: &FleetEvent| match event {
            FleetEvent::ClockStepped { by, forward } => Some((by.as_secs() / 10 * 10, *forward)),
            _ => None,
        };
        drain(&mut events)
            .iter()
            .filter_map(step)
            .collect::<Vec<_>>()
    };
    process
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(1_000));
    assert_eq!(advance(60), [], "both clocks run at the same speed");
    clock.advance(Duration::from_secs(605));
    assert_eq!(advance(20), [(600, true)], "reported once");
    // Only the process's clock advances: the store's clock falls behind.
    process.store.set(Fault::Hang);
    world.advance(45);
    process.store.clear();
    assert_eq!(advance(20), [(40, false)]);
    let remaining = process.call(Ok(())).unwrap_err().retry_after().unwrap();
    assert_eq!(
        remaining,
        Duration::from_secs(1_000 - 145),
        "by the clock of this process"
    );
}

#[test]
fn a_permanent_error_is_reported_once() {
    let world = World::new();
    let process = world.start("x", StoreSettings::new());
    world.run();
    let mut events = process.fleet.events();
    process.store.set(Fault::Error(StoreError::denied(
        "GRANT bulkman_app TO this_role",
    )));
    process.store.break_sessions();
    world.advance(10);
    let events = drain(&mut events);
    let denied = events.iter().filter(|e| {
        matches!(
            e,
            FleetEvent::Degraded {
                error: StoreError::Denied { .. }
            }
        )
    });
    assert_eq!(denied.count(), 1, "reported once: {events:?}");
    assert_eq!(process.call(Ok(())), Ok(()));
    process.store.clear();
    world.advance(3);
    assert!(process.fleet.snapshot().connected);
}

#[test]
fn a_snapshot_lists_circuits_by_name() {
    let world = World::new();
    let process = &world.start_processes(1)[0];
    let others = ["search", "accounts", "mail"].map(|name| world.bulkhead(name));
    for other in &others {
        process.fleet.attach(other).unwrap();
    }
    world.run();
    let circuits = process.fleet.snapshot().circuits;
    let names: Vec<&str> = circuits
        .iter()
        .map(|circuit| circuit.name.as_str())
        .collect();
    assert_eq!(names, ["accounts", "mail", "payments", "search"]);
    assert!(
        circuits
            .iter()
            .all(|circuit| circuit.state == Some(FleetState::Closed))
    );
}
