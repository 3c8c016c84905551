//! Calls without an executor: they wait and run on the calling thread.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use crate::bulkhead::{Bulkhead, Inner};
use crate::call::CallOptions;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::execute::{begin, duration, run, watched};
use crate::call::guard::{CallGuard, Seat};
use crate::call::outcome::Outcome;
use crate::call::rejection::Rejection;
use crate::error::BulkheadError;
use crate::queue::Priority;

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
    let mut guard = CallGuard::new(bulkhead, options.report);
    let mut deadlines = options.deadlines();
    let seat = match admit(&mut guard, options.priority, &mut deadlines) {
        Ok(seat) => seat,
        Err(rejection) => return guard.refuse(rejection, &deadlines),
    };
    let (outcome, result) = watched(&mut guard, seat, &deadlines, || {
        let result = operation();
        (classifier.classify(&result), result)
    });
    guard.put_back(seat);
    let outcome = judge_overrun(outcome, bulkhead.inner(), &deadlines);
    guard.finish(outcome, duration(&guard, &deadlines));
    result.map_err(BulkheadError::Operation)
}

fn admit(
    guard: &mut CallGuard<&Bulkhead>,
    priority: Priority,
    deadlines: &mut Deadlines,
) -> Result<Seat, Rejection> {
    // Parking the thread needs no timer of the runtime's.
    if let Some(seat) = begin(guard, deadlines, false)? {
        return Ok(seat);
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    guard.wait_for_permit(priority, deadlines, &waker)?;
    let seat = guard.admit()?;
    Ok(run(guard, seat, true, deadlines))
}

/// A closure can't be interrupted: what took too long keeps its value, and is a failure.
fn judge_overrun(outcome: Outcome, inner: &Inner, deadlines: &Deadlines) -> Outcome {
    let Some(deadline) = deadlines.run_until() else {
        return outcome;
    };
    let now = inner.runtime.now();
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
