//! The calls of a bulkhead whose limit adapts or is observed.

use std::time::Instant;

use super::Inner;
use super::running::CallTags;
use crate::adaptive::{LimitDecision, LimitDriver, LimitOutcome, LimitStatus, Mark, SampleMask};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::outcome::Outcome;
use crate::call::run::OperationRun;
use crate::circuit_breaker::{Ticket, Transition};
use crate::queue::Claim;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::unwind::catch;

impl Inner {
    /// Steps 1 to 3 of a call that has no limits of time and need not wait.
    ///
    /// The number of the call decides whether it is a sample and has a mark. A call without one
    /// ends as that of a bulkhead without an adaptive limit. `None`: nothing has happened.
    #[inline]
    pub(crate) fn try_start_by_count(&self) -> Option<Ticket> {
        let ticket = match &self.circuit {
            Some(circuit) => circuit.try_admit_fast().filter(|it| !it.needs_duration())?,
            None => Ticket::WITHOUT_CIRCUIT,
        };
        if !self.queue.try_acquire_available() {
            return None;
        }
        let call = self.counters.start();
        Some(if self.counters.sample_mask.contains(call) {
            ticket.with_mark(Mark::sample().to_bits())
        } else {
            ticket
        })
    }

    /// Marks an admitted call, if it is a sample or its end needs a mark.
    pub(crate) fn mark(
        &self,
        admitted: Admitted,
        tags: CallTags,
        deadlines: &Deadlines,
    ) -> Admitted {
        self.mark_weighted(admitted, 1, tags, deadlines)
    }

