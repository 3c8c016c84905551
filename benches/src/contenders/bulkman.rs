//! bulkman itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_core::circuit_breaker::SlidingWindow;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::{
    Bulkhead, BulkheadConfig, BulkheadManager, CircuitBreaker, CircuitBreakerConfig, Runtime,
};
use bulkman_smol::SmolRuntime;
use bulkman_tokio::TokioRuntime;

use super::group::{BOTH, BREAKER, BULKHEAD, FULL, OPEN, SYNC, TIMEOUT};
use super::{
    ConcurrencyLimiter, FAILURES, Failed, ONE_HOUR, PERIOD, PERMITS, WINDOW, Work, fails,
    infallible, ready, succeeds,
};
use crate::harness::measure::Case;

/// The names of the cases that have a target.
pub(crate) const CLOSED: &str = "bulkman";
pub(crate) const COUNT_WINDOW: &str = "bulkman: count window";
pub(crate) const FAILURES_IN_WINDOW: &str = "bulkman: count window, some fail";
pub(crate) const TIME_WINDOW: &str = "bulkman: time window";
pub(crate) const SLOW_CALLS: &str = "bulkman: slow calls, count window";
pub(crate) const ADAPTIVE: &str = "bulkman: adaptive limit";
pub(crate) const ADAPTIVE_EVERY_CALL: &str = "bulkman: adaptive limit, every call a sample";
pub(crate) const RUNNING_CALLS: &str = "bulkman: running calls tracked";
pub(crate) const CALLS_IN_FLIGHT: &str = "bulkman: slow calls, calls in flight";

/// Returns the cases of calls that need not wait.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = breakers();
    cases.extend(bulkheads());
    cases.extend(both());
    cases.extend(rejections());
    cases
}

/// Returns every rule by which a circuit may open.
fn rules() -> [(&'static str, CircuitBreakerConfig); 6] {
    let slow = |config: CircuitBreakerConfig| {
        config
            .slow_call_rate_threshold(0.5)
            .slow_call_duration_threshold(Duration::from_secs(1))
    };
    [
        (CLOSED, CircuitBreakerConfig::new()),
        (COUNT_WINDOW, rate_over_calls(WINDOW as u32)),
        (TIME_WINDOW, rate_over_time(10)),
        (SLOW_CALLS, slow(CircuitBreakerConfig::new())),
        ("bulkman: slow calls, time window", slow(rate_over_time(10))),
        (
            CALLS_IN_FLIGHT,
            slow(CircuitBreakerConfig::new())
                .hanging_call_threshold(10)
                .count_calls_in_flight(true),
        ),
    ]
}

/// Returns a rule for the failure rate of the last `calls` calls.
pub(crate) fn rate_over_calls(calls: u32) -> CircuitBreakerConfig {
    CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .sliding_window(SlidingWindow::Count(calls))
}

/// Returns a rule for the failure rate within [`PERIOD`].
pub(crate) fn rate_over_time(buckets: u32) -> CircuitBreakerConfig {
    let window = SlidingWindow::Time {
        length: PERIOD,
        buckets,
    };
    CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .sliding_window(window)
}

fn breakers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, config) in rules() {
        let breaker = CircuitBreaker::new("bench", config, TokioRuntime::new())
            .expect("a valid configuration");
        cases.push(Case::new(BREAKER, name, move || {
            ready(breaker.execute(succeeds!())).is_ok()
        }));
    }
    let breaker = open_breaker();
    cases.push(Case::new(OPEN, "bulkman: breaker alone", move || {
        ready(breaker.execute(succeeds!())).is_err()
    }));
    cases
}

