//! One call, from top to bottom.
//!
//! 1. the circuit: open and not due? Refuse, before anything is queued;
//! 2. a permit: free, or waited for in the queue;
//! 3. the circuit again: it may have opened while the call waited;
//! 4. the operation, under its deadline;
//! 5. the outcome, classified and recorded;
//! 6. the permit goes to the next in line.
//!
//! What is held meanwhile is in a [`CallGuard`]; dropping the future at any point loses nothing.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::bulkhead::stats::Event;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::CallOptions;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::{CallGuard, Seat};
use crate::call::outcome::Outcome;
use crate::call::rejection::Rejection;
use crate::error::{BulkheadError, TimeoutPhase};
use crate::name::BulkheadName;
use crate::queue::Priority;
use crate::sync::unwind::catch;

pin_project! {
    /// An operation under the protection of a bulkhead: the future of
    /// [`Bulkhead::execute`](crate::Bulkhead::execute) and its kin.
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point gives back its place in the queue, its permit and its probe slot.
    /// A call that was running counts as cancelled, and says nothing about the dependency.
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::testing::ManualRuntime;
    /// use std::future::pending;
    /// use futures_lite::future::{block_on, poll_once};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// let mut call = Box::pin(bulkhead.execute(pending::<Result<(), ()>>()));
    /// assert_eq!(bulkhead.stats().active, 0);                 // nothing happens before it is polled
    /// assert!(block_on(poll_once(&mut call)).is_none());
    /// assert_eq!(bulkhead.stats().active, 1);
    /// drop(call);
    /// let stats = bulkhead.stats();
    /// assert_eq!((stats.active, stats.cancelled, stats.permits_in_use), (0, 1, 0));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Execute<H: Borrow<Bulkhead>, F, C> {
        // Fields are dropped in this order: the operation is gone before its permit is free.
        #[pin]
        operation: Option<F>,
        classifier: C,
        guard: CallGuard<H>,
        priority: Priority,
        deadlines: Deadlines,
    }
}

impl<H: Borrow<Bulkhead>, F, C> Execute<H, F, C> {
    #[inline]
    pub(crate) const fn new(
        bulkhead: H,
        operation: F,
        classifier: C,
        options: CallOptions,
    ) -> Self {
        Self {
            operation: Some(operation),
            classifier,
            guard: CallGuard::new(bulkhead, options.report),
            priority: options.priority,
            deadlines: options.deadlines(),
        }
    }

    /// How long the call waited and ran, as far as it has come.
    pub(crate) fn spent(&self) -> (Duration, Duration) {
        self.deadlines.spent(self.guard.inner().runtime.now())
    }

    pub(crate) fn bulkhead(&self) -> BulkheadName {
        self.guard.inner().name.clone()
    }
}

impl<H, F, C, T, E> Future for Execute<H, F, C>
where
    H: Borrow<Bulkhead>,
    F: Future<Output = Result<T, E>>,
    C: Classifier<T, E>,
{
    type Output = Result<T, BulkheadError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (guard, deadlines) = (this.guard, this.deadlines);

        // 1 circuit, 2 permit, 3 circuit
        let seat = match guard.take_seat() {
            Some(seat) => seat,
            None => match ready!(poll_admission(guard, *this.priority, deadlines, cx)) {
                Ok(seat) => seat,
                Err(rejection) => return guard.refuse(rejection, deadlines),
            },
        };

        // 4 run, 5 classify
        let polled = watched(guard, seat, deadlines, || {
            let Some(operation) = this.operation.as_mut().as_pin_mut() else {
                unreachable_after_end()
            };
            let result = ready!(operation.poll(cx));
            this.operation.set(None);
            Poll::Ready((this.classifier.classify(&result), result))
        });
        let Poll::Ready((outcome, result)) = polled else {
            guard.put_back(seat);
            let Some(deadline) = deadlines.run_until() else {
                return Poll::Pending;
            };
            ready!(deadlines.poll(deadline, &*guard.inner().runtime, cx));
            // The operation is gone before its permit is free. If it panics on its way, it has timed
            // out all the same.
            let gone = catch_unwind(AssertUnwindSafe(|| this.operation.set(None)));
            let error = time_out(guard, deadlines);
            return match gone {
                Ok(()) => Poll::Ready(Err(error)),
                Err(panic) => resume_unwind(panic),
            };
        };

        // 5 record, 6 pass the permit on
        if seat.needs_duration() || guard.observer().listens() {
            guard.put_back(seat);
            guard.finish(outcome, duration(guard, deadlines));
        } else {
            guard.inner().finish(seat, outcome, None);
        }
        Poll::Ready(result.map_err(BulkheadError::Operation))
    }
}

