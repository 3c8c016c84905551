//! A store that loses history.

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{Fault, FleetAction, FleetState};

use crate::world::{World, drain};

#[test]
fn lost_history_is_detected_after_further_changes() {
    // Fewer changes than were lost, the same number, and more; of another circuit and of this one.
    for (circuit, changes) in [
        ("search", 1),
        ("search", 2),
        ("search", 5),
        ("payments", 2),
        ("payments", 3),
    ] {
        let world = World::new();
        let processes = world.start_processes(2);
        let search = world.bulkhead("search");
        processes[0].fleet.attach(&search).unwrap();
        world.run();
        let backup = world.memory.backup();
        // An opening, and then a longer one.
        processes[0].fail(5);
        world.run();
        processes[0]
            .bulkhead
            .circuit_breaker()
            .unwrap()
            .open_for(Duration::from_secs(3_600));
        world.run();
        assert_eq!(world.store_view(), (FleetState::Open, 2));
        let mut events: Vec<_> = processes
            .iter()
            .map(|process| process.fleet.events())
            .collect();

        // The restored store is changed before the next poll.
        world.memory.restore(&backup);
        for change in 0..changes {
            world.command_on(
                circuit,
                [FleetAction::Reset, FleetAction::Close][change % 2],
            );
        }
        world.advance(6);
        let drained: Vec<_> = events.iter_mut().map(drain).collect();
        let lost =
            |events: &Vec<FleetEvent>| events.iter().any(|e| matches!(e, FleetEvent::HistoryLost));
        let context = format!("{changes} of {circuit}: {drained:?}");
        if circuit == "search" {
            // The first process that polls republishes the opening; both may.
            assert!(drained.iter().any(lost), "{context}");
            assert_eq!(
                world.store_view().0,
                FleetState::Open,
                "it had time remaining: {context}"
            );
            for process in &processes {
                let remaining = process.call(Ok(())).unwrap_err().retry_after().unwrap();
                assert!(
                    remaining > Duration::from_secs(3_500),
                    "{remaining:?}, {context}"
                );
            }
        } else if changes == 2 {
            assert!(
                drained.iter().any(lost),
                "another change at the same epoch: {context}"
            );
        } else {
            // A later epoch supersedes the opening.
            assert_eq!(world.store_view(), (FleetState::Closed, 3), "{context}");
        }
        let (state, epoch) = world.store_view();
        for process in &processes {
            let snapshot = process.fleet.snapshot();
            assert_eq!(snapshot.pending, 0, "{context}");
            let payments = &snapshot.circuits[0];
            assert_eq!(
                (payments.state, payments.epoch.0),
                (Some(state), epoch),
                "{context}"
            );
            assert_eq!(
                process.state() == CircuitState::Open,
                state == FleetState::Open,
                "{context}"
            );
        }
    }
}

#[test]
fn a_lagging_standby_receives_the_lost_opening() {
    let world = World::new();
    let processes = world.start_processes(3);
    processes[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(3_600));
    world.run();
    processes[0].bulkhead.circuit_breaker().unwrap().close();
    world.run();
    let standby = world.memory.backup();
    processes[1]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(7_200));
    world.run();
    world.set_fault(&processes, &Fault::Down);
    world.memory.restore(&standby);
    world.clear_faults(&processes);
    world.advance(5);
    for process in &processes {
        let remaining = process.call(Ok(())).unwrap_err().retry_after().unwrap();
        assert!(remaining > Duration::from_secs(7_000), "{remaining:?}");
    }
    assert_eq!(world.store_view().0, FleetState::Open);
}

#[test]
fn a_circuit_that_was_lost_with_the_history_is_registered_again() {
    let world = World::new();
    let empty = world.memory.backup();
    let processes = world.start_processes(1);
    world.command(FleetAction::Close);
    world.run();
    let operations = processes[0].store.operations();
    world.memory.restore(&empty);
    // Found by the next read, which does not wait for another.
    while processes[0].store.operations() == operations {
        world.advance(1);
    }
    assert_eq!(world.store_view().0, FleetState::Closed);
    world.command(FleetAction::ForceOpen);
    world.run();
    assert_eq!(processes[0].state(), CircuitState::ForcedOpen);
}

#[test]
fn without_lost_history_nothing_is_republished() {
    let world = World::new();
    let processes = world.start_processes(2);
    let mut events = processes[0].fleet.events();
    processes[0].fail(5);
    world.run();
    for _ in 0..50 {
        processes[1].store.break_sessions();
        world.command_on("payments", FleetAction::ForceOpen);
        world.command_on("payments", FleetAction::Close);
        world.advance(1);
    }
    let events = drain(&mut events);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, FleetEvent::HistoryLost)),
        "{events:?}"
    );
    let polls = processes[0].store.operations();
    world.advance(100);
    let polls = processes[0].store.operations() - polls;
    assert!(polls <= 26, "not more than an idle process: {polls}");
}
