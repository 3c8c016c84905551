//! Tests of the circuit breaker without a bulkhead, beyond the tables of `tests/scenarios`.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{
    Admission, CircuitError, CircuitEvent, CircuitEvents, CircuitState, SlidingWindow, Transition,
    TransitionCause,
};
use bulkman_core::error::RejectionReason;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, CircuitBreakerConfig, ConfigError, Outcome, Runtime};
use futures_core::Stream;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new()
}

fn manual(config: CircuitBreakerConfig) -> (CircuitBreaker, ManualRuntime) {
    let runtime = ManualRuntime::new();
    (
        CircuitBreaker::new("test", config, runtime.clone()).unwrap(),
        runtime,
    )
}

fn fail(breaker: &CircuitBreaker, times: u32) {
    (0..times).for_each(|_| breaker.try_acquire().unwrap().fail());
}

fn try_next(events: &mut CircuitEvents) -> Option<CircuitEvent> {
    match pin!(events).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}

fn transition(events: &mut CircuitEvents) -> Transition {
    match try_next(events) {
        Some(CircuitEvent::Transition(transition)) => transition,
        other => panic!("no transition: {other:?}"),
    }
}

// ---- thresholds, probes, stale outcomes

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

// ---- cancellation, panics

/// Hazard H05, H11.
#[test]
fn a_cancelled_probe_releases_its_slot() {
    let (breaker, _) = manual(config().success_threshold(1));
    breaker.half_open();
    let mut call = Box::pin(breaker.execute(std::future::pending::<Result<(), ()>>()));
    assert!(
        call.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(
        breaker.try_acquire().unwrap_err().reason,
        RejectionReason::ProbeLimit
    );
    drop(call);
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.probes_remaining, snapshot.counts.calls),
        (Some(1), 0)
    );
}

