//! Steps 1 to 3 of a call, which are the same for all kinds of calls.
//!
//! 1. Circuit: if it is open and no transition is due, the call is rejected before it is queued.
//! 2. Permit: one is available, or the call waits for one in the queue.
//! 3. Circuit: it may have opened while the call waited.

use std::borrow::Borrow;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::bulkhead::running::CallTags;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admitted::Admitted;
use crate::call::claim_admission::{
    admit_claim, block_on_claim, poll_begun_claim, poll_claim, try_claim,
};
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::limits::Setup;
use crate::call::rejection::Rejection;
use crate::queue::{Priority, WaitResult, WaiterId};

/// Polls steps 1 to 3.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
pub(crate) fn poll_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if guard.is_new() {
        let setup = guard.inner().limits.setup();
        if deadlines.is_tracked() || !setup.is_none() {
            if setup.has_marks_or_keys() {
                return poll_marked_admission(guard, setup, tags, deadlines, cx);
            }
            ready!(poll_setup(guard, deadlines, cx))?;
        } else {
            guard.observe();
        }
        if let Some(admitted) = guard.try_admit(tags, deadlines, wait_or_reject)? {
            return Poll::Ready(Ok(admitted));
        }
        return join_queue(guard, tags, deadlines, cx);
    }
    poll_begun(guard, tags, deadlines, cx)
}

/// As [`poll_admission`], for a call that is queued, or asks for a claim.
// Out of line: the compiler otherwise merges these tests with those of new calls, which then take
// six instructions more. It stores no register, since both calls end it.
#[inline(never)]
fn poll_begun<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if guard.queue_key().is_some() {
        poll_queue(guard, tags, deadlines, cx)
    } else if guard.is_new_claim() {
        poll_claim(guard, tags, deadlines, cx)
    } else {
        poll_begun_claim(guard, tags, deadlines, cx)
    }
}

/// As [`poll_admission`], for a new call of a bulkhead whose limit adapts or is observed, or that
/// shares its permits between keys.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
fn poll_marked_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    setup: Setup,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if deadlines.is_tracked() || setup.has_more_than_marks() {
        // One test for all, since most bulkheads whose limit adapts have none of them.
        if setup.has_keys() {
            guard.ask_for_claim();
            return poll_claim(guard, tags, deadlines, cx);
        }
        ready!(poll_setup(guard, deadlines, cx))?;
    } else {
        guard.observe();
    }
    if let Some(admitted) = try_by_count(guard, setup, tags, deadlines) {
        return Poll::Ready(Ok(admitted));
    }
    poll_marked_steps(guard, tags, deadlines, cx)
}

/// Performs steps 1 to 3 of a call that need not wait, and marks it only if it is a sample. That
/// is decided by its number alone.
///
/// `None`: nothing has happened, and [`try_marked`] decides.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
fn try_by_count<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    setup: Setup,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Option<Admitted> {
    let by_count = !deadlines.is_tracked() && !setup.marks_all() && tags.is_sampled;
    if !by_count || guard.observer().is_enabled() {
        return None;
    }
    let admitted = guard.try_admit_by_count()?;
    if admitted.needs_guard() {
        return Some(start_sample(guard, admitted, deadlines));
    }
    Some(admitted)
}

/// As [`poll_admission`], for a new call that may need a mark. Out of line, so that other calls do
/// not pay for it.
#[inline(never)]
fn poll_marked_steps<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if let Some(admitted) = try_marked(guard, tags, deadlines)? {
        return Poll::Ready(Ok(admitted));
    }
    join_queue(guard, tags, deadlines, cx)
}

/// Begins a call that cooperates with the scheduler, has limits, or needs its times.
///
/// `Pending`: the task has to yield first. Nothing is held yet.
#[inline(never)]
pub(super) fn poll_setup<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Rejection>> {
    if let Some(poll_proceed) = guard.inner().cooperation {
        ready!(poll_proceed(cx));
    }
    Poll::Ready(begin_call(guard, deadlines, true))
}

/// Begins a call that may have limits. `timers`: they need timers of the runtime.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it is a part of two functions that are not inlined"
)]
pub(super) fn begin_call<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<(), Rejection> {
    guard.observe();
    if deadlines.is_tracked() || guard.inner().limits.setup().has_times() {
        begin_deadlines(guard.inner(), deadlines, timers)?;
    }
    Ok(())
}

