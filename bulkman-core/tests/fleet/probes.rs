//! Probes under leases while the circuit is half-open.

use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::store::{CircuitStore, Epoch, Fault, FleetState, ProbeRequest, StoreSettings};
use bulkman_core::{BulkheadConfig, BulkheadError, BulkheadManager};

use crate::world::{Process, World, assert_all};

#[test]
fn the_fleet_admits_one_probe_at_a_time() {
    let world = World::new();
    let processes = world.start_processes(10);
    processes[0].fail(5);
    world.run();
    world.advance(30);
    // Every process has demand, and is half-open without traffic.
    for process in &processes {
        assert_eq!(process.state(), CircuitState::HalfOpen);
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
        assert!(rejected.retry_after().unwrap() <= Duration::from_secs(1));
    }
    world.advance(1);
    let permits: Vec<_> = processes
        .iter()
        .filter_map(|process| process.bulkhead.try_acquire().ok())
        .collect();
    assert_eq!(permits.len(), 1, "one lease");
    assert!(
        processes
            .iter()
            .all(|process| process.bulkhead.try_acquire().is_err()),
        "one probe at a time"
    );
    for permit in permits {
        permit.succeed();
    }
    // The lease stays with its holder, which needs two more successes.
    let mut closed_after = 0;
    while world.store_view().0 == FleetState::HalfOpen {
        world.run();
        let admitted: Vec<_> = processes
            .iter()
            .filter_map(|process| process.bulkhead.try_acquire().ok())
            .collect();
        assert!(admitted.len() <= 1);
        admitted.into_iter().for_each(|permit| permit.succeed());
        world.run();
        closed_after += 1;
        assert!(closed_after < 5, "two more successes close");
    }
    assert_eq!(closed_after, 2);
    assert_all(&processes, CircuitState::Closed);
}

#[test]
fn a_failed_probe_reopens_every_process() {
    let world = World::new();
    let processes = world.start_processes(3);
    processes[0].fail(5);
    world.advance(30);
    processes[2].call(Ok(())).unwrap_err();
    world.advance(1);
    processes[2].call(Err("still down")).unwrap_err();
    world.run();
    assert_all(&processes, CircuitState::Open);
    let rejected = processes[1].call(Ok(())).unwrap_err();
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(30)));
    assert_eq!(world.store_view(), (FleetState::Open, 3));
}

/// One call per minute: the first creates the demand, three are probes.
#[test]
fn one_call_per_minute_closes_after_four_calls() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[1].call(Ok(())).unwrap_err();
    for call in 2..=4 {
        world.advance(60);
        assert_eq!(
            processes[1].state(),
            CircuitState::HalfOpen,
            "before call {call}"
        );
        processes[1].call(Ok(())).unwrap();
    }
    world.run();
    assert_eq!(world.store_view().0, FleetState::Closed);
    assert_all(&processes, CircuitState::Closed);
}

#[test]
fn a_health_check_closes_the_circuit_without_traffic() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[1]
        .bulkhead
        .health_check(Duration::from_secs(5), || async { Ok::<_, ()>(()) })
        .unwrap();
    processes[0].fail(5);
    world.advance(4);
    assert_eq!(world.store_view().0, FleetState::Open);
    world.advance(2);
    assert_eq!(
        world.store_view().0,
        FleetState::HalfOpen,
        "half-open before the isolation elapsed"
    );
    world.advance(30);
    assert_eq!(world.store_view().0, FleetState::Closed);
    assert_all(&processes, CircuitState::Closed);
}

#[test]
fn an_idle_holder_keeps_its_lease_only_for_a_while() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    // One call creates the demand; no call follows.
    processes[0].call(Ok(())).unwrap_err();
    world.advance(1);
    // It is released for short times. No other process has calls, so it is acquired again.
    let held = |seconds| (0..seconds).filter(|_| holds_lease(&world)).count();
    let first = held(240);
    assert!(
        first >= 216,
        "the lease is kept for a while: {first} of 240 s"
    );
    world.advance(120);
    assert_eq!(held(60), 0, "the lease is released after a while");
}

/// Returns `true` if a process holds the only lease a second later.
fn holds_lease(world: &World) -> bool {
    world.advance(1);
    holds_lease_now(world)
}

