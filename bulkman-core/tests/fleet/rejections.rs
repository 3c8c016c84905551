//! Operations that the store rejects, for one circuit or for all.

use std::time::Duration;

use bulkman_core::bulkhead::{Bulkhead, BulkheadName};
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{Fault, FleetState, StoreError, StoreSettings};

use crate::world::{Process, World, drain};

/// Fault C13, F13.
#[test]
fn an_unstorable_circuit_disconnects_no_other() {
    let world = World::new();
    let processes = world.start_processes(2);
    let store = &processes[0].store;
    store.reject_circuit(BulkheadName::new("bad").unwrap(), true);
    let mut events = processes[0].fleet.events();
    let others: Vec<_> = ["a", "bad", "c", "d", "z"]
        .iter()
        .map(|name| world.bulkhead(name))
        .collect();
    for other in &others {
        processes[0].fleet.attach(other).unwrap();
    }
    world.run();
    let check = |reconnected: bool| {
        let snapshot = processes[0].fleet.snapshot();
        assert!(snapshot.connected, "{snapshot:?}");
        for circuit in &snapshot.circuits {
            let is_bad = circuit.name.as_str() == "bad";
            assert_eq!(
                circuit.state.is_none(),
                is_bad,
                "{reconnected}: {snapshot:?}"
            );
        }
        assert!(snapshot.error.unwrap().contains("\"bad\""));
    };
    check(false);
    let rejected = drain(&mut events);
    let named: Vec<_> = rejected
        .iter()
        .filter_map(|event| match event {
            FleetEvent::OperationRejected { circuit, .. } => circuit.as_ref(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(named, [&BulkheadName::new("bad").unwrap()]);

    // The other circuits are shared; the rejected one opens and recovers by its local rules.
    processes[0].fail(5);
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Open);
    let bad = others[1].circuit_breaker().unwrap();
    bad.open_for(Duration::from_secs(1));
    world.advance(2);
    assert_eq!(bad.state(), CircuitState::HalfOpen);
    others[1].try_acquire().unwrap().succeed();

    // A process that starts with it.
    let late = world.store_of("late", StoreSettings::new());
    late.reject_circuit(BulkheadName::new("bad").unwrap(), true);
    let late = world.start_on(late);
    let bad = world.bulkhead("bad");
    late.fleet.attach(&bad).unwrap();
    world.run();
    let snapshot = late.fleet.snapshot();
    assert!(snapshot.connected);
    assert!(snapshot.error.unwrap().contains("\"bad\""));

    // A new session finds it again, and reports it once a minute.
    store.break_sessions();
    world.advance(10);
    check(true);
    let again = drain(&mut events);
    assert!(
        !again
            .iter()
            .any(|event| matches!(event, FleetEvent::OperationRejected { .. })),
        "{again:?}"
    );
}

/// Fault C13.
#[test]
fn a_rejected_decision_delays_no_other() {
    let world = World::new();
    let processes = world.start_processes(2);
    let others: Vec<_> = ["a", "bad", "c"]
        .iter()
        .map(|name| world.bulkhead(name))
        .collect();
    for other in &others {
        processes[0].fleet.attach(other).unwrap();
    }
    world.run();
    let mut events = processes[0].fleet.events();
    processes[0]
        .store
        .reject_circuit(BulkheadName::new("bad").unwrap(), false);
    for other in &others {
        other.circuit_breaker().unwrap().open();
    }
    processes[0].fail(5);
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Open);
    assert_eq!(processes[0].fleet.snapshot().pending, 1);
    let connects = processes[0].store.connects();
    processes[0].store.clear();
    world.advance(61);
    assert_eq!(processes[0].fleet.snapshot().pending, 0, "repeated");
    assert_eq!(processes[0].store.connects(), connects);
    let rejected = drain(&mut events)
        .into_iter()
        .filter(|event| matches!(event, FleetEvent::OperationRejected { .. }))
        .count();
    assert_eq!(rejected, 1);
}

/// Fault C05.
#[test]
fn sessions_that_fail_at_once_back_off() {
    let world = World::new();
    let process = &world.start_processes(1)[0];
    let mut events = process.fleet.events();
    world.advance(10);
    let before = process.store.connects();
    // Each attempt to connect succeeds, and its session fails soon after.
    let circuit = process.bulkhead.circuit_breaker().unwrap();
    for number in 0..1_000 {
        process.store.break_sessions();
        if number % 2 == 0 {
            circuit.open();
        } else {
            circuit.close();
        }
        world.runtime.advance(Duration::from_millis(10));
    }
    let connects = process.store.connects() - before;
    assert!((4..=25).contains(&connects), "{connects} connects in 10 s");
    let is_report = |event: &FleetEvent| {
        matches!(
            event,
            FleetEvent::Degraded { .. } | FleetEvent::Synchronized { .. }
        )
    };
    let reports = drain(&mut events).into_iter().filter(is_report).count();
    assert!(reports <= 2, "{reports} reports of one error");
    // A session that works resets the delays.
    process.store.clear();
    world.advance(20);
    process.store.break_sessions();
    world.runtime.advance(Duration::from_millis(110));
    world.advance(6);
    assert!(process.fleet.snapshot().connected);
}

/// Fault CHK01.
#[test]
fn a_snapshot_is_never_older_than_the_state() {
    let world = World::new();
    let processes = world.start_processes(2);
    let other = world.bulkhead("z");
    processes[1].fleet.attach(&other).unwrap();
    world.run();
    // A poll finds the opening. A decision made meanwhile is published next, which takes a second.
    processes[1].store.drop_notifications(true);
    processes[0].fail(5);
    world.run();
    processes[1].store.set(Fault::Slow(Duration::from_secs(1)));
    let before = processes[1].store.operations();
    while processes[1].store.operations() == before {
        world.runtime.advance(Duration::from_millis(50));
    }
    other.circuit_breaker().unwrap().open();
    for _ in 0..60 {
        world.runtime.advance(Duration::from_millis(50));
        let state = processes[1].state();
        let snapshot = processes[1].fleet.snapshot();
        let stored = snapshot
            .circuits
            .iter()
            .find(|circuit| circuit.name.as_str() == "payments")
            .unwrap();
        if state == CircuitState::Open {
            assert_eq!(
                (stored.state, stored.epoch.0),
                (Some(FleetState::Open), 1),
                "{snapshot:?}"
            );
        }
    }
    assert_eq!(processes[1].state(), CircuitState::Open);
}

#[test]
fn a_store_that_denies_everything_is_not_connected() {
    let world = World::new();
    let process = &world.start_processes(1)[0];
    process
        .store
        .set(Fault::Error(StoreError::denied("GRANT it")));
    world.advance(10);
    assert!(!process.fleet.snapshot().connected);
}

/// Opens a circuit of which the store rejects all changes.
fn open_rejected(world: &World, process: &Process) -> Bulkhead {
    let bad = world.bulkhead("bad");
    process.fleet.attach(&bad).unwrap();
    world.run();
    process
        .store
        .reject_circuit(BulkheadName::new("bad").unwrap(), false);
    bad.circuit_breaker().unwrap().open();
    world.run();
    bad
}

/// Fault C20.
#[test]
fn a_rejected_circuit_stays_in_the_status() {
    let world = World::new();
    let process = &world.start_processes(1)[0];
    let _bad = open_rejected(&world, process);
    let error = || process.fleet.snapshot().error;
    assert!(error().is_some_and(|error| error.contains("\"bad\"")));
    process.fail(5);
    world.advance(1);
    assert_eq!(
        process.fleet.snapshot().pending,
        1,
        "the other one is published"
    );
    assert!(error().is_some_and(|error| error.contains("\"bad\"")));
    process.store.clear();
    world.advance(61);
    assert_eq!((error(), process.fleet.snapshot().pending), (None, 0));
}

/// A decision that is no longer to be published can't be accepted.
///
/// Fault C20.
#[test]
fn a_rejected_decision_that_is_replaced_leaves_the_status() {
    let world = World::new();
    let process = &world.start_processes(1)[0];
    let bad = open_rejected(&world, process);
    bad.circuit_breaker().unwrap().close();
    process.fail(5);
    world.run();
    assert_eq!(process.fleet.snapshot().error, None);
}

/// Fault C13, C20.
#[test]
fn a_circuit_that_a_later_session_rejects_is_local() {
    let world = World::new();
    let processes = world.start_processes(2);
    let others = [0, 1].map(|index: usize| {
        let other = world.bulkhead("bad");
        processes[index].fleet.attach(&other).unwrap();
        other
    });
    world.run();
    let store = &processes[0].store;
    store.reject_circuit(BulkheadName::new("bad").unwrap(), true);
    store.break_sessions();
    world.advance(10);
    let circuit = others[0].circuit_breaker().unwrap();
    circuit.open_for(Duration::from_secs(1));
    world.advance(2);
    assert_eq!(circuit.state(), CircuitState::HalfOpen, "its own rules");
    for _ in 0..3 {
        let probe = others[0].try_acquire();
        probe.expect("an agreed probe").succeed();
        world.run();
    }
    assert_eq!(circuit.state(), CircuitState::Closed);
    // A session that accepts it shares it again.
    store.clear();
    store.break_sessions();
    world.advance(10);
    others[1].circuit_breaker().unwrap().open();
    world.run();
    assert_eq!(circuit.state(), CircuitState::Open);
}
