//! Cancellation: every behavior of the operation in every phase of the call.
//!
//! In each case the permit is released, the queue is empty, every call is counted once, and the
//! next call runs.

use std::future::pending;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bulkman::bulkhead::BulkheadStats;
use bulkman::error::TimeoutPhase;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
use futures_lite::future::yield_now;

use crate::harness::{Harness, poll_once};
use crate::operations::{Answer, Outcome, blocking_work};

const SECOND: Duration = Duration::from_secs(1);

/// What the operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behavior {
    Ready,
    Error,
    /// Completes at its third poll.
    Slow,
    Never,
}

macro_rules! product {
    ($($phase:ident: $($name:ident $behavior:ident),+;)+) => {
        $($(
            async fn $name(t: Harness) {
                $phase(t, Behavior::$behavior).await;
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

fn bulkhead(t: &Harness) -> Bulkhead {
    t.bulkhead(
        BulkheadConfig::new("files")
            .max_concurrent_calls(1)
            .run_timeout(SECOND),
    )
}

async fn operation_with(behavior: Behavior) -> Answer {
    match behavior {
        Behavior::Ready => Ok(1),
        Behavior::Error => Err("broken"),
        Behavior::Slow => {
            yield_now().await;
            yield_now().await;
            Ok(1)
        }
        Behavior::Never => pending().await,
    }
}

/// The call is dropped while it waits, so the operation is never polled.
async fn queue(t: Harness, behavior: Behavior) {
    let bulkhead = bulkhead(&t);
    let permit = bulkhead.try_acquire().unwrap();
    let mut polled = false;
    {
        let operation = async {
            polled = true;
            operation_with(behavior).await
        };
        let mut call = Box::pin(bulkhead.execute(operation));
        for _ in 0..3 {
            assert!(poll_once(call.as_mut()).is_pending());
        }
    }
    assert!(!polled);
    permit.succeed();
    assert_nothing_left(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled, stats.cancelled_in_queue) == (1, 0, 1)
    })
    .await;
}

/// The call is dropped after its first poll, at which it may have completed.
async fn operation(t: Harness, behavior: Behavior) {
    let bulkhead = bulkhead(&t);
    let mut call = Box::pin(bulkhead.execute(operation_with(behavior)));
    check_first(behavior, poll_once(call.as_mut()));
    drop(call);
    let ended = [Behavior::Ready, Behavior::Error].contains(&behavior);
    assert_nothing_left(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled) == (1, u64::from(!ended))
            && (stats.successful, stats.failed)
                == (
                    u64::from(behavior == Behavior::Ready),
                    u64::from(behavior == Behavior::Error),
                )
    })
    .await;
}

/// The deadline has passed at the second poll, so the call has completed or timed out when it is
/// dropped.
async fn timeout(t: Harness, behavior: Behavior) {
    let bulkhead = bulkhead(&t);
    let mut call = Box::pin(bulkhead.execute(operation_with(behavior)));
    check_first(behavior, poll_once(call.as_mut()));
    if matches!(behavior, Behavior::Slow | Behavior::Never) {
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
    assert_nothing_left(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled, stats.successful)
            == (1, 0, u64::from(behavior == Behavior::Ready))
            && stats.timed_out_running
                == u64::from(matches!(behavior, Behavior::Slow | Behavior::Never))
    })
    .await;
}

/// The call is dropped while its closure runs. The closure keeps the permit until it ends, and its
/// outcome counts.
async fn blocking(t: Harness, behavior: Behavior) {
    let bulkhead = bulkhead(&t);
    let (control, operation) = blocking_work();
    let mut call = Box::pin(bulkhead.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    drop(call);
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    let failed = match behavior {
        Behavior::Ready => {
            control.succeed();
            false
        }
        Behavior::Error => {
            control.fail();
            true
        }
        Behavior::Slow => {
            // After the timeout, which has no caller any more.
            t.advance(2 * SECOND).await;
            assert_eq!(bulkhead.stats().permits_in_use, 1);
            control.succeed();
            false
        }
        Behavior::Never => {
            t.advance(1000 * SECOND).await;
            assert_eq!(
                (bulkhead.stats().permits_in_use, bulkhead.stats().active),
                (1, 1)
            );
            // Ends the thread at the end of the test.
            drop(control);
            true
        }
    };
    t.until(|| bulkhead.stats().permits_in_use == 0).await;
    assert_nothing_left(&t, &bulkhead, |stats| {
        (stats.started, stats.cancelled) == (1, 0)
            && (stats.successful, stats.failed) == (u64::from(!failed), u64::from(failed))
    })
    .await;
}

#[track_caller]
fn check_first(behavior: Behavior, polled: Poll<Outcome>) {
    match (behavior, polled) {
        (Behavior::Ready, Poll::Ready(Ok(1)))
        | (Behavior::Slow | Behavior::Never, Poll::Pending) => {}
        (Behavior::Error, Poll::Ready(Err(BulkheadError::Operation("broken")))) => {}
        (behavior, polled) => panic!("{behavior:?}: {polled:?}"),
    }
}

/// Asserts that the call has left nothing but the expected counts.
fn assert_nothing_left<'a>(
    t: &'a Harness,
    bulkhead: &'a Bulkhead,
    has_counted: impl Fn(&BulkheadStats) -> bool + 'a,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move {
        let stats = bulkhead.stats();
        assert!(has_counted(&stats), "{stats:?}");
        assert_eq!(
            (stats.active, stats.waiting, stats.permits_in_use),
            (0, 0, 0),
            "{stats:?}"
        );
        t.succeed(bulkhead, 1).await;
        // No timer of the dropped call fires.
        t.advance(10 * SECOND).await;
        let (control, running) = t.running(bulkhead).await;
        let (_never, queued) = t.waiting(bulkhead).await;
        queued.cancel().await;
        control.succeed();
        assert_eq!(running.await, Ok(1));
    })
}
