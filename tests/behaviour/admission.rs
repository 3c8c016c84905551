//! Who gets in, and how a call ends.

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

use crate::stage::{Stage, now_or_never};
use crate::work::{Answer, Crowd};

on_every_runtime![
    a_result_passes_through,
    an_error_is_wrapped_and_keeps_its_cause,
    the_limit_holds,
    without_a_queue_full_is_said_at_once,
    a_panic_frees_its_permit_and_goes_on,
    a_panicking_classifier_is_a_panicking_operation,
    a_full_bulkhead_says_nothing_about_the_dependency,
    an_operation_is_gone_before_its_permit_is_free,
    a_permit_is_told_how_it_ended,
    try_acquire_never_waits,
    wrapped_functions_go_through_the_bulkhead,
    a_classifier_decides_what_counts,
    a_classifier_may_use_the_bulkhead,
    a_report_tells_the_times,
    a_nested_call_on_one_slot_ends_by_its_limit,
];

async fn a_result_passes_through(t: Stage) {
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

async fn an_error_is_wrapped_and_keeps_its_cause(t: Stage) {
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
async fn the_limit_holds(t: Stage) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(3));
    let crowd = Crowd::default();
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let (bulkhead, crowd) = (bulkhead.clone(), crowd.clone());
            t.spawn(async move {
                let operation = async {
                    let _inside = crowd.enter();
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
    assert!((1..=3).contains(&crowd.most()), "{} at once", crowd.most());
    assert_eq!(bulkhead.stats().successful, 50);
}

/// Hazard H39b.
async fn without_a_queue_full_is_said_at_once(t: Stage) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .max_queue_size(0),
    );
    let (control, running) = t.running(&bulkhead).await;
    let refused = now_or_never(bulkhead.execute(async { Answer::Ok(0) })).unwrap_err();
    let BulkheadError::Full {
        bulkhead: name,
        max_concurrent_calls: 1,
        max_queue_size: 0,
        ..
    } = &refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(name.as_str(), "users");
    assert!(refused.is_rejection() && refused.retry_after().is_none());
    assert_eq!(
        refused.to_string(),
        r#"bulkhead "users" is full: 1 running, room for 0 waiting"#
    );
    control.succeed();
    assert_eq!(running.await, Ok(1));
    // The permit is back.
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H34.
async fn a_panic_frees_its_permit_and_goes_on(t: Stage) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(1)
            .failure_threshold(3),
    );
    for panicked in 1..=3 {
        let call = bulkhead.execute(async { panic!("a bug of the user's") as Answer });
        let panic = AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
        assert_eq!(
            *panic.downcast_ref::<&str>().unwrap(),
            "a bug of the user's"
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
async fn a_panicking_classifier_is_a_panicking_operation(t: Stage) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(1));
    let judge = |_: &Answer| -> Outcome { panic!("can't tell") };
    let call = bulkhead.call().classify(judge).execute(async { Ok(1) });
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.panicked, stats.permits_in_use),
        (1, 1, 0)
    );
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H86.
async fn a_full_bulkhead_says_nothing_about_the_dependency(t: Stage) {
    let config = BulkheadConfig::new("users")
        .max_concurrent_calls(1)
        .max_queue_size(0);
    let bulkhead = t.bulkhead(config.failure_threshold(1));
    let (control, running) = t.running(&bulkhead).await;
    for _ in 0..100 {
        let refused = bulkhead.execute(async { Answer::Ok(0) }).await.unwrap_err();
        assert!(matches!(refused, BulkheadError::Full { .. }));
    }
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    control.succeed();
    running.await.unwrap();
    assert_eq!(bulkhead.stats().rejected.full, 100);
    assert_eq!(bulkhead.stats().failed, 0);
}

