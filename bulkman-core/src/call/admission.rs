//! Steps 1 to 3 of a call, which are the same for all kinds of calls.
//!
//! 1. Circuit: if it is open and no transition is due, the call is rejected before it is queued.
//! 2. Permit: one is available, or the call waits for one in the queue.
//! 3. Circuit: it may have opened while the call waited.

use std::borrow::Borrow;
use std::task::{Context, Poll, Waker, ready};

use crate::adaptive::Mark;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallClass;
use crate::call::rejection::Rejection;
use crate::queue::Claim;

/// Polls steps 1 to 3.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "an admission that does not wait must stay in registers"
)]
pub(crate) fn poll_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    if let Some(class) = guard.new_class() {
        if let Some(admitted) = try_admission(guard, class, deadlines, true)? {
            return Poll::Ready(Ok(admitted));
        }
    }
    poll_queue(guard, deadlines, cx)
}

/// Performs steps 1 to 3 on the current thread, which is parked while it waits.
///
/// `waker` unparks the thread.
pub(crate) fn block_on_admission(
    guard: &mut CallGuard<&Bulkhead>,
    deadlines: &mut Deadlines,
    waker: impl FnOnce() -> Waker,
) -> Result<Admitted, Rejection> {
    let class = guard.class();
    // Parking a thread needs no timer of the runtime.
    if let Some(admitted) = try_admission(guard, class, deadlines, false)? {
        return Ok(admitted);
    }
    wait_for_permit(guard, class, deadlines, &waker())?;
    begin_marked_again(guard, class, deadlines);
    let admitted = guard.admit()?;
    Ok(start_run(guard, admitted, true, class, deadlines))
}

/// Performs steps 1 to 3 without waiting. `None`: the call has to wait for a permit.
///
/// `timers`: the limits of the call need timers of the runtime.
#[inline(always)]
pub(crate) fn try_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    class: CallClass,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    guard.observe();
    if deadlines.is_tracked() || guard.inner().limits.any() {
        return try_tracked_admission(guard, class, deadlines, timers);
    }
    let Some(admitted) = guard.try_admit(deadlines)? else {
        return Ok(None);
    };
    Ok(Some(start_run(guard, admitted, false, class, deadlines)))
}

/// As [`try_admission`], for a call that has limits, carries a mark or asks for several permits.
#[inline(never)]
fn try_tracked_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    class: CallClass,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Admitted>, Rejection> {
    guard.set_key();
    begin_deadlines(guard, class, deadlines, timers)?;
    let admitted = if guard.claim().is_plain() {
        guard.try_admit(deadlines)?
    } else {
        guard.try_admit_claim(class, deadlines)?
    };
    let Some(admitted) = admitted else {
        return Ok(None);
    };
    Ok(Some(start_run(guard, admitted, false, class, deadlines)))
}

