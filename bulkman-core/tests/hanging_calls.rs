//! Opening on calls that are still in flight: `hanging_call_threshold` and `count_calls_in_flight`.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadState;
use bulkman_core::circuit_breaker::{CircuitCounts, CircuitState, SlidingWindow, TransitionCause};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{
    Bulkhead, BulkheadConfig, BulkheadError, CircuitBreaker, CircuitBreakerConfig, Outcome,
};
use proptest::prelude::*;

const MILLI: Duration = Duration::from_millis(1);
/// The duration above which a call is slow: a bucket is 100 ms.
const SLOW: Duration = Duration::from_millis(800);
/// A call that began at a multiple of 100 ms hangs after this time.
const HANGS: Duration = Duration::from_millis(900);

fn rules() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new().slow_call_duration_threshold(SLOW)
}

fn hanging(calls: u32) -> CircuitBreakerConfig {
    rules().hanging_call_threshold(calls)
}

fn breaker(config: CircuitBreakerConfig) -> (CircuitBreaker, ManualRuntime) {
    let runtime = ManualRuntime::new();
    let breaker = CircuitBreaker::new("test", config, runtime.clone()).unwrap();
    (breaker, runtime)
}

fn bulkhead(
    config: CircuitBreakerConfig,
    limits: impl FnOnce(BulkheadConfig) -> BulkheadConfig,
) -> (Bulkhead, ManualRuntime) {
    let runtime = ManualRuntime::new();
    let config = limits(BulkheadConfig::new("test").circuit_breaker(config));
    (Bulkhead::new(config, runtime.clone()).unwrap(), runtime)
}

fn counts(bulkhead: &Bulkhead) -> CircuitCounts {
    bulkhead.circuit_breaker().unwrap().snapshot().counts
}

fn cause(breaker: &CircuitBreaker) -> Option<TransitionCause> {
    breaker.snapshot().recent.last().map(|it| it.cause)
}

type Call = Pin<Box<dyn Future<Output = Result<(), BulkheadError<()>>> + Send>>;