/// Performs steps 1 to 3 on the current thread, which is parked while it waits.
///
/// `waker` unparks the thread. Not for a call that asks for a claim: see
/// [`block_on_claim_admission`](super::claim_admission::block_on_claim_admission).
pub(crate) fn block_on_admission(
    guard: &mut CallGuard<&Bulkhead>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    waker: impl FnOnce() -> Waker,
) -> Result<Admitted, Rejection> {
    // Parking a thread needs no timer of the runtime.
    if let Some(admitted) = try_admission(guard, tags, deadlines, false)? {
        return Ok(admitted);
    }
    if guard.is_new_claim() {
        return block_on_claim(guard, tags, deadlines, &waker());
    }
    block_on_queue(guard, tags, deadlines, &waker())
}

/// Performs steps 2 and 3 of a call that has to wait, on the current thread.
#[inline(never)]
fn block_on_queue(
    guard: &mut CallGuard<&Bulkhead>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    waker: &Waker,
) -> Result<Admitted, Rejection> {
    if !deadlines.may_wait() {
        return admit_as_next(guard, tags, deadlines);
    }
    wait_for_permit(guard, tags.priority, deadlines, waker)?;
    admit_after_wait(guard, tags, deadlines)
}

/// Performs steps 1 to 3 without waiting. `None`: the call has to wait for a permit.
///
/// Not for a call that asks for a claim: see [`try_claim`](super::claim_admission::try_claim).
/// `timers`: the limits of the call need timers of the runtime.
#[inline(always)]
pub(crate) fn try_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    guard.observe();
    let setup = guard.inner().limits.setup();
    if deadlines.is_tracked() || setup.has_more_than_cooperation() {
        if setup.has_marks_or_keys() {
            return try_marked_admission(guard, tags, deadlines, timers);
        }
        begin_deadlines(guard.inner(), deadlines, timers)?;
    }
    guard.try_admit(tags, deadlines, wait_or_reject)
}

/// As [`try_admission`], for a bulkhead whose limit adapts or is observed, or that shares its
/// permits between keys.
#[inline(never)]
fn try_marked_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    let setup = guard.inner().limits.setup();
    if deadlines.is_tracked() || setup.has_times_or_keys() {
        if setup.has_keys() {
            guard.ask_for_claim();
            return try_claim(guard, tags, deadlines, timers);
        }
        begin_deadlines(guard.inner(), deadlines, timers)?;
    } else if let Some(admitted) = try_by_count(guard, setup, tags, deadlines) {
        return Ok(Some(admitted));
    }
    try_marked(guard, tags, deadlines)
}

/// Performs steps 1 to 3 without waiting, and marks the call for the limit.
fn try_marked<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Option<Admitted>, Rejection> {
    let admitted = guard.try_admit(tags, deadlines, CallGuard::lack_permit)?;
    Ok(admitted.map(|admitted| mark(guard, admitted, tags, deadlines)))
}

/// Performs steps 2 and 3 of a call that must not wait: others do, and it may come before them.
#[cold]
#[inline(never)]
pub(crate) fn admit_as_next<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Admitted, Rejection> {
    guard.acquire_as_next(tags.priority)?;
    admit_claim(guard, tags, deadlines)
}

/// Decides about a call that finds no permit: it waits, or is rejected if the queue is full.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
fn wait_or_reject<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    is_full: bool,
    _: CallTags,
    _: &mut Deadlines,
) -> Result<Option<Admitted>, Rejection> {
    if is_full {
        Err(guard.reject_full())
    } else {
        Ok(None)
    }
}

/// Resolves the limits of the call and reads the clock.
#[inline(never)]
pub(super) fn begin_deadlines(
    inner: &Inner,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<(), Rejection> {
    let limits = deadlines.limits(&inner.limits);
    if timers && !inner.capabilities.timers {
        if let Some(missing) = limits.first_timer() {
            return Err(Rejection::Unsupported(missing));
        }
    }
    deadlines.begin(limits, inner.runtime.now());
    Ok(())
}

/// Begins steps 2 and 3 of a call that has to wait: joins the queue.
#[inline(never)]
fn join_queue<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if !deadlines.may_wait() {
        return Poll::Ready(admit_as_next(guard, tags, deadlines));
    }
    let deadline = deadlines.queue_deadline();
    if guard.enqueue(tags.priority, deadline, cx.waker())? {
        return Poll::Ready(admit_after_wait(guard, tags, deadlines));
    }
    // A waiter that has just joined is not polled: any decision from now on wakes it.
    match (deadline, guard.queue_key()) {
        (Some(deadline), Some(key)) => {
            poll_queue_timer(guard, (key, deadline), tags, deadlines, cx)
        }
        _ => Poll::Pending,
    }
}

