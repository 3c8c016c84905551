//! Blocking work on the blocking pool, and synchronous calls on the calling thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::error::TimeoutPhase;
use bulkman::{BulkheadConfig, BulkheadError, CircuitBreakerConfig, Outcome};

use crate::harness::{Harness, poll_once};
use crate::operations::{Answer, ConcurrencyCounter, blocking_work, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    closure_runs_on_another_thread,
    timed_out_closure_keeps_its_permit_until_it_ends,
    hung_closure_does_not_delay_the_timeout,
    timeout_is_recorded_immediately_and_only_once,
    outcome_is_recorded_after_the_caller_is_dropped,
    panic_in_closure_is_returned_as_an_error,
    queued_closure_never_runs_after_cancellation,
    closure_never_runs_after_a_timeout_before_its_start,
    closure_never_runs_after_a_drop_before_its_start,
    work_dropped_by_the_runtime_returns_shutdown,
    concurrency_limit_holds_for_blocking_work,
    slow_closure_counts_as_slow_call,
    classifier_applies_to_closures,
    execute_sync_runs_on_the_calling_thread,
    execute_sync_holds_the_limit_across_threads,
    execute_sync_waits_at_most_max_wait,
    execute_sync_overrun_returns_its_value_and_fails,
    execute_sync_releases_its_permit_on_panic,
];

fn one() -> BulkheadConfig {
    BulkheadConfig::new("files").max_concurrent_calls(1)
}

async fn closure_runs_on_another_thread(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let ran_on = bulkhead
        .execute_blocking(|| Ok::<_, ()>(thread::current().id()))
        .await
        .unwrap();
    assert_ne!(ran_on, thread::current().id());
    let error = bulkhead
        .execute_blocking(|| Answer::Err("disk full"))
        .await
        .unwrap_err();
    assert_eq!(error.into_operation(), Some("disk full"));
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.successful, stats.failed, stats.permits_in_use),
        (1, 1, 0)
    );
}

/// Hazard P10, H53.
async fn timed_out_closure_keeps_its_permit_until_it_ends(t: Harness) {
    let bulkhead = t.bulkhead(one().max_queue_size(0).run_timeout(SECOND));
    let (control, operation) = blocking_work();
    let call = t.spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.execute_blocking(operation).await }
    });
    t.until(|| control.has_started()).await;
    t.advance(SECOND).await;
    assert!(matches!(
        call.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
    let stats = bulkhead.stats();
    assert_eq!((stats.permits_in_use, stats.active), (1, 1));
    for _ in 0..3 {
        let rejected = bulkhead
            .execute_blocking(|| Answer::Ok(1))
            .await
            .unwrap_err();
        assert!(
            matches!(rejected, BulkheadError::Full { .. }),
            "{rejected:?}"
        );
    }
    control.succeed();
    t.until(|| bulkhead.stats().permits_in_use == 0).await;
    assert_eq!(bulkhead.execute_blocking(|| Answer::Ok(1)).await, Ok(1));
}

/// Hazard H52.
async fn hung_closure_does_not_delay_the_timeout(t: Harness) {
    let bulkhead = t.bulkhead(one().max_concurrent_calls(2).timeout(SECOND));
    let mut controls = Vec::new();
    for _ in 0..2 {
        let (control, operation) = blocking_work();
        let started_at = t.elapsed();
        let mut call = Box::pin(bulkhead.call().execute_blocking(operation));
        assert!(poll_once(call.as_mut()).is_pending());
        t.until(|| control.has_started()).await;
        t.advance(SECOND).await;
        let error = call.await.unwrap_err();
        assert!(
            matches!(
                error,
                BulkheadError::Timeout {
                    phase: TimeoutPhase::Running,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(t.elapsed() - started_at, SECOND);
        controls.push(control);
    }
    // All permits are held by hung work. The caller still times out on time.
    let mut third = Box::pin(bulkhead.execute_blocking(|| Answer::Ok(1)));
    assert!(poll_once(third.as_mut()).is_pending());
    t.advance(SECOND).await;
    assert!(matches!(
        third.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Queued,
            ..
        })
    ));
    drop(controls);
    t.until(|| bulkhead.stats().permits_in_use == 0).await;
}

/// Hazard H23.
async fn timeout_is_recorded_immediately_and_only_once(t: Harness) {
    let bulkhead = t.bulkhead(one().run_timeout(SECOND).failure_threshold(1));
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    t.advance(SECOND).await;
    assert!(call.await.is_err());
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    assert_eq!(bulkhead.stats().timed_out_running, 1);
    // The value arrives after the timeout, so it does not count as a success.
    let opened = bulkhead.circuit_breaker().unwrap().snapshot().generation;
    control.succeed();
    t.until(|| bulkhead.stats().active == 0).await;
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.successful, stats.failed, stats.timed_out_running),
        (0, 1, 1)
    );
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().generation,
        opened
    );
}

