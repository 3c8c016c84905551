//! Several processes that share circuits, in virtual time: each has a synchroniser and a breaker
//! of its own, over one store in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::error::RejectionReason;
use bulkman_core::fleet::Fleet;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::MemoryStore;
use bulkman_core::store::{
    CircuitStore, Fault, FaultStore, FleetAction, FleetCommand, FleetCountPolicy, FleetState,
    OnOutage, OperationId, SharingMode, StoreError, StoreSettings,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError};
use futures_lite::StreamExt;

/// Hazard P13.
#[test]
fn the_first_to_open_opens_for_all_and_at_once() {
    let world = World::new();
    let fleet = world.processes(5);
    fleet[0].fail(5);
    world.settle();
    for process in &fleet {
        assert_eq!(process.state(), CircuitState::Open);
        let refused = process.call(Ok(())).unwrap_err();
        assert!(
            matches!(
                &refused,
                BulkheadError::CircuitOpen {
                    reason: RejectionReason::Open,
                    ..
                }
            ),
            "{refused}"
        );
        assert_eq!(
            refused.retry_after(),
            Some(Duration::from_secs(30)),
            "the same for all"
        );
    }
    assert_eq!(world.store_view(), (FleetState::Open, 1));
}

/// Hazard P13.
#[test]
fn a_late_success_does_not_close_what_a_peer_opened() {
    let world = World::new();
    let fleet = world.processes(2);
    let permit = fleet[1].bulkhead.try_acquire().unwrap();
    fleet[0].fail(5);
    world.settle();
    permit.succeed();
    world.settle();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
}

#[test]
fn one_probe_in_the_whole_fleet() {
    let world = World::new();
    let fleet = world.processes(10);
    fleet[0].fail(5);
    world.settle();
    world.advance(30);
    // Everybody has a call to make, and is half-open by now without one.
    for process in &fleet {
        assert_eq!(process.state(), CircuitState::HalfOpen);
        let refused = process.call(Ok(())).unwrap_err();
        assert!(
            matches!(
                refused,
                BulkheadError::CircuitOpen {
                    reason: RejectionReason::NoProbeLease,
                    ..
                }
            ),
            "{refused}"
        );
        assert!(refused.retry_after().unwrap() <= Duration::from_secs(1));
    }
    world.advance(1);
    let permits: Vec<_> = fleet
        .iter()
        .filter_map(|process| process.bulkhead.try_acquire().ok())
        .collect();
    assert_eq!(permits.len(), 1, "one lease");
    assert!(
        fleet
            .iter()
            .all(|process| process.bulkhead.try_acquire().is_err()),
        "and one probe on it"
    );
    for permit in permits {
        permit.succeed();
    }
    // The lease stays with its holder, which needs two more successes.
    let mut closed_after = 0;
    while world.store_view().0 == FleetState::HalfOpen {
        world.settle();
        let admitted: Vec<_> = fleet
            .iter()
            .filter_map(|process| process.bulkhead.try_acquire().ok())
            .collect();
        assert!(admitted.len() <= 1);
        admitted.into_iter().for_each(|permit| permit.succeed());
        world.settle();
        closed_after += 1;
        assert!(closed_after < 5, "two more successes close");
    }
    assert_eq!(closed_after, 2);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Closed)
    );
}

#[test]
fn a_failed_probe_reopens_for_all() {
    let world = World::new();
    let fleet = world.processes(3);
    fleet[0].fail(5);
    world.advance(30);
    fleet[2].call(Ok(())).unwrap_err();
    world.advance(1);
    fleet[2].call(Err("still down")).unwrap_err();
    world.settle();
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
    let refused = fleet[1].call(Ok(())).unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(30)));
    assert_eq!(world.store_view(), (FleetState::Open, 3));
}

#[test]
fn what_opens_before_the_store_was_first_heard_is_a_decision_too() {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    let join = || {
        let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone()).unwrap();
        bulkhead.share_through(store.clone()).unwrap();
        bulkhead
    };
    let (first, second) = (join(), join());
    first.circuit_breaker().unwrap().open();
    runtime.advance(Duration::from_secs(1));
    for bulkhead in [&first, &second] {
        assert_eq!(
            bulkhead.circuit_breaker().unwrap().state(),
            CircuitState::Open
        );
    }
}

/// One call a minute: the first makes the demand, three are probes.
#[test]
fn one_call_a_minute_closes_the_circuit_by_its_fourth() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].fail(5);
    world.advance(30);
    fleet[1].call(Ok(())).unwrap_err();
    for call in 2..=4 {
        world.advance(60);
        assert_eq!(
            fleet[1].state(),
            CircuitState::HalfOpen,
            "before call {call}"
        );
        fleet[1].call(Ok(())).unwrap();
    }
    world.settle();
    assert_eq!(world.store_view().0, FleetState::Closed);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Closed)
    );
}

