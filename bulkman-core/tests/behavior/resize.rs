//! Changing the configuration of a bulkhead in use.

use std::time::Duration;

use bulkman::circuit_breaker::CircuitState;
use bulkman::error::TimeoutPhase;
use bulkman::{BulkheadConfig, BulkheadError, ConfigError};

use crate::harness::{Harness, now_or_never, poll_once};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    growing_by_several_permits_serves_several_waiters,
    shrinking_does_not_wait_for_running_calls,
    waiters_are_served_after_shrinking,
    growing_before_all_permits_are_forgotten,
    queue_size_changes_for_new_calls_only,
    waiters_keep_their_deadlines,
    timeouts_change_for_new_calls_only,
    circuit_keeps_its_state,
    rejected_changes_have_no_effect,
];

fn config(calls: usize) -> BulkheadConfig {
    BulkheadConfig::new("rates").max_concurrent_calls(calls)
}

/// Hazard H39c.
async fn growing_by_several_permits_serves_several_waiters(t: Harness) {
    let bulkhead = t.bulkhead(config(1));
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Vec::new();
    for _ in 0..4 {
        queued.push(t.waiting(&bulkhead).await);
    }
    bulkhead.reconfigure(config(4)).unwrap();
    t.until(|| queued.iter().filter(|(work, _)| work.has_started()).count() == 3)
        .await;
    let stats = bulkhead.stats();
    assert_eq!(
        (
            stats.permits_in_use,
            stats.waiting,
            stats.max_concurrent_calls
        ),
        (4, 1, 4)
    );
    assert!(!queued[3].0.has_started());
    control.succeed();
    running.await.unwrap();
    for (work, call) in queued {
        work.succeed();
        assert_eq!(call.await, Ok(1));
    }
}

/// Hazard H38.
async fn shrinking_does_not_wait_for_running_calls(t: Harness) {
    let bulkhead = t.bulkhead(config(3).max_queue_size(0));
    let mut held: Vec<_> = (0..3).map(|_| bulkhead.try_acquire().unwrap()).collect();
    bulkhead.reconfigure(config(1).max_queue_size(0)).unwrap();
    let stats = bulkhead.stats();
    assert_eq!((stats.permits_in_use, stats.max_concurrent_calls), (3, 1));
    for in_use in [2, 1] {
        held.pop();
        assert_eq!(bulkhead.stats().permits_in_use, in_use);
        assert!(matches!(
            bulkhead.try_acquire(),
            Err(BulkheadError::Full {
                max_concurrent_calls: 1,
                ..
            })
        ));
    }
    held.pop();
    let _only = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
}