/// Resolves the limits of the call and reads the clock.
#[inline]
fn begin_deadlines<H: Borrow<Bulkhead>>(
    guard: &CallGuard<H>,
    class: CallClass,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<(), Rejection> {
    let inner = guard.inner();
    if deadlines.needs_no_times() && !inner.limits.has_limits() {
        *deadlines = match inner.marked(class) {
            Some(marked) if inner.limits.only_marks() => marked,
            _ if guard.claim().is_plain() => Deadlines::Untracked,
            _ => Deadlines::MARKED,
        };
        return Ok(());
    }
    let limits = deadlines.limits(&inner.limits);
    if timers && !inner.capabilities.timers {
        if let Some(missing) = limits.first_timer() {
            return Err(Rejection::Unsupported(missing));
        }
    }
    deadlines.begin(limits, inner.runtime.now());
    Ok(())
}

/// Decides again whether a call that has waited carries a mark. Calls that wait at the same time
/// would all have the same result otherwise.
#[inline]
fn begin_marked_again<H: Borrow<Bulkhead>>(
    guard: &CallGuard<H>,
    class: CallClass,
    deadlines: &mut Deadlines,
) {
    #[cold]
    fn begin(inner: &Inner, class: CallClass, claim: Claim, deadlines: &mut Deadlines) {
        if !deadlines.has_times() {
            *deadlines = match inner.marked(class) {
                Some(marked) => marked,
                None if claim.is_plain() => Deadlines::Untracked,
                None => Deadlines::MARKED,
            };
        }
    }

    // Permits may be shared since the call was queued, so it may have a key now.
    if guard.inner().limits.only_marks() || !guard.claim().is_plain() {
        begin(guard.inner(), class, guard.claim(), deadlines);
    }
}

/// Polls steps 2 and 3 of a call that has to wait.
#[inline(never)]
fn poll_queue<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Admitted, Rejection>> {
    let class = guard.class();
    ready!(poll_permit(guard, class, deadlines, cx))?;
    begin_marked_again(guard, class, deadlines);
    let admitted = guard.admit()?;
    Poll::Ready(Ok(start_run(guard, admitted, true, class, deadlines)))
}

/// Joins the queue, or checks whether the permit was granted.
fn poll_permit<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    class: CallClass,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Rejection>> {
    let joins = guard.new_class().is_some();
    if joins {
        if !deadlines.may_wait() {
            return Poll::Ready(Err(guard.reject_full()));
        }
        if guard.enqueue(class, deadlines.queue_deadline(), cx.waker())? {
            return Poll::Ready(Ok(()));
        }
    }
    let Some(key) = guard.queue_key() else {
        panic!("polled after completion")
    };
    // A waiter that has just joined is not polled: any decision from now on wakes it.
    let decided = if joins {
        Poll::Pending
    } else {
        guard.inner().queue.poll(key, cx.waker())
    };
    let waited = match decided {
        Poll::Ready(waited) => waited,
        Poll::Pending => {
            let Some(deadline) = deadlines.queue_deadline() else {
                return Poll::Pending;
            };
            ready!(deadlines.poll(deadline, &*guard.inner().runtime, cx));
            guard.expire(key)
        }
    };
    guard.end_wait(waited)?;
    Poll::Ready(guard.check_deadline(deadlines.total_deadline()))
}

/// Waits for a permit by parking the current thread.
fn wait_for_permit(
    guard: &mut CallGuard<&Bulkhead>,
    class: CallClass,
    deadlines: &Deadlines,
    waker: &Waker,
) -> Result<(), Rejection> {
    if !deadlines.may_wait() {
        return Err(guard.reject_full());
    }
    let deadline = deadlines.queue_deadline();
    if guard.enqueue(class, deadline, waker)? {
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

/// Records the start of the operation. Reads the clock only if its duration is needed.
#[inline(always)]
fn start_run<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    waited: bool,
    class: CallClass,
    deadlines: &mut Deadlines,
) -> Admitted {
    if !deadlines.is_tracked() && !admitted.needs_duration() {
        return admitted;
    }
    start_tracked_run(guard, admitted, waited, class, deadlines)
}

/// Records the start of an operation whose duration is needed, or of a call that carries a mark.
#[inline(never)]
fn start_tracked_run<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    waited: bool,
    class: CallClass,
    deadlines: &mut Deadlines,
) -> Admitted {
    let mut admitted = guard
        .inner()
        .mark(admitted, class, guard.claim(), deadlines);
    if !guard.claim().is_plain() && admitted.mark().is_none() {
        // The end of a call with a mark releases all permits of its claim.
        admitted = admitted.with_mark(Mark::UNCOUNTED);
    }
    if !admitted.needs_start() && !deadlines.has_times() {
        return admitted;
    }
    // The clock is code of the runtime and may panic. The guard holds the admission meanwhile.
    guard.restore(admitted);
    deadlines.start_run(waited, &*guard.inner().runtime);
    let Some(admitted) = guard.take_admitted() else {
        unreachable!("it was restored above")
    };
    guard
        .inner()
        .start_sample(admitted, deadlines.run_started())
}