/// Polls a future once; it must be pending.
fn start<F: Future + ?Sized>(mut future: Pin<Box<F>>) -> Pin<Box<F>> {
    assert!(poll(&mut future).is_pending());
    future
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Starts calls that never end.
fn hang(bulkhead: &Bulkhead, calls: usize) -> Vec<Call> {
    let call = || {
        let bulkhead = bulkhead.clone();
        start(Box::pin(async move { bulkhead.execute(pending::<Result<(), ()>>()).await }) as Call)
    };
    std::iter::repeat_with(call).take(calls).collect()
}

fn succeed(bulkhead: &Bulkhead, calls: usize) {
    for _ in 0..calls {
        bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
    }
}

fn is_open<T: std::fmt::Debug, E: std::fmt::Debug>(result: &Result<T, BulkheadError<E>>) -> bool {
    matches!(result, Err(BulkheadError::CircuitOpen { .. }))
}

/// All permits hang and the queue is full: a call that is rejected as full is the only event.
///
/// Fault O1.
#[test]
fn a_full_bulkhead_of_calls_that_hang_opens() {
    type Newcomer = fn(&Bulkhead) -> bool;
    let newcomers: [(&str, Newcomer); 4] = [
        ("execute", |bulkhead| {
            let mut call = Box::pin(bulkhead.execute(async { Ok::<_, ()>(()) }));
            matches!(poll(&mut call), Poll::Ready(result) if is_open(&result))
        }),
        ("execute_sync", |bulkhead| {
            is_open(&bulkhead.execute_sync(|| Ok::<_, ()>(())))
        }),
        ("try_acquire", |bulkhead| {
            is_open(&bulkhead.try_acquire().map(drop))
        }),
        ("execute_blocking", |bulkhead| {
            let mut call = Box::pin(bulkhead.execute_blocking(|| Ok::<_, ()>(())));
            matches!(poll(&mut call), Poll::Ready(result) if is_open(&result))
        }),
    ];
    for (name, newcomer) in newcomers {
        let (bulkhead, runtime) = bulkhead(hanging(2), |config| {
            config.max_concurrent_calls(2).max_queue_size(0)
        });
        let _hanging = hang(&bulkhead, 2);
        runtime.advance(HANGS - MILLI);
        assert!(matches!(
            bulkhead.execute_sync(|| Ok::<_, ()>(())),
            Err(BulkheadError::Full { .. })
        ));
        runtime.advance(MILLI);
        assert!(newcomer(&bulkhead), "{name}");
        let circuit = bulkhead.circuit_breaker().unwrap();
        assert_eq!(
            cause(circuit),
            Some(TransitionCause::HangingCalls),
            "{name}"
        );
        assert_eq!(circuit.snapshot().recent[0].counts.hanging_calls, 2);
    }
}

/// Fault O1.
#[test]
fn a_call_that_would_wait_opens_and_the_waiters_are_rejected() {
    let (bulkhead, runtime) = bulkhead(hanging(2), |config| config.max_concurrent_calls(2));
    let _hanging = hang(&bulkhead, 2);
    let mut waiting = hang(&bulkhead, 3);
    assert_eq!(bulkhead.stats().waiting, 3);
    runtime.advance(HANGS);
    assert!(is_open(&bulkhead.try_acquire().map(drop)));
    for call in &mut waiting {
        assert!(matches!(poll(call), Poll::Ready(result) if is_open(&result)));
    }
    assert_eq!(bulkhead.stats().rejected.circuit.open, 4);
}

/// The same with permits that are left, with an outcome, and with queries as the only events.
#[test]
fn every_event_evaluates_the_rule() {
    type Event = fn(&Bulkhead);
    let events: [(&str, Event); 6] = [
        ("a call", |bulkhead| {
            assert!(is_open(&bulkhead.execute_sync(|| Ok::<_, ()>(()))));
        }),
        ("state", |bulkhead| {
            let _ = bulkhead.circuit_breaker().unwrap().state();
        }),
        ("state of the bulkhead", |bulkhead| {
            assert_eq!(bulkhead.state(), BulkheadState::Isolated);
        }),
        ("snapshot", |bulkhead| {
            let snapshot = bulkhead.circuit_breaker().unwrap().snapshot();
            assert_eq!(snapshot.state, CircuitState::Open);
        }),
        ("snapshot of the bulkhead", |bulkhead| {
            assert_eq!(bulkhead.snapshot().state, BulkheadState::Isolated);
        }),
        ("statistics", |bulkhead| {
            assert_eq!(bulkhead.stats().circuit, Some(CircuitState::Open));
        }),
    ];
    for (name, event) in events {
        let (bulkhead, runtime) = bulkhead(hanging(2), |config| config);
        let _hanging = hang(&bulkhead, 2);
        runtime.advance(HANGS);
        event(&bulkhead);
        let circuit = bulkhead.circuit_breaker().unwrap();
        assert_eq!(circuit.snapshot().recent.len(), 1, "{name}");
        assert_eq!(
            cause(circuit),
            Some(TransitionCause::HangingCalls),
            "{name}"
        );
    }
}

#[test]
fn an_outcome_evaluates_the_rule() {
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Ignored] {
        let (breaker, runtime) = breaker(hanging(2));
        let mut events = breaker.events();
        let _hanging = [
            breaker.try_acquire().unwrap(),
            breaker.try_acquire().unwrap(),
        ];
        runtime.advance(50 * MILLI);
        let short = breaker.try_acquire().unwrap();
        runtime.advance(HANGS - 50 * MILLI);
        short.record(outcome);
        assert!(events.try_next().is_some(), "{outcome:?}");
    }
    // A waiter that is granted a permit is an event, and is rejected itself.
    let (bulkhead, runtime) = bulkhead(hanging(2), |config| config.max_concurrent_calls(3));
    let _hanging = hang(&bulkhead, 2);
    let third = bulkhead.try_acquire().unwrap();
    let mut waiting = hang(&bulkhead, 1);
    runtime.advance(HANGS);
    drop(third);
    assert!(matches!(poll(&mut waiting[0]), Poll::Ready(result) if is_open(&result)));
}

/// The calls that opened the circuit still hang when it has closed again.
///
/// Fault O2.
#[test]
fn calls_of_before_the_opening_do_not_reopen() {
    let isolation = Duration::from_secs(5);
    let config = hanging(2)
        .isolation_duration(isolation)
        .success_threshold(1);
    let (bulkhead, runtime) = bulkhead(config, |config| config);
    let mut old = hang(&bulkhead, 3);
    runtime.advance(HANGS);
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    runtime.advance(isolation);
    succeed(&bulkhead, 1);
    assert!(bulkhead.is_healthy());
    for _ in 0..30 {
        runtime.advance(100 * MILLI);
        succeed(&bulkhead, 1);
        assert_eq!(counts(&bulkhead).hanging_calls, 0);
    }
    // They keep their permits, and their ends subtract nothing from newer calls.
    assert_eq!(bulkhead.stats().active, 3);
    let new = hang(&bulkhead, 1);
    runtime.advance(HANGS);
    old.truncate(1);
    assert_eq!(counts(&bulkhead).hanging_calls, 1);
    assert!(bulkhead.is_healthy());
    drop((old, new));
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
}