#[test]
fn a_health_check_closes_it_without_any_traffic() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[1]
        .bulkhead
        .health_check(Duration::from_secs(5), || async { Ok::<_, ()>(()) })
        .unwrap();
    fleet[0].fail(5);
    world.advance(4);
    assert_eq!(world.store_view().0, FleetState::Open);
    world.advance(2);
    assert_eq!(world.store_view().0, FleetState::HalfOpen, "early");
    world.advance(30);
    assert_eq!(world.store_view().0, FleetState::Closed);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Closed)
    );
}

#[test]
fn a_holder_without_calls_does_not_bar_those_that_have_some() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].fail(5);
    world.advance(30);
    // One call, which makes the demand, and then silence.
    fleet[0].call(Ok(())).unwrap_err();
    world.advance(1);
    let mut minutes = 0;
    while fleet[1].call(Ok(())).is_err() {
        world.advance(60);
        minutes += 1;
        assert!(minutes < 10, "the lease comes free in the end");
    }
    assert!(minutes >= 4, "but is kept for a while: {minutes}");
}

#[test]
fn a_lease_of_a_dead_process_bars_nobody_beyond_its_term() {
    let world = World::new();
    let mut fleet = world.processes(2);
    fleet[0].fail(5);
    world.advance(30);
    fleet[0].call(Ok(())).unwrap_err();
    world.advance(1);
    let probe = fleet[0].bulkhead.try_acquire().unwrap();
    // Cut off, as if killed: it can neither report nor give anything back.
    fleet[0].store.set(Fault::Hang);
    let dead = fleet.remove(0);
    fleet[0].call(Ok(())).unwrap_err();
    world.advance(5);
    assert!(fleet[0].call(Ok(())).is_err(), "the lease is out");
    for _ in 0..31 {
        world.advance(1);
        let _demand = fleet[0].bulkhead.try_acquire().map(drop);
    }
    fleet[0].call(Ok(())).unwrap();
    drop(probe);
    drop(dead);
}

#[test]
fn a_process_that_starts_while_the_fleet_is_open_refuses_from_its_first_call() {
    let world = World::new();
    let fleet = world.processes(1);
    fleet[0].fail(5);
    world.advance(10);
    let late = world.start("late", StoreSettings::new());
    assert!(
        world
            .runtime
            .block_on(late.fleet.wait_ready(Duration::from_secs(1)))
    );
    let refused = late.call(Ok(())).unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(20)));
}

#[test]
fn ready_is_bounded() {
    let world = World::new();
    world.store.set(Fault::Hang);
    let process = world.start_frozen("x");
    let before = world.runtime.elapsed();
    assert!(
        !world
            .runtime
            .block_on(process.fleet.wait_ready(Duration::from_millis(300)))
    );
    assert_eq!(world.runtime.elapsed() - before, Duration::from_millis(300));
    assert_eq!(process.call(Ok(())), Ok(()), "calls need not wait for it");
}

#[test]
fn a_quorum_protects_the_good_ones_from_one_bad_node() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(60)));
    let fleet: Vec<_> = (0..4)
        .map(|i| world.start(&format!("p{i}"), settings.clone()))
        .collect();
    world.settle();
    fleet[0].fail(5);
    world.settle();
    assert_eq!(
        fleet[0].state(),
        CircuitState::Open,
        "its own rules protect it"
    );
    assert!(
        fleet[1..]
            .iter()
            .all(|process| process.state() == CircuitState::Closed)
    );
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    // Below the quorum it recovers by itself, with probes of its own.
    world.advance(30);
    for _ in 0..3 {
        fleet[0].call(Ok(())).unwrap();
    }
    assert_eq!(fleet[0].state(), CircuitState::Closed);
    // A vote of half a minute ago counts still.
    fleet[1].fail(5);
    world.settle();
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open),
        "two of four"
    );
    assert_eq!(world.store_view(), (FleetState::Open, 1));
}

#[test]
fn a_vote_that_is_too_old_does_not_count() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(10)));
    let fleet: Vec<_> = (0..2)
        .map(|i| world.start(&format!("p{i}"), settings.clone()))
        .collect();
    world.settle();
    fleet[0].fail(5);
    world.advance(11);
    fleet[1].fail(5);
    world.settle();
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
}

/// What was forced before an outage is still forced after it, whatever happened here meanwhile.
#[test]
fn an_operator_outlasts_an_opening_below_the_quorum() {
    let world = World::new();
    let settings = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(60)));
    let process = world.start("x", settings);
    world.settle();
    world.command(FleetAction::ForceOpen);
    world.settle();
    process.store.set(Fault::Down);
    world.advance(6);
    process.bulkhead.circuit_breaker().unwrap().close();
    process.fail(5);
    world.advance(31);
    process.store.clear();
    world.advance(3);
    assert_eq!(process.state(), CircuitState::ForcedOpen);
}

