//! The order of the queue, its bound, and the assignment of permits.

use std::sync::{Arc, Mutex};

use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Priority, QueueOrder};

use crate::harness::{Harness, Task, now_or_never, poll_once};
use crate::operations::{Answer, Outcome};

on_every_runtime![
    fifo_serves_calls_in_the_order_of_arrival,
    new_calls_never_overtake_a_waiter,
    new_calls_do_not_displace_a_granted_waiter,
    higher_priorities_are_served_first,
    lifo_serves_the_newest_call_first,
    priority_and_lifo_never_evict_a_waiter,
    queue_size_is_bounded,
    queued_calls_run_and_release_their_permit,
    two_consecutive_releases_serve_two_waiters,
    many_tasks_complete_with_few_permits,
];

type Log = Arc<Mutex<Vec<usize>>>;

/// Enqueues a call that logs its number when it runs.
async fn enqueue(
    t: &Harness,
    bulkhead: &Bulkhead,
    log: &Log,
    number: usize,
    priority: Priority,
) -> Task<Outcome> {
    let before = bulkhead.stats().waiting;
    let (inner, log) = (bulkhead.clone(), Arc::clone(log));
    let task = t.spawn(async move {
        let operation = async {
            log.lock().unwrap().push(number);
            Ok(0)
        };
        inner.call().priority(priority).execute(operation).await
    });
    t.until(|| bulkhead.stats().waiting == before + 1).await;
    task
}

fn one(order: QueueOrder) -> BulkheadConfig {
    BulkheadConfig::new("orders")
        .max_concurrent_calls(1)
        .queue_order(order)
}

async fn served(t: &Harness, config: BulkheadConfig, arrivals: &[(usize, Priority)]) -> Vec<usize> {
    let bulkhead = t.bulkhead(config);
    let log = Log::default();
    let (control, running) = t.running(&bulkhead).await;
    let mut calls = Vec::new();
    for &(number, priority) in arrivals {
        calls.push(enqueue(t, &bulkhead, &log, number, priority).await);
    }
    control.succeed();
    running.await.unwrap();
    for call in calls {
        call.await.unwrap();
    }
    log.lock().unwrap().clone()
}

async fn fifo_serves_calls_in_the_order_of_arrival(t: Harness) {
    let arrivals: Vec<_> = (0..20).map(|number| (number, Priority::Normal)).collect();
    assert_eq!(
        served(&t, one(QueueOrder::Fifo), &arrivals).await,
        Vec::from_iter(0..20)
    );
}

async fn higher_priorities_are_served_first(t: Harness) {
    use Priority::{High, Low, Normal};
    let arrivals = [
        (0, Low),
        (1, Normal),
        (2, High),
        (3, Low),
        (4, High),
        (5, Normal),
    ];
    assert_eq!(
        served(&t, one(QueueOrder::Fifo), &arrivals).await,
        [2, 4, 1, 5, 0, 3]
    );
    assert!(Low < Normal && Normal < High && Priority::default() == Normal);
}

async fn lifo_serves_the_newest_call_first(t: Harness) {
    use Priority::{High, Normal};
    let arrivals = [(0, Normal), (1, High), (2, Normal), (3, High), (4, Normal)];
    assert_eq!(
        served(&t, one(QueueOrder::Lifo), &arrivals).await,
        [3, 1, 4, 2, 0]
    );
}

/// Hazard H39.
async fn new_calls_never_overtake_a_waiter(t: Harness) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo));
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = Box::pin(bulkhead.acquire());
    assert!(poll_once(first.as_mut()).is_pending());
    permit.succeed();
    // The first waiter owns the permit, although it has not been polled since.
    assert!(matches!(
        bulkhead.try_acquire(),
        Err(BulkheadError::Full { .. })
    ));
    let mut second = Box::pin(bulkhead.acquire());
    assert!(poll_once(second.as_mut()).is_pending());
    now_or_never(first).unwrap().succeed();
    now_or_never(second).unwrap().succeed();
}

