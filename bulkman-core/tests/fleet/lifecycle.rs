//! Start, attachment and shutdown.

use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::store::{Fault, StoreSettings};
use bulkman_core::{Bulkhead, BulkheadConfig};

use crate::world::World;

#[test]
fn wait_ready_loads_an_open_circuit_before_the_first_call() {
    let world = World::new();
    let processes = world.start_processes(1);
    processes[0].fail(5);
    world.advance(10);
    let late = world.start("late", StoreSettings::new());
    assert!(
        world
            .runtime
            .block_on(late.fleet.wait_ready(Duration::from_secs(1)))
    );
    let rejected = late.call(Ok(())).unwrap_err();
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(20)));
}

#[test]
fn wait_ready_respects_its_timeout() {
    let world = World::new();
    let process = world.start_hanging("x");
    let before = world.runtime.elapsed();
    assert!(
        !world
            .runtime
            .block_on(process.fleet.wait_ready(Duration::from_millis(300)))
    );
    assert_eq!(world.runtime.elapsed() - before, Duration::from_millis(300));
    assert_eq!(
        process.call(Ok(())),
        Ok(()),
        "calls are possible without waiting"
    );
}

#[test]
fn shutdown_publishes_decisions_and_releases_leases() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    assert!(
        world.runtime.block_on(processes[0].fleet.shutdown()),
        "the decision was published"
    );
    world.run();
    assert_eq!(processes[1].state(), CircuitState::Open);

    world.advance(30);
    processes[1].call(Ok(())).unwrap_err();
    world.advance(1);
    assert!(world.runtime.block_on(processes[1].fleet.shutdown()));
    let third = world.start("third", StoreSettings::new());
    world.run();
    third.call(Ok(())).unwrap_err();
    world.advance(1);
    third.call(Ok(())).expect("the lease was released");

    // If the decision can't be published, the result is `false`, within the timeout.
    third.store.set(Fault::Hang);
    third.bulkhead.circuit_breaker().unwrap().open();
    let before = world.runtime.elapsed();
    assert!(!world.runtime.block_on(third.fleet.shutdown()));
    assert!(world.runtime.elapsed() - before <= Duration::from_millis(500));
}

#[test]
fn a_circuit_can_be_shared_only_once() {
    let world = World::new();
    let processes = world.start_processes(2);
    let error = processes[0]
        .fleet
        .attach(&processes[1].bulkhead)
        .unwrap_err();
    assert!(error.to_string().contains("store"), "{error}");
}

#[test]
fn bulkheads_can_be_attached_and_dropped_at_any_time() {
    let world = World::new();
    let processes = world.start_processes(2);
    let extra = BulkheadConfig::new("extra");
    for _ in 0..3 {
        let here = Bulkhead::new(extra.clone(), world.runtime.clone()).unwrap();
        let there = Bulkhead::new(extra.clone(), world.runtime.clone()).unwrap();
        processes[0].fleet.attach(&here).unwrap();
        processes[1].fleet.attach(&there).unwrap();
        world.run();
        here.circuit_breaker().unwrap().open();
        world.run();
        assert!(!there.is_healthy());
        here.circuit_breaker().unwrap().close();
        world.run();
        assert!(there.is_healthy());
    }
}