async fn outcome_is_recorded_after_the_caller_is_dropped(t: Harness) {
    let bulkhead = t.bulkhead(one().failure_threshold(1));
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    drop(call);
    control.fail();
    t.until(|| bulkhead.stats().active == 0).await;
    assert_eq!(
        (bulkhead.stats().failed, bulkhead.state()),
        (1, BulkheadState::Isolated)
    );
}

async fn panic_in_closure_is_returned_as_an_error(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let number = 42;
    let error = bulkhead
        .execute_blocking(move || -> Answer { panic!("row {number} is corrupt") })
        .await
        .unwrap_err();
    let BulkheadError::Panicked {
        bulkhead: name,
        message,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((name.as_str(), &**message), ("files", "row 42 is corrupt"));
    assert!(!error.is_rejection());
    let any = bulkhead
        .execute_blocking(|| -> Answer { std::panic::panic_any(7_u8) })
        .await
        .unwrap_err();
    assert!(matches!(&any, BulkheadError::Panicked { .. }), "{any:?}");
    let classifier = |_: &Answer| -> Outcome { panic!("unexpected result") };
    let unclassified = bulkhead
        .call()
        .classify(classifier)
        .execute_blocking(|| Ok(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&unclassified, BulkheadError::Panicked { message, .. } if &**message == "unexpected result")
    );
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.panicked, stats.permits_in_use),
        (3, 3, 0)
    );
    assert_eq!(bulkhead.execute_blocking(|| Answer::Ok(1)).await, Ok(1));
}

async fn queued_closure_never_runs_after_cancellation(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let (first, running) = t.running(&bulkhead).await;
    let (never, operation) = blocking_work();
    let mut cancelled = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(cancelled.as_mut()).is_pending());
    let (second, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    drop(cancelled);
    first.succeed();
    running.await.unwrap();
    second.succeed();
    assert_eq!(call.await, Ok(1));
    assert!(!never.has_started());
    assert_eq!(
        (
            bulkhead.stats().started,
            bulkhead.stats().cancelled_in_queue
        ),
        (2, 1)
    );
}

