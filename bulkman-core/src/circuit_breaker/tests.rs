//! Tests of what only the crate can reach: the machine alone, hooks and the driver's handle.

use std::sync::Mutex;

use super::machine::Recorded;
use super::*;
use crate::runtime::ClockOnly;
use crate::testing::ManualRuntime;

const SECOND: Duration = Duration::from_secs(1);

/// Hazard H18.
#[test]
fn the_machine_drops_outcomes_of_an_older_generation() {
    let now = ClockOnly.now();
    let config = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .success_threshold(1);
    let mut machine = Machine::new(config.resolve(), 0, now);
    let old = machine.generation();
    machine.transition_to(ManualTarget::Closed, now);
    assert_eq!(
        machine.record(old, None, Outcome::Failure, None, Some(now)),
        Recorded::Done
    );
    assert_eq!(machine.state(), CircuitState::Closed);
    machine.open_by_rule(old, TransitionCause::FailureRate, now);
    assert_eq!(machine.state(), CircuitState::Closed);

    machine.transition_to(ManualTarget::HalfOpen, now);
    let probe = machine.admit(now).unwrap();
    let old = machine.generation();
    machine.transition_to(ManualTarget::HalfOpen, now);
    assert_eq!(
        machine.record(old, probe, Outcome::Success, None, Some(now)),
        Recorded::Done
    );
    assert_eq!(
        (machine.state(), machine.probes_remaining()),
        (CircuitState::HalfOpen, Some(1))
    );
}

/// The generation repeats after as many as a ticket has bits for.
#[test]
fn outcomes_count_after_the_last_generation() {
    let now = ClockOnly.now();
    let config = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .success_threshold(1);
    for first in (1 << 39) - 4..1 << 39 {
        let mut machine = Machine::new(config.resolve(), 0, now);
        machine.generation = first;
        let old = machine.packed_state().generation();
        machine.transition_to(ManualTarget::Closed, now);
        let dropped = machine.record(old, None, Outcome::Failure, None, Some(now));
        assert_eq!(dropped, Recorded::Done);
        let generation = machine.packed_state().generation();
        let Recorded::RuleTripped(cause) =
            machine.record(generation, None, Outcome::Failure, None, None)
        else {
            panic!("the failure was dropped after generation {first}");
        };
        machine.open_by_rule(old, cause, now);
        assert_eq!(machine.state(), CircuitState::Closed);
        machine.open_by_rule(generation, cause, now);
        assert_eq!(machine.state(), CircuitState::Open);
        machine.transition_to(ManualTarget::HalfOpen, now);
        let probe = machine.admit(now).unwrap();
        let generation = machine.packed_state().generation();
        let recorded = machine.record(generation, probe, Outcome::Success, None, Some(now));
        assert_eq!(
            (recorded, machine.state()),
            (Recorded::Done, CircuitState::Closed)
        );
    }
}

#[test]
fn a_time_window_records_nothing_without_the_time() {
    let now = ClockOnly.now();
    let window = SlidingWindow::Time {
        length: SECOND,
        buckets: 10,
    };
    let config = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .sliding_window(window);
    let mut machine = Machine::new(config.resolve(), 0, now);
    let generation = machine.generation();
    let recorded = machine.record(generation, None, Outcome::Failure, None, None);
    assert_eq!(
        (recorded, machine.counts(now).calls),
        (Recorded::NeedsClock, 0)
    );
}

/// An outcome that replaces an equal one leaves the tally alone, but the rules may have changed.
#[test]
fn stricter_rules_apply_at_the_next_outcome_of_any_kind() {
    let now = ClockOnly.now();
    let window = SlidingWindow::Count(4);
    let of = |rate| {
        CircuitBreakerConfig::new()
            .failure_rate_threshold(rate)
            .sliding_window(window)
    };
    let mut machine = Machine::new(of(0.5).resolve(), 0, now);
    for outcome in [
        Outcome::Success,
        Outcome::Success,
        Outcome::Failure,
        Outcome::Success,
    ] {
        assert_eq!(
            machine.record(machine.generation(), None, outcome, None, None),
            Recorded::Done
        );
    }
    machine.reconfigure(of(0.25).resolve(), now);
    // The result is the same until the circuit has been opened with the time.
    for _ in 0..2 {
        let recorded = machine.record(machine.generation(), None, Outcome::Success, None, None);
        assert_eq!(
            recorded,
            Recorded::RuleTripped(TransitionCause::FailureRate)
        );
    }
}