/// Hazard P13.
#[test]
fn the_fleets_counts_open_where_none_would_alone() {
    let world = World::new();
    let rule = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(8);
    let settings = StoreSettings::new().share(SharingMode::Counts(rule));
    let fleet: Vec<_> = (0..2)
        .map(|i| world.start(&format!("p{i}"), settings.clone()))
        .collect();
    world.settle();
    // Four failures each, and never five in a row.
    for process in &fleet {
        process.fail(4);
        process.call(Ok(())).unwrap();
    }
    world.advance(3);
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
}

#[test]
fn an_operator_wins_over_every_process() {
    let world = World::new();
    let fleet = world.processes(3);
    world.command(FleetAction::ForceOpen);
    world.settle();
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::ForcedOpen)
    );
    // What a process says by hand does not get through.
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    world.settle();
    assert_eq!(fleet[0].state(), CircuitState::ForcedOpen);
    world.command(FleetAction::Disable);
    world.settle();
    for process in &fleet {
        assert_eq!(process.state(), CircuitState::Disabled);
        process.fail(20);
    }
    world.command(FleetAction::Close);
    world.settle();
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Closed)
    );
}

#[test]
fn a_reset_forgets_what_every_process_had_counted() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[1].fail(4);
    world.command(FleetAction::Reset);
    world.settle();
    fleet[1].fail(4);
    assert_eq!(fleet[1].state(), CircuitState::Closed);
}

#[test]
fn what_is_forced_through_a_bulkhead_stays_its_own() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].bulkhead.circuit_breaker().unwrap().force_open();
    world.settle();
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    assert_eq!(fleet[1].state(), CircuitState::Closed);
    // And is not overruled by what the fleet does.
    fleet[1].fail(5);
    world.settle();
    assert_eq!(fleet[0].state(), CircuitState::ForcedOpen);
    world.command(FleetAction::Close);
    world.settle();
    assert_eq!(fleet[0].state(), CircuitState::ForcedOpen);
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    world.settle();
    assert_eq!(fleet[0].state(), CircuitState::Closed);
}

#[test]
fn what_is_done_by_hand_through_a_bulkhead_is_the_fleets() {
    let world = World::new();
    let fleet = world.processes(2);
    let circuit = fleet[0].bulkhead.circuit_breaker().unwrap();
    circuit.open_for(Duration::from_secs(7));
    world.settle();
    assert_eq!(
        fleet[1].call(Ok(())).unwrap_err().retry_after(),
        Some(Duration::from_secs(7))
    );
    circuit.open_for(Duration::from_secs(90));
    world.settle();
    assert_eq!(
        fleet[1].call(Ok(())).unwrap_err().retry_after(),
        Some(Duration::from_secs(90))
    );
    circuit.half_open();
    world.settle();
    assert_eq!(fleet[1].state(), CircuitState::HalfOpen);
    circuit.close();
    world.settle();
    assert_eq!(fleet[1].state(), CircuitState::Closed);
}

/// Hazard P12.
#[test]
fn an_outage_loses_nothing_and_holds_up_nobody() {
    let world = World::new();
    let fleet = world.processes(3);
    let mut events = fleet[0].fleet.events();
    world.store.break_all(&fleet, Fault::Down);
    world.settle();
    assert!(!fleet[0].fleet.snapshot().connected);
    fleet[0].fail(5);
    assert_eq!(fleet[0].state(), CircuitState::Open, "its own rules go on");
    world.advance(5);
    assert_eq!(fleet[1].state(), CircuitState::Closed);
    assert_eq!(fleet[0].fleet.snapshot().pending, 1);
    world.heal_all(&fleet);
    world.advance(3);
    for process in &fleet {
        assert_eq!(process.state(), CircuitState::Open);
        let left = process.call(Ok(())).unwrap_err().retry_after().unwrap();
        assert!(
            left > Duration::from_secs(21) && left < Duration::from_secs(23),
            "{left:?} are left of 30 s"
        );
    }
    let events = drain(&world, &mut events);
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
    assert_eq!(endings(&events), [DecisionOutcome::Published], "{events:?}");
    assert_eq!(fleet[0].fleet.snapshot().pending, 0);
}

#[test]
fn a_decision_made_over_again_is_not_taken_for_the_one_that_the_store_has() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].fail(5);
    world.settle();
    let mut events = fleet[0].fleet.events();
    fleet[0].store.set(Fault::Down);
    fleet[0].store.break_sessions();
    world.settle();
    fleet[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(3_600));
    world.advance(3);
    fleet[0].store.clear();
    world.advance(5);
    // The link begins with a full snapshot: on the same epoch, and open, but not for so long.
    assert_eq!(
        endings(&drain(&world, &mut events)),
        [DecisionOutcome::Published]
    );
    assert_eq!(world.store_view(), (FleetState::Open, 2));
    let refused = fleet[1].call(Ok(())).unwrap_err();
    assert!(
        refused.retry_after().unwrap() > Duration::from_secs(3_500),
        "{refused}"
    );
}

