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
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::bulkhead::Bulkhead;
use crate::bulkhead::stats::Event;
use crate::call::admission::poll_admission;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallOptions;
use crate::call::run::{End, finish_call, run_guarded, timed_out};
use crate::error::BulkheadError;
use crate::name::BulkheadName;

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
        self.call.guard.claim().permits()
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
        deadlines: Deadlines,
    }
}

impl<H: Borrow<Bulkhead>, F, C> CallFuture<H, F, C> {
    #[inline]
    const fn new(bulkhead: H, operation: F, classifier: C, options: CallOptions) -> Self {
        Self {
            operation: Some(operation),
            classifier,
            guard: CallGuard::new(bulkhead, &options),
            deadlines: options.deadlines(),
        }
    }

    #[inline]
    fn poll<T, E>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, BulkheadError<E>>>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let mut this = self.project();
        let (guard, deadlines) = (this.guard, this.deadlines);

        // Steps 1 to 3: admission.
        let admitted = match guard.take_admitted() {
            Some(admitted) => admitted,
            None => match ready!(poll_admission(guard, deadlines, cx)) {
                Ok(admitted) => admitted,
                Err(rejection) => return guard.reject(rejection, deadlines),
            },
        };

        // Step 4: run. The classifier may panic as well, so it runs under the same guard.
        let polled = run_guarded(guard, admitted, deadlines, || {
            let Some(operation) = this.operation.as_mut().as_pin_mut() else {
                unreachable_after_completion()
            };
            let result = ready!(operation.poll(cx));
            this.operation.set(None);
            Poll::Ready((this.classifier.classify(&result), result))
        });
        let Poll::Ready((outcome, result)) = polled else {
            guard.restore(admitted);
            let Some(deadline) = deadlines.run_deadline() else {
                return Poll::Pending;
            };
            ready!(deadlines.poll(deadline, &*guard.inner().runtime, cx));
            // The operation is dropped before its permit is released. The call has timed out even
            // if the drop panics.
            let dropped = catch_unwind(AssertUnwindSafe(|| this.operation.set(None)));
            let error = time_out(guard, deadlines);
            return match dropped {
                Ok(()) => Poll::Ready(Err(error)),
                Err(panic) => resume_unwind(panic),
            };
        };

        // Steps 5 and 6: record the outcome and release the permit.
        if admitted.needs_duration() || guard.observer().is_enabled() {
            guard.restore(admitted);
            finish_call(guard, deadlines, outcome, End::Completed);
        } else {
            guard.inner().finish(admitted, outcome, None);
        }
        Poll::Ready(result.map_err(BulkheadError::Operation))
    }

    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
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
    finish_call(guard, deadlines, outcome, End::TimedOut);
    error
}

#[cold]
fn unreachable_after_completion() -> ! {
    unreachable!("the operation is taken out only when the call ends")
}
