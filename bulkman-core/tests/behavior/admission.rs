//! Admission of calls, and their results.

use std::error::Error;
use std::future::{Future, pending, poll_fn, ready};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::call::{IgnoreBoxedRejections, IgnoreRejections, WithBulkhead};
use bulkman::error::TimeoutPhase;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, CircuitBreaker, CircuitBreakerConfig, Outcome,
};
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
    inner_rejections_are_ignored_by_every_kind_of_call,
    every_kind_of_inner_rejection_is_ignored,
    inner_rejection_of_a_circuit_alone_is_ignored,
    converted_inner_rejections_are_ignored_on_request,
    failure_after_an_inner_rejection_is_a_failure,
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

fn region(t: &Harness) -> Bulkhead {
    t.bulkhead(BulkheadConfig::new("region").failure_threshold(1))
}

/// Returns a bulkhead that rejects every call.
fn isolated_host(t: &Harness) -> Bulkhead {
    let host = t.bulkhead(BulkheadConfig::new("host"));
    let circuit = host.circuit_breaker().unwrap();
    circuit.open_for(Duration::from_secs(20));
    host
}

#[track_caller]
fn assert_ignored(region: &Bulkhead, ignored: u64) {
    let stats = region.stats();
    assert_eq!((stats.ignored, stats.failed), (ignored, 0));
    assert_eq!(region.state(), BulkheadState::Healthy);
}

/// Fault F03, D11, API10.
async fn inner_rejections_are_ignored_by_every_kind_of_call(t: Harness) {
    let (region, host) = (region(&t), isolated_host(&t));
    let rejected = region.execute(host.execute(async { Answer::Ok(1) })).await;
    let rejected = rejected.map_err(BulkheadError::flatten).unwrap_err();
    assert!(rejected.is_rejection());
    assert_eq!(rejected.http_status(), 503);
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(20)));
    assert_ignored(&region, 1);

    assert!(
        region
            .execute_sync(|| host.execute_sync(|| Answer::Ok(1)))
            .is_err()
    );
    assert_ignored(&region, 2);

    let inner = host.clone();
    let blocking = region.execute_blocking(move || inner.execute_sync(|| Answer::Ok(1)));
    assert!(blocking.await.is_err());
    assert_ignored(&region, 3);

    let acquired = region
        .execute(async { host.acquire().await.map(drop) })
        .await;
    assert!(acquired.is_err());
    assert_ignored(&region, 4);

    let zone = t.bulkhead(BulkheadConfig::new("zone"));
    let call = region
        .execute(zone.execute(host.execute(async { Answer::Ok(1) })))
        .await;
    let rejected = call.unwrap_err().flatten().flatten();
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(20)));
    assert_ignored(&region, 5);
    assert_ignored(&zone, 1);

    let boxed = async {
        host.execute(async { Answer::Ok(1) })
            .await
            .map_err(BulkheadError::boxed)
    };
    assert!(
        region
            .execute(boxed)
            .await
            .unwrap_err()
            .boxed()
            .is_rejection()
    );
    assert_ignored(&region, 6);

    // Boxed after another call has failed.
    let boxed_later = async {
        let rejected = host.execute(async { Answer::Ok(1) }).await.unwrap_err();
        let run = zone.call().run_timeout(Duration::ZERO);
        assert!(run.execute(pending::<Answer>()).await.is_err());
        Err::<u32, _>(rejected.boxed())
    };
    assert!(region.execute(boxed_later).await.is_err());
    assert_ignored(&region, 7);
}