#[test]
fn an_opening_that_is_over_before_the_store_is_back_is_dropped() {
    let world = World::new();
    let fleet = world.processes(2);
    let mut events = fleet[0].fleet.events();
    world.store.break_all(&fleet, Fault::Down);
    fleet[0].fail(5);
    world.advance(40);
    assert_eq!(
        fleet[0].state(),
        CircuitState::HalfOpen,
        "not closed by an old view"
    );
    world.heal_all(&fleet);
    world.advance(3);
    assert_eq!(
        endings(&drain(&world, &mut events)),
        [DecisionOutcome::Expired]
    );
    assert_eq!(world.store_view(), (FleetState::Closed, 0));
    assert_eq!(fleet[0].state(), CircuitState::Closed);
}

#[test]
fn during_an_outage_each_process_probes_for_itself() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].fail(5);
    world.settle();
    world.store.break_all(&fleet, Fault::Down);
    world.advance(31);
    for process in &fleet {
        let probe = process.bulkhead.try_acquire().unwrap();
        assert!(process.bulkhead.try_acquire().is_err(), "one at a time");
        probe.succeed();
    }
    for _ in 0..2 {
        fleet[0].call(Ok(())).unwrap();
    }
    assert_eq!(fleet[0].state(), CircuitState::Closed);
    world.heal_all(&fleet);
    world.advance(3);
    assert_eq!(
        world.store_view().0,
        FleetState::Closed,
        "what it found out is told"
    );
    assert_eq!(fleet[1].state(), CircuitState::Closed);
}

#[test]
fn an_outage_can_be_waited_for() {
    let world = World::new();
    let settings = StoreSettings::new().on_outage(OnOutage::HoldOpen);
    let process = world.start("x", settings);
    world.settle();
    process.fail(5);
    world.settle();
    process.store.set(Fault::Down);
    world.advance(60);
    let refused = process.call(Ok(())).unwrap_err();
    assert!(
        matches!(
            refused,
            BulkheadError::CircuitOpen {
                reason: RejectionReason::NoProbeLease,
                ..
            }
        ),
        "{refused}"
    );
    process.store.clear();
    world.advance(3);
    process.call(Ok(())).unwrap_err();
    world.advance(2);
    process.call(Ok(())).unwrap();
}

#[test]
fn a_frozen_store_is_noticed_within_a_look_and_an_operation() {
    let world = World::new();
    let process = world.start("x", StoreSettings::new());
    world.settle();
    process.store.set(Fault::Hang);
    // The look comes within 6 s (5 and a fifth), and its operation is given 2.
    world.advance(8);
    let snapshot = process.fleet.snapshot();
    assert!(!snapshot.connected);
    assert!(snapshot.staleness.unwrap() >= Duration::from_secs(2));
    assert!(snapshot.degraded_for.is_some() && snapshot.error.is_some());
    assert_eq!(process.call(Ok(())), Ok(()));
}

#[test]
fn a_lost_answer_is_recognised_and_nothing_is_applied_twice() {
    for fault in [Fault::ResponseLost, Fault::DisconnectAfterApply] {
        let world = World::new();
        let fleet = world.processes(2);
        let mut events = fleet[0].fleet.events();
        fleet[0].store.set(fault);
        fleet[0].fail(5);
        world.advance(3);
        fleet[0].store.clear();
        world.advance(5);
        assert_eq!(world.store_view(), (FleetState::Open, 1));
        assert_eq!(
            endings(&drain(&world, &mut events)),
            [DecisionOutcome::Published]
        );
        assert!(
            fleet
                .iter()
                .all(|process| process.state() == CircuitState::Open)
        );
    }
}

#[test]
fn an_opening_heard_of_after_its_own_is_not_begun_again() {
    let world = World::new();
    let fleet = world.processes(2);
    let mut events = fleet[1].fleet.events();
    let other = Bulkhead::new(BulkheadConfig::new("z"), world.runtime.clone()).unwrap();
    fleet[0].fleet.attach(&other).unwrap();
    world.settle();
    fleet[1].store.drop_notifications(true);
    fleet[0].fail(5);
    world.settle();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    fleet[1].store.drop_notifications(false);
    fleet[1].store.set(Fault::Slow(Duration::from_millis(500)));
    other.circuit_breaker().unwrap().open();
    world.settle();
    // It is looking already, for one announcement is missing, and has yet to see.
    assert_eq!(fleet[1].state(), CircuitState::Closed);
    fleet[1].fail(5);
    assert_eq!(fleet[1].state(), CircuitState::Open);
    world.advance(5);
    assert_eq!(
        world.store_view(),
        (FleetState::Open, 1),
        "it would be a second opening, and a longer one"
    );
    assert_eq!(
        endings(&drain(&world, &mut events)),
        [DecisionOutcome::Superseded]
    );
    world.advance(24);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
    world.advance(1);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::HalfOpen)
    );
}

