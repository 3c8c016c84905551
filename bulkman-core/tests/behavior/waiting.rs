//! The ends of a wait: a permit, a deadline, a cancellation, an open circuit.

use std::future::Future;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::CircuitState;
use bulkman::error::{RejectionReason, TimeoutPhase};
use bulkman::{BulkheadConfig, BulkheadError};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, Outcome, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    wait_ends_exactly_at_max_wait,
    timed_out_waiters_leak_no_permit,
    permit_released_at_the_deadline_goes_to_the_next_waiter,
    waiter_granted_in_time_keeps_its_permit_after_max_wait,
    granted_waiter_does_not_run_after_its_total_timeout,
    calls_that_timed_out_in_the_queue_never_run,
    waiters_past_their_deadline_are_skipped,
    cancelled_waiters_leave_the_queue_immediately,
    waiter_cancelled_after_its_grant_passes_the_permit_on,
    waiters_are_rejected_when_the_circuit_opens,
    waiters_are_rejected_when_the_circuit_is_forced_open,
    calls_wait_again_after_a_reset,
    timeout_in_the_queue_does_not_change_the_active_count,
    uncollected_permit_goes_to_the_next_call_at_the_deadline,
    uncollected_permit_goes_to_a_new_call_after_the_deadline,
    uncollected_permits_do_not_prevent_draining,
    uncollected_permits_are_forgotten_after_shrinking,
    every_waiter_may_leave_its_permit_uncollected,
    call_collects_its_permit_late_if_no_other_needs_it,
    uncollected_permit_of_every_kind_of_call_is_taken_back,
];

fn one() -> BulkheadConfig {
    BulkheadConfig::new("mail").max_concurrent_calls(1)
}

#[track_caller]
fn assert_timed_out_in_queue(error: &BulkheadError<impl std::fmt::Debug>, waited: Duration) {
    let BulkheadError::Timeout {
        phase: TimeoutPhase::Queued,
        queued,
        ran,
        bulkhead,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(
        (*queued, *ran, bulkhead.as_str()),
        (waited, Duration::ZERO, "mail")
    );
    assert!(error.is_rejection());
}

async fn wait_ends_exactly_at_max_wait(t: Harness) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND - Duration::from_millis(1)).await;
    assert!(!queued.is_finished());
    assert_eq!(bulkhead.stats().waiting, 1);
    t.advance(Duration::from_millis(1)).await;
    assert_timed_out_in_queue(&queued.await.unwrap_err(), SECOND);
    assert!(!never.has_started());
    assert_eq!(bulkhead.stats().waiting, 0);
    control.succeed();
    running.await.unwrap();
}

/// Hazard H30.
async fn timed_out_waiters_leak_no_permit(t: Harness) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    for _ in 0..3 {
        let (control, running) = t.running(&bulkhead).await;
        let (_never, queued) = t.waiting(&bulkhead).await;
        t.advance(SECOND).await;
        assert_timed_out_in_queue(&queued.await.unwrap_err(), SECOND);
        control.succeed();
        running.await.unwrap();
        assert_eq!(bulkhead.stats().permits_in_use, 0);
    }
    t.succeed(&bulkhead, 1).await;
}

