//! The end of a bulkhead.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, blocking_work};

on_every_runtime![
    what_waits_at_the_shutdown_never_runs,
    running_calls_go_on_and_are_waited_for,
    shutting_down_twice_is_shutting_down_once,
    blocking_work_is_waited_for,
    a_bulkhead_at_rest_is_drained_at_once,
    drained_may_be_asked_by_many_and_given_up,
    a_bulkhead_can_be_changed_but_not_revived,
    shutdown_during_a_shrink,
    dropping_the_last_handle_ends_the_events,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("jobs").max_concurrent_calls(1)
}

/// Hazard P15.
async fn what_waits_at_the_shutdown_never_runs(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Vec::new();
    for _ in 0..5 {
        queued.push(t.waiting(&bulkhead).await);
    }
    bulkhead.shutdown();
    for (never, call) in queued {
        let refused = call.await.unwrap_err();
        assert!(matches!(&refused, BulkheadError::Shutdown { bulkhead } if bulkhead == "jobs"));
        assert!(refused.is_rejection() && !never.has_started());
        assert_eq!(refused.to_string(), r#"bulkhead "jobs" is shut down"#);
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

async fn running_calls_go_on_and_are_waited_for(t: Harness) {
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
    let waits = t.spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.drained().await }
    });
    permit.fail();
    waits.await;
    now_or_never(drained);
}

async fn shutting_down_twice_is_shutting_down_once(t: Harness) {
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

async fn blocking_work_is_waited_for(t: Harness) {
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
        "the closure runs on"
    );
    control.succeed();
    drained.await;
}

async fn a_bulkhead_at_rest_is_drained_at_once(t: Harness) {
    let bulkhead = t.bulkhead(config());
    t.succeed(&bulkhead, 1).await;
    assert!(
        poll_once(std::pin::pin!(bulkhead.drained())).is_pending(),
        "not shut down"
    );
    bulkhead.shutdown();
    now_or_never(bulkhead.drained());
}

async fn drained_may_be_asked_by_many_and_given_up(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let (control, running) = t.running(&bulkhead).await;
    bulkhead.shutdown();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move { bulkhead.drained().await })
        })
        .collect();
    for _ in 0..10 {
        let mut given_up = Box::pin(bulkhead.drained());
        assert!(poll_once(given_up.as_mut()).is_pending());
    }
    control.succeed();
    running.await.unwrap();
    for one in waiting {
        one.await;
    }
}

async fn a_bulkhead_can_be_changed_but_not_revived(t: Harness) {
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
    let refused = now_or_never(bulkhead.execute(async { Answer::Ok(1) }));
    assert!(matches!(refused, Err(BulkheadError::Shutdown { .. })));
}

async fn shutdown_during_a_shrink(t: Harness) {
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

async fn dropping_the_last_handle_ends_the_events(t: Harness) {
    let bulkhead = Bulkhead::with_runtime(config(), t.runtime()).unwrap();
    let mut events = bulkhead.events();
    bulkhead.circuit_breaker().unwrap().open();
    let listener = t.spawn(async move {
        let opened = events.next().await.is_some();
        (opened, events.next().await.is_none())
    });
    drop(bulkhead);
    assert_eq!(listener.await, (true, true));
}
