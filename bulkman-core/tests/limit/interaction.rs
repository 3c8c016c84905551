//! The limit beside circuit, queue, timeouts and reconfiguration.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement, LimitChangeCause};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreakerConfig, Outcome, Runtime};
use futures_lite::future::{block_on, poll_once};
use std::future::Future;

use crate::faults::{adaptive, fill, saturate, with_runtime};
use crate::faulty_clock::FaultyClock;

const MS: Duration = Duration::from_millis(1);

fn last_cause(bulkhead: &Bulkhead) -> LimitChangeCause {
    bulkhead
        .snapshot()
        .limit
        .unwrap()
        .recent
        .last()
        .unwrap()
        .cause
}

#[test]
fn limit_never_exceeds_the_maximum() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    saturate(&bulkhead, &runtime, 10 * MS, 1_000, Outcome::Success);
    assert!(bulkhead.limit() > 50);
    let smaller = bulkhead.config().max_concurrent_calls(30);
    bulkhead.reconfigure(smaller).unwrap();
    assert_eq!(bulkhead.limit(), 30);
    assert_eq!(last_cause(&bulkhead), LimitChangeCause::Reconfigured);
    saturate(&bulkhead, &runtime, 10 * MS, 500, Outcome::Success);
    assert!(bulkhead.limit() <= 30);
    assert_eq!(bulkhead.stats().max_concurrent_calls, bulkhead.limit());
}

#[test]
fn limit_learns_beside_calls_in_flight_and_running_calls() {
    for (tracked, counted) in [(true, false), (false, true), (true, true)] {
        let runtime = ManualRuntime::new();
        let mut rules = CircuitBreakerConfig::new();
        if counted {
            rules = rules
                .slow_call_duration_threshold(Duration::from_secs(1))
                .hanging_call_threshold(10);
        }
        let config = BulkheadConfig::new("both")
            .adaptive_limit(AdaptiveLimit::new())
            .track_running_calls(tracked)
            .circuit_breaker(rules);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        for _ in 0..10 {
            let permit = bulkhead.try_acquire().unwrap();
            assert_eq!(bulkhead.snapshot().oldest.len(), usize::from(tracked));
            runtime.advance(50 * MS);
            permit.succeed();
        }
        let snapshot = bulkhead.snapshot();
        let baseline = snapshot.limit.unwrap().baseline.unwrap();
        assert!(baseline.abs_diff(50 * MS) < MS, "{baseline:?}");
        assert!(snapshot.oldest.is_empty());
        assert_eq!(snapshot.stats.permits_in_use, 0);
    }
}

#[test]
fn windows_close_soon_after_the_load_has_fallen() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    let call = |latency| {
        let permit = bulkhead.try_acquire().unwrap();
        runtime.advance(latency);
        permit.succeed();
    };
    // 10,000 calls a second: few of them are samples.
    (0..20_000).for_each(|_| call(MS / 10));
    // Ten calls a second: all are.
    (0..80).for_each(|_| call(100 * MS));
    let status = bulkhead.snapshot().limit.unwrap();
    assert!(status.age < Duration::from_secs(3), "{status:?}");
    assert!((status.throughput - 10.0).abs() < 0.5, "{status:?}");
}

#[test]
fn limit_can_be_removed_and_starts_again() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    saturate(&bulkhead, &runtime, 10 * MS, 100, Outcome::Success);
    let fixed = bulkhead.config().adaptive_limit(None);
    let across = bulkhead.try_acquire().unwrap();
    bulkhead.reconfigure(fixed.clone()).unwrap();
    assert_eq!((bulkhead.limit(), bulkhead.snapshot().limit), (100, None));
    saturate(&bulkhead, &runtime, 10 * MS, 100, Outcome::Success);
    across.succeed();
    assert_eq!(bulkhead.limit(), 100);
    let again = fixed.adaptive_limit(AdaptiveLimit::new().initial(7));
    bulkhead.reconfigure(again).unwrap();
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!((status.limit, status.baseline), (7, None));
}

