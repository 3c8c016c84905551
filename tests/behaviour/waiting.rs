//! How a wait can end: a permit, a deadline, a caller that goes away, an opened circuit.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::CircuitState;
use bulkman::error::{RejectionReason, TimeoutPhase};
use bulkman::{BulkheadConfig, BulkheadError};

use crate::stage::{Stage, now_or_never, poll_once};
use crate::work::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    a_wait_is_bounded_by_max_wait_and_not_shorter,
    a_waiter_that_timed_out_takes_no_permit_with_it,
    a_permit_freed_at_the_deadline_is_not_lost,
    who_was_granted_in_time_keeps_the_permit_beyond_max_wait,
    a_total_timeout_that_passed_unseen_runs_nothing,
    a_call_that_timed_out_in_the_queue_never_runs,
    a_passed_deadline_is_passed_over,
    a_cancelled_waiter_frees_its_place_at_once,
    a_waiter_cancelled_after_its_grant_hands_the_permit_on,
    the_queue_is_refused_when_the_circuit_opens,
    the_queue_is_refused_when_the_circuit_is_forced_open,
    who_comes_after_a_reset_waits_again,
    a_timeout_in_the_queue_takes_nobody_off_the_count,
];

fn one() -> BulkheadConfig {
    BulkheadConfig::new("mail").max_concurrent_calls(1)
}

#[track_caller]
fn timed_out_queued(error: &BulkheadError<impl std::fmt::Debug>, waited: Duration) {
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

async fn a_wait_is_bounded_by_max_wait_and_not_shorter(t: Stage) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND - Duration::from_millis(1)).await;
    assert!(!queued.is_finished());
    assert_eq!(bulkhead.stats().waiting, 1);
    t.advance(Duration::from_millis(1)).await;
    timed_out_queued(&queued.await.unwrap_err(), SECOND);
    assert!(!never.has_begun());
    assert_eq!(bulkhead.stats().waiting, 0);
    control.succeed();
    running.await.unwrap();
}

/// Hazard H30.
async fn a_waiter_that_timed_out_takes_no_permit_with_it(t: Stage) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    for _ in 0..3 {
        let (control, running) = t.running(&bulkhead).await;
        let (_never, queued) = t.waiting(&bulkhead).await;
        t.advance(SECOND).await;
        timed_out_queued(&queued.await.unwrap_err(), SECOND);
        control.succeed();
        running.await.unwrap();
        assert_eq!(bulkhead.stats().permits_in_use, 0);
    }
    t.succeed(&bulkhead, 1).await;
}