/// At the deadline, the release runs before the timer of the waiter: the waiter has expired.
///
/// Hazard H36.
async fn permit_released_at_the_deadline_goes_to_the_next_waiter(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(first.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    t.advance(SECOND).await;
    permit.succeed();
    assert_timed_out_in_queue(&now_or_never(first).unwrap_err(), SECOND);
    now_or_never(next).unwrap().succeed();
}

/// Hazard H36.
async fn waiter_granted_in_time_keeps_its_permit_after_max_wait(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    t.advance(SECOND - Duration::from_millis(1)).await;
    permit.succeed();
    // The task is polled late, but the wait ended in time.
    t.advance(SECOND).await;
    now_or_never(waiter).unwrap().succeed();
}

async fn granted_waiter_does_not_run_after_its_total_timeout(t: Harness) {
    let bulkhead = t.bulkhead(one().timeout(SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (control, operation) = work();
    let mut waiter = Box::pin(bulkhead.execute(operation));
    assert!(poll_once(waiter.as_mut()).is_pending());
    permit.succeed();
    t.advance(2 * SECOND).await;
    assert_timed_out_in_queue(&now_or_never(waiter).unwrap_err(), 2 * SECOND);
    assert!(!control.has_started());
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H51.
async fn calls_that_timed_out_in_the_queue_never_run(t: Harness) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND).await;
    assert_timed_out_in_queue(&queued.await.unwrap_err(), SECOND);
    control.succeed();
    running.await.unwrap();
    t.succeed(&bulkhead, 1).await;
    assert!(!never.has_started());
    let stats = bulkhead.stats();
    assert_eq!((stats.started, stats.rejected.timed_out_in_queue), (2, 1));
}

async fn waiters_past_their_deadline_are_skipped(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut short = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(short.as_mut()).is_pending());
    let mut long = Box::pin(bulkhead.call().max_wait(3 * SECOND).acquire());
    assert!(poll_once(long.as_mut()).is_pending());
    t.advance(2 * SECOND).await;
    permit.succeed();
    now_or_never(long).unwrap().succeed();
    assert_timed_out_in_queue(&now_or_never(short).unwrap_err(), 2 * SECOND);
}

/// Hazard H32, H39a.
async fn cancelled_waiters_leave_the_queue_immediately(t: Harness) {
    let bulkhead = t.bulkhead(one().max_queue_size(1));
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    queued.cancel().await;
    assert_eq!(
        (
            bulkhead.stats().waiting,
            bulkhead.stats().cancelled_in_queue
        ),
        (0, 1)
    );
    // Another call waits instead, and gets the permit.
    let (second, next) = t.waiting(&bulkhead).await;
    control.succeed();
    running.await.unwrap();
    t.until(|| second.has_started()).await;
    second.succeed();
    assert_eq!(next.await, Ok(1));
    assert!(!never.has_started());
}

/// Hazard H33.
async fn waiter_cancelled_after_its_grant_passes_the_permit_on(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    permit.succeed();
    drop(granted);
    now_or_never(next).unwrap().succeed();
    // Without a next waiter, the permit becomes available.
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    permit.succeed();
    drop(granted);
    bulkhead.try_acquire().unwrap().succeed();
}

/// Hazard P03.
async fn waiters_are_rejected_when_the_circuit_opens(t: Harness) {
    let bulkhead = t.bulkhead(one().failure_threshold(1));
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Vec::new();
    for _ in 0..49 {
        queued.push(t.waiting(&bulkhead).await);
    }
    control.fail();
    assert!(running.await.is_err());
    for (never, call) in queued {
        let rejected = call.await.unwrap_err();
        let BulkheadError::CircuitOpen {
            reason: RejectionReason::Open,
            retry_after,
            ..
        } = rejected
        else {
            panic!("{rejected:?}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
        assert!(!never.has_started());
    }
    let stats = bulkhead.stats();
    assert_eq!((stats.started, stats.rejected.circuit.open), (1, 49));
}

/// The waiters are rejected while the permit is still held: this needs no release.
///
/// Hazard P03.
async fn waiters_are_rejected_when_the_circuit_is_forced_open(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    bulkhead.circuit_breaker().unwrap().force_open();
    let rejected = queued.await.unwrap_err();
    assert!(matches!(
        rejected,
        BulkheadError::CircuitOpen {
            reason: RejectionReason::ForcedOpen,
            retry_after: None,
            ..
        }
    ));
    assert!(!never.has_started() && !running.is_finished());
    control.succeed();
    // The running call is not affected.
    assert_eq!(running.await, Ok(1));
    assert_eq!(bulkhead.stats().rejected.circuit.forced_open, 1);
}

async fn calls_wait_again_after_a_reset(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let (control, running) = t.running(&bulkhead).await;
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.open();
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    circuit.close();
    assert_eq!(circuit.state(), CircuitState::Closed);
    let (second, queued) = t.waiting(&bulkhead).await;
    control.succeed();
    running.await.unwrap();
    second.succeed();
    assert_eq!(queued.await, Ok(1));
}

/// Hazard P07.
async fn timeout_in_the_queue_does_not_change_the_active_count(t: Harness) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (_never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND).await;
    assert!(queued.await.is_err());
    assert_eq!(bulkhead.stats().active, 1);
    control.succeed();
    running.await.unwrap();
    assert_eq!(bulkhead.stats().active, 0);
    // A call that is cancelled while it runs is no longer active.
    let (_never, running) = t.running(&bulkhead).await;
    assert_eq!(bulkhead.stats().active, 1);
    running.cancel().await;
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.active, stats.cancelled, stats.permits_in_use),
        (0, 1, 0)
    );
    assert!(bulkhead.execute(async { Answer::Ok(1) }).await.is_ok());
}