    /// As [`mark`](Self::mark), for a call with several permits.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the weight of most calls is a constant"
    )]
    pub(crate) fn mark_weighted(
        &self,
        admitted: Admitted,
        weight: u32,
        tags: CallTags,
        deadlines: &Deadlines,
    ) -> Admitted {
        let Some(driver) = self.adaptive() else {
            return admitted;
        };
        let lacks_permit = admitted.mark().is_some_and(Mark::lacks_permit);
        let estimates = driver.estimates();
        let mut mark = if !tags.is_sampled || admitted.is_probe() {
            Mark::UNCOUNTED
        } else if self.counters.sample_mask.contains(self.counters.started()) {
            Mark::sample()
        } else if lacks_permit || estimates || deadlines.has_times() {
            driver.mark_unsampled()
        } else {
            return admitted;
        };
        if lacks_permit {
            mark = mark.without_permit();
        } else if estimates {
            let capacity = self.queue.limits().queue_capacity;
            let (running, may_wait) = (self.queue.in_use(), deadlines.may_wait());
            mark = driver.acquire_virtual_permits(mark, weight, running, capacity, may_wait);
        }
        admitted.with_mark(mark)
    }

    /// Adds its start to the mark of a call that is a sample.
    pub(crate) fn start_sample(&self, admitted: Admitted, started: Option<Instant>) -> Admitted {
        match (admitted.mark(), started, self.driver()) {
            (Some(mark), Some(started), Some(driver)) if mark.is_sampled() => {
                let in_flight = self.queue.in_use() + driver.without_permit();
                admitted.with_mark(driver.start_sample(mark, started, in_flight))
            }
            _ => admitted,
        }
    }

    /// Starts a call that found no permit. Returns `false` if the bulkhead is shut down.
    pub(crate) fn start_without_permit(&self, may_wait: bool) -> bool {
        let Some(driver) = self.driver() else {
            return false;
        };
        let capacity = self.queue.limits().queue_capacity;
        let started = driver.start_without_permit(capacity, may_wait, || self.queue.is_closed());
        if !started {
            self.notify_if_drained();
        }
        started
    }

    /// As [`finish`](Self::finish), for a call with a mark.
    #[inline(never)]
    pub(crate) fn finish_marked(
        &self,
        admitted: Admitted,
        mark: Mark,
        outcome: Outcome,
        run: Option<OperationRun>,
        meaning: LimitOutcome,
    ) {
        let ran = run
            .filter(|_| admitted.needs_duration())
            .and_then(OperationRun::duration);
        if mark.is_plain() && meaning == LimitOutcome::Success {
            self.finish(admitted, outcome, ran);
            return;
        }
        {
            let _ended = ReleaseMarkedOnDrop(self, mark, Some(outcome));
            if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
                if ticket.is_probe() {
                    circuit.leave_probe(ticket);
                }
                circuit.record(ticket, outcome, ran);
            }
        }
        self.record_for_limit(mark, meaning, run);
    }

    /// As [`finish`](Self::finish), for a call that holds a claim, with or without a mark.
    #[inline]
    pub(crate) fn finish_claim(
        &self,
        admitted: Admitted,
        claim: Claim,
        outcome: Outcome,
        run: Option<OperationRun>,
        meaning: LimitOutcome,
    ) {
        let mark = admitted.mark();
        let ran = run
            .filter(|_| admitted.needs_duration())
            .and_then(OperationRun::duration);
        let affects = self.affects_circuit(admitted, outcome, ran);
        if outcome == Outcome::Success && !affects && mark.is_none() {
            // As in `finish`.
            self.counters.end(Some(Outcome::Success));
            self.release_claim(claim);
            return;
        }
        {
            let _ended = ReleaseClaimOnDrop(self, mark, claim, Some(outcome));
            match (admitted.ticket, &self.circuit) {
                (Some(ticket), Some(circuit)) if affects => {
                    if ticket.is_probe() {
                        circuit.leave_probe(ticket);
                    }
                    circuit.record(ticket, outcome, ran);
                }
                _ => {}
            }
        }
        match mark {
            Some(mark) if mark.is_plain() && meaning == LimitOutcome::Success => {}
            Some(mark) => self.record_for_limit(mark, meaning, run),
            None if outcome != Outcome::Success && self.driver().is_some() => {
                self.record_unmarked_failure(outcome);
            }
            None => {}
        }
    }

    /// As [`abandon`](Self::abandon), for a call that holds a claim.
    #[cold]
    pub(crate) fn abandon_claim(&self, admitted: Admitted, claim: Claim) {
        let mark = admitted.mark();
        {
            let _ended = ReleaseClaimOnDrop(self, mark, claim, None);
            if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
                circuit.cancel(ticket);
            }
        }
        if let Some(mark) = mark {
            self.record_for_limit(mark, LimitOutcome::Cancelled, None);
        }
    }

    /// As [`abandon`](Self::abandon), for a call with a mark.
    #[cold]
    pub(super) fn abandon_marked(&self, admitted: Admitted, mark: Mark) {
        {
            let _ended = ReleaseMarkedOnDrop(self, mark, None);
            if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
                circuit.cancel(ticket);
            }
        }
        self.record_for_limit(mark, LimitOutcome::Cancelled, None);
    }

    /// Records a timeout of work that has not ended.
    pub(crate) fn record_early(&self, ticket: Ticket, outcome: Outcome, started: Option<Instant>) {
        let ended = started.map(|_| self.runtime.now());
        let run = started.map(|started| OperationRun { started, ended });
        if let Some(circuit) = &self.circuit {
            circuit.record(ticket, outcome, run.and_then(OperationRun::duration));
        }
        if outcome == Outcome::Failure {
            if let Some(mark) = Mark::from_bits(ticket.mark()) {
                self.record_for_limit(mark, LimitOutcome::Overload, run);
            }
        }
    }

    /// Records the failed end of an operation without a mark. Unless its call continues, the permit
    /// was released before.
    #[cold]
    pub(crate) fn record_unmarked_failure(&self, outcome: Outcome) {
        let Some(driver) = self.adaptive() else {
            return;
        };
        if !driver.is_overload(outcome) {
            return;
        }
        let now = self.runtime.now();
        if driver.record_unmarked_overload(now) {
            self.decide(driver, None, now);
        }
    }

    /// Records the end of an operation with a mark. Unless its call continues, the permit was
    /// released before.
    pub(crate) fn record_for_limit(
        &self,
        mark: Mark,
        outcome: LimitOutcome,
        run: Option<OperationRun>,
    ) {
        let Some(driver) = self.driver() else { return };
        let outcome = driver.outcome_of(mark, outcome);
        if outcome == LimitOutcome::Nothing {
            return;
        }
        // A panic of the clock costs a sample, and nothing else.
        let ended = run.and_then(|run| run.ended);
        let Some(now) = ended.or_else(|| catch(|| self.runtime.now())) else {
            return;
        };
        let started = run.map(|run| run.started);
        if driver.record(mark, outcome, started, now) {
            self.decide(driver, started, now);
        }
    }

    /// Ends the window, if it is complete.
    fn decide(&self, driver: &LimitDriver, started: Option<Instant>, now: Instant) {
        let (successes, mask) = (self.counters.successful(), &self.counters.sample_mask);
        if let Some(decision) = driver.try_decide(started, now, successes, mask) {
            self.apply_decision(driver, &decision);
        }
    }

    /// Applies a decision of the rule: resizes the queue and opens the next window.
    fn apply_decision(&self, driver: &LimitDriver, decision: &LimitDecision) {
        {
            // Even if a waker panics, the next window is opened.
            let _reopen = ReopenOnDrop(driver, decision, &self.counters.sample_mask);
            if decision.change.is_some() {
                self.update_permits(driver);
            }
        }
        if let Some(change) = &decision.change {
            #[cfg(feature = "tracing")]
            crate::observe::limit(&self.name, change, driver.minimum());
            let _ = change;
            driver.wake_readers();
        }
    }

    /// Resizes the queue to the limit in force.
    pub(super) fn update_permits(&self, driver: &LimitDriver) {
        self.queue
            .set_permits(|| driver.permits_in_force(), || self.runtime.now());
        self.queue.release_overdue(|| self.runtime.now());
    }

    /// Follows a transition of the circuit: slow start when it admits all calls again.
    pub(super) fn follow_circuit(&self, transition: &Transition) {
        let Some(driver) = self.driver() else {
            return;
        };
        let admits_all = transition.to.admits_all();
        if admits_all != transition.from.admits_all() {
            self.follow_admission(driver, admits_all, transition.at);
        }
    }

    /// Starts or ends sampling, when the circuit begins or ceases to admit all calls.
    pub(super) fn follow_admission(&self, driver: &LimitDriver, admits_all: bool, now: Instant) {
        if !admits_all {
            driver.suspend(&self.counters.sample_mask, now);
        } else if let Some(decision) = driver.resume(now) {
            self.apply_decision(driver, &decision);
        }
    }

    /// Returns the driver of the limit, if it is adapted.
    pub(crate) fn adaptive(&self) -> Option<&LimitDriver> {
        self.driver().filter(|driver| driver.is_adaptive())
    }

    /// Returns what a snapshot shows of the limit.
    pub(crate) fn limit_status(&self) -> Option<LimitStatus> {
        let limit = self.queue.limits().permits;
        self.driver()?.status(limit, self.runtime.now())
    }

    /// Returns `true` if the bulkhead is shut down and no call runs.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_drained()
            && self.driver().is_none_or(|driver| {
                // Either this finds that the last call without a permit has ended, or that call
                // finds the queue drained when it ends.
                fence(Ordering::SeqCst);
                driver.without_permit() == 0
            })
    }
}

