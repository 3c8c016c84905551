//! The stream of events.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bulkman_core::circuit_breaker::{CircuitEvent, CircuitState, SlidingWindow, TransitionCause};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, Outcome, Runtime};
use futures_core::Stream;

use super::{SECOND, config, fail, manual, transition, try_next};

#[test]
fn a_window_full_of_successes_records_all_other_outcomes() {
    let rules = config()
        .slow_call_rate_threshold(0.5)
        .slow_call_duration_threshold(SECOND)
        .failure_rate_threshold(0.5)
        .sliding_window(SlidingWindow::Count(4))
        .minimum_number_of_calls(4);
    let call =
        |breaker: &CircuitBreaker, runtime: &ManualRuntime, ran: Duration, outcome: Outcome| {
            let admission = breaker.try_acquire().unwrap();
            runtime.advance(ran);
            admission.record(outcome);
            let counts = breaker.snapshot().counts;
            (counts.calls, counts.failures, counts.slow_calls)
        };
    let (breaker, runtime) = manual(rules.clone());
    for calls in [1, 2, 3, 4, 4, 4] {
        assert_eq!(
            call(&breaker, &runtime, SECOND, Outcome::Success),
            (calls, 0, 0)
        );
    }
    // A failure leaves the window after four more outcomes.
    assert_eq!(
        call(&breaker, &runtime, SECOND, Outcome::Failure),
        (4, 1, 0)
    );
    for failures in [1, 1, 1, 0, 0] {
        assert_eq!(
            call(&breaker, &runtime, SECOND, Outcome::Success),
            (4, failures, 0)
        );
    }
    assert_eq!(
        call(&breaker, &runtime, 2 * SECOND, Outcome::Success),
        (4, 0, 1)
    );
    for slow in [1, 1, 1, 0] {
        assert_eq!(
            call(&breaker, &runtime, SECOND, Outcome::Success),
            (4, 0, slow)
        );
    }
    // The threshold of slow calls and the size of the window can change.
    breaker
        .reconfigure(&rules.clone().slow_call_duration_threshold(SECOND / 2))
        .unwrap();
    assert_eq!(
        call(&breaker, &runtime, SECOND, Outcome::Success),
        (4, 0, 1)
    );
    assert_eq!(
        call(&breaker, &runtime, SECOND, Outcome::Success),
        (4, 0, 2)
    );
    assert_eq!(breaker.state(), CircuitState::Open);
    breaker.close();
    breaker
        .reconfigure(&rules.sliding_window(SlidingWindow::Count(6)))
        .unwrap();
    for calls in [1, 2, 3, 4, 5, 6, 6] {
        assert_eq!(
            call(&breaker, &runtime, Duration::ZERO, Outcome::Success),
            (calls, 0, 0)
        );
    }
}

#[test]
fn transitions_carry_cause_counts_time_and_isolation() {
    let (breaker, runtime) = manual(config().isolation_duration(10 * SECOND));
    let mut events = breaker.events();
    fail(&breaker, 5);
    let opened = transition(&mut events);
    assert_eq!(opened.circuit, *breaker.name());
    assert_eq!(
        (opened.from, opened.to),
        (CircuitState::Closed, CircuitState::Open)
    );
    assert_eq!(opened.cause, TransitionCause::ConsecutiveFailures);
    assert_eq!(opened.counts.consecutive_failures, 5);
    assert_eq!(
        (opened.isolation, opened.open_count),
        (Some(10 * SECOND), 1)
    );
    runtime.advance(25 * SECOND);
    let _hung = breaker.try_acquire().unwrap();
    assert_eq!(
        transition(&mut events).cause,
        TransitionCause::IsolationElapsed
    );
    let admitted = runtime.now();
    runtime.advance(15 * SECOND);
    assert_eq!(breaker.state(), CircuitState::Open);
    let timed_out = transition(&mut events);
    assert_eq!(
        (timed_out.cause, timed_out.at, timed_out.open_count),
        (TransitionCause::ProbeTimedOut, admitted + 10 * SECOND, 2)
    );
    breaker.close();
    assert_eq!(transition(&mut events).cause, TransitionCause::Manual);
    let causes: Vec<_> = breaker
        .snapshot()
        .recent
        .iter()
        .map(|transition| transition.cause)
        .collect();
    assert_eq!(causes.len(), 4);
    assert_eq!(
        causes[2..],
        [TransitionCause::ProbeTimedOut, TransitionCause::Manual]
    );
}

/// Hazard H81.
#[test]
fn a_lagging_receiver_gets_the_number_of_lost_events() {
    let (breaker, _) = manual(config());
    let mut events = breaker.events();
    for _ in 0..100 {
        breaker.open();
        breaker.close();
    }
    assert_eq!(try_next(&mut events), Some(CircuitEvent::Lagged(200 - 128)));
    let mut last = 0;
    for _ in 0..128 {
        let generation = transition(&mut events).generation;
        assert!(generation > last);
        last = generation;
    }
    assert_eq!(try_next(&mut events), None);
}

/// Hazard H82.
#[test]
fn a_stream_ends_with_its_circuit_and_does_not_keep_it_alive() {
    let (breaker, runtime) = manual(config());
    let mut events = breaker.events();
    breaker.open();
    drop(breaker);
    transition(&mut events);
    let ended = runtime.block_on(std::future::poll_fn(|cx| {
        Pin::new(&mut events).poll_next(cx)
    }));
    assert_eq!(ended, None);
}

#[test]
fn a_waiting_receiver_is_woken() {
    let (breaker, runtime) = manual(config().automatic_half_open(true));
    breaker.open();
    let mut events = breaker.events();
    // Only the timer can cause this event.
    let event = runtime.block_on(std::future::poll_fn(|cx| {
        Pin::new(&mut events).poll_next(cx)
    }));
    let Some(CircuitEvent::Transition(transition)) = event else {
        panic!("{event:?}")
    };
    assert_eq!(transition.to, CircuitState::HalfOpen);
    assert_eq!(runtime.elapsed(), 30 * SECOND);
}

/// Hazard H78.
#[test]
fn a_waker_may_use_the_circuit_and_may_panic() {
    struct UsesCircuit(CircuitBreaker, AtomicBool);
    impl std::task::Wake for UsesCircuit {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::Relaxed);
            self.0.close();
            let _ = self.0.snapshot();
            panic!("waker");
        }
    }
    let (breaker, _) = manual(config());
    let waker_state = Arc::new(UsesCircuit(breaker.clone(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&waker_state));
    let mut events = breaker.events();
    assert!(
        pin!(&mut events)
            .poll_next(&mut Context::from_waker(&waker))
            .is_pending()
    );
    breaker.open();
    assert!(waker_state.1.load(Ordering::Relaxed));
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(transition(&mut events).to, CircuitState::Open);
    assert_eq!(transition(&mut events).to, CircuitState::Closed);
}
