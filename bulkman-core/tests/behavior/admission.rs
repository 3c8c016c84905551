//! Admission of calls, and their results.

use std::error::Error;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::call::WithBulkhead;
use bulkman::error::TimeoutPhase;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Outcome};
use futures_lite::FutureExt as _;
use futures_lite::future::yield_now;

use crate::harness::{Harness, now_or_never};
use crate::operations::{Answer, ConcurrencyCounter};

on_every_runtime![
    returns_the_result_of_the_operation,
    operation_error_keeps_its_source,
    concurrency_limit_holds,
    rejects_immediately_without_a_queue,
    panic_releases_the_permit_and_propagates,
    panic_in_classifier_counts_as_panic_of_operation,
    full_rejections_do_not_count_as_failures,
    operation_is_dropped_before_its_permit_is_released,
    permit_records_each_outcome,
    try_acquire_never_waits,
    wrap_applies_the_limits_of_the_bulkhead,
    classifier_decides_the_outcome,
    classifier_can_call_its_own_bulkhead,
    report_contains_queue_and_run_times,
    nested_call_on_one_permit_times_out,
];

async fn returns_the_result_of_the_operation(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users"));
    assert_eq!(
        bulkhead.execute(async { Ok::<_, ()>("found") }).await,
        Ok("found")
    );
    let later = async {
        yield_now().await;
        Ok::<_, ()>(String::from("found later"))
    };
    assert_eq!(bulkhead.execute(later).await.unwrap(), "found later");
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn operation_error_keeps_its_source(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users"));
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "no such user");
    let error = bulkhead
        .execute(async { Err::<(), _>(missing()) })
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "operation failed");
    assert_eq!(error.source().unwrap().to_string(), "no such user");
    assert!(!error.is_rejection());
    assert_eq!(
        error.into_operation().unwrap().kind(),
        std::io::ErrorKind::NotFound
    );
}

/// Hazard H37.
async fn concurrency_limit_holds(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(3));
    let concurrency = ConcurrencyCounter::default();
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let (bulkhead, concurrency) = (bulkhead.clone(), concurrency.clone());
            t.spawn(async move {
                let operation = async {
                    let _inside = concurrency.enter();
                    for _ in 0..i % 4 {
                        yield_now().await;
                    }
                    Ok::<_, ()>(i)
                };
                bulkhead.execute(operation).await
            })
        })
        .collect();
    for (i, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await, Ok(i));
    }
    assert!(
        (1..=3).contains(&concurrency.max()),
        "{} ran concurrently",
        concurrency.max()
    );
    assert_eq!(bulkhead.stats().successful, 50);
}

/// Hazard H39b.
async fn rejects_immediately_without_a_queue(t: Harness) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .max_queue_size(0),
    );
    let (control, running) = t.running(&bulkhead).await;
    let rejected = now_or_never(bulkhead.execute(async { Answer::Ok(0) })).unwrap_err();
    let BulkheadError::Full {
        bulkhead: name,
        max_concurrent_calls: 1,
        max_queue_size: 0,
        ..
    } = &rejected
    else {
        panic!("{rejected:?}");
    };
    assert_eq!(name.as_str(), "users");
    assert!(rejected.is_rejection() && rejected.retry_after().is_none());
    assert_eq!(
        rejected.to_string(),
        r#"bulkhead "users" is full: at most 1 running and 0 queued calls"#
    );
    control.succeed();
    assert_eq!(running.await, Ok(1));
    // The permit was released.
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H34.
async fn panic_releases_the_permit_and_propagates(t: Harness) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .failure_threshold(3),
    );
    for panicked in 1..=3 {
        let call = bulkhead.execute(async { panic!("a bug in the operation") as Answer });
        let panic = AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
        assert_eq!(
            *panic.downcast_ref::<&str>().unwrap(),
            "a bug in the operation"
        );
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.failed, stats.panicked, stats.active),
            (panicked, panicked, 0)
        );
        assert_eq!(stats.permits_in_use, 0);
    }
    // A panic is a failure of the dependency: the third one opened the circuit.
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

