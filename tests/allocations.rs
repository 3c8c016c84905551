//! Calls allocate nothing unless they wait.
//!
//! The global allocator of this binary, `allocation-counter`, counts the allocations of each
//! thread.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bulkman::bulkhead::Fairness;
use bulkman::circuit_breaker::SlidingWindow;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig};

type Answer = Result<u32, &'static str>;

fn bulkhead(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, ManualRuntime::new()).unwrap()
}

fn config() -> BulkheadConfig {
    // Longer than an inline name: cloning it must not allocate either.
    BulkheadConfig::new("a-dependency-with-a-rather-long-name")
}

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

/// Returns the number of allocations in 100 runs of `code`, after a run to warm up.
fn allocations(mut code: impl FnMut()) -> u64 {
    code();
    measure(|| (0..100).for_each(|_| code())).count_total
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(Box::new(5))), 100);
}

/// Fault W4.
#[test]
fn ready_calls_allocate_nothing() {
    let slow = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(Duration::from_secs(1))
        .slow_call_rate_threshold(0.5)
        .failure_rate_threshold(0.9);
    let timed = SlidingWindow::Time {
        length: Duration::from_secs(60),
        buckets: 60,
    };
    for (what, config) in [
        ("default rules", config()),
        (
            "no circuit breaker",
            config().circuit_breaker_enabled(false),
        ),
        (
            "timeouts",
            config()
                .timeout(Duration::from_secs(1))
                .max_wait(Duration::from_secs(1)),
        ),
        (
            "count window and slow calls",
            config().circuit_breaker(slow.clone()),
        ),
        (
            "time window",
            config().circuit_breaker(slow.clone().sliding_window(timed)),
        ),
        ("running calls listed", config().track_running_calls(true)),
        (
            "calls in flight counted",
            config().circuit_breaker(slow.hanging_call_threshold(5).count_calls_in_flight(true)),
        ),
    ] {
        let bulkhead = bulkhead(config);
        let success = || assert_eq!(ready(bulkhead.execute(async { Answer::Ok(1) })), Ok(1));
        assert_eq!(allocations(success), 0, "execute, {what}");
        let report = || {
            assert_eq!(
                ready(bulkhead.call().execute_with_report(async { Answer::Ok(1) })).result,
                Ok(1)
            )
        };
        assert_eq!(allocations(report), 0, "report, {what}");
        let sync = || assert_eq!(bulkhead.execute_sync(|| Answer::Ok(1)), Ok(1));
        assert_eq!(allocations(sync), 0, "execute_sync, {what}");
        let permit = || bulkhead.try_acquire().unwrap().succeed();
        assert_eq!(allocations(permit), 0, "try_acquire, {what}");
        let acquired = || ready(bulkhead.acquire()).unwrap().succeed();
        assert_eq!(allocations(acquired), 0, "acquire, {what}");
        let heavy = || {
            let call = bulkhead.call().weight(3);
            assert_eq!(ready(call.execute(async { Answer::Ok(1) })), Ok(1));
        };
        assert_eq!(allocations(heavy), 0, "execute with a weight, {what}");
    }
}

#[test]
fn calls_with_keys_that_do_not_wait_allocate_nothing() {
    for fairness in [
        Fairness::new(),
        Fairness::new().min_per_key(1).max_per_key(3),
    ] {
        let bulkhead = bulkhead(config().fairness(fairness));
        // Allocates the seed of the hash.
        let computed = bulkhead.call_key("tenant 17");
        for weight in [1, 2] {
            let hashed = || {
                let call = bulkhead.call().key("tenant 17").key_share(4).weight(weight);
                assert_eq!(ready(call.execute(async { Answer::Ok(1) })), Ok(1));
            };
            assert_eq!(allocations(hashed), 0, "{fairness:?}");
            let sync = || {
                let call = bulkhead.call().with_key(computed).weight(weight);
                assert_eq!(call.execute_sync(|| Answer::Ok(1)), Ok(1));
            };
            assert_eq!(allocations(sync), 0, "{fairness:?}");
            let permit = || {
                let call = bulkhead.call().with_key(computed).weight(weight);
                call.try_acquire().unwrap().succeed();
            };
            assert_eq!(allocations(permit), 0, "{fairness:?}");
        }
        let without = || assert_eq!(ready(bulkhead.execute(async { Answer::Ok(1) })), Ok(1));
        assert_eq!(allocations(without), 0, "without a key, {fairness:?}");
    }
}

