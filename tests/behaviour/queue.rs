//! The queue's order, its bounds, and whom a permit goes to.

use std::sync::{Arc, Mutex};

use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Priority, QueueOrder};

use crate::stage::{Stage, Task, now_or_never};
use crate::work::{Answer, Outcome};

on_every_runtime![
    first_come_first_served,
    a_newcomer_overtakes_nobody,
    a_call_in_the_queue_is_not_refused_for_a_newcomer,
    higher_priorities_are_served_first,
    the_newest_is_served_first_in_lifo_order,
    a_priority_or_lifo_newcomer_evicts_nobody,
    the_queue_is_bounded,
    a_call_from_the_queue_runs_and_frees_its_permit,
    two_releases_in_a_row_serve_two_waiters,
    many_tasks_through_few_slots,
];

type Log = Arc<Mutex<Vec<usize>>>;

/// A call that writes its number down when it runs.
async fn enqueue(
    t: &Stage,
    bulkhead: &Bulkhead,
    log: &Log,
    number: usize,
    priority: Priority,
) -> Task<Outcome> {
    let before = bulkhead.stats().waiting;
    let (inside, log) = (bulkhead.clone(), Arc::clone(log));
    let task = t.spawn(async move {
        let operation = async {
            log.lock().unwrap().push(number);
            Ok(0)
        };
        inside.call().priority(priority).execute(operation).await
    });
    t.until(|| bulkhead.stats().waiting == before + 1).await;
    task
}

fn one(order: QueueOrder) -> BulkheadConfig {
    BulkheadConfig::new("orders")
        .max_concurrent_calls(1)
        .queue_order(order)
}

async fn served(t: &Stage, config: BulkheadConfig, arrivals: &[(usize, Priority)]) -> Vec<usize> {
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

async fn first_come_first_served(t: Stage) {
    let arrivals: Vec<_> = (0..20).map(|number| (number, Priority::Normal)).collect();
    assert_eq!(
        served(&t, one(QueueOrder::Fifo), &arrivals).await,
        Vec::from_iter(0..20)
    );
}

async fn higher_priorities_are_served_first(t: Stage) {
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

async fn the_newest_is_served_first_in_lifo_order(t: Stage) {
    use Priority::{High, Normal};
    let arrivals = [(0, Normal), (1, High), (2, Normal), (3, High), (4, Normal)];
    assert_eq!(
        served(&t, one(QueueOrder::Lifo), &arrivals).await,
        [3, 1, 4, 2, 0]
    );
}

/// Hazard H39.
async fn a_newcomer_overtakes_nobody(t: Stage) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo));
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = Box::pin(bulkhead.acquire());
    assert!(crate::stage::poll_once(first.as_mut()).is_pending());
    permit.succeed();
    // The permit is the first waiter's, although it has not been polled since.
    assert!(matches!(
        bulkhead.try_acquire(),
        Err(BulkheadError::Full { .. })
    ));
    let mut second = Box::pin(bulkhead.acquire());
    assert!(crate::stage::poll_once(second.as_mut()).is_pending());
    now_or_never(first).unwrap().succeed();
    now_or_never(second).unwrap().succeed();
}

/// A queue of one place, a waiter in it that was just granted: a newcomer's arrival must not cost
/// it the permit.
/// Hazard H39.
async fn a_call_in_the_queue_is_not_refused_for_a_newcomer(t: Stage) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo).max_queue_size(1));
    let permit = bulkhead.try_acquire().unwrap();
    let mut queued = Box::pin(bulkhead.acquire());
    assert!(crate::stage::poll_once(queued.as_mut()).is_pending());
    assert!(matches!(
        now_or_never(bulkhead.acquire()),
        Err(BulkheadError::Full { .. })
    ));
    permit.succeed();
    let mut newcomer = Box::pin(bulkhead.acquire());
    assert!(crate::stage::poll_once(newcomer.as_mut()).is_pending());
    now_or_never(queued).unwrap().succeed();
    now_or_never(newcomer).unwrap().succeed();
    assert_eq!(bulkhead.stats().rejected.full, 1);
}

async fn a_priority_or_lifo_newcomer_evicts_nobody(t: Stage) {
    let bulkhead = t.bulkhead(one(QueueOrder::Lifo).max_queue_size(1));
    let permit = bulkhead.try_acquire().unwrap();
    let mut low = Box::pin(bulkhead.call().priority(Priority::Low).acquire());
    assert!(crate::stage::poll_once(low.as_mut()).is_pending());
    let high = bulkhead.call().priority(Priority::High).acquire();
    assert!(matches!(
        now_or_never(high),
        Err(BulkheadError::Full { .. })
    ));
    permit.succeed();
    now_or_never(low).unwrap().succeed();
}

async fn the_queue_is_bounded(t: Stage) {
    let config = BulkheadConfig::new("orders")
        .max_concurrent_calls(2)
        .max_queue_size(3);
    let bulkhead = t.bulkhead(config);
    let held: Vec<_> = (0..2).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut call = Box::pin(bulkhead.acquire());
        assert!(crate::stage::poll_once(call.as_mut()).is_pending());
        waiting.push(call);
    }
    let refused = now_or_never(bulkhead.execute(async { Answer::Ok(1) })).unwrap_err();
    assert!(matches!(
        refused,
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
async fn a_call_from_the_queue_runs_and_frees_its_permit(t: Stage) {
    let bulkhead = t.bulkhead(one(QueueOrder::Fifo));
    let (first, running) = t.running(&bulkhead).await;
    let (second, queued) = t.waiting(&bulkhead).await;
    assert!(!second.has_begun());
    first.succeed();
    assert_eq!(running.await, Ok(1));
    t.until(|| second.has_begun()).await;
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    second.fail();
    assert!(queued.await.is_err());
    t.succeed(&bulkhead, 1).await;
}

/// A permit must not lie idle beside a waiter because the waiter before it has not run yet.
async fn two_releases_in_a_row_serve_two_waiters(t: Stage) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("orders").max_concurrent_calls(2));
    let (a, b) = (
        bulkhead.try_acquire().unwrap(),
        bulkhead.try_acquire().unwrap(),
    );
    let (mut first, mut second) = (Box::pin(bulkhead.acquire()), Box::pin(bulkhead.acquire()));
    assert!(crate::stage::poll_once(first.as_mut()).is_pending());
    assert!(crate::stage::poll_once(second.as_mut()).is_pending());
    a.succeed();
    b.succeed();
    assert_eq!(bulkhead.stats().waiting, 0);
    // In the other order: neither depends on the other.
    let second = now_or_never(second).unwrap();
    now_or_never(first).unwrap().succeed();
    second.succeed();
}

async fn many_tasks_through_few_slots(t: Stage) {
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
