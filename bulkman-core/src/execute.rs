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
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::bulkhead::{Bulkhead, Inner};
use crate::call::CallOptions;
use crate::classify::Classifier;
use crate::deadlines::Deadlines;
use crate::error::{BulkheadError, Phase};
use crate::guard::{CallGuard, Rejection};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::stats::Event;

pin_project! {
    /// An operation under the protection of a bulkhead: the future of
    /// [`Bulkhead::execute`](crate::Bulkhead::execute) and its kin.
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point gives back its place in the queue, its permit and its probe slot.
    /// A call that was running counts as cancelled, and says nothing about the dependency.
    #[must_use = "futures do nothing unless polled"]
    pub struct Execute<H: Borrow<Bulkhead>, F, C> {
        // Fields are dropped in this order: the operation is gone before its permit is free.
        #[pin]
        operation: Option<F>,
        classifier: C,
        guard: CallGuard<H>,
        options: CallOptions,
        deadlines: Deadlines,
    }
}

impl<H: Borrow<Bulkhead>, F, C> Execute<H, F, C> {
    #[inline]
    pub(crate) fn new(bulkhead: H, operation: F, classifier: C, options: CallOptions) -> Self {
        Self {
            operation: Some(operation),
            classifier,
            guard: CallGuard::new(bulkhead),
            options,
            deadlines: Deadlines::default(),
        }
    }

    /// How long the call waited and ran, as far as it has come.
    pub(crate) fn spent(&self) -> (Duration, Duration) {
        self.deadlines.spent(self.guard.inner().runtime.now())
    }

    pub(crate) fn bulkhead(&self) -> Name {
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
        if !guard.is_admitted() {
            if let Err(rejection) = ready!(poll_admission(guard, this.options, deadlines, cx)) {
                return Poll::Ready(Err(guard.refuse(rejection, deadlines)));
            }
        }

        // 4 run, 5 classify
        let polled = watched(guard, deadlines, || {
            let Some(operation) = this.operation.as_mut().as_pin_mut() else { unreachable_after_end() };
            operation.poll(cx).map(|result| (this.classifier.classify(&result), result))
        });
        let Poll::Ready((outcome, result)) = polled else {
            let Some(deadline) = deadlines.run_until() else { return Poll::Pending };
            ready!(deadlines.poll(deadline, &*guard.inner().runtime, cx));
            watched(guard, deadlines, || this.operation.set(None));
            return Poll::Ready(Err(time_out(guard, deadlines)));
        };

        // 5 record, 6 pass the permit on
        this.operation.set(None);
        let ran = duration(guard, this.options.is_reported(), deadlines);
        guard.finish(outcome, ran);
        Poll::Ready(result.map_err(BulkheadError::Operation))
    }
}

/// Steps 1 to 3: from the door to the seat.
#[inline]
pub(crate) fn poll_admission<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    options: &CallOptions,
    deadlines: &mut Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Rejection>> {
    let waited = if begin(guard, options, deadlines, true)? {
        false
    } else {
        ready!(guard.poll_permit(options.priority, deadlines, cx))?;
        true
    };
    guard.admit()?;
    deadlines.run(waited, guard.needs_duration(), &*guard.inner().runtime);
    Poll::Ready(Ok(()))
}

/// Steps 1 and 2 as far as they go without waiting; says whether the permit is held.
///
/// `timers`: the call's limits are kept by timers of the runtime's.
#[inline]
pub(crate) fn begin<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    options: &CallOptions,
    deadlines: &mut Deadlines,
    timers: bool,
) -> Result<bool, Rejection> {
    if !guard.is_new() {
        return Ok(false);
    }
    guard.observe(options.report);
    let inner = guard.inner();
    deadlines.begin(&inner.limits, &options.overrides, options.is_reported(), &*inner.runtime);
    if timers {
        options.check(deadlines.limits(), inner.capabilities)?;
    }
    guard.check_circuit()?;
    guard.try_permit()
}

/// Records the end of a call that ran too long, and frees its permit.
#[cold]
fn time_out<E, H: Borrow<Bulkhead>>(guard: &mut CallGuard<H>, deadlines: &mut Deadlines) -> BulkheadError<E> {
    let (outcome, error) = timed_out(guard.inner(), deadlines);
    let ran = deadlines.end(&*guard.inner().runtime);
    guard.finish_timed_out(outcome, ran);
    error
}

/// What a call that ran too long says of the dependency, and to its caller.
pub(crate) fn timed_out<E>(inner: &Inner, deadlines: &Deadlines) -> (Outcome, BulkheadError<E>) {
    inner.counters.count(Event::TimedOutRunning);
    let now = inner.runtime.now();
    let (queued, ran) = deadlines.spent(now);
    let outcome = if deadlines.is_queues_fault(now) { Outcome::Ignored } else { Outcome::Failure };
    let error = BulkheadError::Timeout { bulkhead: inner.name.clone(), phase: Phase::Running, queued, ran };
    (outcome, error)
}

/// How long the operation ran, if the circuit or the caller wants to know.
#[inline]
pub(crate) fn duration<H: Borrow<Bulkhead>>(
    guard: &CallGuard<H>,
    wanted: bool,
    deadlines: &mut Deadlines,
) -> Option<Duration> {
    if wanted || guard.needs_duration() { deadlines.end(&*guard.inner().runtime) } else { None }
}

/// Runs the user's code; if it panics, the call is recorded and its permit free before the panic
/// goes on.
#[inline]
pub(crate) fn watched<H: Borrow<Bulkhead>, R>(
    guard: &mut CallGuard<H>,
    deadlines: &mut Deadlines,
    code: impl FnOnce() -> R,
) -> R {
    struct OnUnwind<'a, H: Borrow<Bulkhead>>(&'a mut CallGuard<H>, &'a mut Deadlines);

    impl<H: Borrow<Bulkhead>> Drop for OnUnwind<'_, H> {
        fn drop(&mut self) {
            let ran = duration(self.0, false, self.1);
            self.0.panicked(ran);
        }
    }

    let unwinding = OnUnwind(guard, deadlines);
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
        f.debug_struct("Execute").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}