/// Polls steps 2 and 3 of a call that is queued: checks whether a permit was granted.
#[inline(never)]
fn poll_queue<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    let Some(key) = guard.queue_key() else {
        unreachable!("the call is queued")
    };
    match guard.inner().queue.poll(key, cx.waker()) {
        Poll::Ready(waited) => Poll::Ready(end_wait(guard, waited, tags, deadlines)),
        Poll::Pending => match deadlines.queue_deadline() {
            Some(deadline) => poll_queue_timer(guard, (key, deadline), tags, deadlines, cx),
            None => Poll::Pending,
        },
    }
}

/// Polls the timer of a call that is queued, which leaves the queue at its deadline.
#[inline(never)]
fn poll_queue_timer<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    (key, deadline): (WaiterId, Instant),
    tags: CallTags,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    ready!(deadlines.poll_timer(|| guard.queue_timer(key, deadline), cx));
    let waited = guard.expire(key);
    Poll::Ready(end_wait(guard, waited, tags, deadlines))
}

/// Performs step 3 of a call whose wait has ended.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it is the end of two functions that are not inlined"
)]
fn end_wait<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    waited: WaitResult,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Admitted, Rejection> {
    guard.end_wait(waited)?;
    guard.check_deadline(deadlines.total_deadline())?;
    admit_after_wait(guard, tags, deadlines)
}

/// Performs step 3 of a call that has waited.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it is the end of functions that are not inlined"
)]
fn admit_after_wait<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Result<Admitted, Rejection> {
    let admitted = guard.admit_after_wait(tags, deadlines)?;
    if guard.inner().limits.setup().has_marks() {
        return Ok(mark(guard, admitted, tags, deadlines));
    }
    Ok(admitted)
}

/// Waits for a permit by parking the current thread.
fn wait_for_permit(
    guard: &mut CallGuard<&Bulkhead>,
    priority: Priority,
    deadlines: &Deadlines,
    waker: &Waker,
) -> Result<(), Rejection> {
    let deadline = deadlines.queue_deadline();
    if guard.enqueue(priority, deadline, waker)? {
        return Ok(());
    }
    let Some(key) = guard.queue_key() else {
        unreachable!("the call is queued")
    };
    let waited = loop {
        let inner = guard.inner();
        if let Poll::Ready(waited) = inner.queue.poll(key, waker) {
            break waited;
        }
        if deadline.is_some_and(|deadline| deadline <= inner.runtime.now()) {
            break guard.expire(key);
        }
        inner.runtime.park(deadline);
    };
    guard.end_wait(waited)?;
    guard.check_deadline(deadlines.total_deadline())
}

/// Records the start of the operation. Reads the clock only if its time is needed.
///
/// `counts_in_flight`: the circuit may count calls in flight.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
pub(crate) fn start_run<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    waited: bool,
    counts_in_flight: bool,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Admitted {
    if !deadlines.is_tracked() && !admitted.needs_duration() {
        return admitted;
    }
    // The clock is code of the runtime and may panic. The guard holds the admission meanwhile.
    guard.restore(admitted);
    deadlines.start_run(waited, &*guard.inner().runtime);
    let Some(admitted) = guard.take_admission() else {
        unreachable!("it was restored above")
    };
    let counted = counts_in_flight && admitted.counts_in_flight();
    if counted || guard.inner().running.is_enabled() {
        return guard.inner().follow(admitted, tags, deadlines);
    }
    admitted
}

/// Marks a call of a bulkhead whose limit adapts or is observed, if it needs that. Reads the clock
/// if it is a sample.
#[inline(never)]
fn mark<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    tags: CallTags,
    deadlines: &mut Deadlines,
) -> Admitted {
    let admitted = guard.inner().mark(admitted, tags, deadlines);
    begin_sample(guard, admitted, deadlines)
}

/// Records the start of a call with a mark if it is a sample.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it is the end of two functions that are not inlined"
)]
pub(super) fn begin_sample<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    deadlines: &mut Deadlines,
) -> Admitted {
    if admitted.is_sample() {
        start_sample(guard, admitted, deadlines)
    } else {
        admitted
    }
}

/// Records the start of a call that is a sample.
#[inline(never)]
fn start_sample<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    mut admitted: Admitted,
    deadlines: &mut Deadlines,
) -> Admitted {
    if deadlines.run_started().is_none() {
        // The clock is code of the runtime and may panic. The guard holds the admission meanwhile.
        guard.restore(admitted);
        deadlines.start_run(false, &*guard.inner().runtime);
        admitted = match guard.take_admission() {
            Some(admitted) => admitted,
            None => unreachable!("it was restored above"),
        };
    }
    guard
        .inner()
        .start_sample(admitted, deadlines.run_started())
}