#[test]
fn circuit_that_closes_leads_to_slow_start() {
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(100)
        .success_threshold(1)
        .adaptive_limit(AdaptiveLimit::new());
    let (bulkhead, runtime) = with_runtime(config);
    saturate(&bulkhead, &runtime, 10 * MS, 500, Outcome::Success);
    let before = bulkhead.limit();
    assert!(before > 20, "{before}");
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.open();
    assert_eq!(bulkhead.limit(), before);
    circuit.half_open();
    bulkhead.try_acquire().unwrap().succeed();
    assert!(circuit.is_closed());
    assert_eq!(bulkhead.limit(), 4);
    assert_eq!(last_cause(&bulkhead), LimitChangeCause::CircuitClosed);
    // It grows again.
    saturate(&bulkhead, &runtime, 10 * MS, 200, Outcome::Success);
    assert!(bulkhead.limit() > 4);
}

/// They were granted to calls that are not polled again, and whose deadline has passed.
#[test]
fn overdue_permits_are_released_when_the_limit_shrinks() {
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(100)
        .adaptive_limit(AdaptiveLimit::new().initial(20));
    let (bulkhead, runtime) = with_runtime(config);
    let mut running = fill(&bulkhead);
    assert_eq!(running.len(), 20);
    let mut uncollected: Vec<_> = (0..15)
        .map(|_| Box::pin(bulkhead.call().max_wait(MS).acquire()))
        .collect();
    for waiter in &mut uncollected {
        assert!(block_on(poll_once(waiter)).is_none());
    }
    // 15 permits are granted, and the other five are then available.
    running.truncate(5);
    runtime.advance(MS);
    drop(running);
    assert_eq!(bulkhead.stats().permits_in_use, 15);
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.open();
    circuit.close();
    assert_eq!(bulkhead.limit(), 10);
    assert_eq!(bulkhead.stats().permits_in_use, 10);
    // New calls get the others.
    let running = fill(&bulkhead);
    assert_eq!(running.len(), 10);
    drop(running);
    for waiter in &mut uncollected {
        assert!(block_on(poll_once(waiter)).unwrap().is_err());
    }
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

#[test]
fn disabling_a_closed_circuit_keeps_the_limit() {
    let config = BulkheadConfig::new("server").adaptive_limit(AdaptiveLimit::new());
    let (bulkhead, _runtime) = with_runtime(config);
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.disable();
    circuit.metrics_only();
    circuit.close();
    assert!(bulkhead.snapshot().limit.unwrap().recent.is_empty());
}

/// The circuit ignores it with an adaptive limit, without one, and in a call that is a sample.
#[test]
fn overloaded_is_ignored_by_the_circuit_and_counts_as_failed() {
    let fixed = BulkheadConfig::new("server").failure_threshold(2);
    let adaptive = fixed.clone().adaptive_limit(AdaptiveLimit::new());
    let timed = fixed.clone().run_timeout(MS);
    for config in [fixed, adaptive, timed] {
        let (bulkhead, _runtime) = with_runtime(config);
        let circuit = bulkhead.circuit_breaker().unwrap();
        for _ in 0..4 {
            bulkhead.try_acquire().unwrap().record(Outcome::Overloaded);
            let overloaded = || Ok::<_, ()>(429);
            let call = bulkhead.call().classify(|_: &_| Outcome::Overloaded);
            assert_eq!(call.execute_sync(overloaded), Ok(429));
        }
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.failed, stats.overloaded, stats.successful),
            (8, 8, 0)
        );
        let counts = circuit.snapshot().counts;
        assert_eq!((counts.calls, counts.consecutive_failures), (0, 0));
        assert!(circuit.is_closed());
    }
}

