//! A caller that goes away: what is being done x where the call is.
//!
//! Whatever it was, nothing is left behind: the permit is free, the queue empty, every call
//! counted once, and the next one runs.

use std::future::pending;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bulkman::bulkhead::BulkheadStats;
use bulkman::error::TimeoutPhase;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
use futures_lite::future::yield_now;

use crate::stage::{Stage, poll_once};
use crate::work::{Answer, Outcome, blocking_work};

const SECOND: Duration = Duration::from_secs(1);

/// What the operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Ready,
    Error,
    /// Is ready at its third poll.
    Slow,
    Never,
}

macro_rules! product {
    ($($place:ident: $($name:ident $does:ident),+;)+) => {
        $($(
            async fn $name(t: Stage) {
                $place(t, Does::$does).await;
            }
        )+)+
        on_every_runtime![$($($name),+),+];
    };
}

product! {
    queue: queue_ready Ready, queue_error Error, queue_slow Slow, queue_never Never;
    operation: operation_ready Ready, operation_error Error, operation_slow Slow, operation_never Never;
    timeout: timeout_ready Ready, timeout_error Error, timeout_slow Slow, timeout_never Never;
    blocking: blocking_ready Ready, blocking_error Error, blocking_slow Slow, blocking_never Never;
}

fn bulkhead(t: &Stage) -> Bulkhead {
    t.bulkhead(
        BulkheadConfig::new("files")
            .max_concurrent_calls(1)
            .run_timeout(SECOND),
    )
}

async fn operation_that(does: Does) -> Answer {
    match does {
        Does::Ready => Ok(1),
        Does::Error => Err("broken"),
        Does::Slow => {
            yield_now().await;
            yield_now().await;
            Ok(1)
        }
        Does::Never => pending().await,
    }
}

/// Dropped while it waits: the operation is never polled.
async fn queue(t: Stage, does: Does) {
    let bulkhead = bulkhead(&t);
    let permit = bulkhead.try_acquire().unwrap();
    let mut polled = false;
    {
        let operation = async {
            polled = true;
            operation_that(does).await
        };
        let mut call = Box::pin(bulkhead.execute(operation));
        for _ in 0..3 {
            assert!(poll_once(call.as_mut()).is_pending());
        }
    }
    assert!(!polled);
    permit.succeed();
    leaves_nothing(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled, stats.cancelled_in_queue) == (1, 0, 1)
    })
    .await;
}

/// Dropped after its first poll, or when it has ended before.
async fn operation(t: Stage, does: Does) {
    let bulkhead = bulkhead(&t);
    let mut call = Box::pin(bulkhead.execute(operation_that(does)));
    check_first(does, poll_once(call.as_mut()));
    drop(call);
    let ended = [Does::Ready, Does::Error].contains(&does);
    leaves_nothing(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled) == (1, u64::from(!ended))
            && (stats.successful, stats.failed)
                == (
                    u64::from(does == Does::Ready),
                    u64::from(does == Does::Error),
                )
    })
    .await;
}

/// Its time is over when it is looked at again: it ends by itself, or by its timeout, and is
/// dropped after that.
async fn timeout(t: Stage, does: Does) {
    let bulkhead = bulkhead(&t);
    let mut call = Box::pin(bulkhead.execute(operation_that(does)));
    check_first(does, poll_once(call.as_mut()));
    if matches!(does, Does::Slow | Does::Never) {
        t.advance(SECOND).await;
        let late = poll_once(call.as_mut());
        let timed_out = matches!(
            late,
            Poll::Ready(Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }))
        );
        assert!(timed_out, "{late:?}");
    }
    drop(call);
    leaves_nothing(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled, stats.successful) == (1, 0, u64::from(does == Does::Ready))
            && stats.timed_out_running == u64::from(matches!(does, Does::Slow | Does::Never))
    })
    .await;
}

/// Dropped while its closure runs: the permit is the closure's until it ends, and its outcome
/// counts.
async fn blocking(t: Stage, does: Does) {
    let bulkhead = bulkhead(&t);
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_begun()).await;
    drop(call);
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    let failed = match does {
        Does::Ready => {
            control.succeed();
            false
        }
        Does::Error => {
            control.fail();
            true
        }
        Does::Slow => {
            // Beyond the timeout: nobody is there to be told.
            t.advance(2 * SECOND).await;
            assert_eq!(bulkhead.stats().permits_in_use, 1);
            control.succeed();
            false
        }
        Does::Never => {
            t.advance(1000 * SECOND).await;
            assert_eq!(
                (bulkhead.stats().permits_in_use, bulkhead.stats().active),
                (1, 1)
            );
            // A thread can't be left running for ever; this is the end of the test.
            drop(control);
            true
        }
    };
    t.until(|| bulkhead.stats().permits_in_use == 0).await;
    leaves_nothing(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled) == (1, 0)
            && (stats.successful, stats.failed) == (u64::from(!failed), u64::from(failed))
    })
    .await;
}

#[track_caller]
fn check_first(does: Does, polled: Poll<Outcome>) {
    match (does, polled) {
        (Does::Ready, Poll::Ready(Ok(1))) | (Does::Slow | Does::Never, Poll::Pending) => {}
        (Does::Error, Poll::Ready(Err(BulkheadError::Operation("broken")))) => {}
        (does, polled) => panic!("{does:?}: {polled:?}"),
    }
}

/// Everything is as if the call had never been, but for the counters.
fn leaves_nothing<'a>(
    t: &'a Stage,
    bulkhead: &'a Bulkhead,
    counted: impl Fn(&BulkheadStats) -> bool + 'a,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move {
        let stats = bulkhead.stats();
        assert!(counted(&stats), "{stats:?}");
        assert_eq!(
            (stats.active, stats.waiting, stats.permits_in_use),
            (0, 0, 0),
            "{stats:?}"
        );
        t.succeed(bulkhead, 1).await;
        // No timer of the dead call's goes off.
        t.advance(10 * SECOND).await;
        let (control, running) = t.running(bulkhead).await;
        let (_never, queued) = t.waiting(bulkhead).await;
        queued.cancel().await;
        control.succeed();
        assert_eq!(running.await, Ok(1));
    })
}