/// In a full queue of capacity 1, a waiter that was just granted keeps its permit.
///
/// Hazard H39.
async fn new_calls_do_not_displace_a_granted_waiter(t: Harness) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo).max_queue_size(1));
    let permit = bulkhead.try_acquire().unwrap();
    let mut queued = Box::pin(bulkhead.acquire());
    assert!(poll_once(queued.as_mut()).is_pending());
    assert!(matches!(
        now_or_never(bulkhead.acquire()),
        Err(BulkheadError::Full { .. })
    ));
    permit.succeed();
    let mut new_call = Box::pin(bulkhead.acquire());
    assert!(poll_once(new_call.as_mut()).is_pending());
    now_or_never(queued).unwrap().succeed();
    now_or_never(new_call).unwrap().succeed();
    assert_eq!(bulkhead.stats().rejected.full, 1);
}

async fn priority_and_lifo_never_evict_a_waiter(t: Harness) {
    let bulkhead = t.bulkhead(one(QueueOrder::Lifo).max_queue_size(1));
    let permit = bulkhead.try_acquire().unwrap();
    let mut low = Box::pin(bulkhead.call().priority(Priority::Low).acquire());
    assert!(poll_once(low.as_mut()).is_pending());
    let high = bulkhead.call().priority(Priority::High).acquire();
    assert!(matches!(
        now_or_never(high),
        Err(BulkheadError::Full { .. })
    ));
    permit.succeed();
    now_or_never(low).unwrap().succeed();
}

async fn queue_size_is_bounded(t: Harness) {
    let config = BulkheadConfig::new("orders")
        .max_concurrent_calls(2)
        .max_queue_size(3);
    let bulkhead = t.bulkhead(config);
    let held: Vec<_> = (0..2).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut call = Box::pin(bulkhead.acquire());
        assert!(poll_once(call.as_mut()).is_pending());
        waiting.push(call);
    }
    let rejected = now_or_never(bulkhead.execute(async { Answer::Ok(1) })).unwrap_err();
    assert!(matches!(
        rejected,
        BulkheadError::Full {
            max_concurrent_calls: 2,
            max_queue_size: 3,
            ..
        }
    ));
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.waiting, stats.peak_waiting, stats.rejected.full),
        (3, 3, 1)
    );
    drop(held);
    for call in waiting {
        now_or_never(call).unwrap().succeed();
    }
    assert_eq!(bulkhead.stats().waiting, 0);
}

/// Hazard H31.
async fn queued_calls_run_and_release_their_permit(t: Harness) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo));
    let (first, running) = t.running(&bulkhead).await;
    let (second, queued) = t.waiting(&bulkhead).await;
    assert!(!second.has_started());
    first.succeed();
    assert_eq!(running.await, Ok(1));
    t.until(|| second.has_started()).await;
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    second.fail();
    assert!(queued.await.is_err());
    t.succeed(&bulkhead, 1).await;
}

/// A waiter gets its permit even if the waiter before it has not run yet.
async fn two_consecutive_releases_serve_two_waiters(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("orders").max_concurrent_calls(2));
    let (a, b) = (
        bulkhead.try_acquire().unwrap(),
        bulkhead.try_acquire().unwrap(),
    );
    let (mut first, mut second) = (Box::pin(bulkhead.acquire()), Box::pin(bulkhead.acquire()));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    a.succeed();
    b.succeed();
    assert_eq!(bulkhead.stats().waiting, 0);
    // Polled in reverse: neither depends on the other.
    let second = now_or_never(second).unwrap();
    now_or_never(first).unwrap().succeed();
    second.succeed();
}

async fn many_tasks_complete_with_few_permits(t: Harness) {
    let config = BulkheadConfig::new("orders")
        .max_concurrent_calls(5)
        .max_queue_size(500);
    let bulkhead = t.bulkhead(config.circuit_breaker_enabled(false));
    let calls: Vec<_> = (0..500_u32)
        .map(|number| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move {
                let operation = async move {
                    futures_lite::future::yield_now().await;
                    if number % 5 == 0 {
                        Err("unlucky")
                    } else {
                        Ok(number)
                    }
                };
                bulkhead.execute(operation).await
            })
        })
        .collect();
    let mut failed = 0;
    for (call, number) in calls.into_iter().zip(0..) {
        match call.await {
            Ok(answer) => assert_eq!(answer, number),
            Err(error) => {
                assert_eq!(error.into_operation(), Some("unlucky"));
                failed += 1;
            }
        }
    }
    let stats = bulkhead.stats();
    assert_eq!((failed, stats.failed, stats.successful), (100, 100, 400));
    assert!(stats.peak_waiting <= 500);
}
