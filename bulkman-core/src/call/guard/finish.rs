//! The ends of calls that ran: steps 5 and 6.

use std::borrow::Borrow;
use std::time::Instant;

use super::{CallGuard, Held};
use crate::adaptive::LimitOutcome;
#[cfg(feature = "http")]
use crate::adaptive::Mark;
use crate::bulkhead::Bulkhead;
use crate::bulkhead::stats::Event;
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
#[cfg(feature = "http")]
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::run::{OperationRun, needed_run};
use crate::observe::CallEnd;
use crate::queue::Claim;
use crate::sync::unwind::catch;

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    /// Returns when the operation ran, as far as its end needs that. It has just ended.
    ///
    /// `started` is called only if the start is needed.
    #[inline]
    pub(crate) fn needed_run(
        &self,
        started: impl FnOnce() -> Option<Instant>,
    ) -> Option<OperationRun> {
        match self.held {
            Held::Admitted(admitted) | Held::AdmittedClaim(admitted, _)
                if admitted.needs_guard() =>
            {
                self.needed_run_of(admitted, started()?)
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn needed_run_of(&self, admitted: Admitted, started: Instant) -> Option<OperationRun> {
        let runtime = &self.inner().runtime;
        let ended = if admitted.needs_duration() {
            Some(runtime.now())
        } else if admitted.is_sample() {
            // A panic of the clock costs a sample, and nothing else.
            catch(|| runtime.now())
        } else {
            None
        };
        Some(OperationRun { started, ended })
    }

    /// As [`finish`](Self::finish), for a probe, or a call that holds a claim. Its admission is out
    /// of the guard.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_probe_or_claim(
        &mut self,
        admitted: Admitted,
        outcome: Outcome,
        deadlines: &Deadlines,
    ) {
        if let Held::OutClaim(claim) = self.held {
            if self.finish_at_once(admitted, claim, outcome) {
                return;
            }
        }
        self.finish_out(admitted, outcome, deadlines);
    }

    /// Ends a call that holds a claim, if it is a success that affects nothing but the permits, as
    /// most calls. Returns `false`, and does nothing, if it is not.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it is most of the end of a call")]
    fn finish_at_once(&mut self, admitted: Admitted, claim: Claim, outcome: Outcome) -> bool {
        let inner = self.bulkhead.borrow().inner();
        let can = outcome == Outcome::Success
            && admitted.is_plain_claim()
            && !self.observer.is_enabled()
            && !inner.affects_circuit(admitted, outcome, None);
        if can {
            self.held = Held::EndedClaim(claim);
            inner.counters.end(Some(Outcome::Success));
            inner.release_claim(claim);
        }
        can
    }

    /// As [`finish`](Self::finish), for a call whose admission is out of the guard.
    #[inline(never)]
    fn finish_out(&mut self, admitted: Admitted, outcome: Outcome, deadlines: &Deadlines) {
        self.restore(admitted);
        self.finish(outcome, needed_run(self, deadlines));
    }

    /// Steps 5 and 6: records the outcome and releases the permit.
    pub(crate) fn finish(&mut self, outcome: Outcome, run: Option<OperationRun>) {
        let meaning = LimitOutcome::of(outcome);
        self.end(outcome, run, CallEnd::Completed(outcome), meaning);
    }

    /// As [`finish`](Self::finish), for an operation that ended after its deadline: a failure.
    pub(crate) fn finish_late(&mut self, run: Option<OperationRun>) {
        let end = CallEnd::Completed(Outcome::Failure);
        self.end(Outcome::Failure, run, end, LimitOutcome::Overload);
    }

    /// As [`finish`](Self::finish), for an operation that timed out.
    pub(crate) fn finish_timed_out(&mut self, outcome: Outcome, run: Option<OperationRun>) {
        let meaning = match outcome {
            Outcome::Failure => LimitOutcome::Overload,
            _ => LimitOutcome::Nothing,
        };
        self.end(outcome, run, CallEnd::TimedOut, meaning);
    }

    /// As [`finish`](Self::finish), for work whose timeout the circuit has already recorded.
    pub(crate) fn finish_recorded(&mut self, outcome: Outcome) {
        if let Some(admitted) = self.held.admitted_mut() {
            let inner = self.bulkhead.borrow().inner();
            *admitted = inner.running.end(*admitted).recorded();
        }
        self.finish_timed_out(outcome, None);
    }

    /// As [`finish`](Self::finish), for an operation that panicked: a failure.
    pub(crate) fn finish_panicked(&mut self, run: Option<OperationRun>) {
        self.inner().counters.count(Event::Panicked);
        let meaning = LimitOutcome::of(Outcome::Failure);
        self.end(Outcome::Failure, run, CallEnd::Panicked, meaning);
    }

    fn end(
        &mut self,
        outcome: Outcome,
        run: Option<OperationRun>,
        end: CallEnd,
        meaning: LimitOutcome,
    ) {
        let Some(admitted) = self.take_admitted() else {
            self.finish_claim(outcome, run, end, meaning);
            return;
        };
        let inner = self.bulkhead.borrow().inner();
        let admitted = inner.running.end(admitted);
        match admitted.mark() {
            Some(mark) => inner.finish_marked(admitted, mark, outcome, run, meaning),
            None => inner.finish(admitted, outcome, run.and_then(OperationRun::duration)),
        }
        self.observer.end(inner, end);
    }

    /// As [`end`](Self::end), for a call that holds a claim. No effect on one that has ended.
    #[inline(never)]
    fn finish_claim(
        &mut self,
        outcome: Outcome,
        run: Option<OperationRun>,
        end: CallEnd,
        meaning: LimitOutcome,
    ) {
        if let Held::AdmittedClaim(admitted, claim) = self.held {
            if self.finish_at_once(admitted, claim, outcome) {
                return;
            }
        }
        if let Some(admitted) = self.take_admitted_claim() {
            let claim = self.end_claim();
            let inner = self.bulkhead.borrow().inner();
            let admitted = inner.running.end(admitted);
            inner.finish_claim(admitted, claim, outcome, run, meaning);
            self.observer.end(inner, end);
        }
    }
}

#[cfg(feature = "http")]
impl CallGuard<Bulkhead> {
    /// Moves everything that is held to the returned guard, after the operation has completed.
    ///
    /// It is not in flight any more for the rules of the circuit, which are about operations.
    pub(crate) fn detach(&mut self) -> Self {
        if let Some(admitted) = self.held.admitted_mut() {
            let inner = self.bulkhead.inner();
            *admitted = inner.end_in_flight(*admitted);
        }
        let mut ended = Self::new(self.bulkhead.clone(), &CallOptions::DEFAULT);
        ended.held = Held::Ended;
        std::mem::replace(self, ended)
    }

    /// Records a completed operation for the limit, while its permit is still held.
    ///
    /// The limit learns nothing from the end of the call.
    pub(crate) fn complete_operation(&mut self, outcome: Outcome, run: Option<OperationRun>) {
        let Some(admitted) = self.held.admitted_mut() else {
            return;
        };
        let inner = self.bulkhead.inner();
        if let Some(mark) = admitted.mark() {
            *admitted = admitted.with_mark(mark.uncounted());
            inner.record_for_limit(mark, LimitOutcome::of(outcome), run);
        } else if inner.adaptive().is_some() {
            *admitted = admitted.with_mark(Mark::UNCOUNTED);
            inner.record_unmarked_failure(outcome);
        }
    }
}