/// Hazard H38.
async fn waiters_are_served_after_shrinking(t: Harness) {
    let bulkhead = t.bulkhead(config(4));
    let mut held: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let mut waiter = Box::pin(bulkhead.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    bulkhead.reconfigure(config(2)).unwrap();
    held.truncate(2);
    assert!(poll_once(waiter.as_mut()).is_pending());
    assert_eq!(bulkhead.stats().permits_in_use, 2);
    held.pop();
    now_or_never(waiter).unwrap().succeed();
}

async fn growing_before_all_permits_are_forgotten(t: Harness) {
    let bulkhead = t.bulkhead(config(4));
    let held: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    bulkhead.reconfigure(config(1)).unwrap();
    bulkhead.reconfigure(config(5)).unwrap();
    let fifth = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
    bulkhead.reconfigure(config(2)).unwrap();
    bulkhead.reconfigure(config(3)).unwrap();
    drop(held);
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    let rest: Vec<_> = (0..2).map(|_| bulkhead.try_acquire().unwrap()).collect();
    assert!(bulkhead.try_acquire().is_err());
    drop((fifth, rest));
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

async fn queue_size_changes_for_new_calls_only(t: Harness) {
    let bulkhead = t.bulkhead(config(1).max_queue_size(2));
    let permit = bulkhead.try_acquire().unwrap();
    let (mut a, mut b) = (Box::pin(bulkhead.acquire()), Box::pin(bulkhead.acquire()));
    assert!(poll_once(a.as_mut()).is_pending() && poll_once(b.as_mut()).is_pending());
    bulkhead.reconfigure(config(1).max_queue_size(0)).unwrap();
    assert_eq!(
        (bulkhead.stats().waiting, bulkhead.stats().max_queue_size),
        (2, 0)
    );
    assert!(matches!(
        now_or_never(bulkhead.acquire()),
        Err(BulkheadError::Full { .. })
    ));
    permit.succeed();
    now_or_never(a).unwrap().succeed();
    now_or_never(b).unwrap().succeed();
}

async fn waiters_keep_their_deadlines(t: Harness) {
    let bulkhead = t.bulkhead(config(1).max_wait(2 * SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = Box::pin(bulkhead.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    t.advance(SECOND).await;
    bulkhead
        .reconfigure(config(1).max_wait(10 * SECOND))
        .unwrap();
    assert!(poll_once(waiter.as_mut()).is_pending());
    t.advance(SECOND).await;
    let error = now_or_never(waiter).unwrap_err();
    assert!(
        matches!(
            error,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Queued,
                ..
            }
        ),
        "{error:?}"
    );
    permit.succeed();
}

async fn timeouts_change_for_new_calls_only(t: Harness) {
    let bulkhead = t.bulkhead(config(2).run_timeout(SECOND));
    let (_never, old) = t.running(&bulkhead).await;
    bulkhead.reconfigure(config(2)).unwrap();
    let (control, new) = t.running(&bulkhead).await;
    t.advance(SECOND).await;
    assert!(matches!(
        old.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
    t.advance(1000 * SECOND).await;
    assert!(!new.is_finished());
    control.succeed();
    assert_eq!(new.await, Ok(1));
}

/// Hazard H88.
async fn circuit_keeps_its_state(t: Harness) {
    let bulkhead = t.bulkhead(config(2).failure_threshold(2));
    t.fail(&bulkhead, 1).await;
    bulkhead
        .reconfigure(config(3).failure_threshold(2))
        .unwrap();
    // The earlier failure is still counted.
    t.fail(&bulkhead, 1).await;
    let circuit = bulkhead.circuit_breaker().unwrap();
    assert_eq!(circuit.state(), CircuitState::Open);
    t.advance(10 * SECOND).await;
    bulkhead
        .reconfigure(config(3).isolation_duration(SECOND))
        .unwrap();
    assert_eq!(circuit.snapshot().retry_after, Some(20 * SECOND));
}

async fn rejected_changes_have_no_effect(t: Harness) {
    let bulkhead = t.bulkhead(config(2));
    let before = bulkhead.config();
    let renamed = bulkhead
        .reconfigure(BulkheadConfig::new("other"))
        .unwrap_err();
    assert!(
        matches!(renamed, ConfigError::Immutable { field: "name", .. }),
        "{renamed}"
    );
    let off = bulkhead
        .reconfigure(config(2).circuit_breaker_enabled(false))
        .unwrap_err();
    assert!(
        matches!(
            off,
            ConfigError::Immutable {
                field: "circuit_breaker_enabled",
                ..
            }
        ),
        "{off}"
    );
    let zero = bulkhead.reconfigure(config(0)).unwrap_err();
    assert!(
        matches!(
            zero,
            ConfigError::OutOfRange {
                field: "max_concurrent_calls",
                ..
            }
        ),
        "{zero}"
    );
    let rules = bulkhead
        .reconfigure(config(9).failure_threshold(0))
        .unwrap_err();
    assert!(
        matches!(
            rules,
            ConfigError::OutOfRange {
                field: "failure_threshold",
                ..
            }
        ),
        "{rules}"
    );
    assert_eq!(bulkhead.config(), before);
    assert_eq!(bulkhead.stats().max_concurrent_calls, 2);
}