/// "At most n at once" is about operations, and an operation holds its connection until it is
/// dropped.
async fn an_operation_is_gone_before_its_permit_is_free(t: Stage) {
    struct Looks(Bulkhead, bool);

    impl Future for Looks {
        type Output = Answer;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
            if self.1 {
                Poll::Ready(Ok(1))
            } else {
                Poll::Pending
            }
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            assert_eq!(
                self.0.stats().permits_in_use,
                1,
                "the permit is free before the operation is gone"
            );
        }
    }

    let bulkhead = t.bulkhead(BulkheadConfig::new("users").run_timeout(Duration::from_secs(1)));
    // It ends,
    assert_eq!(bulkhead.execute(Looks(bulkhead.clone(), true)).await, Ok(1));
    // it is cancelled,
    let cancelled = t.spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.execute(Looks(bulkhead.clone(), false)).await }
    });
    t.until(|| bulkhead.stats().active == 1).await;
    cancelled.cancel().await;
    // or it times out.
    let late = t.spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.execute(Looks(bulkhead.clone(), false)).await }
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

async fn a_permit_is_told_how_it_ended(t: Stage) {
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

async fn try_acquire_never_waits(t: Stage) {
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

async fn wrapped_functions_go_through_the_bulkhead(t: Stage) {
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
    // The limit is that of the bulkhead.
    let permit = bulkhead.try_acquire().unwrap();
    assert!(matches!(half(2).await, Err(BulkheadError::Full { .. })));
    let refused = async { Answer::Ok(5) }.with_bulkhead(&bulkhead).await;
    assert!(matches!(refused, Err(BulkheadError::Full { .. })));
    drop(permit);
}

async fn a_classifier_decides_what_counts(t: Stage) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").failure_threshold(2));
    let judge = |result: &Result<u16, &str>| match result {
        Ok(status) if *status >= 500 => Outcome::Failure,
        Err("not found") => Outcome::Ignored,
        Err(_) => Outcome::Failure,
        Ok(_) => Outcome::Success,
    };
    let users = bulkhead.classified(judge);
    for _ in 0..10 {
        assert!(users.execute(async { Err("not found") }).await.is_err());
    }
    assert_eq!(users.execute(async { Ok(200) }).await, Ok(200));
    // An answer may be a failure all the same; it is passed on.
    assert_eq!(users.execute(async { Ok(503) }).await, Ok(503));
    assert_eq!(
        bulkhead
            .call()
            .classify(judge)
            .execute(async { Ok(500) })
            .await,
        Ok(500)
    );
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.failed, stats.ignored), (1, 2, 10));
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

async fn a_classifier_may_use_the_bulkhead(t: Stage) {
    let bulkhead = t.bulkhead(
        BulkheadConfig::new("users")
            .max_concurrent_calls(2)
            .failure_threshold(1),
    );
    let asks = bulkhead.clone();
    let judge = move |_: &Answer| {
        let inner = now_or_never(asks.execute(async { Answer::Err("inner") }));
        assert_eq!(inner.unwrap_err().into_operation(), Some("inner"));
        assert_eq!(asks.state(), BulkheadState::Isolated);
        asks.circuit_breaker().unwrap().close();
        asks.reset_stats();
        asks.reconfigure(asks.config().max_concurrent_calls(3))
            .unwrap();
        Outcome::Success
    };
    assert_eq!(
        bulkhead
            .call()
            .classify(judge)
            .execute(async { Ok(1) })
            .await,
        Ok(1)
    );
    assert_eq!(bulkhead.stats().successful, 1);
}

async fn a_report_tells_the_times(t: Stage) {
    let bulkhead = t.bulkhead(BulkheadConfig::new("users").max_concurrent_calls(1));
    let (control, running) = t.running(&bulkhead).await;
    let (second, operation) = crate::work::work();
    let reporting = {
        let bulkhead = bulkhead.clone();
        t.spawn(async move { bulkhead.call().execute_with_report(operation).await })
    };
    t.until(|| bulkhead.stats().waiting == 1).await;
    t.advance(Duration::from_millis(300)).await;
    control.succeed();
    running.await.unwrap();
    t.until(|| second.has_begun()).await;
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
    // One that is refused has run for no time.
    bulkhead.circuit_breaker().unwrap().force_open();
    let refused = bulkhead
        .call()
        .execute_with_report(async { Answer::Ok(2) })
        .await;
    assert!(refused.result.is_err());
    assert_eq!(refused.ran, Duration::ZERO);
}

/// Hazard P15.
async fn a_nested_call_on_one_slot_ends_by_its_limit(t: Stage) {
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