#[test]
fn calls_admitted_by_other_states_are_not_counted() {
    let (breaker, runtime) = breaker(hanging(1).success_threshold(2));
    breaker.half_open();
    let probe = breaker.try_acquire().unwrap();
    breaker.disable();
    let disabled = breaker.try_acquire().unwrap();
    breaker.close();
    runtime.advance(10 * HANGS);
    assert_eq!(breaker.snapshot().counts.hanging_calls, 0);
    probe.succeed();
    disabled.succeed();
    assert_eq!(breaker.snapshot().counts.hanging_calls, 0);
    assert!(breaker.is_closed());
}

/// Fault O4.
#[test]
fn a_very_long_call_is_counted_until_it_ends() {
    let (bulkhead, runtime) = bulkhead(hanging(1_000), |config| config.max_concurrent_calls(1_000));
    let mut long = hang(&bulkhead, 3);
    runtime.advance(SLOW);
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
    for step in 0..100 {
        runtime.advance(100 * MILLI);
        // A call of each time, which passes through every bucket of the ring.
        succeed(&bulkhead, 2);
        let ended = hang(&bulkhead, 1);
        drop(ended);
        assert_eq!(counts(&bulkhead).hanging_calls, 3, "step {step}");
    }
    while long.pop().is_some() {
        assert_eq!(counts(&bulkhead).hanging_calls as usize, long.len());
    }
    runtime.advance(10 * HANGS);
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
}

fn rate(window: SlidingWindow) -> CircuitBreakerConfig {
    rules()
        .slow_call_rate_threshold(0.5)
        .minimum_number_of_calls(4)
        .sliding_window(window)
        .count_calls_in_flight(true)
}

/// Fault O5.
#[test]
fn a_full_count_window_of_fast_calls_does_not_hide_calls_that_hang() {
    let (bulkhead, runtime) = bulkhead(rate(SlidingWindow::Count(10)), |config| config);
    succeed(&bulkhead, 1_000);
    let mut calls = hang(&bulkhead, 4);
    runtime.advance(HANGS);
    assert!(bulkhead.is_healthy());
    let seen = counts(&bulkhead);
    assert_eq!((seen.calls, seen.slow_calls), (10, 0), "outcomes only");
    assert_eq!((seen.hanging_calls, seen.slow_call_rate), (4, Some(0.4)));
    calls.extend(hang(&bulkhead, 1));
    runtime.advance(HANGS);
    assert!(!bulkhead.is_healthy());
    let circuit = bulkhead.circuit_breaker().unwrap();
    assert_eq!(cause(circuit), Some(TransitionCause::SlowCallRate));
    let opening = &circuit.snapshot().recent[0];
    assert_eq!(opening.counts.slow_call_rate, Some(0.5));
}

#[test]
fn the_rate_needs_the_minimum_number_of_calls() {
    let time = SlidingWindow::Time {
        length: Duration::from_secs(60),
        buckets: 60,
    };
    for window in [SlidingWindow::Count(100), time] {
        let (bulkhead, runtime) = bulkhead(rate(window), |config| config);
        let mut calls = hang(&bulkhead, 3);
        runtime.advance(HANGS);
        assert_eq!(counts(&bulkhead).slow_call_rate, None);
        assert!(bulkhead.is_healthy());
        calls.extend(hang(&bulkhead, 1));
        runtime.advance(HANGS);
        assert!(!bulkhead.is_healthy());
    }
    // In a time window, the calls that hang are added to the outcomes.
    let (bulkhead, runtime) = bulkhead(rate(time), |config| config.max_concurrent_calls(20));
    succeed(&bulkhead, 10);
    let mut calls = hang(&bulkhead, 9);
    runtime.advance(HANGS);
    assert_eq!(counts(&bulkhead).slow_call_rate, Some(9.0 / 19.0));
    calls.extend(hang(&bulkhead, 1));
    runtime.advance(HANGS);
    assert!(!bulkhead.is_healthy());
}