/// Hazard H78, H81.
#[test]
fn hooks_may_panic_and_use_the_circuit_and_run_in_order() {
    let breaker =
        CircuitBreaker::new("hooked", CircuitBreakerConfig::new(), ManualRuntime::new()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    breaker.on_transition(Arc::new(|_| panic!("a hook")));
    let (inner, recorder) = (breaker.clone(), Arc::clone(&seen));
    breaker.on_transition(Arc::new(move |transition| {
        recorder
            .lock()
            .unwrap()
            .push((transition.from, transition.to));
        if transition.to == CircuitState::Open {
            inner.force_open();
            let _ = inner.snapshot();
        }
    }));
    breaker.open();
    breaker.close();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (CircuitState::Closed, CircuitState::Open),
            (CircuitState::Open, CircuitState::ForcedOpen),
            (CircuitState::ForcedOpen, CircuitState::Closed),
        ]
    );
}

#[test]
fn a_check_takes_no_slot_and_performs_no_transition() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new().success_threshold(1);
    let breaker = CircuitBreaker::new("checked", config, runtime.clone()).unwrap();
    breaker.open();
    assert!(breaker.check().is_err());
    runtime.advance(30 * SECOND);
    // A full bulkhead may still reject the call.
    assert!(breaker.check().is_ok() && breaker.check().is_ok());
    let probe = breaker.admit(None).unwrap();
    assert!(breaker.check().is_err());
    assert_eq!(
        (
            breaker.rejections().open,
            breaker.rejections().probe_limit_reached
        ),
        (1, 1)
    );
    breaker.cancel(probe);
    assert!(breaker.check().is_ok());
}

#[test]
fn a_health_check_begins_half_open_early_only_from_open() {
    let breaker =
        CircuitBreaker::new("healthy", CircuitBreakerConfig::new(), ManualRuntime::new()).unwrap();
    assert!(!breaker.half_open_early());
    breaker.force_open();
    assert!(!breaker.half_open_early());
    breaker.open();
    assert!(breaker.half_open_early());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(
        breaker.snapshot().recent.last().unwrap().cause,
        TransitionCause::HealthCheck
    );
}

/// Waking the driver takes longer than a call.
#[test]
fn the_driver_is_woken_once_per_cause_but_not_for_elapsed_time() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new().failure_threshold(1);
    let breaker = CircuitBreaker::new("shared", config, runtime.clone()).unwrap();
    let wakes = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&wakes);
    let weak = breaker
        .attach_driver(Arc::new(move || *counter.lock().unwrap() += 1))
        .unwrap();
    let take_wakes = || std::mem::take(&mut *wakes.lock().unwrap());
    weak.observe().unwrap();
    weak.set_gate(Gate::Fleet { leased: false }).unwrap();
    take_wakes();

    breaker.try_acquire().unwrap().fail();
    assert_eq!(take_wakes(), 1, "the circuit opened");
    weak.observe().unwrap();
    runtime.advance(30 * SECOND);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(take_wakes(), 0, "the isolation elapsed");
    for _ in 0..3 {
        assert_eq!(
            breaker.try_acquire().unwrap_err().reason,
            RejectionReason::NoProbeLease
        );
    }
    assert_eq!(take_wakes(), 1, "a lease is wanted");
    let observed = weak.observe().unwrap();
    assert!(observed.lease_wanted && observed.state == CircuitState::HalfOpen);
    assert!(breaker.try_acquire().is_err());
    assert_eq!(take_wakes(), 0, "the driver has read the demand");
    weak.stop_polling_demand();
    assert!(breaker.try_acquire().is_err());
    assert_eq!(
        take_wakes(),
        1,
        "the driver stopped polling, and a lease is still wanted"
    );
    weak.observe().unwrap();

    weak.set_gate(Gate::Fleet { leased: true }).unwrap();
    breaker.try_acquire().unwrap().succeed();
    assert_eq!(take_wakes(), 1, "a probe outcome");
    let generation = weak.observe().unwrap().generation;
    weak.adopt(generation, FleetTarget::Closed)
        .unwrap()
        .unwrap();
    assert_eq!(take_wakes(), 0, "the driver caused the change");
    breaker.open();
    assert_eq!(take_wakes(), 1);

    // After an adopted isolation the driver polls for demand, until it stops.
    let generation = weak.observe().unwrap().generation;
    let opening = FleetTarget::Open {
        remaining: SECOND,
        open_count: 1,
    };
    weak.adopt(generation, opening).unwrap().unwrap();
    runtime.advance(SECOND);
    assert!(breaker.try_acquire().is_err() && breaker.try_acquire().is_err());
    assert_eq!(take_wakes(), 0);
    weak.stop_polling_demand();
    assert_eq!(take_wakes(), 1, "a lease was wanted meanwhile");
    let observed = weak.observe().unwrap();
    assert!(observed.lease_wanted);

    // While an adopted circuit is half-open, it polls, too.
    let half_open = FleetTarget::HalfOpen { open_count: 1 };
    (weak.adopt(observed.generation, half_open).unwrap()).unwrap();
    assert!(breaker.try_acquire().is_err());
    assert_eq!(take_wakes(), 0);
    assert!(weak.observe().unwrap().lease_wanted);
}