/// Steps 1 to 3: from the door to the seat.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "the way of a call that nothing stops must stay in registers"
)]
pub(crate) fn poll_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    priority: Priority,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Seat, Rejection>> {
    if guard.is_new() {
        if let Some(seat) = begin(guard, deadlines, true)? {
            return Poll::Ready(Ok(seat));
        }
    }
    poll_queue(guard, priority, deadlines, cx)
}

/// Steps 1 to 3 without waiting; `None`: the permit has to be waited for.
///
/// `timers`: the call's limits are kept by timers of the runtime's.
#[inline(always)]
pub(crate) fn begin<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<Option<Seat>, Rejection> {
    guard.observe();
    if deadlines.matter() || guard.inner().limits.any() {
        begin_timed(guard.inner(), deadlines, timers)?;
    }
    let Some(seat) = guard.enter()? else {
        return Ok(None);
    };
    Ok(Some(run(guard, seat, false, deadlines)))
}

/// Steps 2 and 3 for a call that waits.
#[inline(never)]
fn poll_queue<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    priority: Priority,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<Seat, Rejection>> {
    ready!(guard.poll_permit(priority, deadlines, cx))?;
    let seat = guard.admit()?;
    Poll::Ready(Ok(run(guard, seat, true, deadlines)))
}

/// The operation begins now; looks at the clock if somebody wants to know how long it takes.
#[inline(always)]
pub(crate) fn run<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    seat: Seat,
    waited: bool,
    deadlines: &mut Deadlines,
) -> Seat {
    if !deadlines.matter() && !seat.needs_duration() {
        return seat;
    }
    // The runtime is the user's code: meanwhile the guard has the seat.
    guard.put_back(seat);
    deadlines.run(waited, &*guard.inner().runtime);
    let Some(seat) = guard.take_seat() else {
        unreachable!("it was put back above")
    };
    seat
}

/// Finds the call's limits and looks at the clock.
#[inline(never)]
fn begin_timed(inner: &Inner, deadlines: &mut Deadlines, timers: bool) -> Result<(), Rejection> {
    let limits = deadlines.limits(&inner.limits);
    if timers && !inner.capabilities.timers {
        if let Some(lack) = limits.needs_timer() {
            return Err(Rejection::Unsupported(lack));
        }
    }
    deadlines.begin(limits, inner.runtime.now());
    Ok(())
}

/// Records the end of a call that ran too long, and frees its permit.
#[cold]
fn time_out<E, H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
) -> BulkheadError<E> {
    let (outcome, error) = timed_out(guard.inner(), deadlines);
    guard.inner().counters.count(Event::TimedOutRunning);
    guard.finish_timed_out(outcome, duration(guard, deadlines));
    error
}

/// What a call that ran too long says of the dependency, and to its caller. It is yet to be counted.
pub(crate) fn timed_out<E>(inner: &Inner, deadlines: &Deadlines) -> (Outcome, BulkheadError<E>) {
    let now = inner.runtime.now();
    let (queued, ran) = deadlines.spent(now);
    let outcome = if deadlines.is_queues_fault(now) {
        Outcome::Ignored
    } else {
        Outcome::Failure
    };
    let error = BulkheadError::Timeout {
        bulkhead: inner.name.clone(),
        phase: TimeoutPhase::Running,
        queued,
        ran,
    };
    (outcome, error)
}

/// How long the operation ran, if the circuit wants to know.
pub(crate) fn duration<H: Borrow<Bulkhead>>(
    guard: &CallGuard<H>,
    deadlines: &Deadlines,
) -> Option<Duration> {
    if guard.needs_duration() {
        deadlines.ran(&*guard.inner().runtime)
    } else {
        None
    }
}

/// Runs the user's code; if it panics, the call is recorded and its permit free before the panic
/// goes on.
#[inline]
pub(crate) fn watched<H: Borrow<Bulkhead>, R>(
    guard: &mut CallGuard<H>,
    seat: Seat,
    deadlines: &Deadlines,
    code: impl FnOnce() -> R,
) -> R {
    struct OnUnwind<'a, H: Borrow<Bulkhead>>(&'a mut CallGuard<H>, Seat, &'a Deadlines);

    impl<H: Borrow<Bulkhead>> Drop for OnUnwind<'_, H> {
        #[cold]
        fn drop(&mut self) {
            let Self(guard, seat, deadlines) = self;
            guard.put_back(*seat);
            // The clock may panic, too, and a second panic here would end the process.
            let ran = catch(|| duration(guard, deadlines)).flatten();
            catch(|| guard.finish_panicked(ran));
        }
    }

    let unwinding = OnUnwind(guard, seat, deadlines);
    let result = {
        let _span = unwinding.0.observer().enter();
        code()
    };
    std::mem::forget(unwinding);
    result
}

#[cold]
fn unreachable_after_end() -> ! {
    unreachable!("the operation is taken out only when the call ends")
}

impl<H: Borrow<Bulkhead>, F, C> fmt::Debug for Execute<H, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execute")
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}
