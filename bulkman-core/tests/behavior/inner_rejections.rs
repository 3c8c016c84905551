//! Rejections by an inner bulkhead or circuit, which are no failures of the outer one.

use std::error::Error;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::pin;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::call::{IgnoreBoxedRejections, IgnoreRejections};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreaker, CircuitBreakerConfig};

use crate::harness::Harness;
use crate::operations::Answer;

on_every_runtime![
    inner_rejections_are_ignored_by_every_kind_of_call,
    every_kind_of_inner_rejection_is_ignored,
    inner_rejection_of_a_circuit_alone_is_ignored,
    converted_inner_rejections_are_ignored_on_request,
    failure_after_an_inner_rejection_is_a_failure,
];

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
