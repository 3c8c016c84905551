//! Thresholds, probes and the outcomes of earlier generations.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkman_core::CircuitBreaker;
use bulkman_core::circuit_breaker::{Admission, CircuitState};

use super::{SECOND, config, fail, manual, transition, try_next};

/// Hazard P01.
#[test]
fn thresholds_are_counts_and_do_not_reduce() {
    let (breaker, runtime) = manual(config());
    fail(&breaker, 4);
    assert_eq!(
        breaker.state(),
        CircuitState::Closed,
        "opened before the fifth failure"
    );
    fail(&breaker, 1);
    assert_eq!(breaker.state(), CircuitState::Open);
    runtime.advance(30 * SECOND);
    for successes in 0..3 {
        assert_eq!(
            breaker.state(),
            CircuitState::HalfOpen,
            "after {successes} successes"
        );
        breaker.try_acquire().unwrap().succeed();
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

/// Hazard P04, P05.
#[test]
fn half_open_admits_only_three_probes_under_contention() {
    let (breaker, runtime) = manual(config());
    fail(&breaker, 5);
    runtime.advance(30 * SECOND);
    let mut events = breaker.events();
    let start = Barrier::new(50);
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                start.wait();
                let admission = breaker.try_acquire();
                admitted.fetch_add(usize::from(admission.is_ok()), Ordering::Relaxed);
                start.wait();
            });
        }
    });
    assert_eq!(admitted.into_inner(), 3);
    assert_eq!(transition(&mut events).to, CircuitState::HalfOpen);
    assert_eq!(try_next(&mut events), None);
    assert_eq!(breaker.rejections().probe_limit_reached, 47);
}

/// Hazard P06.
#[test]
fn a_stale_outcome_neither_closes_nor_shortens_the_isolation() {
    let (breaker, runtime) = manual(config());
    let old: Vec<_> = (0..10).map(|_| breaker.try_acquire().unwrap()).collect();
    fail(&breaker, 5);
    runtime.advance(10 * SECOND);
    old.into_iter().for_each(Admission::succeed);
    assert_eq!(breaker.snapshot().retry_after, Some(20 * SECOND));
    assert_eq!(breaker.snapshot().state, CircuitState::Open);
}

/// Hazard P09.
#[test]
fn the_state_is_current_without_traffic() {
    let (breaker, runtime) = manual(config());
    fail(&breaker, 5);
    runtime.advance(30 * SECOND);
    assert_eq!(breaker.snapshot().state, CircuitState::HalfOpen);
}

#[test]
fn every_state_entered_begins_a_generation() {
    let (breaker, _) = manual(config());
    let mut last = breaker.snapshot().generation;
    for enter in [
        CircuitBreaker::open,
        CircuitBreaker::open,
        CircuitBreaker::half_open,
        CircuitBreaker::half_open,
        CircuitBreaker::force_open,
        CircuitBreaker::force_open,
        CircuitBreaker::disable,
        CircuitBreaker::disable,
        CircuitBreaker::metrics_only,
        CircuitBreaker::metrics_only,
        CircuitBreaker::close,
        CircuitBreaker::close,
    ] {
        enter(&breaker);
        let generation = breaker.snapshot().generation;
        assert!(generation > last);
        last = generation;
    }
}

/// Hazard H22.
#[test]
fn closing_a_closed_circuit_drops_outcomes_in_flight() {
    let (breaker, _) = manual(config().failure_threshold(1));
    let old = breaker.try_acquire().unwrap();
    breaker.close();
    old.fail();
    assert_eq!(breaker.state(), CircuitState::Closed);
}
