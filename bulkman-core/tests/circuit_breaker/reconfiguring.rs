//! Settings that change while the circuit is in use.

use bulkman_core::circuit_breaker::{CircuitState, SlidingWindow, TransitionCause};

use super::{SECOND, config, fail, manual, transition, try_next};

/// Hazard H88.
#[test]
fn reconfiguring_keeps_state_isolation_and_window() {
    let (breaker, runtime) = manual(
        config()
            .failure_rate_threshold(0.9)
            .sliding_window(SlidingWindow::Count(8)),
    );
    fail(&breaker, 4);
    (0..4).for_each(|_| breaker.try_acquire().unwrap().succeed());
    let mut events = breaker.events();
    let in_flight = breaker.try_acquire().unwrap();
    let smaller = config()
        .failure_rate_threshold(0.5)
        .sliding_window(SlidingWindow::Count(5));
    breaker.reconfigure(&smaller).unwrap();
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.calls, counts.failures), (5, 1));
    in_flight.succeed();
    assert_eq!(
        breaker.snapshot().counts.failures,
        0,
        "an outcome in flight is recorded"
    );

    fail(&breaker, 3);
    assert_eq!(breaker.state(), CircuitState::Open);
    runtime.advance(10 * SECOND);
    breaker
        .reconfigure(&smaller.clone().isolation_duration(500 * SECOND))
        .unwrap();
    assert_eq!(breaker.snapshot().retry_after, Some(20 * SECOND));
    let error = breaker
        .reconfigure(&smaller.failure_rate_threshold(2.0))
        .unwrap_err();
    assert!(error.to_string().contains("failure_rate_threshold"));
    assert_eq!(
        breaker.resolved_config().failure_rate_threshold,
        Some(0.5),
        "the old rules stay in force"
    );
    assert_eq!(transition(&mut events).cause, TransitionCause::FailureRate);
    assert_eq!(try_next(&mut events), None);
}

#[test]
fn lowering_the_success_threshold_can_close_at_once() {
    let (breaker, _) = manual(config().success_threshold(3));
    breaker.half_open();
    (0..2).for_each(|_| breaker.try_acquire().unwrap().succeed());
    breaker.reconfigure(&config().success_threshold(2)).unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn an_added_window_counts_from_then_on() {
    let (breaker, _) = manual(config());
    fail(&breaker, 2);
    breaker
        .reconfigure(
            &config()
                .failure_threshold(3)
                .sliding_window(SlidingWindow::Count(10)),
        )
        .unwrap();
    breaker.try_acquire().unwrap().succeed();
    assert_eq!(breaker.snapshot().counts.calls, 1);
    breaker.reconfigure(&config().failure_threshold(3)).unwrap();
    fail(&breaker, 3);
    assert_eq!(breaker.state(), CircuitState::Open);
}
