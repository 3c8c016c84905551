//! Steps 1 to 3 of a call that asks for several permits or has a key.
//!
//! They are those of [`admission`](super::admission), out of line.

use std::borrow::Borrow;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::bulkhead::Bulkhead;
use crate::bulkhead::running::CallTags;
use crate::call::admission::{admit_as_next, begin_call, begin_sample, poll_setup};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::rejection::Rejection;
use crate::queue::WaitResult;

/// Polls steps 1 to 3 of a new call.
// Everything else is out of line and ends the function, so that it stores no register.
#[inline(never)]
pub(super) fn poll_claim<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if deadlines.is_tracked() || guard.inner().limits.setup().has_more_than_keys() {
        return poll_claim_bounded(guard, tags, deadlines, cx);
    }
    guard.observe();
    if let Some(admitted) = guard.try_admit_claim_at_once::<false>() {
        return Poll::Ready(Ok(admitted));
    }
    poll_claim_steps(guard, tags, deadlines, cx)
}

/// As [`poll_claim`], for a call whose key has bounds, or that has other things to do.
#[inline(never)]
fn poll_claim_bounded<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if deadlines.is_tracked() || !guard.inner().limits.setup().has_only_key_bounds() {
        return poll_claim_setup(guard, tags, deadlines, cx);
    }
    guard.observe();
    if let Some(admitted) = guard.try_admit_claim_at_once::<true>() {
        return Poll::Ready(Ok(admitted));
    }
    poll_claim_steps(guard, tags, deadlines, cx)
}

/// As [`poll_claim`], for a call that cooperates with the scheduler, has limits or a mark, or needs
/// its times.
#[inline(never)]
fn poll_claim_setup<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    let setup = guard.inner().limits.setup();
    if deadlines.is_tracked() || setup.has_more_than_marks_and_keys() {
        ready!(poll_setup(guard, deadlines, cx))?;
    } else {
        guard.observe();
    }
    if !deadlines.is_tracked() && !setup.has_marks() {
        if let Some(admitted) = guard.try_admit_claim_at_once::<true>() {
            return Poll::Ready(Ok(admitted));
        }
    }
    poll_claim_steps(guard, tags, deadlines, cx)
}

/// As [`poll_claim`], one step at a time. A call that has to wait joins the queue.
#[inline(never)]
fn poll_claim_steps<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if let Some(admitted) = guard.try_admit_claim(tags, deadlines)? {
        return Poll::Ready(Ok(mark(guard, admitted, tags, deadlines)));
    }
    if !deadlines.may_wait() {
        return Poll::Ready(admit_as_next(guard, tags, deadlines));
    }
    let deadline = deadlines.queue_deadline();
    if guard.enqueue_claim(tags.priority, deadline, cx.waker())? {
        return Poll::Ready(admit_claim(guard, tags, deadlines));
    }
    // A waiter that has just joined is not polled: any decision from now on wakes it.
    match deadline {
        Some(deadline) => poll_claim_timer(guard, deadline, tags, deadlines, cx),
        None => Poll::Pending,
    }
}

/// Polls steps 2 and 3 of a call that is queued. Returns the admission of a call that was admitted
/// before.
#[inline(never)]
pub(super) fn poll_begun_claim<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    match guard.poll_claim(cx.waker()) {
        // Polling returns a decision only once.
        Some(Poll::Ready(waited)) => Poll::Ready(end_wait(guard, waited, tags, deadlines)),
        Some(Poll::Pending) => match deadlines.queue_deadline() {
            Some(deadline) => poll_claim_timer(guard, deadline, tags, deadlines, cx),
            None => Poll::Pending,
        },
        None => match guard.take_admitted_claim() {
            Some(admitted) => Poll::Ready(Ok(admitted)),
            None => panic!("polled after completion"),
        },
    }
}

/// Polls the timer of a call that is queued, which leaves the queue at its deadline.
#[inline(never)]
fn poll_claim_timer<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadline: Instant,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    let Some(id) = guard.queued_claim() else {
        unreachable!("the call is queued")
    };
    ready!(deadlines.poll_timer(|| guard.queue_timer(id, deadline), cx));
    let waited = guard.expire_claim();
    Poll::Ready(end_wait(guard, waited, tags, deadlines))
}

/// Performs step 3 of a call whose wait has ended.
fn end_wait<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    waited: WaitResult,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Admitted, Rejection> {
    guard.end_claim_wait(waited)?;
    guard.check_deadline(deadlines.total_deadline())?;
    admit_claim(guard, tags, deadlines)
}

/// Performs steps 1 to 3 without waiting. `None`: the call has to wait.
#[inline(never)]
pub(crate) fn try_claim<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    if !deadlines.is_tracked() && !guard.inner().limits.setup().has_times_or_marks() {
        guard.observe();
        if let Some(admitted) = guard.try_admit_claim_at_once::<true>() {
            return Ok(Some(admitted));
        }
    }
    try_claim_steps(guard, tags, deadlines, timers)
}

/// As [`try_claim`], one step at a time.
#[inline(never)]
fn try_claim_steps<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    begin_call(guard, deadlines, timers)?;
    let admitted = guard.try_admit_claim(tags, deadlines)?;
    Ok(admitted.map(|admitted| mark(guard, admitted, tags, deadlines)))
}

/// Performs steps 1 to 3 on the current thread, which is parked while it waits.
///
/// `waker` unparks the thread.
#[inline(never)]
pub(super) fn block_on_claim_admission(
    guard: &mut CallGuard<&Bulkhead>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    waker: fn() -> Waker,
) -> Result<Admitted, Rejection> {
    match try_claim(guard, tags, deadlines, false)? {
        Some(admitted) => Ok(admitted),
        None => block_on_claim(guard, tags, deadlines, &waker()),
    }
}

/// Performs steps 2 and 3 of a call that has to wait, by parking the current thread.
#[inline(never)]
pub(super) fn block_on_claim(
    guard: &mut CallGuard<&Bulkhead>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    waker: &Waker,
) -> Result<Admitted, Rejection> {
    if !deadlines.may_wait() {
        return admit_as_next(guard, tags, deadlines);
    }
    let deadline = deadlines.queue_deadline();
    if guard.enqueue_claim(tags.priority, deadline, waker)? {
        return admit_claim(guard, tags, deadlines);
    }
    let waited = loop {
        if let Some(Poll::Ready(waited)) = guard.poll_claim(waker) {
            break waited;
        }
        let runtime = &guard.inner().runtime;
        if deadline.is_some_and(|deadline| deadline <= runtime.now()) {
            break guard.expire_claim();
        }
        runtime.park(deadline);
    };
    end_wait(guard, waited, tags, deadlines)
}

/// Performs step 3 of a call that has permits.
pub(super) fn admit_claim<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Admitted, Rejection> {
    let admitted = guard.admit_claim(None, true, tags, deadlines)?;
    Ok(mark(guard, admitted, tags, deadlines))
}

/// Marks the call, if the limit needs that.
fn mark<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Admitted {
    let inner = guard.inner();
    if !inner.limits.setup().has_marks() {
        return admitted;
    }
    let admitted = inner.mark_weighted(admitted, guard.permits(), tags, deadlines);
    begin_sample(guard, admitted, deadlines)
}