#[test]
fn what_is_announced_need_not_be_looked_for() {
    let world = World::new();
    let fleet = world.processes(2);
    let before = fleet[1].store.operations();
    fleet[0].fail(5);
    world.settle();
    assert_eq!(fleet[1].state(), CircuitState::Open);
    assert_eq!(fleet[1].store.operations(), before);
    // One that was missed is found by the next.
    fleet[1].store.drop_notifications(true);
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    world.settle();
    fleet[1].store.drop_notifications(false);
    assert_eq!(fleet[1].state(), CircuitState::Open);
    fleet[0].bulkhead.circuit_breaker().unwrap().open();
    world.settle();
    assert_eq!(
        (fleet[1].state(), fleet[1].store.operations()),
        (CircuitState::Open, before + 1)
    );
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    world.settle();
    assert_eq!(
        (fleet[1].state(), fleet[1].store.operations()),
        (CircuitState::Closed, before + 1)
    );
}

#[test]
fn an_announcement_that_lay_about_is_as_old_as_it_is() {
    let world = World::new();
    let fleet = world.processes(2);
    let other = Bulkhead::new(BulkheadConfig::new("z"), world.runtime.clone()).unwrap();
    fleet[1].fleet.attach(&other).unwrap();
    world.settle();
    // Its task waits for an answer, and listens after that.
    fleet[1].store.set(Fault::Slow(Duration::from_millis(1500)));
    other.circuit_breaker().unwrap().open();
    world.settle();
    fleet[0].fail(5);
    world.advance(1);
    assert_eq!(fleet[1].state(), CircuitState::Closed);
    world.advance(1);
    assert_eq!(fleet[1].state(), CircuitState::Open);
    world.advance(27);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
    world.advance(1);
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::HalfOpen),
        "at the same moment"
    );
}

#[test]
fn what_fails_together_is_published_together() {
    let world = World::new();
    let fleet = world.processes(1);
    let bulkheads: Vec<_> = (0..100)
        .map(|index| {
            let config = BulkheadConfig::new(format!("c{index}").as_str());
            let bulkhead = Bulkhead::new(config, world.runtime.clone()).unwrap();
            fleet[0].fleet.attach(&bulkhead).unwrap();
            bulkhead
        })
        .collect();
    world.settle();
    let mut events = fleet[0].fleet.events();
    let before = fleet[0].store.operations();
    for bulkhead in &bulkheads {
        bulkhead.circuit_breaker().unwrap().open();
    }
    world.settle();
    assert_eq!(fleet[0].store.operations(), before + 1);
    assert_eq!(
        endings(&drain(&world, &mut events)),
        [DecisionOutcome::Published; 100]
    );
}

#[test]
fn many_openings_at_once_are_heard_of_together() {
    let world = World::new();
    let fleet = world.processes(2);
    let of = |process: &Process| {
        let bulkheads = (0..50).map(|index| {
            let config = BulkheadConfig::new(format!("c{index}").as_str());
            let bulkhead = Bulkhead::new(config, world.runtime.clone()).unwrap();
            process.fleet.attach(&bulkhead).unwrap();
            bulkhead
        });
        bulkheads.collect::<Vec<_>>()
    };
    let (here, there) = (of(&fleet[0]), of(&fleet[1]));
    world.settle();
    let before = fleet[1].store.operations();
    fleet[1].store.set(Fault::Slow(Duration::from_millis(10)));
    for bulkhead in there.iter().chain(&here) {
        bulkhead.circuit_breaker().unwrap().open();
    }
    world.advance(1);
    let asked = fleet[1].store.operations() - before;
    assert!(
        asked <= 4,
        "the others' openings were taken over one by one: {asked} operations"
    );
    assert!(
        here.iter()
            .chain(&there)
            .all(|bulkhead| !bulkhead.is_healthy())
    );
    assert_eq!(fleet[1].fleet.snapshot().pending, 0);
}

#[test]
fn lost_announcements_are_made_up_for_and_then_not_relied_on() {
    let world = World::new();
    let fleet = world.processes(2);
    let mut events = fleet[1].fleet.events();
    fleet[1].store.drop_notifications(true);
    fleet[0].fail(5);
    world.settle();
    assert_eq!(
        fleet[1].state(),
        CircuitState::Closed,
        "it has heard nothing"
    );
    world.advance(6);
    assert_eq!(fleet[1].state(), CircuitState::Open, "it has looked");
    world.command(FleetAction::Close);
    world.advance(6);
    let events = drain(&world, &mut events);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, FleetEvent::FellBackToPolling)),
        "{events:?}"
    );
    assert!(fleet[1].fleet.snapshot().polling);
    world.command(FleetAction::ForceOpen);
    world.advance(2);
    assert_eq!(
        fleet[1].state(),
        CircuitState::ForcedOpen,
        "within a poll interval and its jitter"
    );
}