/// Hazard H03, H34.
#[test]
fn a_panic_is_a_failure_and_continues_to_unwind() {
    let (breaker, _) = manual(config().failure_threshold(2));
    let panics = || -> Result<(), ()> { panic!("operation") };
    let unwound = catch_unwind(AssertUnwindSafe(|| breaker.execute_sync(panics)));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"operation"));
    assert_eq!(breaker.snapshot().counts.consecutive_failures, 1);

    let call = pin!(breaker.execute(async move { panics() }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(catch_unwind(AssertUnwindSafe(|| call.poll(&mut context))).is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn an_unrelated_panic_records_no_failure() {
    struct Probes(CircuitBreaker);
    impl Drop for Probes {
        fn drop(&mut self) {
            drop(self.0.try_acquire());
        }
    }
    let (breaker, _) = manual(config().failure_threshold(1));
    let inner = breaker.clone();
    let unwound = catch_unwind(move || {
        let _probes = Probes(inner);
        panic!("elsewhere");
    });
    assert!(unwound.is_err());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn a_rejected_call_is_never_run() {
    let (breaker, _) = manual(config());
    breaker.force_open();
    let result = breaker.execute_sync(|| -> Result<(), ()> { unreachable!("rejected") });
    let Err(CircuitError::Open(rejection)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        (rejection.reason, rejection.retry_after),
        (RejectionReason::ForcedOpen, None)
    );
    let never = pin!(breaker.execute(std::future::pending::<Result<(), ()>>()));
    assert!(
        never
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    assert_eq!(breaker.rejections().forced_open, 2);
}

// ---- generations

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

// ---- clocks

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

// ---- events

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

// ---- the timer

/// Hazard H14.
#[test]
fn a_runtime_without_working_tasks_only_loses_the_timer() {
    #[derive(Debug)]
    struct Broken(ManualRuntime, AtomicBool);
    impl Runtime for Broken {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn sleep_until(&self, deadline: Instant) -> Sleep {
            self.0.sleep_until(deadline)
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            drop(task);
            assert!(
                !self.1.swap(true, Ordering::Relaxed),
                "no runtime to spawn on"
            );
            Ok(())
        }
        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
    }
    let clock = ManualRuntime::new();
    let runtime = Broken(clock.clone(), AtomicBool::new(false));
    let breaker =
        CircuitBreaker::new("broken", config().automatic_half_open(true), runtime).unwrap();
    for _ in 0..3 {
        fail(&breaker, 5);
        clock.advance(30 * SECOND);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        breaker.close();
    }
}

/// Hazard H10.
#[test]
fn a_shorter_isolation_replaces_the_timer() {
    #[derive(Clone, Debug, Default)]
    struct Sleeps(ManualRuntime, Arc<AtomicUsize>);
    impl Runtime for Sleeps {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn sleep_until(&self, deadline: Instant) -> Sleep {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.sleep_until(deadline)
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            self.0.spawn(task)
        }
        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
    }
    let runtime = Sleeps::default();
    let config = config()
        .automatic_half_open(true)
        .isolation_duration(SECOND);
    let config = config.max_half_open_duration(
        SECOND,
        bulkman_core::circuit_breaker::HalfOpenTimeoutAction::Open,
    );
    let breaker = CircuitBreaker::new("timed", config, runtime.clone()).unwrap();
    let start = runtime.now();
    for seconds in (2..=11).rev() {
        breaker.open_for(Duration::from_secs(seconds));
    }
    let mut events = breaker.events();
    runtime.0.advance(30 * SECOND);
    // Without a query, each transition was caused by a timer at its due time.
    let times: Vec<_> = (0..29)
        .map(|_| transition(&mut events).at - start)
        .collect();
    assert_eq!(times, (2..=30).map(Duration::from_secs).collect::<Vec<_>>());
    // Ten tasks were started, and one of them kept running.
    assert_eq!(runtime.1.load(Ordering::Relaxed), 10 + 29);
}

#[test]
fn the_timer_task_does_not_keep_the_circuit_alive() {
    let (breaker, runtime) = manual(config().automatic_half_open(true));
    let mut events = breaker.events();
    breaker.open();
    runtime.run_until_stalled();
    drop(breaker);
    transition(&mut events);
    assert_eq!(
        pin!(&mut events).poll_next(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(None)
    );
}

#[test]
fn a_missing_capability_is_an_error_that_names_the_setting() {
    let automatic = config().automatic_half_open(true);
    let error = CircuitBreaker::new("test", automatic.clone(), ClockOnly).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::Unsupported {
                setting: "automatic_half_open",
                ..
            }
        ),
        "{error}"
    );
    let breaker = CircuitBreaker::new("test", config(), ClockOnly).unwrap();
    assert!(breaker.reconfigure(&automatic).is_err());
    assert!(!breaker.resolved_config().automatic_half_open);
}

// ---- reconfiguring

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

// ---- threads

/// Hazard H06, H25, H27.
#[test]
fn threads_see_only_valid_transitions_and_limited_probes() {
    let time = SlidingWindow::Time {
        length: Duration::from_millis(10),
        buckets: 5,
    };
    for config in [
        config().failure_threshold(3).success_threshold(2),
        config()
            .failure_rate_threshold(0.3)
            .minimum_number_of_calls(5)
            .permitted_calls_in_half_open(2),
        config()
            .failure_count_threshold(5)
            .sliding_window(time)
            .success_threshold(2),
    ] {
        let (breaker, runtime) = manual(config.isolation_duration(Duration::from_millis(5)));
        let mut events = breaker.events();
        let probes: Mutex<HashMap<u64, u32>> = Mutex::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (breaker, runtime, probes) = (&breaker, &runtime, &probes);
                scope.spawn(move || {
                    for i in 0..3_000_u32 {
                        if i % 7 == 0 {
                            runtime.advance(Duration::from_millis(1));
                        }
                        let before = breaker.snapshot();
                        let Ok(admission) = breaker.try_acquire() else {
                            continue;
                        };
                        let after = breaker.snapshot();
                        // If both snapshots show one half-open state, the admission is its probe.
                        let half_open = (before.generation == after.generation
                            && after.state == CircuitState::HalfOpen)
                            .then_some(after.generation);
                        if let Some(generation) = half_open {
                            let mut probes = probes.lock().unwrap();
                            let in_flight = probes.entry(generation).or_default();
                            *in_flight += 1;
                            assert!(*in_flight <= 2, "{in_flight} probes in flight");
                        }
                        std::thread::yield_now();
                        if let Some(generation) = half_open {
                            *probes.lock().unwrap().get_mut(&generation).unwrap() -= 1;
                        }
                        match (i + thread) % 5 {
                            0 | 1 => admission.fail(),
                            2 | 3 => admission.succeed(),
                            _ => drop(admission),
                        }
                    }
                });
            }
        });
        assert!(probes.into_inner().unwrap().len() > 10, "too few probes");
        let (mut state, mut generation, mut count) = (None, 0, 0);
        while let Some(event) = try_next(&mut events) {
            let CircuitEvent::Transition(transition) = event else {
                continue;
            };
            count += 1;
            assert!(transition.generation > generation);
            if generation + 1 == transition.generation {
                assert_eq!(state, Some(transition.from));
            }
            assert!(
                matches!(
                    (transition.from, transition.to),
                    (CircuitState::Closed, CircuitState::Open)
                        | (CircuitState::Open, CircuitState::HalfOpen)
                        | (
                            CircuitState::HalfOpen,
                            CircuitState::Open | CircuitState::Closed
                        )
                ),
                "{transition:?}"
            );
            (state, generation) = (Some(transition.to), transition.generation);
        }
        assert!(count > 10, "{count} transitions");
    }
}

#[test]
fn rejections_are_counted_once_each() {
    let (breaker, _) = manual(config());
    breaker.open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| assert!(breaker.try_acquire().is_err())));
        }
    });
    assert_eq!(breaker.rejections().open, 4_000);
    assert_eq!(breaker.snapshot().rejected_calls, 4_000);
    breaker.force_open();
    assert_eq!(
        (
            breaker.rejections().total(),
            breaker.snapshot().rejected_calls
        ),
        (4_000, 0)
    );
}

// ---- types

#[test]
fn handles_are_small_and_send_and_sync() {
    fn is_send_sync_unpin<T: Send + Sync + Unpin>() {}
    is_send_sync_unpin::<CircuitBreaker>();
    is_send_sync_unpin::<Admission<'_>>();
    is_send_sync_unpin::<CircuitEvents>();
    is_send_sync_unpin::<CircuitError<std::io::Error>>();
    fn is_send<T: Send>(_: &T) {}
    let (breaker, _) = manual(config());
    let call = breaker.execute(std::future::ready(Ok::<(), ()>(())));
    is_send(&call);
    assert_eq!(size_of::<CircuitBreaker>(), size_of::<usize>());
    let overhead = size_of_val(&call) - size_of::<std::future::Ready<Result<(), ()>>>();
    assert!(overhead <= 128, "{overhead} bytes");
}
