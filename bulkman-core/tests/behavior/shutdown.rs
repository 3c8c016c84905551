//! Shutdown and drain of a bulkhead.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, blocking_work};

on_every_runtime![
    queued_calls_are_rejected_at_shutdown,
    running_calls_continue_and_are_drained,
    second_shutdown_has_no_effect,
    drained_waits_for_blocking_work,
    idle_bulkhead_is_drained_immediately,
    drained_supports_many_waiters_and_cancellation,
    reconfigure_after_shutdown_does_not_reopen,
    shutdown_while_shrinking,
    events_end_when_the_last_clone_is_dropped,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("jobs").max_concurrent_calls(1)
}

/// Hazard P15.
async fn queued_calls_are_rejected_at_shutdown(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Vec::new();
    for _ in 0..5 {
        queued.push(t.waiting(&bulkhead).await);
    }
    bulkhead.shutdown();
    for (never, call) in queued {
        let rejected = call.await.unwrap_err();
        assert!(matches!(&rejected, BulkheadError::Shutdown { bulkhead } if bulkhead == "jobs"));
        assert!(rejected.is_rejection() && !never.has_started());
        assert_eq!(rejected.to_string(), r#"bulkhead "jobs" is shut down"#);
    }
    assert_eq!(
        (bulkhead.state(), bulkhead.is_healthy()),
        (BulkheadState::ShutDown, false)
    );
    control.succeed();
    assert_eq!(running.await, Ok(1));
    assert_eq!(
        (bulkhead.stats().started, bulkhead.stats().rejected.shutdown),
        (1, 5)
    );
}

async fn running_calls_continue_and_are_drained(t: Harness) {
    let bulkhead = t.bulkhead(config().max_concurrent_calls(3));
    let (a, first) = t.running(&bulkhead).await;
    let (_never, second) = t.running(&bulkhead).await;
    let permit = bulkhead.try_acquire().unwrap();
    let mut drained = Box::pin(bulkhead.drained());
    assert!(poll_once(drained.as_mut()).is_pending());
    bulkhead.shutdown();
    assert!(poll_once(drained.as_mut()).is_pending());
    a.succeed();
    assert_eq!(first.await, Ok(1));
    second.cancel().await;
    assert!(poll_once(drained.as_mut()).is_pending());
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    let waiter = t.spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.drained().await }
    });
    permit.fail();
    waiter.await;
    now_or_never(drained);
}

async fn second_shutdown_has_no_effect(t: Harness) {
    let bulkhead = t.bulkhead(config().max_concurrent_calls(4));
    let permit = bulkhead.try_acquire().unwrap();
    bulkhead.shutdown();
    bulkhead.clone().shutdown();
    permit.succeed();
    now_or_never(bulkhead.drained());
    bulkhead.shutdown();
    now_or_never(bulkhead.drained());
    assert!(matches!(
        bulkhead.try_acquire(),
        Err(BulkheadError::Shutdown { .. })
    ));
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

async fn drained_waits_for_blocking_work(t: Harness) {
    let bulkhead = t.bulkhead(config().run_timeout(Duration::from_secs(1)));
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    bulkhead.shutdown();
    t.advance(Duration::from_secs(1)).await;
    assert!(matches!(call.await, Err(BulkheadError::Timeout { .. })));
    let mut drained = Box::pin(bulkhead.drained());
    assert!(
        poll_once(drained.as_mut()).is_pending(),
        "the closure is still running"
    );
    control.succeed();
    drained.await;
}

async fn idle_bulkhead_is_drained_immediately(t: Harness) {
    let bulkhead = t.bulkhead(config());
    t.succeed(&bulkhead, 1).await;
    assert!(
        poll_once(std::pin::pin!(bulkhead.drained())).is_pending(),
        "not shut down"
    );
    bulkhead.shutdown();
    now_or_never(bulkhead.drained());
}

async fn drained_supports_many_waiters_and_cancellation(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let (control, running) = t.running(&bulkhead).await;
    bulkhead.shutdown();
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move { bulkhead.drained().await })
        })
        .collect();
    for _ in 0..10 {
        let mut cancelled = Box::pin(bulkhead.drained());
        assert!(poll_once(cancelled.as_mut()).is_pending());
    }
    control.succeed();
    running.await.unwrap();
    for waiter in waiters {
        waiter.await;
    }
}

async fn reconfigure_after_shutdown_does_not_reopen(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let permit = bulkhead.try_acquire().unwrap();
    bulkhead.shutdown();
    bulkhead
        .reconfigure(config().max_concurrent_calls(50))
        .unwrap();
    assert!(matches!(
        bulkhead.try_acquire(),
        Err(BulkheadError::Shutdown { .. })
    ));
    bulkhead.circuit_breaker().unwrap().close();
    assert_eq!(bulkhead.state(), BulkheadState::ShutDown);
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    permit.succeed();
    now_or_never(bulkhead.drained());
    let rejected = now_or_never(bulkhead.execute(async { Answer::Ok(1) }));
    assert!(matches!(rejected, Err(BulkheadError::Shutdown { .. })));
}

async fn shutdown_while_shrinking(t: Harness) {
    let bulkhead = t.bulkhead(config().max_concurrent_calls(5));
    let mut held: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    bulkhead
        .reconfigure(config().max_concurrent_calls(2))
        .unwrap();
    bulkhead.shutdown();
    while let Some(permit) = held.pop() {
        assert!(poll_once(std::pin::pin!(bulkhead.drained())).is_pending());
        drop(permit);
        assert_eq!(bulkhead.stats().permits_in_use, held.len());
    }
    now_or_never(bulkhead.drained());
}

async fn events_end_when_the_last_clone_is_dropped(t: Harness) {
    let bulkhead = Bulkhead::new(config(), t.runtime()).unwrap();
    let mut events = bulkhead.events();
    bulkhead.circuit_breaker().unwrap().open();
    let listener = t.spawn(async move {
        let opened = events.next().await.is_some();
        (opened, events.next().await.is_none())
    });
    drop(bulkhead);
    assert_eq!(listener.await, (true, true));
}