#[test]
fn history_that_was_lost_and_made_up_for_by_other_changes_is_noticed() {
    // Fewer changes than were lost, as many, and more; of another circuit, and of this one.
    for (circuit, changes) in [
        ("search", 1),
        ("search", 2),
        ("search", 5),
        ("payments", 2),
        ("payments", 3),
    ] {
        let world = World::new();
        let fleet = world.processes(2);
        let search = Bulkhead::new(BulkheadConfig::new("search"), world.runtime.clone()).unwrap();
        fleet[0].fleet.attach(&search).unwrap();
        world.settle();
        let backup = world.memory.backup();
        // An opening and, after a while, another and longer one.
        fleet[0].fail(5);
        world.settle();
        fleet[0]
            .bulkhead
            .circuit_breaker()
            .unwrap()
            .open_for(Duration::from_secs(3_600));
        world.settle();
        assert_eq!(world.store_view(), (FleetState::Open, 2));
        let mut events: Vec<_> = fleet.iter().map(|process| process.fleet.events()).collect();

        // Before anybody looks again, others have written to what was restored.
        world.memory.restore(&backup);
        for change in 0..changes {
            world.command_on(
                circuit,
                [FleetAction::Reset, FleetAction::Close][change % 2],
            );
        }
        world.advance(6);
        let told: Vec<_> = events
            .iter_mut()
            .map(|events| drain(&world, events))
            .collect();
        let lost =
            |events: &Vec<FleetEvent>| events.iter().any(|e| matches!(e, FleetEvent::HistoryLost));
        let what = format!("{changes} of {circuit}: {told:?}");
        if circuit == "search" {
            // Whoever looks first tells the opening again; both may.
            assert!(told.iter().any(lost), "{what}");
            assert_eq!(
                world.store_view().0,
                FleetState::Open,
                "it had time left: {what}"
            );
            for process in &fleet {
                let left = process.call(Ok(())).unwrap_err().retry_after().unwrap();
                assert!(left > Duration::from_secs(3_500), "{left:?}, {what}");
            }
        } else if changes == 2 {
            assert!(
                told.iter().any(lost),
                "at the same epoch, another change: {what}"
            );
        } else {
            // A later epoch is a later word.
            assert_eq!(world.store_view(), (FleetState::Closed, 3), "{what}");
        }
        let (state, epoch) = world.store_view();
        for process in &fleet {
            let snapshot = process.fleet.snapshot();
            assert_eq!(snapshot.pending, 0, "{what}");
            let payments = &snapshot.circuits[0];
            assert_eq!(
                (payments.state, payments.epoch.0),
                (Some(state), epoch),
                "{what}"
            );
            assert_eq!(
                process.state() == CircuitState::Open,
                state == FleetState::Open,
                "{what}"
            );
        }
    }
}

#[test]
fn a_standby_that_lagged_behind_is_told_what_it_missed() {
    let world = World::new();
    let fleet = world.processes(3);
    fleet[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(3_600));
    world.settle();
    fleet[0].bulkhead.circuit_breaker().unwrap().close();
    world.settle();
    let standby = world.memory.backup();
    fleet[1]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(7_200));
    world.settle();
    world.store.break_all(&fleet, Fault::Down);
    world.memory.restore(&standby);
    world.heal_all(&fleet);
    world.advance(5);
    for process in &fleet {
        let left = process.call(Ok(())).unwrap_err().retry_after().unwrap();
        assert!(left > Duration::from_secs(7_000), "{left:?}");
    }
    assert_eq!(world.store_view().0, FleetState::Open);
}

#[test]
fn what_is_not_lost_is_not_told_again() {
    let world = World::new();
    let fleet = world.processes(2);
    let mut events = fleet[0].fleet.events();
    fleet[0].fail(5);
    world.settle();
    for _ in 0..50 {
        fleet[1].store.break_sessions();
        world.command_on("payments", FleetAction::ForceOpen);
        world.command_on("payments", FleetAction::Close);
        world.advance(1);
    }
    let events = drain(&world, &mut events);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, FleetEvent::HistoryLost)),
        "{events:?}"
    );
    let looks = fleet[0].store.operations();
    world.advance(100);
    let looks = fleet[0].store.operations() - looks;
    assert!(looks <= 26, "no more than an idle process's: {looks}");
}

#[test]
fn a_store_whose_clock_steps_is_named_and_moves_no_deadline() {
    let clock = ManualRuntime::new();
    let memory = MemoryStore::new(clock.clone());
    let world = World {
        memory,
        ..World::new()
    };
    let process = &world.processes(1)[0];
    let mut events = process.fleet.events();
    let mut pass = |seconds: u64| {
        for _ in 0..seconds {
            clock.advance(Duration::from_secs(1));
            world.advance(1);
        }
        let step = |event: &FleetEvent| match event {
            FleetEvent::ClockStepped { by, forward } => Some((by.as_secs() / 10 * 10, *forward)),
            _ => None,
        };
        drain(&world, &mut events)
            .iter()
            .filter_map(step)
            .collect::<Vec<_>>()
    };
    process
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(1_000));
    assert_eq!(pass(60), [], "it goes as ours does");
    clock.advance(Duration::from_secs(605));
    assert_eq!(pass(20), [(600, true)], "once");
    // Ours goes on without it: it has stepped back.
    process.store.set(Fault::Hang);
    world.advance(45);
    process.store.clear();
    assert_eq!(pass(20), [(40, false)]);
    let left = process.call(Ok(())).unwrap_err().retry_after().unwrap();
    assert_eq!(
        left,
        Duration::from_secs(1_000 - 145),
        "by the clock of this process"
    );
}