/// Returns a call that was granted a permit and is not polled any more.
///
/// Its deadline is in one second.
fn uncollected<'a>(
    bulkhead: &'a bulkman::Bulkhead,
    holder: bulkman::Permit,
) -> std::pin::Pin<Box<impl Future<Output = Outcome> + 'a>> {
    let call = bulkhead.call().timeout(SECOND);
    let mut idle = Box::pin(call.execute(async { Answer::Ok(1) }));
    assert!(poll_once(idle.as_mut()).is_pending());
    holder.succeed();
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.permits_in_use, stats.active, stats.waiting),
        (1, 0, 0)
    );
    idle
}

/// Fault F04.
async fn uncollected_permit_goes_to_the_next_call_at_the_deadline(t: Harness) {
    for order in [bulkman::QueueOrder::Fifo, bulkman::QueueOrder::Lifo] {
        let bulkhead = t.bulkhead(one().queue_order(order));
        let idle = uncollected(&bulkhead, bulkhead.try_acquire().unwrap());
        // It has no deadline: nothing but the first call's timer can help it.
        let low = bulkhead.clone();
        let low = t.spawn(async move {
            let call = low.call().priority(bulkman::Priority::Low);
            call.execute(async { Answer::Ok(2) }).await
        });
        t.until(|| bulkhead.stats().waiting == 1).await;
        t.advance(SECOND - Duration::from_millis(1)).await;
        assert!(!low.is_finished());
        t.advance(Duration::from_millis(1)).await;
        assert_eq!(low.await, Ok(2));
        assert_timed_out_in_queue(&idle.await.unwrap_err(), SECOND);
        assert_eq!(bulkhead.stats().rejected.timed_out_in_queue, 1);
    }
}

/// Fault F04.
async fn uncollected_permit_goes_to_a_new_call_after_the_deadline(t: Harness) {
    for places in [0, 10] {
        let bulkhead = t.bulkhead(one());
        let idle = uncollected(&bulkhead, bulkhead.try_acquire().unwrap());
        bulkhead.reconfigure(one().max_queue_size(places)).unwrap();
        assert!(bulkhead.try_acquire().is_err());
        t.advance(2 * SECOND).await;
        t.until(|| bulkhead.try_acquire().map(bulkman::Permit::succeed).is_ok())
            .await;
        assert_eq!(bulkhead.execute(async { Answer::Ok(2) }).await, Ok(2));
        assert!(idle.await.unwrap_err().is_rejection());
    }
}

/// Fault F04.
async fn uncollected_permits_do_not_prevent_draining(t: Harness) {
    for shut_down_first in [true, false] {
        let bulkhead = t.bulkhead(one());
        let idle = uncollected(&bulkhead, bulkhead.try_acquire().unwrap());
        if shut_down_first {
            bulkhead.shutdown();
        }
        let draining = bulkhead.clone();
        let drained = t.spawn(async move { draining.drained().await });
        t.advance(2 * SECOND).await;
        if !shut_down_first {
            futures_lite::future::yield_now().await;
            bulkhead.shutdown();
        }
        drained.await;
        assert!(idle.await.unwrap_err().is_rejection());
    }
}