#[test]
fn a_call_that_ends_is_counted_once_as_slow() {
    let (breaker, runtime) = breaker(rate(SlidingWindow::Count(10)).minimum_number_of_calls(1));
    for _ in 0..9 {
        breaker.try_acquire().unwrap().succeed();
    }
    let call = breaker.try_acquire().unwrap();
    runtime.advance(HANGS);
    let seen = breaker.snapshot().counts;
    assert_eq!((seen.calls, seen.slow_calls, seen.hanging_calls), (9, 0, 1));
    assert_eq!(seen.slow_call_rate, Some(0.1));
    call.succeed();
    let seen = breaker.snapshot().counts;
    assert_eq!(
        (seen.calls, seen.slow_calls, seen.hanging_calls),
        (10, 1, 0)
    );
    assert_eq!(seen.slow_call_rate, Some(0.1));
}

/// A stream hangs in the sense of the rule: a threshold above their number leaves them alone.
///
/// Fault O6.
#[test]
fn one_long_poll_opens_only_at_a_threshold_of_one() {
    for (threshold, healthy) in [(1, false), (2, true)] {
        let (bulkhead, runtime) = bulkhead(hanging(threshold), |config| config);
        let _stream = bulkhead.try_acquire().unwrap();
        runtime.advance(HANGS);
        assert_eq!(bulkhead.is_healthy(), healthy, "{threshold}");
    }
}

#[test]
fn metrics_only_counts_and_never_opens() {
    let config = hanging(1)
        .count_calls_in_flight(true)
        .slow_call_rate_threshold(0.1);
    let (breaker, runtime) = breaker(config.minimum_number_of_calls(1));
    breaker.metrics_only();
    let call = breaker.try_acquire().unwrap();
    runtime.advance(HANGS);
    assert_eq!(breaker.state(), CircuitState::MetricsOnly);
    let seen = breaker.snapshot().counts;
    assert_eq!((seen.hanging_calls, seen.slow_call_rate), (1, Some(1.0)));
    call.succeed();
    assert_eq!(breaker.snapshot().counts.hanging_calls, 0);
}

/// Every way in which a call ends, on a circuit that must be empty afterwards.
#[test]
fn every_end_of_a_call_leaves_no_count() {
    type End = fn(&Bulkhead, &ManualRuntime);
    let ends: [(&str, End); 9] = [
        ("success", |bulkhead, _| succeed(bulkhead, 1)),
        ("failure", |bulkhead, _| {
            let _ = bulkhead.execute_sync(|| Err::<(), _>(()));
        }),
        ("ignored", |bulkhead, _| {
            bulkhead.try_acquire().unwrap().ignore()
        }),
        ("dropped permit", |bulkhead, _| {
            drop(bulkhead.try_acquire().unwrap())
        }),
        ("cancelled", |bulkhead, _| drop(hang(bulkhead, 1))),
        ("panicked", |bulkhead, _| {
            let run = || bulkhead.execute_sync(|| -> Result<(), ()> { panic!("expected") });
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }),
        ("timed out", |bulkhead, runtime| {
            let limited = bulkhead.call().run_timeout(MILLI);
            let mut call = Box::pin(limited.execute(pending::<Result<(), ()>>()));
            assert!(poll(&mut call).is_pending());
            runtime.advance(MILLI);
            assert!(poll(&mut call).is_ready());
        }),
        ("blocking", |bulkhead, runtime| {
            let call = bulkhead.execute_blocking(|| Ok::<_, ()>(()));
            runtime.block_on(call).unwrap();
        }),
        ("blocking, dropped before it ended", |bulkhead, _| {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let call = bulkhead.execute_blocking(move || {
                released.recv().unwrap();
                Ok::<_, ()>(())
            });
            drop(start(Box::pin(call)));
            // The thread may not have started yet, and then never receives it.
            let _ = release.send(());
        }),
    ];
    for (name, end) in ends {
        let config = hanging(1).failure_threshold(None);
        let (bulkhead, runtime) = bulkhead(config, |config| config);
        end(&bulkhead, &runtime);
        bulkhead.shutdown();
        runtime.block_on(bulkhead.drained());
        runtime.advance(10 * HANGS);
        assert_eq!(counts(&bulkhead).hanging_calls, 0, "{name}");
        assert!(bulkhead.circuit_breaker().unwrap().is_closed(), "{name}");
    }
}

