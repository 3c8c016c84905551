//! Calls without an executor: they wait and run on the calling thread.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admission::block_on_admission;
use crate::call::claim_admission::block_on_claim_admission;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::run::{finish, needed_run, run_guarded};
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
    let admission = if options.is_ordinary() {
        block_on_admission(&mut guard, options.tags, &mut deadlines, Unpark::waker)
    } else {
        block_on_claim_admission(&mut guard, options.tags, &mut deadlines, Unpark::waker)
    };
    let admitted = match admission {
        Ok(admitted) => admitted,
        Err(rejection) => {
            if guard.observer().is_enabled() {
                guard.observer().span().in_scope(|| drop(operation));
            }
            return guard.reject(rejection, &deadlines);
        }
    };
    let (outcome, result) = run_guarded(&mut guard, admitted, &deadlines, || {
        let result = operation();
        (classifier.classify(&result), result)
    });
    if deadlines.is_tracked() {
        guard.restore(admitted);
        let outcome = apply_deadline(outcome, bulkhead.inner(), &deadlines);
        let run = needed_run(&guard, &deadlines);
        match outcome {
            Some(outcome) => guard.finish(outcome, run),
            None => guard.finish_late(run),
        }
    } else {
        finish(&mut guard, admitted, &deadlines, outcome);
    }
    result.map_err(BulkheadError::Operation)
}

/// Returns the outcome to record for a closure that may have exceeded its deadline.
///
/// `None`: it has. It can't be interrupted: it keeps its value, and is a failure.
fn apply_deadline(outcome: Outcome, inner: &Inner, deadlines: &Deadlines) -> Option<Outcome> {
    let Some(deadline) = deadlines.run_deadline() else {
        return Some(outcome);
    };
    let now = inner.runtime.now();
    if now < deadline {
        Some(outcome)
    } else if deadlines.mostly_queued(now) {
        Some(Outcome::Ignored)
    } else {
        None
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
