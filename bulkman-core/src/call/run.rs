//! Step 4 of a call: runs the operation, and handles its panics and timeouts.

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::outcome::Outcome;
use crate::error::{BulkheadError, TimeoutPhase, note_rejection};
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
            // The clock may panic as well, and a second panic here would abort the process.
            let run = catch(|| needed_run(guard, deadlines)).flatten();
            catch(|| guard.finish_panicked(run));
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

/// Steps 5 and 6 of a call without limits of time: records the outcome and releases the permit.
///
/// The admission is out of the guard.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it is the end of every call")]
pub(crate) fn finish<H: Borrow<Bulkhead>>(
    guard: &mut CallGuard<H>,
    admitted: Admitted,
    deadlines: &Deadlines,
    outcome: Outcome,
) {
    if admitted.needs_guard() || guard.observer().is_enabled() {
        if admitted.is_probe_or_claim() {
            guard.finish_probe_or_claim(admitted, outcome, deadlines);
        } else {
            guard.restore(admitted);
            guard.finish(outcome, needed_run(guard, deadlines));
        }
    } else {
        guard.inner().finish(admitted, outcome, None);
    }
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

/// When an operation ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperationRun {
    pub(crate) started: Instant,
    /// `None`: it is not needed, or the clock panicked.
    pub(crate) ended: Option<Instant>,
}

impl OperationRun {
    pub(crate) fn duration(self) -> Option<Duration> {
        Some(self.ended?.saturating_duration_since(self.started))
    }
}

/// Returns when the operation ran, if a rule of the circuit or the limit needs it.
#[inline]
pub(crate) fn needed_run<H: Borrow<Bulkhead>>(
    guard: &CallGuard<H>,
    deadlines: &Deadlines,
) -> Option<OperationRun> {
    guard.needed_run(|| deadlines.run_started())
}