fn bulkheads() -> Vec<Case> {
    let mut cases = Vec::new();
    let bulkhead = Bulkhead::new(config().circuit_breaker_enabled(false), TokioRuntime::new())
        .expect("a valid configuration");
    cases.push(Case::new(BULKHEAD, "bulkman", move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    cases
}

fn both() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, rule) in rules() {
        let bulkhead = on_tokio(config().circuit_breaker(rule));
        cases.push(Case::new(BOTH, name, move || {
            ready(bulkhead.execute(succeeds!())).is_ok()
        }));
    }
    // At this rate, one call in hundreds is a sample.
    let bulkhead = on_tokio(config().adaptive_limit(AdaptiveLimit::new()));
    cases.push(Case::new(BOTH, ADAPTIVE, move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    // Every call of the first window is one, and the longest window lasts for a minute.
    let first = AdaptiveLimit::new().window(Duration::from_secs(60));
    let bulkhead = on_tokio(config().adaptive_limit(first));
    cases.push(Case::new(BOTH, ADAPTIVE_EVERY_CALL, move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    let bulkhead = on_tokio(config().track_running_calls(true));
    cases.push(Case::new(BOTH, RUNNING_CALLS, move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    // One more success in a window of successes changes nothing. So two of a hundred calls fail.
    let bulkhead = on_tokio(config().circuit_breaker(rate_over_calls(WINDOW as u32)));
    let mut calls = 0_u32;
    cases.push(Case::new(BOTH, FAILURES_IN_WINDOW, move || {
        calls = calls.wrapping_add(1);
        ready(bulkhead.execute(fails_rarely(calls))).is_ok()
    }));
    let bulkhead = Bulkhead::new(config(), SmolRuntime::new()).expect("a valid configuration");
    cases.push(Case::new(BOTH, "bulkman on smol", move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    let bulkhead = on_tokio(config());
    cases.push(Case::new(BOTH, "bulkman: acquire, succeed", move || {
        ready(bulkhead.acquire()).expect("a free permit").succeed();
    }));
    let bulkhead = on_tokio(config());
    cases.push(Case::new(BOTH, "bulkman: classified", move || {
        let classify = |result: &Result<u64, Failed>| match result {
            Ok(_) => bulkman_core::Outcome::Success,
            Err(Failed) => bulkman_core::Outcome::Failure,
        };
        ready(bulkhead.call().classify(classify).execute(succeeds!())).is_ok()
    }));
    let bulkhead = on_tokio(config());
    cases.push(Case::new(BOTH, "bulkman: report", move || {
        ready(bulkhead.call().execute_with_report(succeeds!()))
            .result
            .is_ok()
    }));
    let manager = BulkheadManager::new(TokioRuntime::new());
    for index in 0..10 {
        manager.create_bulkhead(named(index)).expect("a new name");
    }
    cases.push(Case::new(BOTH, "bulkman: by name", move || {
        ready(manager.execute_in_bulkhead("bulkhead-7", succeeds!())).is_ok()
    }));

    let bulkhead = on_tokio(config().timeout(ONE_HOUR));
    cases.push(Case::new(TIMEOUT, "bulkman", move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    let bulkhead = on_tokio(config());
    cases.push(Case::new(TIMEOUT, "bulkman: per call", move || {
        ready(bulkhead.call().timeout(ONE_HOUR).execute(succeeds!())).is_ok()
    }));
    let bulkhead = Bulkhead::new(config(), ClockOnly).expect("a valid configuration");
    cases.push(Case::new(SYNC, "bulkman", move || {
        bulkhead.execute_sync(|| ready(succeeds!())).is_ok()
    }));
    cases
}

/// An operation that fails for one call in fifty.
pub(crate) async fn fails_rarely(call: u32) -> Result<u64, Failed> {
    std::hint::black_box(if call.is_multiple_of(50) {
        Err(Failed)
    } else {
        Ok(7)
    })
}

fn rejections() -> Vec<Case> {
    let mut cases = Vec::new();
    let bulkhead = on_tokio(config());
    for _ in 0..FAILURES {
        assert!(ready(bulkhead.execute(fails())).is_err());
    }
    cases.push(Case::new(OPEN, CLOSED, move || {
        ready(bulkhead.execute(succeeds!())).is_err()
    }));

    let bulkhead = on_tokio(config().max_concurrent_calls(1).max_queue_size(0));
    let held = ready(bulkhead.acquire()).expect("a free permit");
    cases.push(Case::new(FULL, CLOSED, move || {
        let _ = &held;
        ready(bulkhead.execute(succeeds!())).is_err()
    }));
    let bulkhead = on_tokio(config().max_concurrent_calls(1).max_queue_size(0));
    let held = ready(bulkhead.acquire()).expect("a free permit");
    cases.push(Case::new(FULL, "bulkman: try_acquire", move || {
        let _ = &held;
        bulkhead.try_acquire().is_err()
    }));
    cases
}

/// Returns a circuit breaker that stays open.
fn open_breaker() -> CircuitBreaker {
    let config = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .isolation_duration(ONE_HOUR);
    let breaker =
        CircuitBreaker::new("bench", config, TokioRuntime::new()).expect("a valid configuration");
    assert!(ready(breaker.execute(fails())).is_err());
    breaker
}

pub(crate) fn config() -> BulkheadConfig {
    BulkheadConfig::new("bench")
        .max_concurrent_calls(PERMITS)
        .isolation_duration(ONE_HOUR)
}

/// Returns the configuration of bulkhead number `index`.
pub(crate) fn named(index: usize) -> BulkheadConfig {
    BulkheadConfig::new(format!("bulkhead-{index}"))
}

pub(crate) fn on_tokio(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, TokioRuntime::new()).expect("a valid configuration")
}

/// Returns the clock readings per call for each kind of call, averaged over 64 calls.
pub(crate) fn clock_readings() -> [(&'static str, f64); 5] {
    const CALLS: u32 = 64;
    let count = |config: BulkheadConfig, open: bool| {
        let clock = Arc::new(CountingClock::default());
        let bulkhead = Bulkhead::new(config, Arc::clone(&clock)).expect("a valid configuration");
        if open {
            bulkhead
                .circuit_breaker()
                .expect("it is enabled")
                .open_for(ONE_HOUR);
        }
        let before = clock.readings.load(Ordering::Relaxed);
        for _ in 0..CALLS {
            assert_eq!(ready(bulkhead.execute(succeeds!())).is_err(), open);
        }
        (clock.readings.load(Ordering::Relaxed) - before) as f64 / f64::from(CALLS)
    };
    let [
        (_, consecutive),
        (_, window),
        _,
        (_, slow),
        _,
        (_, in_flight),
    ] = rules();
    [
        (
            "closed",
            count(config().circuit_breaker(consecutive), false),
        ),
        (
            "closed, count window",
            count(config().circuit_breaker(window), false),
        ),
        (
            "closed, slow calls",
            count(config().circuit_breaker(slow), false),
        ),
        (
            "closed, calls in flight",
            count(config().circuit_breaker(in_flight), false),
        ),
        ("rejected, open", count(config(), true)),
    ]
}

/// The standard clock, with a counter of its readings.
#[derive(Debug, Default)]
struct CountingClock {
    readings: AtomicU64,
}

impl Runtime for CountingClock {
    fn now(&self) -> Instant {
        self.readings.fetch_add(1, Ordering::Relaxed);
        ClockOnly.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        ClockOnly.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        ClockOnly.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        ClockOnly.spawn_blocking(job);
    }
}

/// A bulkhead with a circuit breaker, on Tokio's timers.
#[derive(Clone)]
pub(crate) struct OnTokio(Bulkhead);

impl ConcurrencyLimiter for OnTokio {
    const NAME: &'static str = "bulkman";

    fn new(permits: usize) -> Self {
        Self(on_tokio(unbounded_queue(permits)))
    }

    async fn run(&mut self, work: Work) {
        self.0
            .execute(infallible(work))
            .await
            .expect("the queue never fills");
    }
}

/// A bulkhead with a circuit breaker, on smol's timers.
#[derive(Clone)]
pub(crate) struct OnSmol(Bulkhead);

impl ConcurrencyLimiter for OnSmol {
    const NAME: &'static str = "bulkman";

    fn new(permits: usize) -> Self {
        Self(
            Bulkhead::new(unbounded_queue(permits), SmolRuntime::new())
                .expect("a valid configuration"),
        )
    }

    async fn run(&mut self, work: Work) {
        self.0
            .execute(infallible(work))
            .await
            .expect("the queue never fills");
    }
}

/// Returns a configuration with `permits` permits and a queue that never fills.
fn unbounded_queue(permits: usize) -> BulkheadConfig {
    BulkheadConfig::new("bench")
        .max_concurrent_calls(permits)
        .max_queue_size(2_000_000)
}