/// An overload between two failures does not reset their number either.
#[test]
fn overloaded_probe_releases_its_slot_without_a_decision() {
    let config = BulkheadConfig::new("server")
        .failure_threshold(2)
        .success_threshold(1)
        .adaptive_limit(AdaptiveLimit::new());
    let (bulkhead, _runtime) = with_runtime(config);
    let circuit = bulkhead.circuit_breaker().unwrap();
    bulkhead.try_acquire().unwrap().fail();
    bulkhead.try_acquire().unwrap().record(Outcome::Overloaded);
    assert_eq!(circuit.snapshot().counts.consecutive_failures, 1);
    bulkhead.try_acquire().unwrap().fail();
    assert!(circuit.is_open());
    circuit.half_open();
    for _ in 0..5 {
        bulkhead.try_acquire().unwrap().record(Outcome::Overloaded);
        assert!(circuit.is_half_open());
    }
    assert!(bulkhead.snapshot().limit.unwrap().recent.is_empty());
    bulkhead.try_acquire().unwrap().succeed();
    assert!(circuit.is_closed());
}

#[test]
fn larger_limit_admits_waiters_at_once() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    let mut running = fill(&bulkhead);
    let mut waiting = Box::pin(bulkhead.acquire());
    assert!(block_on(poll_once(&mut waiting)).is_none());
    runtime.advance(250 * MS);
    // Calls of another kind complete the window while the waiter waits.
    for permit in running.drain(..2) {
        permit.succeed();
    }
    assert!(block_on(poll_once(&mut waiting)).is_some());
    drop(running);
    saturate(&bulkhead, &runtime, 20 * MS, 50, Outcome::Success);
    assert!(bulkhead.limit() > 4);
    assert_eq!(bulkhead.stats().waiting, 0);
}

#[test]
fn timeouts_of_every_kind_of_call_are_overloads() {
    let limit = AdaptiveLimit::new().initial(20);
    let (bulkhead, runtime) = adaptive(limit);
    let config = bulkhead.config().run_timeout(50 * MS);
    bulkhead.reconfigure(config).unwrap();
    for _ in 0..40 {
        let _ = runtime.block_on(bulkhead.execute(pending::<Result<(), ()>>()));
        let clock = runtime.clone();
        let _ = bulkhead.execute_sync(|| {
            clock.advance(60 * MS);
            Ok::<_, ()>(())
        });
    }
    assert_eq!(bulkhead.limit(), 1);
    assert_eq!(last_cause(&bulkhead), LimitChangeCause::NoReply);
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

#[test]
fn caller_that_gives_up_after_a_long_time_is_an_overload() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new().baseline_interval(None));
    saturate(&bulkhead, &runtime, 10 * MS, 100, Outcome::Success);
    let before = bulkhead.limit();
    for _ in 0..60 {
        let mut calls: Vec<_> = (0..bulkhead.limit())
            .map(|_| Box::pin(bulkhead.execute(pending::<Result<(), ()>>())))
            .collect();
        for call in &mut calls {
            assert!(block_on(poll_once(call)).is_none());
        }
        runtime.advance(400 * MS);
    }
    assert!(
        bulkhead.limit() < before / 2,
        "{} of {before}",
        bulkhead.limit()
    );
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

#[test]
fn caller_that_gives_up_at_once_is_nothing() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new().baseline_interval(None));
    saturate(&bulkhead, &runtime, 10 * MS, 100, Outcome::Success);
    let before = bulkhead.limit();
    for _ in 0..100 {
        drop(fill(&bulkhead));
        runtime.advance(20 * MS);
    }
    assert_eq!(bulkhead.limit(), before);
}

#[test]
fn blocking_work_is_a_sample_when_its_closure_ends() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    for _ in 0..12 {
        let clock = runtime.clone();
        let work = bulkhead.execute_blocking(move || {
            clock.advance(30 * MS);
            Ok::<_, ()>(())
        });
        runtime.block_on(work).unwrap();
    }
    let latency = bulkhead.snapshot().limit.unwrap().latency.unwrap();
    assert!(latency.abs_diff(30 * MS) < MS, "{latency:?}");
}