/// Returns `true` if a process holds the only lease.
fn holds_lease_now(world: &World) -> bool {
    let circuit = BulkheadName::new("payments").unwrap();
    let (_, epoch) = world.store_view();
    let request = ProbeRequest::new(
        circuit,
        Epoch(epoch),
        "other".into(),
        Duration::from_secs(1),
    );
    world.runtime.block_on(async {
        let mut session = world.memory.open_session(&[]).await.unwrap();
        let Some(lease) = session.acquire_probe(&request).await.unwrap() else {
            return true;
        };
        session.release_probe(&request, lease).await.unwrap();
        false
    })
}

/// The demand of calls meanwhile is not lost with the outcome.
#[test]
fn a_lease_that_expires_unreported_is_requested_again() {
    let world = World::new();
    let settings = StoreSettings::new().outage_after(Duration::from_secs(60));
    let processes = world.start_processes_with(1, &settings);
    let process = &processes[0];
    process.fail(5);
    world.advance(30);
    process.call(Ok(())).unwrap_err();
    world.advance(1);
    process.store.set(Fault::Down);
    process.call(Ok(())).unwrap();
    for _ in 0..8 {
        world.advance(1);
        let rejected = process.call(Ok(())).unwrap_err();
        assert!(rejected.to_string().contains("lease"), "{rejected}");
    }
    process.store.clear();
    for _ in 0..6 {
        world.advance(1);
        let _rejected = process.call(Ok(()));
    }
    world.run();
    assert_eq!(world.store_view().0, FleetState::Closed);
}

#[test]
fn the_lease_of_a_dead_process_expires() {
    let world = World::new();
    let mut processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    world.advance(1);
    let probe = processes[0].bulkhead.try_acquire().unwrap();
    // Disconnected, as if killed: it can neither report nor release anything.
    processes[0].store.set(Fault::Hang);
    let dead = processes.remove(0);
    processes[0].call(Ok(())).unwrap_err();
    world.advance(5);
    assert!(processes[0].call(Ok(())).is_err(), "the lease is taken");
    for _ in 0..31 {
        world.advance(1);
        let _demand = processes[0].bulkhead.try_acquire().map(drop);
    }
    processes[0].call(Ok(())).unwrap();
    drop(probe);
    drop(dead);
}

/// Fault C06.
#[test]
fn a_holder_without_calls_yields_to_processes_with_calls() {
    let world = World::new();
    let processes = world.start_processes(8);
    processes[0].fail(5);
    world.advance(30);
    // One call, and no other for 20 s.
    processes[0].call(Ok(())).unwrap_err();
    world.advance(1);
    let start = world.runtime.elapsed();
    let mut rejected = 0;
    while world.store_view().0 == FleetState::HalfOpen {
        for process in &processes[1..] {
            rejected += usize::from(process.call(Ok(())).is_err());
        }
        world.runtime.advance(Duration::from_millis(50));
        world.run();
        let after = world.runtime.elapsed() - start;
        assert!(after <= Duration::from_secs(3), "{after:?}");
    }
    assert!(rejected <= 400, "{rejected} rejections");
}

/// Fault C06.
#[test]
fn a_running_probe_is_not_disturbed_by_yielding() {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    world.runtime.advance(Duration::from_millis(500));
    let probe = processes[0].bulkhead.try_acquire().unwrap();
    for _ in 0..20 {
        assert!(processes[1].bulkhead.try_acquire().is_err());
        world.advance(1);
    }
    probe.succeed();
    world.run();
    processes[0].call(Ok(())).expect("the lease was renewed");
}

/// The isolation of their circuit has elapsed, and the first process has just had a call.
fn two_processes_of_which_one_needs_a_lease() -> (World, Vec<Process>) {
    let world = World::new();
    let processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    (world, processes)
}

/// Fault C06.
#[test]
fn leases_that_cannot_be_used_are_released() {
    for forced in [true, false] {
        let (world, mut processes) = two_processes_of_which_one_needs_a_lease();
        world.runtime.advance(Duration::from_millis(500));
        let holder = processes.remove(0);
        // Forced in this process, or dropped.
        let breaker = holder.bulkhead.circuit_breaker().unwrap().clone();
        if forced {
            breaker.force_open();
        }
        let (bulkhead, _fleet) = (holder.bulkhead, holder.fleet);
        if !forced {
            drop((bulkhead, breaker));
            world.run();
            // The driver notices when it would have revoked the lease.
            world.advance(2);
        }
        world.run();
        processes[0].call(Ok(())).unwrap_err();
        world.runtime.advance(Duration::from_millis(300));
        world.run();
        processes[0].call(Ok(())).expect("the lease is free");
    }
}