/// Hazard H34.
async fn panic_in_classifier_counts_as_panic_of_operation(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(1));
    let classifier = |_: &Answer| -> Outcome { panic!("unexpected result") };
    let call = bulkhead
        .call()
        .classify(classifier)
        .execute(async { Ok(1) });
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.panicked, stats.permits_in_use),
        (1, 1, 0)
    );
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H86.
async fn full_rejections_do_not_count_as_failures(t: Harness) {
    let config = BulkheadConfig::new("users")
        .max_concurrent_calls(1)
        .max_queue_size(0);
    let bulkhead = t.bulkhead(config.failure_threshold(1));
    let (control, running) = t.running(&bulkhead).await;
    for _ in 0..100 {
        let rejected = bulkhead.execute(async { Answer::Ok(0) }).await.unwrap_err();
        assert!(matches!(rejected, BulkheadError::Full { .. }));
    }
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    control.succeed();
    running.await.unwrap();
    assert_eq!(bulkhead.stats().rejected.full, 100);
    assert_eq!(bulkhead.stats().failed, 0);
}

/// An operation holds its connection until it is dropped, so its permit is released only then.
async fn operation_is_dropped_before_its_permit_is_released(t: Harness) {
    struct ChecksPermit(Bulkhead, bool);

    impl Future for ChecksPermit {
        type Output = Answer;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
            if self.1 {
                Poll::Ready(Ok(1))
            } else {
                Poll::Pending
            }
        }
    }

    impl Drop for ChecksPermit {
        fn drop(&mut self) {
            assert_eq!(
                self.0.stats().permits_in_use,
                1,
                "the permit was released before the operation was dropped"
            );
        }
    }

    let bulkhead = t.bulkhead(BulkheadConfig::new("users").run_timeout(Duration::from_secs(1)));
    // The operation completes.
    assert_eq!(
        bulkhead.execute(ChecksPermit(bulkhead.clone(), true)).await,
        Ok(1)
    );
    // The call is cancelled.
    let cancelled = t.spawn({
        let bulkhead = bulkhead.clone();
        async move {
            bulkhead
                .execute(ChecksPermit(bulkhead.clone(), false))
                .await
        }
    });
    t.until(|| bulkhead.stats().active == 1).await;
    cancelled.cancel().await;
    // The call times out.
    let late = t.spawn({
        let bulkhead = bulkhead.clone();
        async move {
            bulkhead
                .execute(ChecksPermit(bulkhead.clone(), false))
                .await
        }
    });
    t.until(|| bulkhead.stats().active == 1).await;
    t.advance(Duration::from_secs(1)).await;
    assert!(matches!(
        late.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
}

async fn permit_records_each_outcome(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(1));
    bulkhead.acquire().await.unwrap().succeed();
    bulkhead.acquire().await.unwrap().fail();
    bulkhead.acquire().await.unwrap().ignore();
    bulkhead.acquire().await.unwrap().record(Outcome::Success);
    drop(bulkhead.acquire().await.unwrap());
    let permit = bulkhead.acquire().await.unwrap();
    assert_eq!(permit.bulkhead().name().as_str(), "users");
    let elsewhere = t.spawn(async move { permit.succeed() });
    elsewhere.await;
    let stats = bulkhead.stats();
    assert_eq!(
        (
            stats.successful,
            stats.failed,
            stats.ignored,
            stats.cancelled
        ),
        (3, 1, 1, 1)
    );
}

async fn try_acquire_never_waits(t: Harness) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .max_queue_size(9),
    );
    let permit = bulkhead.try_acquire().unwrap();
    assert!(matches!(
        bulkhead.try_acquire().unwrap_err(),
        BulkheadError::Full { .. }
    ));
    assert_eq!(bulkhead.stats().peak_waiting, 0);
    permit.succeed();
    bulkhead.try_acquire().unwrap().succeed();
}

async fn wrap_applies_the_limits_of_the_bulkhead(t: Harness) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .max_queue_size(0),
    );
    let half =
        bulkhead.wrap(|n: u32| async move { if n % 2 == 0 { Ok(n / 2) } else { Err("odd") } });
    assert_eq!(half(8).await, Ok(4));
    assert_eq!(half(7).await.unwrap_err().into_operation(), Some("odd"));
    assert_eq!(
        async { Answer::Ok(5) }.with_bulkhead(&bulkhead).await,
        Ok(5)
    );
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.failed), (2, 1));
    // The limit of the bulkhead applies.
    let permit = bulkhead.try_acquire().unwrap();
    assert!(matches!(half(2).await, Err(BulkheadError::Full { .. })));
    let rejected = async { Answer::Ok(5) }.with_bulkhead(&bulkhead).await;
    assert!(matches!(rejected, Err(BulkheadError::Full { .. })));
    drop(permit);
}

