//! Asynchronous calls.
//!
//! 1. Circuit: if it is open and no transition is due, the call is rejected before it is queued.
//! 2. Permit: one is available, or the call waits for one in the queue.
//! 3. Circuit: it may have opened while the call waited.
//! 4. The operation runs, under its deadline.
//! 5. The outcome is classified and recorded.
//! 6. The permit goes to the next waiter.
//!
//! What the call holds is in a [`CallGuard`], so dropping the future at any point loses nothing.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::bulkhead::Bulkhead;
use crate::bulkhead::running::CallTags;
use crate::bulkhead::stats::Event;
use crate::call::admission::poll_admission;
use crate::call::admitted::Admitted;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
#[cfg(feature = "http")]
use crate::call::held::HeldCall;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::run::{finish, needed_run, run_guarded, timed_out};
use crate::error::BulkheadError;
use crate::name::BulkheadName;
use crate::observe::CallSpan;
use crate::sync::unwind::catch;

pin_project! {
    /// The future of [`Bulkhead::execute`](crate::Bulkhead::execute), which borrows the bulkhead.
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point releases its place in the queue, its permit and its probe slot.
    /// A call that was running counts as cancelled, which does not affect the circuit.
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::testing::ManualRuntime;
    /// use std::future::pending;
    /// use futures_lite::future::{block_on, poll_once};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// let mut call = Box::pin(bulkhead.execute(pending::<Result<(), ()>>()));
    /// assert_eq!(bulkhead.stats().active, 0);            // nothing happens before the first poll
    /// assert!(block_on(poll_once(&mut call)).is_none());
    /// assert_eq!(bulkhead.stats().active, 1);
    /// drop(call);
    /// let stats = bulkhead.stats();
    /// assert_eq!((stats.active, stats.cancelled, stats.permits_in_use), (0, 1, 0));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Execute<'a, F, C> {
        #[pin]
        call: CallFuture<&'a Bulkhead, F, C>,
    }
}

impl<'a, F, C> Execute<'a, F, C> {
    #[inline]
    pub(crate) const fn new(
        bulkhead: &'a Bulkhead,
        operation: F,
        classifier: C,
        options: CallOptions,
    ) -> Self {
        Self {
            call: CallFuture::new(bulkhead, operation, classifier, options),
        }
    }

    /// Returns how long the call has waited and run so far.
    pub(crate) fn elapsed(&self) -> (Duration, Duration) {
        let now = self.call.guard.inner().runtime.now();
        self.call.deadlines.elapsed(now)
    }

    /// Returns the permits of the call: from its admission on, those that it holds or has held.
    pub(crate) const fn permits(&self) -> u32 {
        self.call.guard.permits()
    }

    pub(crate) fn bulkhead(&self) -> BulkheadName {
        self.call.guard.inner().name.clone()
    }
}

impl<F, C, T, E> Future for Execute<'_, F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classifier<T, E>,
{
    type Output = Result<T, BulkheadError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

impl<F, C> fmt::Debug for Execute<'_, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt("Execute", f)
    }
}