#[test]
fn simultaneous_openings_make_one() {
    let world = World::new();
    let fleet = world.processes(20);
    let mut events: Vec<_> = fleet.iter().map(|process| process.fleet.events()).collect();
    for process in &fleet {
        process.fail(5);
    }
    world.settle();
    assert_eq!(world.store_view(), (FleetState::Open, 1));
    let endings: Vec<_> = events
        .iter_mut()
        .flat_map(|events| endings(&drain(&world, events)))
        .collect();
    assert_eq!(endings.len(), 20, "every decision has an end: {endings:?}");
    assert_eq!(
        endings
            .iter()
            .filter(|ending| **ending == DecisionOutcome::Published)
            .count(),
        1
    );
    assert!(
        fleet
            .iter()
            .all(|process| process.state() == CircuitState::Open)
    );
}

#[test]
fn an_error_that_does_not_mend_itself_is_told_with_its_words() {
    let world = World::new();
    let process = world.start("x", StoreSettings::new());
    world.settle();
    let mut events = process.fleet.events();
    process.store.set(Fault::Error(StoreError::denied(
        "GRANT bulkman_app TO this_role",
    )));
    process.store.break_sessions();
    world.advance(10);
    let events = drain(&world, &mut events);
    let denied = events.iter().filter(|e| {
        matches!(
            e,
            FleetEvent::Degraded {
                error: StoreError::Denied { .. }
            }
        )
    });
    assert_eq!(denied.count(), 1, "once: {events:?}");
    assert_eq!(process.call(Ok(())), Ok(()));
    process.store.clear();
    world.advance(3);
    assert!(process.fleet.snapshot().connected);
}

#[test]
fn a_store_that_comes_back_is_not_stormed() {
    let world = World::new();
    let fleet = world.processes(20);
    world.store.break_all(&fleet, Fault::Down);
    world.advance(60);
    let connects: usize = fleet.iter().map(|process| process.store.connects()).sum();
    // A try a second each, on the average, once the backoff has reached its two seconds.
    assert!(
        (20 * 30..20 * 100).contains(&connects),
        "{connects} tries in a minute"
    );
}

#[test]
fn an_idle_process_asks_the_store_for_next_to_nothing() {
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
    let asked = process.store.operations() - before;
    assert!(
        (16..=26).contains(&asked),
        "a look every five seconds, whatever the circuits: {asked}"
    );
}

#[test]
fn a_shutdown_publishes_what_is_pending_and_gives_leases_back() {
    let world = World::new();
    let fleet = world.processes(2);
    fleet[0].fail(5);
    assert!(
        world.runtime.block_on(fleet[0].fleet.shutdown()),
        "it was told"
    );
    world.settle();
    assert_eq!(fleet[1].state(), CircuitState::Open);

    world.advance(30);
    fleet[1].call(Ok(())).unwrap_err();
    world.advance(1);
    assert!(world.runtime.block_on(fleet[1].fleet.shutdown()));
    let third = world.start("third", StoreSettings::new());
    world.settle();
    third.call(Ok(())).unwrap_err();
    world.advance(1);
    third.call(Ok(())).expect("the lease is free again");

    // One that can't tell any more says so, in time.
    third.store.set(Fault::Hang);
    third.bulkhead.circuit_breaker().unwrap().open();
    let before = world.runtime.elapsed();
    assert!(!world.runtime.block_on(third.fleet.shutdown()));
    assert!(world.runtime.elapsed() - before <= Duration::from_millis(500));
}

#[test]
fn a_circuit_belongs_to_one_fleet() {
    let world = World::new();
    let fleet = world.processes(2);
    let error = fleet[0].fleet.attach(&fleet[1].bulkhead).unwrap_err();
    assert!(error.to_string().contains("store"), "{error}");
}

#[test]
fn bulkheads_come_and_go() {
    let world = World::new();
    let fleet = world.processes(2);
    let extra = BulkheadConfig::new("extra");
    for _ in 0..3 {
        let here = Bulkhead::new(extra.clone(), world.runtime.clone()).unwrap();
        let there = Bulkhead::new(extra.clone(), world.runtime.clone()).unwrap();
        fleet[0].fleet.attach(&here).unwrap();
        fleet[1].fleet.attach(&there).unwrap();
        world.settle();
        here.circuit_breaker().unwrap().open();
        world.settle();
        assert!(!there.is_healthy());
        here.circuit_breaker().unwrap().close();
        world.settle();
        assert!(there.is_healthy());
    }
}

