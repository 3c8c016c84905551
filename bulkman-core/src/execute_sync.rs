//! Calls without an executor: they wait and run on the calling thread.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use crate::bulkhead::Bulkhead;
use crate::call::CallOptions;
use crate::classify::Classifier;
use crate::deadlines::Deadlines;
use crate::error::BulkheadError;
use crate::execute::{begin, duration, watched};
use crate::guard::{CallGuard, Rejection};
use crate::outcome::Outcome;

/// The steps of [`execute`](crate::execute), on this thread.
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
    let mut guard = CallGuard::new(bulkhead);
    let mut deadlines = Deadlines::default();
    if let Err(rejection) = admit(&mut guard, &options, &mut deadlines) {
        return Err(guard.refuse(rejection, &deadlines));
    }
    let (outcome, result) = watched(&mut guard, &mut deadlines, || {
        let result = operation();
        (classifier.classify(&result), result)
    });
    let outcome = judge_overrun(outcome, &guard, &deadlines);
    let ran = duration(&guard, false, &mut deadlines);
    guard.finish(outcome, ran);
    result.map_err(BulkheadError::Operation)
}

fn admit(
    guard: &mut CallGuard<&Bulkhead>,
    options: &CallOptions,
    deadlines: &mut Deadlines,
) -> Result<(), Rejection> {
    // Parking the thread needs no timer of the runtime's.
    let waited = !begin(guard, options, deadlines, false)?;
    if waited {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        guard.wait_for_permit(options.priority, deadlines, &waker)?;
    }
    guard.admit()?;
    deadlines.run(waited, guard.needs_duration(), &*guard.inner().runtime);
    Ok(())
}

/// A closure can't be interrupted: what took too long keeps its value, and is a failure.
fn judge_overrun(outcome: Outcome, guard: &CallGuard<&Bulkhead>, deadlines: &Deadlines) -> Outcome {
    let Some(deadline) = deadlines.run_until() else { return outcome };
    let now = guard.inner().runtime.now();
    if now < deadline {
        outcome
    } else if deadlines.is_queues_fault(now) {
        Outcome::Ignored
    } else {
        Outcome::Failure
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