/// Fault F03.
async fn every_kind_of_inner_rejection_is_ignored(t: Harness) {
    let region = region(&t);
    let config = BulkheadConfig::new("host")
        .max_concurrent_calls(1)
        .max_queue_size(1);
    let host = t.bulkhead(config);
    let busy = host.try_acquire().unwrap();
    let waits = host
        .call()
        .max_wait(Duration::ZERO)
        .execute(async { Answer::Ok(1) });
    assert!(region.execute(waits).await.is_err());
    assert_ignored(&region, 1);

    let (outer, inner) = (region.clone(), host.clone());
    let queued = t.spawn(async move {
        let wait = inner.call().max_wait(Duration::from_secs(1));
        outer.execute(wait.execute(async { Answer::Ok(1) })).await
    });
    t.until(|| host.stats().waiting == 1).await;
    t.advance(Duration::from_secs(1)).await;
    let timed_out = queued.await.unwrap_err().flatten();
    assert!(timed_out.is_rejection(), "{timed_out}");
    assert_ignored(&region, 2);

    // A timeout while running is a failure of the dependency.
    busy.succeed();
    let run = host.call().run_timeout(Duration::ZERO);
    let run = run.execute(pending::<Answer>());
    let tolerant = t.bulkhead(BulkheadConfig::new("tolerant"));
    assert!(
        !tolerant
            .execute(run)
            .await
            .unwrap_err()
            .flatten()
            .is_rejection()
    );
    assert_eq!(tolerant.stats().failed, 1);

    host.shutdown();
    assert!(
        region
            .execute(host.execute(async { Answer::Ok(1) }))
            .await
            .is_err()
    );
    assert_ignored(&region, 3);

    let manager = bulkman::BulkheadManager::new(t.runtime());
    let missing = manager.execute_in_bulkhead("none", async { Answer::Ok(1) });
    assert!(region.execute(missing).await.is_err());
    assert_ignored(&region, 4);

    // No thread starts the closure in time, and the last error before was a failure.
    t.occupy_blocking_threads();
    let disk = t.bulkhead(BulkheadConfig::new("disk").run_timeout(Duration::from_secs(1)));
    let other = t.bulkhead(BulkheadConfig::new("other").failure_threshold(1_000));
    let (outer, inner) = (region.clone(), disk.clone());
    let unstarted = t.spawn(async move {
        let mut read = inner.execute_blocking(|| Answer::Ok(1));
        let read_after_a_failure = poll_fn(|cx| {
            let down = BulkheadError::Operation("down");
            let failed = other.execute(ready(Err::<u32, _>(down)));
            assert!(pin!(failed).poll(cx).is_ready());
            pin!(&mut read).poll(cx)
        });
        outer.execute(read_after_a_failure).await
    });
    t.until(|| disk.stats().active == 1).await;
    t.advance(Duration::from_secs(1)).await;
    assert!(unstarted.await.unwrap_err().flatten().is_rejection());
    assert_ignored(&region, 5);
}

/// Fault F03.
async fn inner_rejection_of_a_circuit_alone_is_ignored(t: Harness) {
    let region = region(&t);
    let config = CircuitBreakerConfig::new().failure_threshold(1);
    let inner = CircuitBreaker::new("host", config.clone(), t.runtime()).unwrap();
    let outer = CircuitBreaker::new("region", config, t.runtime()).unwrap();
    inner.open();
    assert!(
        region
            .execute(inner.execute(async { Answer::Ok(1) }))
            .await
            .is_err()
    );
    assert!(
        region
            .execute(async { inner.try_acquire().map(drop) })
            .await
            .is_err()
    );
    assert_ignored(&region, 2);
    // A circuit alone around a bulkhead.
    let host = isolated_host(&t);
    assert!(
        region
            .execute(outer.execute(host.execute(async { Answer::Ok(1) })))
            .await
            .is_err()
    );
    assert_ignored(&region, 3);
    assert!(
        outer
            .execute(inner.execute(async { Answer::Ok(1) }))
            .await
            .is_err()
    );
    assert!(outer.is_closed());
}

/// Fault F03.
async fn converted_inner_rejections_are_ignored_on_request(t: Harness) {
    #[derive(Debug)]
    struct Wrapped(BulkheadError<std::fmt::Error>);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the host failed")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    let (region, host) = (region(&t), isolated_host(&t));
    let call = async || host.execute(async { Ok::<u32, std::fmt::Error>(1) }).await;
    let guarded = region.classified_by(IgnoreRejections);
    let converted = async { call().await.map_err(std::io::Error::other) };
    assert!(guarded.execute(converted).await.is_err());
    assert!(
        guarded
            .execute(async { call().await.map_err(Wrapped) })
            .await
            .is_err()
    );
    assert_ignored(&region, 2);

    let boxed = region.classified_by(IgnoreBoxedRejections);
    let converted = async { call().await.map_err(anyhow::Error::from) };
    assert!(boxed.execute(converted).await.is_err());
    let converted = async { call().await.map_err(eyre::Report::from) };
    assert!(boxed.execute(converted).await.is_err());
    let converted = async { call().await.map_err(Box::<dyn Error + Send + Sync>::from) };
    assert!(boxed.execute(converted).await.is_err());
    assert_ignored(&region, 5);

    let failed = async { Err::<(), _>(anyhow::anyhow!("down")) };
    assert!(boxed.execute(failed).await.is_err());
    assert_eq!(region.stats().failed, 1);
}

/// Fault F03.
async fn failure_after_an_inner_rejection_is_a_failure(t: Harness) {
    let (region, host) = (region(&t), isolated_host(&t));
    let working = t.bulkhead(BulkheadConfig::new("working").failure_threshold(100));
    // The operation falls back to another host, which fails.
    let falls_back = region.execute(async {
        match host.execute(async { Answer::Ok(1) }).await {
            Err(error) if error.is_rejection() => {
                working.execute(async { Answer::Err("down") }).await
            }
            result => result,
        }
    });
    assert!(!falls_back.await.unwrap_err().flatten().is_rejection());
    assert_eq!(region.stats().failed, 1);
    assert_eq!(region.state(), BulkheadState::Isolated);
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
