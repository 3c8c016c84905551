//! The counters of a bulkhead, and their invariant.

use std::time::Duration;

use bulkman::bulkhead::BulkheadStats;
use bulkman::circuit_breaker::CircuitState;
use bulkman::{Bulkhead, BulkheadConfig, Outcome};

use crate::harness::Harness;
use crate::operations::Answer;

on_every_runtime![
    new_bulkhead_has_zero_counts,
    every_end_is_counted_once,
    active_and_waiting_calls_are_counted,
    reset_starts_at_zero_and_keeps_running_calls,
    peak_waiting_is_kept_until_the_reset,
    every_reading_adds_up_under_concurrent_calls,
    reading_contains_limits_and_circuit_state,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("orders").max_concurrent_calls(2)
}

#[track_caller]
fn checked_stats(bulkhead: &Bulkhead) -> BulkheadStats {
    let stats = bulkhead.stats();
    let sum = stats.successful + stats.failed + stats.ignored + stats.cancelled + stats.active;
    assert_eq!(stats.started, sum, "{stats:?}");
    stats
}

async fn new_bulkhead_has_zero_counts(t: Harness) {
    let stats = checked_stats(&t.bulkhead(config()));
    assert_eq!(
        (
            stats.started,
            stats.rejected.total(),
            stats.cancelled_in_queue
        ),
        (0, 0, 0)
    );
    assert_eq!(
        (stats.waiting, stats.peak_waiting, stats.permits_in_use),
        (0, 0, 0)
    );
}

async fn every_end_is_counted_once(t: Harness) {
    let bulkhead = t.bulkhead(
        config()
            .run_timeout(Duration::from_secs(1))
            .circuit_breaker_enabled(false),
    );
    t.succeed(&bulkhead, 3).await;
    t.fail(&bulkhead, 2).await;
    let ignored = bulkhead
        .call()
        .classify(|_: &Answer| Outcome::Ignored)
        .execute(async { Ok(1) });
    ignored.await.unwrap();
    let (_never, cancelled) = t.running(&bulkhead).await;
    cancelled.cancel().await;
    let (_never, late) = t.running(&bulkhead).await;
    t.advance(Duration::from_secs(1)).await;
    assert!(late.await.is_err());
    let stats = checked_stats(&bulkhead);
    assert_eq!((stats.started, stats.successful, stats.failed), (8, 3, 3));
    assert_eq!((stats.ignored, stats.cancelled, stats.active), (1, 1, 0));
    assert_eq!(stats.timed_out_running, 1);
}

async fn active_and_waiting_calls_are_counted(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let (a, first) = t.running(&bulkhead).await;
    let (b, second) = t.running(&bulkhead).await;
    let (c, third) = t.waiting(&bulkhead).await;
    let stats = checked_stats(&bulkhead);
    assert_eq!(
        (
            stats.started,
            stats.active,
            stats.permits_in_use,
            stats.waiting
        ),
        (2, 2, 2, 1)
    );
    for control in [a, b, c] {
        control.succeed();
    }
    for call in [first, second, third] {
        assert_eq!(call.await, Ok(1));
    }
    let stats = checked_stats(&bulkhead);
    assert_eq!(
        (
            stats.started,
            stats.active,
            stats.waiting,
            stats.peak_waiting
        ),
        (3, 0, 0, 1)
    );
}

async fn reset_starts_at_zero_and_keeps_running_calls(t: Harness) {
    let bulkhead = t.bulkhead(config().max_queue_size(0));
    t.succeed(&bulkhead, 5).await;
    t.fail(&bulkhead, 1).await;
    let (control, running) = t.running(&bulkhead).await;
    let held = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
    bulkhead.circuit_breaker().unwrap().force_open();
    assert!(bulkhead.try_acquire().is_err());
    bulkhead.reset_stats();
    let stats = checked_stats(&bulkhead);
    assert_eq!(
        (stats.started, stats.active, stats.successful, stats.failed),
        (2, 2, 0, 0)
    );
    assert_eq!(stats.rejected.total(), 0);
    control.succeed();
    running.await.unwrap();
    held.fail();
    let stats = checked_stats(&bulkhead);
    assert_eq!(
        (stats.started, stats.active, stats.successful, stats.failed),
        (2, 0, 1, 1)
    );
    // A reset does not affect the circuit.
    assert_eq!(stats.circuit, Some(CircuitState::ForcedOpen));
}

async fn peak_waiting_is_kept_until_the_reset(t: Harness) {
    let bulkhead = t.bulkhead(config().max_concurrent_calls(1));
    let (control, running) = t.running(&bulkhead).await;
    let (_never, a) = t.waiting(&bulkhead).await;
    let (_never, b) = t.waiting(&bulkhead).await;
    a.cancel().await;
    assert_eq!(
        (bulkhead.stats().waiting, bulkhead.stats().peak_waiting),
        (1, 2)
    );
    bulkhead.reset_stats();
    assert_eq!(bulkhead.stats().peak_waiting, 1);
    b.cancel().await;
    control.succeed();
    running.await.unwrap();
    assert_eq!(
        (bulkhead.stats().waiting, bulkhead.stats().peak_waiting),
        (0, 1)
    );
}

async fn every_reading_adds_up_under_concurrent_calls(t: Harness) {
    let bulkhead = t.bulkhead(config().max_queue_size(1000).circuit_breaker_enabled(false));
    let callers: Vec<_> = (0..4_u32)
        .map(|caller| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move {
                for i in 0..500 {
                    let operation = async move {
                        futures_lite::future::yield_now().await;
                        if (i + caller) % 3 == 0 {
                            Err(())
                        } else {
                            Ok(())
                        }
                    };
                    let _ = bulkhead.execute(operation).await;
                }
            })
        })
        .collect();
    let mut readings = 0;
    while !callers.iter().all(crate::harness::Task::is_finished) {
        checked_stats(&bulkhead);
        readings += 1;
        if readings % 64 == 0 {
            bulkhead.reset_stats();
        }
        futures_lite::future::yield_now().await;
    }
    for caller in callers {
        caller.await;
    }
    assert_eq!(checked_stats(&bulkhead).active, 0);
}

async fn reading_contains_limits_and_circuit_state(t: Harness) {
    let stats = t.bulkhead(config().max_queue_size(7)).stats();
    assert_eq!((stats.max_concurrent_calls, stats.max_queue_size), (2, 7));
    assert_eq!(
        (stats.bulkhead.as_str(), stats.circuit),
        ("orders", Some(CircuitState::Closed))
    );
}