/// The call is admitted, but the runtime has no thread for it before it times out.
///
/// Hazard H51.
async fn closure_never_runs_after_a_timeout_before_its_start(t: Harness) {
    let bulkhead = t.bulkhead(one().run_timeout(SECOND).failure_threshold(1));
    t.occupy_blocking_threads();
    let (never, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.advance(SECOND).await;
    let error = call.await.unwrap_err();
    assert!(
        matches!(
            error,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Queued,
                queued: SECOND,
                ran: Duration::ZERO,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_rejection());
    // The closure never runs: the permit is released immediately and no failure is recorded.
    let stats = bulkhead.stats();
    assert_eq!(
        (
            stats.permits_in_use,
            stats.ignored,
            stats.failed,
            stats.timed_out_running
        ),
        (0, 1, 0, 0)
    );
    assert!(bulkhead.is_healthy());
    let mut next = Box::pin(bulkhead.execute_blocking(|| Answer::Ok(2)));
    assert!(poll_once(next.as_mut()).is_pending());
    t.free_blocking_threads();
    assert_eq!(next.await, Ok(2));
    assert!(!never.has_started());
    assert_eq!(
        (bulkhead.stats().started, bulkhead.stats().successful),
        (2, 1)
    );
}

async fn closure_never_runs_after_a_drop_before_its_start(t: Harness) {
    let bulkhead = t.bulkhead(one().success_threshold(1));
    bulkhead.circuit_breaker().unwrap().half_open();
    t.occupy_blocking_threads();
    let (never, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    drop(call);
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.permits_in_use, stats.cancelled, stats.started),
        (0, 1, 1)
    );
    // Its probe slot was released as well.
    assert_eq!(
        bulkhead
            .circuit_breaker()
            .unwrap()
            .snapshot()
            .probes_remaining,
        Some(1)
    );
    t.free_blocking_threads();
    assert_eq!(bulkhead.execute_blocking(|| Answer::Ok(2)).await, Ok(2));
    assert!(!never.has_started());
}

async fn work_dropped_by_the_runtime_returns_shutdown(t: Harness) {
    let bulkhead = t.bulkhead(one());
    t.occupy_blocking_threads();
    let (never, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.drop_blocking_work();
    assert!(matches!(call.await, Err(BulkheadError::Shutdown { .. })));
    assert!(!never.has_started());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.permits_in_use, stats.cancelled, stats.failed),
        (0, 1, 0)
    );
    t.free_blocking_threads();
}

async fn concurrency_limit_holds_for_blocking_work(t: Harness) {
    let bulkhead = t.bulkhead(one().max_concurrent_calls(3));
    let concurrency = ConcurrencyCounter::default();
    let calls: Vec<_> = (0..30_u32)
        .map(|i| {
            let (bulkhead, concurrency) = (bulkhead.clone(), concurrency.clone());
            t.spawn(async move {
                let operation = move || {
                    let _inside = concurrency.enter();
                    thread::yield_now();
                    Answer::Ok(i)
                };
                bulkhead.execute_blocking(operation).await
            })
        })
        .collect();
    for (call, i) in calls.into_iter().zip(0..) {
        assert_eq!(call.await, Ok(i));
    }
    assert!((1..=3).contains(&concurrency.max()));
}

async fn slow_closure_counts_as_slow_call(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(SECOND)
        .slow_call_rate_threshold(1.0)
        .minimum_number_of_calls(1);
    let bulkhead = t.bulkhead(one().circuit_breaker(rules));
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    t.advance(2 * SECOND).await;
    control.succeed();
    assert_eq!(call.await, Ok(1));
    assert_eq!(
        (bulkhead.stats().successful, bulkhead.state()),
        (1, BulkheadState::Isolated)
    );
}

async fn classifier_applies_to_closures(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let classifier = |result: &Answer| {
        if *result == Err("no such file") {
            Outcome::Ignored
        } else {
            Outcome::Failure
        }
    };
    let call = bulkhead.call().classify(classifier);
    assert!(
        call.clone()
            .execute_blocking(|| Err("no such file"))
            .await
            .is_err()
    );
    assert_eq!(call.clone().execute_blocking(|| Ok(500)).await, Ok(500));
    assert!(call.execute_sync(|| Err("no such file")).is_err());
    let stats = bulkhead.stats();
    assert_eq!((stats.ignored, stats.failed), (2, 1));
}

async fn execute_sync_runs_on_the_calling_thread(t: Harness) {
    let bulkhead = t.bulkhead(one().max_queue_size(0));
    let here = thread::current().id();
    let operation = || {
        // The only permit is held by this call.
        assert!(matches!(
            bulkhead.execute_sync(|| Answer::Ok(1)),
            Err(BulkheadError::Full { .. })
        ));
        Ok::<_, ()>(thread::current().id())
    };
    assert_eq!(bulkhead.execute_sync(operation), Ok(here));
    let failed = bulkhead
        .execute_sync(|| Answer::Err("disk full"))
        .unwrap_err();
    assert_eq!(failed.into_operation(), Some("disk full"));
    bulkhead.circuit_breaker().unwrap().force_open();
    assert!(matches!(
        bulkhead.execute_sync(|| Answer::Ok(1)),
        Err(BulkheadError::CircuitOpen { .. })
    ));
    bulkhead.shutdown();
    bulkhead.circuit_breaker().unwrap().close();
    assert!(matches!(
        bulkhead.execute_sync(|| Answer::Ok(1)),
        Err(BulkheadError::Shutdown { .. })
    ));
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.successful, stats.failed, stats.rejected.total()),
        (1, 1, 3)
    );
}

