//! Calls without an executor: they wait and run on the calling thread.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admission::block_on_admission;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::run::{End, finish_call, run_guarded};
use crate::error::BulkheadError;

/// Performs the steps of [`execute`](super::execute) on the current thread.
pub(crate) fn execute_sync<F, T, E, C>(
    bulkhead: &Bulkhead,
    operation: F,
    classifier: C,
    options: CallOptions,
) -> Result<T, BulkheadError<E>>
where
    F: FnOnce() -> Result<T, E>,
    C: Classifier<T, E>,
{
    let mut guard = CallGuard::new(bulkhead, &options);
    let mut deadlines = options.deadlines();
    let admission = block_on_admission(&mut guard, &mut deadlines, Unpark::waker);
    let admitted = match admission {
        Ok(admitted) => admitted,
        Err(rejection) => return guard.reject(rejection, &deadlines),
    };
    let (outcome, result) = run_guarded(&mut guard, admitted, &deadlines, || {
        let result = operation();
        (classifier.classify(&result), result)
    });
    guard.restore(admitted);
    let (outcome, end) = apply_deadline(outcome, bulkhead.inner(), &deadlines);
    finish_call(&mut guard, &deadlines, outcome, end);
    result.map_err(BulkheadError::Operation)
}

/// Returns the outcome to record for a closure that may have exceeded its deadline.
///
/// A closure can't be interrupted: one that takes too long keeps its value, and is a failure.
fn apply_deadline(outcome: Outcome, inner: &Inner, deadlines: &Deadlines) -> (Outcome, End) {
    let Some(deadline) = deadlines.run_deadline() else {
        return (outcome, End::Completed);
    };
    let now = inner.runtime.now();
    if now < deadline {
        (outcome, End::Completed)
    } else if deadlines.mostly_queued(now) {
        (Outcome::Ignored, End::Completed)
    } else {
        (Outcome::Failure, End::CompletedLate)
    }
}

struct Unpark(Thread);

impl Unpark {
    /// Returns a waker that unparks the current thread.
    fn waker() -> Waker {
        Waker::from(Arc::new(Self(thread::current())))
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
