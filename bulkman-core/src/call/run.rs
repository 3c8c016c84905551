//! Step 4 of a call: runs the operation, and handles its panics and timeouts.

use std::borrow::Borrow;

use crate::bulkhead::stats::Event;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::outcome::Outcome;
use crate::error::{BulkheadError, TimeoutPhase, note_rejection};
use crate::observe::CallEnd;
use crate::sync::unwind::catch;

/// Runs code of the caller.
///
/// If it panics, the call is recorded and its permit released before the panic continues.
#[inline]
pub(crate) fn run_guarded<H: Borrow<Bulkhead>, R>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    deadlines: &Deadlines,
    code: impl FnOnce() -> R,
) -> R {
    struct OnUnwind<'a, H: Borrow<Bulkhead>>(&'a mut CallGuard<H>, Admitted, &'a Deadlines);

    impl<H: Borrow<Bulkhead>> Drop for OnUnwind<'_, H> {
        #[cold]
        fn drop(&mut self) {
            let Self(guard, admitted, deadlines) = self;
            guard.restore(*admitted);
            finish_call_catching(guard, deadlines, Outcome::Failure, End::Panicked);
        }
    }

    let unwinding = OnUnwind(guard, admitted, deadlines);
    let result = {
        let _span = unwinding.0.observer().enter();
        code()
    };
    std::mem::forget(unwinding);
    result
}

/// Returns the outcome and the error of a call that exceeded its deadline while running.
///
/// The caller has to count it.
pub(crate) fn timed_out<E>(inner: &Inner, deadlines: &Deadlines) -> (Outcome, BulkheadError<E>) {
    let now = inner.runtime.now();
    let (queued, ran) = deadlines.elapsed(now);
    let outcome = if deadlines.mostly_queued(now) {
        Outcome::Ignored
    } else {
        Outcome::Failure
    };
    note_rejection(false);
    let error = BulkheadError::Timeout {
        bulkhead: inner.name.clone(),
        phase: TimeoutPhase::Running,
        queued,
        ran,
    };
    (outcome, error)
}

/// How the run of an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The operation completed.
    Completed,
    /// The operation can't be interrupted, and completed after its deadline.
    CompletedLate,
    /// The operation exceeded its deadline.
    TimedOut,
    /// The operation panicked.
    Panicked,
    /// The operation completed after its timeout was recorded.
    Recorded,
}

/// Steps 5 and 6 of a call whose admission is in the guard.
#[inline]
pub(crate) fn finish_call<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &Deadlines,
    outcome: Outcome,
    end: End,
) {
    if end == End::Panicked {
        guard.inner().counters.count(Event::Panicked);
    }
    if guard.needs_duration() {
        guard.finish_timed(outcome, end, deadlines.run_started());
    } else {
        guard.finish(outcome, end.observed(outcome), None);
    }
}

/// As [`finish_call`], where a panic of the clock must not continue.
pub(crate) fn finish_call_catching<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    deadlines: &Deadlines,
    outcome: Outcome,
    end: End,
) {
    if catch(|| finish_call(guard, deadlines, outcome, end)).is_none() {
        // Without the duration, unless the call was recorded before the panic.
        catch(|| guard.finish(outcome, end.observed(outcome), None));
    }
}

impl End {
    /// Returns what an observer reports.
    pub(crate) const fn observed(self, outcome: Outcome) -> CallEnd {
        match self {
            Self::Completed | Self::CompletedLate => CallEnd::Completed(outcome),
            Self::TimedOut | Self::Recorded => CallEnd::TimedOut,
            Self::Panicked => CallEnd::Panicked,
        }
    }
}