async fn execute_sync_holds_the_limit_across_threads(t: Harness) {
    let bulkhead = t.bulkhead(one().max_concurrent_calls(2).max_queue_size(1000));
    let concurrency = ConcurrencyCounter::default();
    let threads: Vec<_> = (0..16_u32)
        .map(|i| {
            let (bulkhead, concurrency) = (bulkhead.clone(), concurrency.clone());
            thread::spawn(move || {
                for _ in 0..50 {
                    let operation = || {
                        let _inside = concurrency.enter();
                        thread::yield_now();
                        Ok::<_, ()>(i)
                    };
                    assert_eq!(bulkhead.execute_sync(operation), Ok(i));
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!((1..=2).contains(&concurrency.max()));
    assert_eq!(bulkhead.stats().successful, 800);
}

async fn execute_sync_waits_at_most_max_wait(t: Harness) {
    let runtime = bulkman::testing::ManualRuntime::new();
    // The thread is parked, so the clock must be advanced by another one. Tokio's paused clock
    // can't be.
    let bulkhead =
        Arc::new(bulkman::Bulkhead::new(one().max_wait(SECOND), runtime.clone()).unwrap());
    let permit = bulkhead.try_acquire().unwrap();
    let waiting = thread::spawn({
        let bulkhead = Arc::clone(&bulkhead);
        move || bulkhead.execute_sync(|| Answer::Ok(1))
    });
    t.until(|| bulkhead.stats().waiting == 1).await;
    runtime.advance(SECOND);
    let error = waiting.join().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Queued,
                queued: SECOND,
                ..
            }
        ),
        "{error:?}"
    );
    // Tasks and threads share one queue, in the order of their arrival.
    let (control, operation) = work();
    let task = t.spawn({
        let bulkhead = Arc::clone(&bulkhead);
        async move { bulkhead.execute(operation).await }
    });
    t.until(|| bulkhead.stats().waiting == 1).await;
    let waiting = thread::spawn({
        let bulkhead = Arc::clone(&bulkhead);
        move || bulkhead.execute_sync(|| Answer::Ok(9))
    });
    t.until(|| bulkhead.stats().waiting == 2).await;
    permit.succeed();
    t.until(|| control.has_started()).await;
    assert!(!waiting.is_finished());
    control.succeed();
    assert_eq!(task.await, Ok(1));
    assert_eq!(waiting.join().unwrap(), Ok(9));
}

async fn execute_sync_overrun_returns_its_value_and_fails(_: Harness) {
    let runtime = bulkman::testing::ManualRuntime::new();
    let bulkhead = bulkman::Bulkhead::new(one().run_timeout(SECOND), runtime.clone()).unwrap();
    for (takes, failed) in [(SECOND / 2, 0), (SECOND, 1), (3 * SECOND, 2)] {
        let operation = || {
            runtime.advance(takes);
            Answer::Ok(4)
        };
        assert_eq!(bulkhead.execute_sync(operation), Ok(4));
        assert_eq!(bulkhead.stats().failed, failed);
    }
}

async fn execute_sync_releases_its_permit_on_panic(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let inside = bulkhead.clone();
    let panicked = thread::spawn(move || {
        inside.execute_sync(|| -> Answer { panic!("a bug in the operation") })
    });
    assert!(panicked.join().is_err());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.panicked, stats.permits_in_use),
        (1, 1, 0)
    );
    assert_eq!(bulkhead.execute_sync(|| Answer::Ok(1)), Ok(1));
}
