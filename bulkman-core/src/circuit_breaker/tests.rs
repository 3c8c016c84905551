//! What only the crate itself can reach: the machine without its shell, and the hooks.

use std::sync::Mutex;

use super::shared::{Adopted, Gate};
use super::state::{Machine, Settled};
use super::*;
use crate::runtime::ClockOnly;
use crate::testing::ManualRuntime;

const SECOND: Duration = Duration::from_secs(1);

/// Hazard H18.
#[test]
fn the_machine_itself_drops_outcomes_of_an_older_generation() {
    let now = ClockOnly.now();
    let config = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .success_threshold(1);
    let mut machine = Machine::new(config.resolve(), 0, now);
    let old = machine.generation();
    machine.go(StateTarget::Closed, now);
    assert_eq!(
        machine.settle(old, None, Outcome::Failure, None, Some(now)),
        Settled::Done
    );
    assert_eq!(machine.state(), CircuitState::Closed);
    machine.trip(old, TransitionCause::FailureRate, now);
    assert_eq!(machine.state(), CircuitState::Closed);

    machine.go(StateTarget::HalfOpen, now);
    let probe = machine.admit(now).unwrap();
    let old = machine.generation();
    machine.go(StateTarget::HalfOpen, now);
    assert_eq!(
        machine.settle(old, probe, Outcome::Success, None, Some(now)),
        Settled::Done
    );
    assert_eq!(
        (machine.state(), machine.slots()),
        (CircuitState::HalfOpen, Some(1))
    );
}

#[test]
fn an_outcome_that_needs_the_time_is_not_recorded_without_it() {
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
    let settled = machine.settle(generation, None, Outcome::Failure, None, None);
    assert_eq!(
        (settled, machine.counts(now).calls),
        (Settled::NeedsClock, 0)
    );
}

/// An outcome that takes the place of its like leaves the tally as it is, but the rules may be others.
#[test]
fn rules_that_become_stricter_are_applied_at_the_next_outcome_whatever_it_is() {
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
            machine.settle(machine.generation(), None, outcome, None, None),
            Settled::Done
        );
    }
    machine.reconfigure(of(0.25).resolve(), now);
    // Also once more, when nobody has come back with the time.
    for _ in 0..2 {
        let settled = machine.settle(machine.generation(), None, Outcome::Success, None, None);
        assert_eq!(settled, Settled::Trips(TransitionCause::FailureRate));
    }
}

/// Hazard H78, H81.
#[test]
fn hooks_may_panic_and_use_the_circuit_and_hear_everything_in_order() {
    let breaker =
        CircuitBreaker::new("hooked", CircuitBreakerConfig::new(), ManualRuntime::new()).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    breaker.on_transition(Arc::new(|_| panic!("a hook")));
    let (inner, ears) = (breaker.clone(), Arc::clone(&heard));
    breaker.on_transition(Arc::new(move |transition| {
        ears.lock().unwrap().push((transition.from, transition.to));
        if transition.to == CircuitState::Open {
            inner.force_open();
            let _ = inner.snapshot();
        }
    }));
    breaker.open();
    breaker.close();
    assert_eq!(
        *heard.lock().unwrap(),
        [
            (CircuitState::Closed, CircuitState::Open),
            (CircuitState::Open, CircuitState::ForcedOpen),
            (CircuitState::ForcedOpen, CircuitState::Closed),
        ]
    );
}

#[test]
fn a_check_takes_nothing_and_leaves_a_due_transition_to_the_admission() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new().success_threshold(1);
    let breaker = CircuitBreaker::new("checked", config, runtime.clone()).unwrap();
    breaker.open();
    assert!(breaker.check().is_err());
    runtime.advance(30 * SECOND);
    // A full bulkhead may still refuse the call.
    assert!(breaker.check().is_ok() && breaker.check().is_ok());
    let probe = breaker.admit().unwrap();
    assert!(breaker.check().is_err());
    assert_eq!(
        (
            breaker.rejections().open,
            breaker.rejections().probe_limit_reached
        ),
        (1, 1)
    );
    breaker.abandon(probe);
    assert!(breaker.check().is_ok());
}

#[test]
fn a_health_check_begins_half_open_early_and_only_from_open() {
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

/// Waking the synchroniser takes longer than a call.
#[test]
fn the_synchroniser_is_told_of_each_thing_once_and_not_of_what_time_does() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new().failure_threshold(1);
    let breaker = CircuitBreaker::new("shared", config, runtime.clone()).unwrap();
    let told = Arc::new(Mutex::new(0));
    let ears = Arc::clone(&told);
    let shared = breaker
        .share(Arc::new(move || *ears.lock().unwrap() += 1))
        .unwrap();
    let takes = || std::mem::take(&mut *told.lock().unwrap());
    shared.observe().unwrap();
    shared.set_gate(Gate::Fleet { leased: false }).unwrap();
    takes();

    breaker.try_acquire().unwrap().fail();
    assert_eq!(takes(), 1, "an opening");
    shared.observe().unwrap();
    runtime.advance(30 * SECOND);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    assert_eq!(takes(), 0, "the end of an isolation");
    for _ in 0..3 {
        assert_eq!(
            breaker.try_acquire().unwrap_err().reason,
            RejectionReason::NoProbeLease
        );
    }
    assert_eq!(takes(), 1, "a lease is wanted");
    let observed = shared.observe().unwrap();
    assert!(observed.wanted && observed.state == CircuitState::HalfOpen);
    assert!(breaker.try_acquire().is_err());
    assert_eq!(takes(), 0, "that is known");
    shared.heed_again();
    assert!(breaker.try_acquire().is_err());
    assert_eq!(
        takes(),
        1,
        "there was none to be had, and it is still wanted"
    );
    shared.observe().unwrap();

    shared.set_gate(Gate::Fleet { leased: true }).unwrap();
    breaker.try_acquire().unwrap().succeed();
    assert_eq!(takes(), 1, "a verdict");
    let generation = shared.observe().unwrap().generation;
    shared.adopt(generation, Adopted::Closed).unwrap().unwrap();
    assert_eq!(takes(), 0, "what it has said itself");
    breaker.open();
    assert_eq!(takes(), 1);

    // Whoever it took an opening over from looks by itself when that is over; until it does not.
    let generation = shared.observe().unwrap().generation;
    let opening = Adopted::Open {
        remaining: SECOND,
        open_count: 1,
    };
    shared.adopt(generation, opening).unwrap().unwrap();
    runtime.advance(SECOND);
    assert!(breaker.try_acquire().is_err() && breaker.try_acquire().is_err());
    assert_eq!(takes(), 0);
    shared.heed_again();
    assert_eq!(takes(), 1, "it was wanted meanwhile");
    assert!(shared.observe().unwrap().wanted);
}