/// The holder's release and the waiter's timer at the same instant, in this order: the waiter's
/// deadline has passed, so that the permit is the next one's.
/// Hazard H36.
async fn a_permit_freed_at_the_deadline_is_not_lost(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(first.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    t.advance(SECOND).await;
    permit.succeed();
    timed_out_queued(&now_or_never(first).unwrap_err(), SECOND);
    now_or_never(next).unwrap().succeed();
}

/// Hazard H36.
async fn who_was_granted_in_time_keeps_the_permit_beyond_max_wait(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    t.advance(SECOND - Duration::from_millis(1)).await;
    permit.succeed();
    // Its task is slow to run: the wait had ended in time all the same.
    t.advance(SECOND).await;
    now_or_never(waiter).unwrap().succeed();
}

async fn a_total_timeout_that_passed_unseen_runs_nothing(t: Stage) {
    let bulkhead = t.bulkhead(one().timeout(SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (control, operation) = work();
    let mut waiter = Box::pin(bulkhead.execute(operation));
    assert!(poll_once(waiter.as_mut()).is_pending());
    permit.succeed();
    t.advance(2 * SECOND).await;
    timed_out_queued(&now_or_never(waiter).unwrap_err(), 2 * SECOND);
    assert!(!control.has_begun());
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H51.
async fn a_call_that_timed_out_in_the_queue_never_runs(t: Stage) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND).await;
    timed_out_queued(&queued.await.unwrap_err(), SECOND);
    control.succeed();
    running.await.unwrap();
    t.succeed(&bulkhead, 1).await;
    assert!(!never.has_begun());
    let stats = bulkhead.stats();
    assert_eq!((stats.started, stats.rejected.timed_out_in_queue), (2, 1));
}

async fn a_passed_deadline_is_passed_over(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut short = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(short.as_mut()).is_pending());
    let mut long = Box::pin(bulkhead.call().max_wait(3 * SECOND).acquire());
    assert!(poll_once(long.as_mut()).is_pending());
    t.advance(2 * SECOND).await;
    permit.succeed();
    now_or_never(long).unwrap().succeed();
    timed_out_queued(&now_or_never(short).unwrap_err(), 2 * SECOND);
}

/// Hazard H32, H39a.
async fn a_cancelled_waiter_frees_its_place_at_once(t: Stage) {
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
    // Its place is another's, which gets the permit.
    let (second, next) = t.waiting(&bulkhead).await;
    control.succeed();
    running.await.unwrap();
    t.until(|| second.has_begun()).await;
    second.succeed();
    assert_eq!(next.await, Ok(1));
    assert!(!never.has_begun());
}

/// Hazard H33.
async fn a_waiter_cancelled_after_its_grant_hands_the_permit_on(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    permit.succeed();
    drop(granted);
    now_or_never(next).unwrap().succeed();
    // And with nobody next, to the bulkhead.
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    permit.succeed();
    drop(granted);
    bulkhead.try_acquire().unwrap().succeed();
}

/// Hazard P03.
async fn the_queue_is_refused_when_the_circuit_opens(t: Stage) {
    let bulkhead = t.bulkhead(one().failure_threshold(1));
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Vec::new();
    for _ in 0..49 {
        queued.push(t.waiting(&bulkhead).await);
    }
    control.fail();
    assert!(running.await.is_err());
    for (never, call) in queued {
        let refused = call.await.unwrap_err();
        let BulkheadError::CircuitOpen {
            reason: RejectionReason::Open,
            retry_after,
            ..
        } = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
        assert!(!never.has_begun());
    }
    let stats = bulkhead.stats();
    assert_eq!((stats.started, stats.rejected.circuit.open), (1, 49));
}

/// While the permit is still held: nobody has to free one for the queue to hear of it.
/// Hazard P03.
async fn the_queue_is_refused_when_the_circuit_is_forced_open(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let (control, running) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    bulkhead.circuit_breaker().unwrap().force_open();
    let refused = queued.await.unwrap_err();
    assert!(matches!(
        refused,
        BulkheadError::CircuitOpen {
            reason: RejectionReason::ForcedOpen,
            retry_after: None,
            ..
        }
    ));
    assert!(!never.has_begun() && !running.is_finished());
    control.succeed();
    // The call that was running is not disturbed.
    assert_eq!(running.await, Ok(1));
    assert_eq!(bulkhead.stats().rejected.circuit.forced_open, 1);
}

async fn who_comes_after_a_reset_waits_again(t: Stage) {
    let bulkhead = t.bulkhead(one());
    let (control, running) = t.running(&bulkhead).await;
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.open();
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    circuit.reset();
    assert_eq!(circuit.state(), CircuitState::Closed);
    let (second, queued) = t.waiting(&bulkhead).await;
    control.succeed();
    running.await.unwrap();
    second.succeed();
    assert_eq!(queued.await, Ok(1));
}

/// Hazard P07.
async fn a_timeout_in_the_queue_takes_nobody_off_the_count(t: Stage) {
    let bulkhead = t.bulkhead(one().max_wait(SECOND));
    let (control, running) = t.running(&bulkhead).await;
    let (_never, queued) = t.waiting(&bulkhead).await;
    t.advance(SECOND).await;
    assert!(queued.await.is_err());
    assert_eq!(bulkhead.stats().active, 1);
    control.succeed();
    running.await.unwrap();
    assert_eq!(bulkhead.stats().active, 0);
    // Cancelled while it ran: off the count too, and nothing below zero.
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