/// Fault W4.
#[test]
fn list_of_running_calls_takes_no_memory_while_it_is_off() {
    let bytes = |tracked| {
        let config = config().track_running_calls(tracked);
        let runtime = ManualRuntime::new();
        measure(|| drop(Bulkhead::new(config, runtime).unwrap())).bytes_total
    };
    // 64 slots of 16 bytes.
    let table = bytes(true) - bytes(false);
    assert!((1_024..2_048).contains(&table), "{table}");
}

#[test]
fn failures_below_the_threshold_allocate_nothing() {
    let bulkhead = bulkhead(config().failure_threshold(2));
    let fails = || {
        assert!(ready(bulkhead.execute(async { Answer::Err("down") })).is_err());
        assert!(ready(bulkhead.execute(async { Answer::Ok(1) })).is_ok());
    };
    assert_eq!(allocations(fails), 0);
}

#[test]
fn rejections_allocate_nothing() {
    let rejection_allocations =
        |bulkhead: &Bulkhead, expected: fn(&BulkheadError<&'static str>) -> bool| {
            let call = || {
                let error = ready(bulkhead.execute(async { Answer::Ok(1) })).unwrap_err();
                assert!(expected(&error), "{error:?}");
                assert!(bulkhead.execute_sync(|| Answer::Ok(1)).is_err());
                assert!(bulkhead.try_acquire().is_err());
                assert!(bulkhead.call().weight(1).try_acquire().is_err());
                assert!(bulkhead.call().weight(1000).try_acquire().is_err());
            };
            allocations(call)
        };
    let open = |error: &BulkheadError<_>| matches!(error, BulkheadError::CircuitOpen { .. });

    let full = bulkhead(config().max_concurrent_calls(1).max_queue_size(0));
    let _held = full.try_acquire().unwrap();
    assert_eq!(
        rejection_allocations(&full, |error| matches!(error, BulkheadError::Full { .. })),
        0,
        "full"
    );

    let broken = bulkhead(config());
    let circuit = broken.circuit_breaker().unwrap();
    circuit.open();
    assert_eq!(rejection_allocations(&broken, open), 0, "open");
    circuit.force_open();
    assert_eq!(rejection_allocations(&broken, open), 0, "forced open");
    circuit.half_open();
    let probes: Vec<_> = (0..3).map(|_| broken.try_acquire().unwrap()).collect();
    assert_eq!(
        rejection_allocations(&broken, open),
        0,
        "probe limit reached"
    );
    drop(probes);
    circuit.close();
    broken.shutdown();
    assert_eq!(
        rejection_allocations(&broken, |error| matches!(
            error,
            BulkheadError::Shutdown { .. }
        )),
        0,
        "shut down"
    );
}

/// The queue keeps its memory: a second wait, without a timer, allocates nothing.
#[test]
fn waiting_allocates_for_the_queue_once() {
    let bulkhead = bulkhead(config().max_concurrent_calls(1));
    let waits = || {
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiter = pin!(bulkhead.execute(async { Answer::Ok(1) }));
        assert!(
            waiter
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        permit.succeed();
        assert_eq!(ready(waiter), Ok(1));
    };
    assert_eq!(allocations(waits), 0);
}

#[test]
fn removed_waiters_release_their_memory() {
    let bulkhead = bulkhead(config().max_concurrent_calls(1).max_queue_size(100_000));
    let _permit = bulkhead.try_acquire().unwrap();
    let kept = measure(|| {
        let mut waiting: Vec<_> = (0..100_000).map(|_| Box::pin(bulkhead.acquire())).collect();
        for waiter in &mut waiting {
            assert!(
                waiter
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        }
        assert_eq!(bulkhead.stats().waiting, 100_000);
    })
    .bytes_current;
    assert_eq!(bulkhead.stats().cancelled_in_queue, 100_000);
    assert!(kept < 16 * 1024, "{kept} bytes are still allocated");
}
