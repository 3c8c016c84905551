//! Changes by operators and through a bulkhead.

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::store::{Fault, FleetAction, FleetState, SharingMode, StoreSettings};

use crate::world::{World, assert_all};

/// A circuit that was forced before an outage is forced after it, despite local transitions.
#[test]
fn a_forced_state_outlasts_a_local_opening() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(60)));
    let process = world.start("x", settings);
    world.run();
    world.command(FleetAction::ForceOpen);
    world.run();
    process.store.set(Fault::Down);
    world.advance(6);
    process.bulkhead.circuit_breaker().unwrap().close();
    process.fail(5);
    world.advance(31);
    process.store.clear();
    world.advance(3);
    assert_eq!(process.state(), CircuitState::ForcedOpen);
}

#[test]
fn an_operator_overrules_every_process() {
    let world = World::new();
    let processes = world.start_processes(3);
    world.command(FleetAction::ForceOpen);
    world.run();
    assert_all(&processes, CircuitState::ForcedOpen);
    // A manual change in a process is overruled.
    processes[0].bulkhead.circuit_breaker().unwrap().close();
    world.run();
    assert_eq!(processes[0].state(), CircuitState::ForcedOpen);
    world.command(FleetAction::Disable);
    world.run();
    for process in &processes {
        assert_eq!(process.state(), CircuitState::Disabled);
        process.fail(20);
    }
    world.command(FleetAction::Close);
    world.run();
    assert_all(&processes, CircuitState::Closed);
}

#[test]
fn snapshot_names_the_author_of_the_last_change() {
    let world = World::new();
    let processes = world.start_processes(2);
    let last_change = |process: usize| {
        let circuit = processes[process].fleet.snapshot().circuits.remove(0);
        let text = |text: Option<Arc<str>>| text.map(|text| text.to_string());
        (text(circuit.author), text(circuit.reason), circuit.age)
    };
    assert_eq!(last_change(0), (None, None, None), "it never changed");
    world.command(FleetAction::ForceOpen);
    world.advance(7);
    let seven = Some(Duration::from_secs(7));
    for process in [0, 1] {
        let forced = (Some("ada".to_owned()), Some("a drill".to_owned()), seven);
        assert_eq!(last_change(process), forced);
    }
    // A process that starts later reads how long ago that was.
    let late = world.start("late", StoreSettings::new());
    world.run();
    assert_eq!(late.fleet.snapshot().circuits[0].age, seven);
    // A process is an author, too: the one that publishes, and in the snapshots of all.
    world.command(FleetAction::Close);
    world.run();
    processes[1].fail(5);
    world.run();
    for process in [0, 1] {
        let (author, reason, age) = last_change(process);
        assert_eq!(author.as_deref(), Some("p1"));
        assert_eq!(reason.as_deref(), Some("consecutive_failures"));
        assert_eq!(age, Some(Duration::ZERO));
    }
}

#[test]
fn a_reset_clears_the_counts_of_every_process() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[1].fail(4);
    world.command(FleetAction::Reset);
    world.run();
    processes[1].fail(4);
    assert_eq!(processes[1].state(), CircuitState::Closed);
}

#[test]
fn forcing_through_a_bulkhead_is_local() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .force_open();
    world.run();
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    assert_eq!(processes[1].state(), CircuitState::Closed);
    // It is not overruled by the fleet.
    processes[1].fail(5);
    world.run();
    assert_eq!(processes[0].state(), CircuitState::ForcedOpen);
    world.command(FleetAction::Close);
    world.run();
    assert_eq!(processes[0].state(), CircuitState::ForcedOpen);
    processes[0].bulkhead.circuit_breaker().unwrap().close();
    world.run();
    assert_eq!(processes[0].state(), CircuitState::Closed);
}

#[test]
fn manual_changes_through_a_bulkhead_are_shared() {
    let world = World::new();
    let processes = world.start_processes(2);
    let circuit = processes[0].bulkhead.circuit_breaker().unwrap();
    circuit.open_for(Duration::from_secs(7));
    world.run();
    assert_eq!(
        processes[1].call(Ok(())).unwrap_err().retry_after(),
        Some(Duration::from_secs(7))
    );
    circuit.open_for(Duration::from_secs(90));
    world.run();
    assert_eq!(
        processes[1].call(Ok(())).unwrap_err().retry_after(),
        Some(Duration::from_secs(90))
    );
    circuit.half_open();
    world.run();
    assert_eq!(processes[1].state(), CircuitState::HalfOpen);
    circuit.close();
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Closed);
}
