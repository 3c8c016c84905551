//! Limits that reject nothing, and count what they would reject.

use std::future::pending;
use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement};
use bulkman_core::bulkhead::BulkheadState;
use bulkman_core::{BulkheadConfig, BulkheadError, Outcome};
use futures_lite::future::{block_on, poll_once};

use crate::faults::{fill, saturate, with_runtime};

const MS: Duration = Duration::from_millis(1);

fn observed(permits: usize, queue: usize) -> BulkheadConfig {
    BulkheadConfig::new("server")
        .max_concurrent_calls(permits)
        .max_queue_size(queue)
        .enforcement(Enforcement::Observe)
}

/// Fault A24
#[test]
fn observed_fixed_limit_rejects_nothing_and_counts() {
    let (bulkhead, _runtime) = with_runtime(observed(2, 3));
    let running: Vec<_> = (0..9).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.active, stats.permits_in_use, stats.waiting),
        (9, 2, 0)
    );
    assert_eq!(stats.rejected.total(), 0);
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!(status.enforcement, Enforcement::Observe);
    assert_eq!((status.would_wait, status.would_reject), (3, 4));
    running.into_iter().for_each(|permit| permit.succeed());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.active, stats.successful, stats.permits_in_use),
        (0, 9, 0)
    );
    // All permits are back, and none too many.
    let running = [
        bulkhead.try_acquire().unwrap(),
        bulkhead.try_acquire().unwrap(),
    ];
    assert_eq!(bulkhead.stats().permits_in_use, 2);
    assert_eq!(bulkhead.snapshot().limit.unwrap().would_wait, 3);
    drop(running);
}

#[test]
fn call_that_never_waits_would_be_rejected() {
    let (bulkhead, runtime) = with_runtime(observed(1, 10).max_wait(Duration::ZERO));
    let running = bulkhead.try_acquire().unwrap();
    let call = bulkhead.execute(async { Ok::<_, ()>(7) });
    assert_eq!(runtime.block_on(call), Ok(7));
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!((status.would_wait, status.would_reject), (0, 1));
    drop(running);
}

#[test]
fn calls_without_a_permit_end_in_every_way() {
    let config = observed(1, 10).failure_threshold(1_000);
    let (bulkhead, runtime) = with_runtime(config.run_timeout(10 * MS));
    let held = bulkhead.try_acquire().unwrap();
    let _ = runtime.block_on(bulkhead.execute(async { Err::<(), _>("down") }));
    let late = runtime.block_on(bulkhead.execute(pending::<Result<(), ()>>()));
    assert!(matches!(late, Err(BulkheadError::Timeout { .. })));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = bulkhead.execute_sync(|| -> Result<(), ()> { panic!("the operation panics") });
    }));
    assert!(panicked.is_err());
    let mut dropped = Box::pin(bulkhead.execute(pending::<Result<(), ()>>()));
    assert!(block_on(poll_once(&mut dropped)).is_none());
    drop(dropped);
    let blocking = runtime.block_on(bulkhead.execute_blocking(|| Ok::<_, ()>(1)));
    assert_eq!(blocking, Ok(1));
    drop(bulkhead.try_acquire().unwrap());
    let stats = bulkhead.stats();
    assert_eq!((stats.active, stats.permits_in_use), (1, 1));
    assert_eq!((stats.failed, stats.cancelled, stats.successful), (3, 2, 1));
    held.succeed();
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

#[test]
fn drained_waits_for_calls_without_a_permit() {
    let (bulkhead, _runtime) = with_runtime(observed(1, 0));
    assert_eq!(bulkhead.limit(), 1);
    let first = bulkhead.try_acquire().unwrap();
    let second = bulkhead.try_acquire().unwrap();
    bulkhead.shutdown();
    assert!(bulkhead.try_acquire().is_err());
    let mut drained = Box::pin(bulkhead.drained());
    assert!(block_on(poll_once(&mut drained)).is_none());
    first.succeed();
    assert!(block_on(poll_once(&mut drained)).is_none());
    second.succeed();
    assert!(block_on(poll_once(&mut drained)).is_some());
    assert_eq!(bulkhead.stats().active, 0);
}

#[test]
fn circuit_stays_enforced() {
    let (bulkhead, _runtime) = with_runtime(observed(1, 0).failure_threshold(2));
    let _running = bulkhead.try_acquire().unwrap();
    for _ in 0..2 {
        bulkhead.try_acquire().unwrap().fail();
    }
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    assert!(matches!(
        bulkhead.try_acquire(),
        Err(BulkheadError::CircuitOpen { .. })
    ));
}

#[test]
fn enforcement_can_change_while_calls_run() {
    let (bulkhead, runtime) = with_runtime(observed(1, 2));
    let running = [(); 3].map(|()| bulkhead.try_acquire().unwrap());
    let config = bulkhead.config();
    bulkhead
        .reconfigure(config.clone().enforcement(Enforcement::Enforce))
        .unwrap();
    assert!(bulkhead.try_acquire().is_err());
    let mut waiting = Box::pin(bulkhead.acquire());
    assert!(block_on(poll_once(&mut waiting)).is_none());
    bulkhead.reconfigure(config).unwrap();
    // The waiter keeps its position, and a new call does not wait.
    assert!(bulkhead.try_acquire().is_ok());
    assert_eq!(bulkhead.stats().waiting, 1);
    running.into_iter().for_each(|permit| permit.succeed());
    assert!(runtime.block_on(waiting).is_ok());
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

/// Fault A24
#[test]
fn observed_adaptive_limit_enforces_the_maximum_only() {
    let adaptive = AdaptiveLimit::new().enforcement(Enforcement::Observe);
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(20)
        .max_queue_size(6)
        .circuit_breaker_enabled(false)
        .adaptive_limit(adaptive);
    let (bulkhead, runtime) = with_runtime(config);
    let running = fill(&bulkhead);
    assert_eq!((running.len(), bulkhead.limit()), (20, 20));
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!((status.limit, status.estimate), (20, 4.0));
    assert_eq!(status.enforcement, Enforcement::Observe);
    // The initial estimate admits 4, and 6 would wait.
    assert_eq!((status.would_wait, status.would_reject), (6, 10));
    runtime.advance(20 * MS);
    drop(running);
    saturate(&bulkhead, &runtime, 20 * MS, 100, Outcome::Success);
    let status = bulkhead.snapshot().limit.unwrap();
    assert!(status.estimate > 10.0, "{status:?}");
    assert_eq!(status.limit, 20);
}

/// Every permit of the estimate is released, however its call ends.
#[test]
fn estimate_counts_the_same_after_many_rounds() {
    let adaptive = AdaptiveLimit::new()
        .enforcement(Enforcement::Observe)
        .window(Duration::from_secs(60));
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(10)
        .max_queue_size(100)
        .circuit_breaker_enabled(false)
        .adaptive_limit(adaptive);
    let (bulkhead, _runtime) = with_runtime(config);
    for round in 1..=20 {
        for (index, permit) in fill(&bulkhead).into_iter().enumerate() {
            match index % 4 {
                0 => permit.succeed(),
                1 => permit.fail(),
                2 => permit.record(Outcome::Overloaded),
                _ => drop(permit),
            }
        }
        let status = bulkhead.snapshot().limit.unwrap();
        assert_eq!(status.would_wait, 6 * round);
    }
    assert_eq!(bulkhead.stats().overloaded, 20 * 2);
}