/// Fault F04.
async fn uncollected_permits_are_forgotten_after_shrinking(t: Harness) {
    for after_the_deadline in [false, true] {
        let bulkhead = t.bulkhead(one().max_concurrent_calls(2));
        let running = bulkhead.try_acquire().unwrap();
        let idle = uncollected_of_two(&bulkhead);
        if after_the_deadline {
            t.advance(2 * SECOND).await;
            bulkhead.reconfigure(one()).unwrap();
        } else {
            bulkhead.reconfigure(one()).unwrap();
            t.advance(2 * SECOND).await;
        }
        t.until(|| bulkhead.stats().permits_in_use == 1).await;
        running.succeed();
        assert_eq!(bulkhead.execute(async { Answer::Ok(2) }).await, Ok(2));
        assert!(idle.await.unwrap_err().is_rejection());
    }
}

/// As [`uncollected`], beside a permit that is in use.
fn uncollected_of_two(
    bulkhead: &bulkman::Bulkhead,
) -> std::pin::Pin<Box<impl Future<Output = Outcome> + '_>> {
    let second = bulkhead.try_acquire().unwrap();
    let call = bulkhead.call().timeout(SECOND);
    let mut idle = Box::pin(call.execute(async { Answer::Ok(1) }));
    assert!(poll_once(idle.as_mut()).is_pending());
    second.succeed();
    idle
}

/// Fault F04.
async fn every_waiter_may_leave_its_permit_uncollected(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let holder = bulkhead.try_acquire().unwrap();
    let mut idle: Vec<_> = (1..=100_u32)
        .map(|seconds| {
            let call = bulkhead.call().timeout(seconds * SECOND);
            let mut call = Box::pin(call.execute(async { Answer::Ok(1) }));
            assert!(poll_once(call.as_mut()).is_pending());
            call
        })
        .collect();
    holder.succeed();
    // Each is granted the permit when the deadline of the one before it has passed.
    t.advance(50 * SECOND + SECOND / 2).await;
    t.until(|| bulkhead.stats().waiting == 49).await;
    // It is not overdue, and collects the permit.
    assert_eq!(now_or_never(idle.remove(50)), Ok(1));
    t.advance(50 * SECOND).await;
    let next = bulkhead
        .call()
        .timeout(SECOND)
        .execute(async { Answer::Ok(2) });
    assert_eq!(next.await, Ok(2));
    for call in idle {
        assert!(call.await.unwrap_err().is_rejection());
    }
}

/// Fault F04.
/// Hazard H36.
async fn call_collects_its_permit_late_if_no_other_needs_it(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let holder = bulkhead.try_acquire().unwrap();
    let call = bulkhead.call().max_wait(SECOND);
    let mut idle = Box::pin(call.execute(async { Answer::Ok(1) }));
    assert!(poll_once(idle.as_mut()).is_pending());
    holder.succeed();
    t.advance(2 * SECOND).await;
    futures_lite::future::yield_now().await;
    assert_eq!(idle.await, Ok(1));
    // It is not overdue any more.
    let running = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
    running.succeed();
}

/// Fault F04.
async fn uncollected_permit_of_every_kind_of_call_is_taken_back(t: Harness) {
    let bulkhead = t.bulkhead(one());
    let mut acquire = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    let mut blocking = bulkhead
        .call()
        .max_wait(2 * SECOND)
        .execute_blocking(|| Answer::Ok(1));
    let call = bulkhead.call().max_wait(3 * SECOND);
    let mut report = Box::pin(call.execute_with_report(async { Answer::Ok(1) }));
    let holder = bulkhead.try_acquire().unwrap();
    assert!(poll_once(acquire.as_mut()).is_pending());
    assert!(poll_once(std::pin::Pin::new(&mut blocking)).is_pending());
    assert!(poll_once(report.as_mut()).is_pending());
    holder.succeed();
    for _ in 0..3 {
        t.advance(SECOND).await;
        futures_lite::future::yield_now().await;
    }
    assert_eq!(bulkhead.execute(async { Answer::Ok(2) }).await, Ok(2));
    assert!(acquire.await.unwrap_err().is_rejection());
    assert!(blocking.await.unwrap_err().is_rejection());
    assert!(report.await.result.unwrap_err().is_rejection());
}