#[test]
fn a_blocking_call_is_not_counted_after_its_caller_timed_out() {
    let config = hanging(2).failure_threshold(None);
    let (bulkhead, runtime) = bulkhead(config, |config| config);
    let call = bulkhead.call().run_timeout(HANGS + 10 * MILLI);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (running, started) = std::sync::mpsc::channel::<()>();
    let mut call = start(Box::pin(call.execute_blocking(move || {
        running.send(()).unwrap();
        released.recv().unwrap();
        Ok::<_, ()>(())
    })));
    started.recv().unwrap();
    runtime.advance(HANGS);
    assert_eq!(counts(&bulkhead).hanging_calls, 1);
    runtime.advance(10 * MILLI);
    assert!(matches!(
        poll(&mut call),
        Poll::Ready(Err(BulkheadError::Timeout { .. }))
    ));
    assert_eq!(
        (counts(&bulkhead).hanging_calls, bulkhead.stats().active),
        (0, 1)
    );
    release.send(()).unwrap();
    bulkhead.shutdown();
    runtime.block_on(bulkhead.drained());
    assert_eq!(
        (counts(&bulkhead).hanging_calls, bulkhead.stats().active),
        (0, 0)
    );
}

#[test]
fn reconfiguring_applies_to_the_calls_that_begin_later() {
    let (bulkhead, runtime) = bulkhead(rules(), |config| config);
    let apply = |rules| {
        let config = bulkhead.config().circuit_breaker(rules);
        bulkhead.reconfigure(config).unwrap();
    };
    let mut calls = hang(&bulkhead, 2);
    // Switched on: only calls that begin from now on are counted.
    apply(hanging(2));
    runtime.advance(HANGS);
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
    calls.extend(hang(&bulkhead, 1));
    runtime.advance(HANGS);
    assert_eq!(counts(&bulkhead).hanging_calls, 1);
    // Another threshold of calls keeps the counts.
    apply(hanging(3));
    assert_eq!(counts(&bulkhead).hanging_calls, 1);
    // Another duration forgets the calls in flight.
    apply(hanging(3).slow_call_duration_threshold(SLOW / 2));
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
    calls.extend(hang(&bulkhead, 2));
    runtime.advance(HANGS / 2);
    assert_eq!(counts(&bulkhead).hanging_calls, 2);
    // Switched off and on again.
    apply(rules());
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
    drop(calls);
    apply(hanging(1));
    runtime.advance(HANGS);
    succeed(&bulkhead, 1);
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
    assert!(bulkhead.is_healthy());
    // A lower threshold applies at the next event.
    apply(hanging(9));
    let _calls = hang(&bulkhead, 1);
    runtime.advance(HANGS);
    assert!(bulkhead.is_healthy());
    apply(hanging(1));
    assert_eq!(counts(&bulkhead).hanging_calls, 1);
    assert!(!bulkhead.is_healthy());
}

#[test]
fn half_open_uses_the_probe_timeout_instead() {
    let config = hanging(1).probe_timeout(10 * HANGS).success_threshold(1);
    let (breaker, runtime) = breaker(config);
    breaker.half_open();
    let _probe = breaker.try_acquire().unwrap();
    runtime.advance(9 * HANGS);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    runtime.advance(HANGS);
    assert_eq!(cause(&breaker), Some(TransitionCause::ProbeTimedOut));
}

#[test]
fn a_clock_that_stands_still_counts_every_call() {
    let (bulkhead, runtime) = bulkhead(hanging(100), |config| config.max_concurrent_calls(100));
    let calls = hang(&bulkhead, 50);
    runtime.advance(HANGS);
    assert_eq!(counts(&bulkhead).hanging_calls, 50);
    drop(calls);
    assert_eq!(counts(&bulkhead).hanging_calls, 0);
}

proptest! {
    /// Never early, and at most an eighth late, if something happens all the time.
    #[test]
    fn the_circuit_opens_between_the_duration_and_an_eighth_more(
        micros in 3_u64..5_000_000,
        began in 0_u64..10_000_000,
    ) {
        let duration = Duration::from_micros(micros);
        let (breaker, runtime) = breaker(hanging(1).slow_call_duration_threshold(duration));
        runtime.advance(Duration::from_micros(began));
        let _call = breaker.try_acquire().unwrap();
        runtime.advance(duration);
        prop_assert!(breaker.is_closed());
        runtime.advance(duration / 8 + Duration::from_nanos(1));
        prop_assert!(breaker.is_open());
    }
}
