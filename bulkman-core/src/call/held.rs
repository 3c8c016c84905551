//! A call that continues after its operation has completed.

use crate::bulkhead::Bulkhead;
use crate::call::guard::CallGuard;
use crate::call::outcome::Outcome;
use crate::call::run::OperationRun;
use crate::observe::Observer;
use crate::sync::unwind::catch;

/// The permit and the admission of a call with a completed operation.
///
/// Dropping it records the outcome of the operation if it is not a success. A success that is
/// dropped counts as cancelled.
#[derive(Debug)]
pub(crate) struct HeldCall {
    guard: CallGuard<Bulkhead>,
    /// How the value of the operation counts.
    outcome: Outcome,
    /// When the operation ran, if a rule of the circuit needs it.
    run: Option<OperationRun>,
}

impl HeldCall {
    pub(crate) const fn new(
        guard: CallGuard<Bulkhead>,
        outcome: Outcome,
        run: Option<OperationRun>,
    ) -> Self {
        Self {
            guard,
            outcome,
            run,
        }
    }

    /// Returns how the value of the operation counts.
    pub(crate) const fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) const fn observer(&self) -> &Observer {
        self.guard.observer()
    }

    /// Records the outcome and releases the permit.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.guard.finish(outcome, self.run);
    }

    /// As [`finish`](Self::finish), after code of the caller has panicked: a failure.
    pub(crate) fn finish_panicked(mut self) {
        catch(|| self.guard.finish_panicked(self.run));
    }
}

impl Drop for HeldCall {
    fn drop(&mut self) {
        // Has no effect on a call that is finished already.
        if self.outcome != Outcome::Success {
            catch(|| self.guard.finish(self.outcome, self.run));
        }
    }
}