/// The list replaces a part of what a call carries, and so does the count of calls in flight.
#[test]
fn calls_that_are_listed_or_counted_in_flight_are_samples() {
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(1_000 * MS)
        .hanging_call_threshold(1_000);
    for circuit in [false, true] {
        for (lists, counts) in [(true, false), (false, circuit), (true, circuit)] {
            let mut config = BulkheadConfig::new("server")
                .max_concurrent_calls(100)
                .track_running_calls(lists)
                .circuit_breaker_enabled(circuit)
                .adaptive_limit(AdaptiveLimit::new());
            if counts {
                config = config.circuit_breaker(rules.clone());
            }
            let (bulkhead, runtime) = with_runtime(config);
            saturate(&bulkhead, &runtime, 30 * MS, 60, Outcome::Success);
            let status = bulkhead.snapshot().limit.unwrap();
            let latency = status.latency.unwrap();
            assert!(latency.abs_diff(30 * MS) < MS, "{latency:?}");
            assert!(status.limit > 4, "{status:?}");
            assert!(bulkhead.snapshot().oldest.is_empty());
            if let Some(circuit) = bulkhead.circuit_breaker() {
                assert_eq!(circuit.snapshot().counts.hanging_calls, 0);
            }
        }
    }
}

/// A call within a probe needs no other slot, also without a permit.
#[test]
fn nested_call_of_an_observed_probe_runs_without_a_permit() {
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(1)
        .success_threshold(1)
        .enforcement(Enforcement::Observe)
        .adaptive_limit(AdaptiveLimit::new());
    let (bulkhead, _runtime) = with_runtime(config);
    let circuit = bulkhead.circuit_breaker().unwrap();
    for holds_permit in [false, true] {
        circuit.half_open();
        let held = holds_permit.then(|| {
            circuit.close();
            let held = bulkhead.try_acquire().unwrap();
            circuit.half_open();
            held
        });
        let inner = || bulkhead.execute_sync(|| Ok::<_, ()>(bulkhead.stats().active));
        let active = bulkhead.execute_sync(|| Ok::<_, ()>(inner().unwrap()));
        assert_eq!(active, Ok(2 + u64::from(holds_permit)));
        assert!(circuit.is_closed());
        drop(held);
        let stats = bulkhead.stats();
        assert_eq!((stats.active, stats.permits_in_use), (0, 0));
    }
}

/// A waker that panics.
struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
        panic!("the waker panics");
    }
}

/// Fault A20
#[test]
fn waker_that_panics_in_a_decision_does_not_stop_the_next() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&panics));
    let mut changes = bulkhead.limit_changes();
    let mut change = Box::pin(changes.next());
    assert!(
        change
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    saturate(&bulkhead, &runtime, 20 * MS, 12, Outcome::Success);
    assert!(panics.0.load(Ordering::Relaxed), "nothing was decided");
    let first = bulkhead.limit();
    assert!(first > 4);
    saturate(&bulkhead, &runtime, 20 * MS, 30, Outcome::Success);
    assert!(bulkhead.limit() > first);
    assert!(matches!(
        change
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(Some(_))
    ));
}

/// A clock that stands still or goes back closes no window.
#[test]
fn clock_that_stands_still_decides_nothing() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    let now = runtime.now();
    for _ in 0..10_000 {
        let running = fill(&bulkhead);
        running.into_iter().for_each(|permit| permit.succeed());
    }
    assert_eq!(runtime.now(), now);
    assert_eq!(bulkhead.limit(), 4);
    assert!(bulkhead.snapshot().limit.unwrap().recent.is_empty());
}

/// Fault A20
#[test]
fn clock_that_panics_at_the_end_of_a_call_costs_one_sample() {
    let clock = FaultyClock::new();
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(100)
        .circuit_breaker_enabled(false)
        .adaptive_limit(AdaptiveLimit::new());
    let bulkhead = Bulkhead::new(config, clock.clone()).unwrap();
    saturate(&bulkhead, &clock.runtime, 20 * MS, 5, Outcome::Success);
    let permit = bulkhead.try_acquire().unwrap();
    let ended = clock.while_faulty(.., || permit.succeed());
    assert!(ended.is_some(), "the caller does not see the panic");
    assert_eq!(bulkhead.stats().permits_in_use, 0);
    saturate(&bulkhead, &clock.runtime, 20 * MS, 20, Outcome::Success);
    assert!(bulkhead.limit() > 4);
}