async fn classifier_decides_the_outcome(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").failure_threshold(2));
    let classifier = |result: &Result<u16, &str>| match result {
        Ok(status) if *status >= 500 => Outcome::Failure,
        Err("not found") => Outcome::Ignored,
        Err(_) => Outcome::Failure,
        Ok(_) => Outcome::Success,
    };
    let users = bulkhead.classified(classifier);
    for _ in 0..10 {
        assert!(users.execute(async { Err("not found") }).await.is_err());
    }
    assert_eq!(users.execute(async { Ok(200) }).await, Ok(200));
    // A response can count as a failure. It is returned all the same.
    assert_eq!(users.execute(async { Ok(503) }).await, Ok(503));
    assert_eq!(
        bulkhead
            .call()
            .classify(classifier)
            .execute(async { Ok(500) })
            .await,
        Ok(500)
    );
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.failed, stats.ignored), (1, 2, 10));
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

async fn classifier_can_call_its_own_bulkhead(t: Harness) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(2)
            .failure_threshold(1),
    );
    let inside = bulkhead.clone();
    let classifier = move |_: &Answer| {
        let inner = now_or_never(inside.execute(async { Answer::Err("inner") }));
        assert_eq!(inner.unwrap_err().into_operation(), Some("inner"));
        assert_eq!(inside.state(), BulkheadState::Isolated);
        inside.circuit_breaker().unwrap().close();
        inside.reset_stats();
        inside
            .reconfigure(inside.config().max_concurrent_calls(3))
            .unwrap();
        Outcome::Success
    };
    assert_eq!(
        bulkhead
            .call()
            .classify(classifier)
            .execute(async { Ok(1) })
            .await,
        Ok(1)
    );
    assert_eq!(bulkhead.stats().successful, 1);
}

async fn report_contains_queue_and_run_times(t: Harness) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(1));
    let (control, running) = t.running(&bulkhead).await;
    let (second, operation) = crate::operations::work();
    let reporting = {
        let bulkhead = bulkhead.clone();
        t.spawn(async move { bulkhead.call().execute_with_report(operation).await })
    };
    t.until(|| bulkhead.stats().waiting == 1).await;
    t.advance(Duration::from_millis(300)).await;
    control.succeed();
    running.await.unwrap();
    t.until(|| second.has_started()).await;
    t.advance(Duration::from_millis(50)).await;
    second.fail();
    let report = reporting.await;
    assert_eq!(report.result.unwrap_err().into_operation(), Some("failed"));
    assert_eq!(
        (report.queued, report.ran),
        (Duration::from_millis(300), Duration::from_millis(50))
    );
    assert_eq!(report.bulkhead.as_str(), "users");
    let next = bulkhead
        .call()
        .execute_with_report(async { Answer::Ok(2) })
        .await;
    assert_eq!(
        (next.result, next.queued, next.ran),
        (Ok(2), Duration::ZERO, Duration::ZERO)
    );
    assert_ne!(next.id, report.id);
    // A rejected call has not run.
    bulkhead.circuit_breaker().unwrap().force_open();
    let rejected = bulkhead
        .call()
        .execute_with_report(async { Answer::Ok(2) })
        .await;
    assert!(rejected.result.is_err());
    assert_eq!(rejected.ran, Duration::ZERO);
}

/// Hazard P15.
async fn nested_call_on_one_permit_times_out(t: Harness) {
    let limit = Duration::from_secs(1);
    let one = |config: BulkheadConfig| t.bulkhead(config.max_concurrent_calls(1));
    for bulkhead in [
        one(BulkheadConfig::new("max_wait").max_wait(limit)),
        one(BulkheadConfig::new("timeout").timeout(limit)),
    ] {
        let nested = t.spawn({
            let bulkhead = bulkhead.clone();
            async move {
                let inner = async {
                    bulkhead
                        .execute(pending::<Answer>())
                        .await
                        .map_err(|_| "inner")
                };
                bulkhead.execute(inner).await
            }
        });
        t.until(|| bulkhead.stats().waiting == 1).await;
        t.advance(limit).await;
        let ended = nested.await.unwrap_err();
        let by_inner = matches!(ended, BulkheadError::Operation("inner"));
        let by_outer = matches!(
            ended,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }
        );
        assert!(by_inner || by_outer, "{ended:?}");
        t.succeed(&bulkhead, 1).await;
    }
}