/// As [`ReleaseOnDrop`](super::shared), for a call with a mark.
struct ReleaseMarkedOnDrop<'a>(&'a Inner, Mark, Option<Outcome>);

impl Drop for ReleaseMarkedOnDrop<'_> {
    fn drop(&mut self) {
        let Self(inner, mark, outcome) = self;
        inner.counters.end(*outcome);
        if let Some(driver) = inner.driver() {
            driver.release_virtual_permits(*mark, 1);
            if mark.lacks_permit() {
                if driver.end_without_permit() {
                    inner.notify_if_drained();
                }
                return;
            }
        }
        inner.release();
    }
}

/// As [`ReleaseMarkedOnDrop`], for a call that holds a claim.
struct ReleaseClaimOnDrop<'a>(&'a Inner, Option<Mark>, Claim, Option<Outcome>);

impl Drop for ReleaseClaimOnDrop<'_> {
    fn drop(&mut self) {
        let Self(inner, mark, claim, outcome) = self;
        inner.counters.end(*outcome);
        if let (Some(mark), Some(driver)) = (mark, inner.driver()) {
            driver.release_virtual_permits(*mark, claim.permits());
            if mark.lacks_permit() {
                if driver.end_without_permit() {
                    inner.notify_if_drained();
                }
                return;
            }
        }
        inner.release_claim(*claim);
    }
}

/// Opens the next window, even if a waker panics before.
struct ReopenOnDrop<'a>(&'a LimitDriver, &'a LimitDecision, &'a SampleMask);

impl Drop for ReopenOnDrop<'_> {
    fn drop(&mut self) {
        let Self(driver, decision, mask) = self;
        driver.reopen(decision, mask);
    }
}
