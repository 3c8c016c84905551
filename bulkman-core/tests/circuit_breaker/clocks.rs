//! Clocks that step, differ or overflow, and when the clock is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{CircuitState, SlidingWindow, TransitionCause};
use bulkman_core::error::RejectionReason;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, Outcome, Runtime};

use super::{SECOND, config, fail, manual, transition};

/// Hazard H60.
#[test]
fn a_clock_that_goes_backwards_keeps_state_and_counts() {
    let (breaker, _) = manual(config().sliding_window(SlidingWindow::Time {
        length: 10 * SECOND,
        buckets: 10,
    }));
    let start = ClockOnly.now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let fail_at = |now| {
        breaker
            .try_acquire_at(now)
            .unwrap()
            .record_at(Outcome::Failure, SECOND, now);
    };
    fail_at(at(100));
    fail_at(at(50));
    assert_eq!(breaker.snapshot_at(at(50)).counts.calls, 2);
    fail_at(at(100));
    fail_at(at(100));
    fail_at(at(100));
    assert_eq!(breaker.state_at(at(100)), CircuitState::Open);
    assert_eq!(breaker.state_at(at(10)), CircuitState::Open);
    // The isolation lasts for 30 s by the clock that is behind, too.
    assert_eq!(
        breaker.try_acquire_at(at(20)).unwrap_err().retry_after,
        Some(20 * SECOND)
    );
    assert_eq!(breaker.state_at(at(39)), CircuitState::Open);
    let _probe = breaker.try_acquire_at(at(40)).unwrap();
    assert_eq!(breaker.state_at(at(0)), CircuitState::HalfOpen);
    assert_eq!(breaker.state_at(at(29)), CircuitState::HalfOpen);
}

/// Fault F09.
#[test]
fn isolation_is_no_longer_than_configured_by_any_clock() {
    let day = Duration::from_secs(86_400);
    let far = ClockOnly.now() + 10 * day;
    // Created, opened and read by clocks that differ.
    for (created, opened, read) in [(0, 1, 0), (1, 1, 0), (2, 1, 0), (0, 2, 1), (0, 0, 1)] {
        let clock = SetClock::new(far + created * day);
        let breaker = CircuitBreaker::new("clocks", config(), clock.clone()).unwrap();
        clock.set(far + opened * day);
        breaker.open();
        clock.set(far + read * day);
        if read > opened {
            assert!(breaker.try_acquire().is_ok());
            continue;
        }
        assert_eq!(
            breaker.try_acquire().unwrap_err().retry_after,
            Some(30 * SECOND)
        );
        assert_eq!(breaker.snapshot().retry_after, Some(30 * SECOND));
        clock.set(far + read * day + 29 * SECOND);
        assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Some(SECOND));
        clock.set(far + read * day + 30 * SECOND);
        let probe = breaker.try_acquire().unwrap();
        // The same holds for the timeout of the probe.
        clock.set(far);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        clock.set(far + 30 * SECOND);
        assert_eq!(breaker.state(), CircuitState::Open);
        probe.succeed();
    }
}

/// A drop has no argument for the time, and the clock of the runtime may be another one.
///
/// Fault F09.
#[test]
fn dropped_probe_of_another_clock_does_not_time_out() {
    let day = 86_400 * SECOND;
    let (breaker, runtime) = manual(config().isolation_duration(day).probe_timeout(SECOND));
    let recorded = runtime.now();
    runtime.advance(3_600 * SECOND);
    breaker.half_open();
    for _ in 0..2 {
        drop(breaker.try_acquire_at(recorded).unwrap());
    }
    let snapshot = breaker.snapshot_at(recorded);
    assert_eq!(snapshot.state, CircuitState::HalfOpen);
}

/// A clock that is set.
#[derive(Clone, Debug)]
struct SetClock(Arc<Mutex<Instant>>);

impl SetClock {
    fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    fn set(&self, now: Instant) {
        *self.0.lock().unwrap() = now;
    }
}

impl Runtime for SetClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(std::future::pending())
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }

    fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
}

/// Hazard H62.
#[test]
fn an_isolation_that_overflows_never_elapses() {
    let (breaker, runtime) = manual(config().isolation_duration(Duration::MAX));
    breaker.open();
    runtime.advance(Duration::from_secs(1 << 40));
    let rejection = breaker.try_acquire().unwrap_err();
    assert_eq!(
        (rejection.reason, rejection.retry_after),
        (RejectionReason::Open, None)
    );
    breaker.open_for(Duration::MAX);
    assert_eq!(breaker.snapshot().retry_after, None);
    // Exact even beyond 64 bits of nanoseconds.
    let far = Duration::from_secs(1 << 50);
    breaker.open_for(far);
    assert!(breaker.try_acquire().is_err());
    runtime.advance(far - Duration::from_nanos(1));
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(
        breaker.try_acquire().unwrap_err().retry_after,
        Some(Duration::from_nanos(1))
    );
    runtime.advance(Duration::from_nanos(1));
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

/// A clock that counts how often it is read.
#[derive(Clone, Debug, Default)]
struct CountingClock {
    clock: ManualRuntime,
    readings: Arc<AtomicUsize>,
}

impl CountingClock {
    fn take(&self) -> usize {
        self.readings.swap(0, Ordering::Relaxed)
    }
}

impl Runtime for CountingClock {
    fn now(&self) -> Instant {
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }
    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.clock.sleep_until(deadline)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.clock.spawn(task)
    }
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.clock.spawn_blocking(job);
    }
}

#[test]
fn the_clock_is_read_only_where_needed() {
    let window = config()
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(2);
    let time = SlidingWindow::Time {
        length: SECOND,
        buckets: 10,
    };
    for (config, success) in [
        (config(), 0),
        (window.clone(), 0),
        (window.clone().sliding_window(time), 1),
        (
            window
                .slow_call_rate_threshold(0.5)
                .slow_call_duration_threshold(SECOND),
            2,
        ),
    ] {
        let runtime = CountingClock::default();
        let breaker = CircuitBreaker::new("counting", config, runtime.clone()).unwrap();
        runtime.take();
        breaker.try_acquire().unwrap().succeed();
        assert_eq!(runtime.take(), success);
        breaker.open();
        runtime.take();
        assert!(breaker.try_acquire().is_err());
        assert_eq!(runtime.take(), 1, "for `retry_after`");
        breaker.force_open();
        runtime.take();
        assert!(breaker.try_acquire().is_err());
        assert_eq!(runtime.take(), 0);
        let now = runtime.clock.now();
        breaker.half_open();
        runtime.take();
        breaker
            .try_acquire_at(now)
            .unwrap()
            .record_at(Outcome::Success, SECOND, now);
        assert_eq!(runtime.take(), 0, "the time was passed in");
    }
}

#[test]
fn a_success_that_trips_a_rate_is_recorded_once() {
    let config = config()
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(4);
    let (breaker, runtime) = manual(config);
    fail(&breaker, 3);
    runtime.advance(SECOND);
    let mut events = breaker.events();
    breaker.try_acquire().unwrap().succeed();
    let opened = transition(&mut events);
    assert_eq!(
        (opened.cause, opened.counts.calls, opened.counts.failures),
        (TransitionCause::FailureRate, 4, 3)
    );
    assert_eq!(opened.at, runtime.now());
    assert_eq!(breaker.snapshot().counts, opened.counts);
}