pin_project! {
    /// The future of a call that owns its bulkhead, such as those of
    /// [`Bulkhead::wrap`](crate::Bulkhead::wrap).
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`].
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::call::DefaultClassifier;
    /// use bulkman::future::ExecuteOwned;
    /// use bulkman::testing::ManualRuntime;
    /// use std::future::{Ready, ready};
    ///
    /// type Lookup = ExecuteOwned<Ready<Result<usize, ()>>, DefaultClassifier>;
    ///
    /// let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let search = bulkhead.wrap(|word: &str| ready(Ok(word.len())));
    /// let lookup: Lookup = search("bulkhead");
    /// assert_eq!(runtime.block_on(lookup), Ok(8));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ExecuteOwned<F, C> {
        #[pin]
        call: CallFuture<Bulkhead, F, C>,
    }
}

impl<F, C> ExecuteOwned<F, C> {
    #[inline]
    pub(crate) const fn new(
        bulkhead: Bulkhead,
        operation: F,
        classifier: C,
        options: CallOptions,
    ) -> Self {
        Self {
            call: CallFuture::new(bulkhead, operation, classifier, options),
        }
    }
}

#[cfg(feature = "http")]
impl<F, C> ExecuteOwned<F, C> {
    /// As `poll`, but a call whose operation has succeeded is not over: it is returned as well.
    pub(crate) fn poll_held<T, E>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(T, HeldCall), BulkheadError<E>>>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let call = self.project().call;
        call.poll_with(cx, |guard, admitted, deadlines, outcome, result| {
            guard.restore(admitted);
            let run = needed_run(guard, deadlines);
            match result {
                Ok(value) => {
                    guard.complete_operation(outcome, run);
                    Ok((value, HeldCall::new(guard.detach(), outcome, run)))
                }
                Err(error) => {
                    guard.finish(outcome, run);
                    Err(BulkheadError::Operation(error))
                }
            }
        })
    }
}

impl<F, C, T, E> Future for ExecuteOwned<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classifier<T, E>,
{
    type Output = Result<T, BulkheadError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

impl<F, C> fmt::Debug for ExecuteOwned<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt("ExecuteOwned", f)
    }
}

pin_project! {
    /// A call that borrows or owns its bulkhead.
    struct CallFuture<H: Borrow<Bulkhead>, F, C> {
        // Fields are dropped in this order: the operation is dropped before its permit is released.
        #[pin]
        operation: Option<F>,
        classifier: C,
        guard: CallGuard<H>,
        tags: CallTags,
        deadlines: Deadlines,
    }

    impl<H: Borrow<Bulkhead>, F, C> PinnedDrop for CallFuture<H, F, C> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // The observer of a call that has ended is not enabled.
            if this.guard.observer().is_enabled() {
                drop_in_span(&mut this.operation, &this.guard.observer().span());
            }
        }
    }
}

/// Drops an operation within the span of its call, to which the logs of its destructor belong.
#[cold]
fn drop_in_span<F>(operation: &mut Pin<&mut Option<F>>, span: &CallSpan) {
    span.in_scope(|| operation.set(None));
}

impl<H: Borrow<Bulkhead>, F, C> CallFuture<H, F, C> {
    #[inline]
    const fn new(bulkhead: H, operation: F, classifier: C, options: CallOptions) -> Self {
        Self {
            operation: Some(operation),
            classifier,
            guard: CallGuard::new(bulkhead, &options),
            tags: options.tags,
            deadlines: options.deadlines(),
        }
    }

    #[inline]
    fn poll<T, E>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, BulkheadError<E>>>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        // Steps 5 and 6: record the outcome and release the permit.
        self.poll_with(cx, |guard, admitted, deadlines, outcome, result| {
            finish(guard, admitted, deadlines, outcome);
            result.map_err(BulkheadError::Operation)
        })
    }

    /// Polls steps 1 to 4. `finish` owns the admission of an operation that has completed.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "an admission that does not wait must stay in registers"
    )]
    fn poll_with<T, E, R>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        finish: impl FnOnce(
            &mut CallGuard<H>,
            Admitted,
            &Deadlines,
            Outcome,
            Result<T, E>,
        ) -> Result<R, BulkheadError<E>>,
    ) -> Poll<Result<R, BulkheadError<E>>>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let mut this = self.project();
        let (guard, deadlines) = (this.guard, this.deadlines);

        // Steps 1 to 3: admission.
        let admitted = match guard.take_admitted() {
            Some(admitted) => admitted,
            None => match ready!(poll_admission(guard, *this.tags, deadlines, cx)) {
                Ok(admitted) => admitted,
                Err(rejection) => {
                    if guard.observer().is_enabled() {
                        drop_in_span(&mut this.operation, &guard.observer().span());
                    }
                    return guard.reject(rejection, deadlines);
                }
            },
        };

        // Step 4: run. The classifier may panic as well, so it runs under the same guard.
        let polled = run_guarded(guard, admitted, deadlines, || {
            let mut unwinding = DropOnUnwind(this.operation.as_mut());
            let Some(operation) = unwinding.0.as_mut().as_pin_mut() else {
                unreachable_after_completion()
            };
            let polled = operation.poll(cx).map(|result| {
                unwinding.0.set(None);
                (this.classifier.classify(&result), result)
            });
            forget(unwinding);
            polled
        });
        let Poll::Ready((outcome, result)) = polled else {
            guard.restore(admitted);
            let Some(deadline) = deadlines.run_deadline() else {
                return Poll::Pending;
            };
            ready!(deadlines.poll(deadline, &*guard.inner().runtime, cx));
            // The operation is dropped before its permit is released. The call has timed out even
            // if the drop panics.
            let dropped = catch_unwind(AssertUnwindSafe(|| {
                let _span = guard.observer().enter();
                this.operation.set(None);
            }));
            let error = time_out(guard, deadlines);
            return match dropped {
                Ok(()) => Poll::Ready(Err(error)),
                Err(panic) => resume_unwind(panic),
            };
        };

        Poll::Ready(finish(guard, admitted, deadlines, outcome, result))
    }

    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

/// Drops an operation that has panicked, within the span of its call and before its permit is
/// released.
struct DropOnUnwind<'a, F>(Pin<&'a mut Option<F>>);

impl<F> Drop for DropOnUnwind<'_, F> {
    #[cold]
    fn drop(&mut self) {
        // A second panic that left this function would abort the process.
        catch(|| self.0.set(None));
    }
}

/// Records a timeout while running and releases the permit.
#[cold]
fn time_out<E, H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &Deadlines,
) -> BulkheadError<E> {
    let (outcome, error) = timed_out(guard.inner(), deadlines);
    guard.inner().counters.count(Event::TimedOutRunning);
    guard.finish_timed_out(outcome, needed_run(guard, deadlines));
    error
}

#[cold]
fn unreachable_after_completion() -> ! {
    unreachable!("the operation is taken out only when the call ends")
}