/// The circuit is forced, or dropped, while the store grants the lease.
///
/// Fault C06.
#[test]
fn leases_that_arrive_after_the_demand_has_ended_are_released() {
    for forced in [true, false] {
        let (world, mut processes) = two_processes_of_which_one_needs_a_lease();
        let slow = Duration::from_millis(500);
        processes[0].store.set(Fault::Slow(slow));
        while world.store_view().0 == FleetState::Open {
            world.runtime.advance(Duration::from_millis(10));
            world.run();
        }
        // The process has started probing, and the request for the lease is on its way.
        let requester = processes.remove(0);
        let (bulkhead, _fleet) = (requester.bulkhead, requester.fleet);
        if forced {
            bulkhead.circuit_breaker().unwrap().force_open();
        } else {
            drop(bulkhead);
        }
        // The response, and the request to release the lease.
        world.runtime.advance(slow);
        world.run();
        assert!(holds_lease_now(&world), "{forced}: it was granted");
        world.runtime.advance(slow);
        world.run();
        assert!(!holds_lease_now(&world), "{forced}: it was released");
        processes[0].call(Ok(())).unwrap_err();
        world.runtime.advance(Duration::from_millis(300));
        world.run();
        processes[0].call(Ok(())).expect("the lease is free");
    }
}

/// Fault C07.
#[test]
fn the_shutdown_of_a_manager_releases_its_leases() {
    for running in [false, true] {
        let world = World::new();
        let processes = world.start_processes(1);
        let manager = BulkheadManager::new(world.runtime.clone());
        manager.share_through(world.memory.clone()).unwrap();
        let bulkhead = manager
            .create_bulkhead(BulkheadConfig::new("payments"))
            .unwrap();
        world.run();
        processes[0].fail(5);
        world.advance(30);
        assert!(bulkhead.try_acquire().is_err());
        world.runtime.advance(Duration::from_millis(500));
        let probe = running.then(|| bulkhead.try_acquire().unwrap());
        manager.shutdown();
        if let Some(probe) = probe {
            probe.succeed();
            world.runtime.block_on(manager.drained());
        }
        world.run();
        processes[0].call(Ok(())).unwrap_err();
        world.advance(1);
        processes[0].call(Ok(())).expect("the lease is free");
    }
}

/// Fault C07.
#[test]
fn the_lease_of_a_killed_process_is_free_within_8_s() {
    let world = World::new();
    let mut processes = world.start_processes(2);
    processes[0].fail(5);
    world.advance(30);
    processes[0].call(Ok(())).unwrap_err();
    world.runtime.advance(Duration::from_millis(500));
    processes[0].store.set(Fault::Hang);
    let _killed = processes.remove(0);
    let start = world.runtime.elapsed();
    while world.store_view().0 == FleetState::HalfOpen {
        let _rejected = processes[0].call(Ok(()));
        world.runtime.advance(Duration::from_millis(50));
        world.run();
        let after = world.runtime.elapsed() - start;
        assert!(after <= Duration::from_secs(8), "{after:?}");
    }
}

/// Each process has a call in a second, at its own time: the lease moves to where calls are.
///
/// Fault C06.
#[test]
fn rare_calls_of_many_processes_close_the_circuit() {
    let mut total = Duration::ZERO;
    for _ in 0..10 {
        let world = World::new();
        let processes = world.start_processes(20);
        processes[0].fail(5);
        world.advance(30);
        let start = world.runtime.elapsed();
        'calls: for _ in 0..60 {
            for process in &processes {
                let _rejected = process.call(Ok(()));
                world.runtime.advance(Duration::from_millis(50));
                if world.store_view().0 == FleetState::Closed {
                    break 'calls;
                }
            }
        }
        let after = world.runtime.elapsed() - start;
        assert!(after <= Duration::from_secs(5), "{after:?}");
        total += after;
    }
    assert!(total / 10 <= Duration::from_millis(2_800), "{total:?}");
}