#[test]
fn a_snapshot_has_the_circuits_by_name() {
    let world = World::new();
    let process = &world.processes(1)[0];
    let others = ["search", "accounts", "mail"]
        .map(|name| Bulkhead::new(BulkheadConfig::new(name), world.runtime.clone()).unwrap());
    for other in &others {
        process.fleet.attach(other).unwrap();
    }
    world.settle();
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

struct World {
    runtime: ManualRuntime,
    store: FaultStore,
    memory: MemoryStore,
    /// Of operators.
    operations: AtomicU64,
}

struct Process {
    runtime: ManualRuntime,
    store: FaultStore,
    fleet: Fleet,
    bulkhead: Bulkhead,
}

impl World {
    fn new() -> Self {
        let runtime = ManualRuntime::new();
        let memory = MemoryStore::new(runtime.clone());
        let store = FaultStore::new(memory.clone(), runtime.clone());
        Self {
            store,
            runtime,
            memory,
            operations: AtomicU64::new(1 << 48),
        }
    }

    fn processes(&self, count: usize) -> Vec<Process> {
        let processes = (0..count)
            .map(|i| self.start(&format!("p{i}"), StoreSettings::new()))
            .collect();
        self.settle();
        processes
    }

    fn start(&self, name: &str, settings: StoreSettings) -> Process {
        let store = FaultStore::new(
            self.memory.with_settings(settings.instance(name)),
            self.runtime.clone(),
        );
        self.start_on(store)
    }

    fn start_frozen(&self, name: &str) -> Process {
        let memory = self
            .memory
            .with_settings(StoreSettings::new().instance(name));
        let store = FaultStore::new(memory, self.runtime.clone());
        store.set(Fault::Hang);
        self.start_on(store)
    }

    fn start_on(&self, store: FaultStore) -> Process {
        let fleet = Fleet::new(store.clone(), self.runtime.clone()).unwrap();
        let bulkhead =
            Bulkhead::new(BulkheadConfig::new("payments"), self.runtime.clone()).unwrap();
        fleet.attach(&bulkhead).unwrap();
        Process {
            runtime: self.runtime.clone(),
            store,
            fleet,
            bulkhead,
        }
    }

    /// Lets everybody do what they can without time passing.
    fn settle(&self) {
        self.runtime.run_until_stalled();
    }

    fn advance(&self, seconds: u64) {
        self.runtime.advance(Duration::from_secs(seconds));
        self.settle();
    }

    fn heal_all(&self, processes: &[Process]) {
        processes.iter().for_each(|process| process.store.clear());
    }

    fn command(&self, action: FleetAction) {
        self.command_on("payments", action);
    }

    fn command_on(&self, circuit: &str, action: FleetAction) {
        let name = BulkheadName::new(circuit).unwrap();
        let operation = OperationId(self.operations.fetch_add(1, Ordering::Relaxed));
        let command = FleetCommand::new(name.clone(), action, operation, "ada", "a drill");
        self.runtime.block_on(async {
            let mut session = self.memory.open_session(&[]).await.unwrap();
            session.command(&command).await.unwrap();
        });
    }

    fn store_view(&self) -> (FleetState, u64) {
        self.runtime.block_on(async {
            let mut session = self.memory.open_session(&[]).await.unwrap();
            let view = session.snapshot(None).await.unwrap().circuits.remove(0);
            (view.state, view.epoch.0)
        })
    }
}

trait Break {
    fn break_all(&self, processes: &[Process], fault: Fault);
}

impl Break for FaultStore {
    fn break_all(&self, processes: &[Process], fault: Fault) {
        self.set(fault.clone());
        for process in processes {
            process.store.set(fault.clone());
        }
        processes[0].runtime.advance(Duration::from_secs(6));
    }
}

impl Process {
    fn call(&self, outcome: Result<(), &'static str>) -> Result<(), BulkheadError<&'static str>> {
        // Polled once: whatever the store does, a call is not held up by it.
        futures_lite::future::block_on(futures_lite::future::poll_once(
            self.bulkhead.execute(std::future::ready(outcome)),
        ))
        .expect("no call waits for the store")
    }

    fn fail(&self, times: usize) {
        for _ in 0..times {
            let _failed = self.call(Err("down"));
        }
    }

    fn state(&self) -> CircuitState {
        self.bulkhead.circuit_breaker().unwrap().state()
    }
}

fn drain(world: &World, events: &mut bulkman_core::fleet::FleetEvents) -> Vec<FleetEvent> {
    let mut drained = Vec::new();
    while let Some(Some(event)) = world
        .runtime
        .block_on(futures_lite::future::poll_once(events.next()))
    {
        drained.push(event);
    }
    drained
}

fn endings(events: &[FleetEvent]) -> Vec<DecisionOutcome> {
    let ending = |event: &FleetEvent| match event {
        FleetEvent::DecisionResolved { ending, .. } => Some(*ending),
        _ => None,
    };
    events.iter().filter_map(ending).collect()
}
