//! The calls of a bulkhead whose limit adapts or is observed.

use std::time::Instant;

use super::Inner;
use crate::adaptive::{LimitDecision, LimitDriver, LimitOutcome, LimitStatus, Mark};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::options::CallClass;
use crate::call::outcome::Outcome;
use crate::call::run::End;
use crate::circuit_breaker::{Ticket, Transition};
use crate::queue::Claim;
use crate::sync::unwind::catch;

impl Inner {
    /// Returns whether a call without limits of time is to carry a mark, before its admission.
    ///
    /// Most calls are no samples and carry none. Their end is that of a bulkhead without an
    /// adaptive limit.
    #[inline]
    pub(crate) fn marked(&self, class: CallClass) -> Option<Deadlines> {
        let driver = self.driver()?;
        if driver.samples(self.counters.started()) && class.is_sampled() {
            Some(Deadlines::SAMPLED)
        } else if driver.marks_every_call() || !class.is_sampled() {
            Some(Deadlines::MARKED)
        } else {
            None
        }
    }

    /// Marks an admitted call, if the limit is adapted.
    pub(crate) fn mark(
        &self,
        admitted: Admitted,
        class: CallClass,
        claim: Claim,
        deadlines: &Deadlines,
    ) -> Admitted {
        let Some(driver) = self.adaptive() else {
            return admitted;
        };
        let before = admitted.mark();
        let mut mark = if !class.is_sampled() || admitted.ticket.is_some_and(Ticket::is_probe) {
            Mark::UNCOUNTED
        } else if deadlines.is_sampled() {
            Mark::sample()
        } else if deadlines.has_times() {
            driver.mark(self.counters.started())
        } else {
            driver.mark_unsampled()
        };
        if before.is_some_and(Mark::lacks_permit) {
            mark = mark.without_permit();
        } else if driver.estimates() {
            let capacity = self.queue.limits().queue_capacity;
            let (running, may_wait) = (self.queue.in_use(), deadlines.may_wait());
            mark =
                driver.acquire_virtual_permit(mark, claim.permits(), running, capacity, may_wait);
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
        claim: Claim,
        outcome: Outcome,
        end: End,
        started: Option<Instant>,
    ) {
        if mark.is_plain() && outcome == Outcome::Success && end == End::Completed {
            if claim.is_plain() {
                self.finish(admitted, outcome, None);
                return;
            }
            if !self.affects_circuit(admitted) {
                self.counters.end(Some(outcome));
                self.release_claim(claim);
                return;
            }
        }
        let meaning = match (end, outcome) {
            (End::Recorded, _) | (_, Outcome::Ignored) => LimitOutcome::Nothing,
            (End::Completed, Outcome::Success) => LimitOutcome::Success,
            (End::CompletedLate | End::TimedOut, _) | (_, Outcome::Overloaded) => {
                LimitOutcome::Overload
            }
            (End::Completed | End::Panicked, _) => LimitOutcome::Nothing,
        };
        let failed = end != End::Recorded && outcome == Outcome::Failure;
        let record = match end {
            End::Recorded => Record::Nothing,
            _ => Record::Outcome(outcome),
        };
        self.end_marked(
            admitted,
            (mark, claim),
            Some(outcome),
            record,
            (meaning, failed),
            started,
        );
    }

    /// Returns `true` if a success of the call changes the circuit.
    fn affects_circuit(&self, admitted: Admitted) -> bool {
        match (admitted.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) => circuit.affects_state(ticket, Outcome::Success, None),
            _ => false,
        }
    }

    /// As [`abandon`](Self::abandon), for a call with a mark or several permits.
    #[cold]
    pub(super) fn abandon_marked(&self, admitted: Admitted, claim: Claim) {
        let mark = admitted.mark().unwrap_or(Mark::UNCOUNTED);
        let meaning = (LimitOutcome::Cancelled, false);
        self.end_marked(admitted, (mark, claim), None, Record::Cancel, meaning, None);
    }

    /// Records a timeout of work that has not ended.
    pub(crate) fn record_early(&self, ticket: Ticket, outcome: Outcome, started: Option<Instant>) {
        let ran = || {
            let started = started.filter(|_| ticket.needs_duration())?;
            Some(self.runtime.now().saturating_duration_since(started))
        };
        if let Some(circuit) = &self.circuit {
            circuit.record(ticket, outcome, ran());
        }
        let (Some(mark), Some(driver)) = (Mark::from_bits(ticket.mark()), self.adaptive()) else {
            return;
        };
        let overload = outcome == Outcome::Failure;
        if overload
            && driver.outcome_of(mark, LimitOutcome::Overload, true) != LimitOutcome::Nothing
        {
            let now = self.runtime.now();
            self.record_for_limit(driver, mark, LimitOutcome::Overload, started, now);
        }
    }

    /// Records the failed end of a call without a mark. Its permit was released before.
    #[cold]
    pub(super) fn record_unmarked_failure(&self, outcome: Outcome) {
        let Some(driver) = self.adaptive() else {
            return;
        };
        if !driver.is_overload(outcome) {
            return;
        }
        let now = self.runtime.now();
        if driver.record_unmarked_overload(now) {
            if let Some(decision) = driver.try_decide(None, now, self.counters.successful()) {
                self.apply_decision(driver, &decision);
            }
        }
    }

    /// Ends a call with a mark, and then records it for the limit.
    fn end_marked(
        &self,
        admitted: Admitted,
        (mark, claim): (Mark, Claim),
        counted: Option<Outcome>,
        record: Record,
        (meaning, failed): (LimitOutcome, bool),
        started: Option<Instant>,
    ) {
        let ended = ReleaseMarkedOnDrop(self, mark, claim, counted);
        let driver = self.driver();
        let meaning = driver.map_or(LimitOutcome::Nothing, |driver| {
            driver.outcome_of(mark, meaning, failed)
        });
        let timed = started.filter(|_| mark.is_timed());
        // A panic of the clock costs a sample, and nothing else.
        let now = if meaning != LimitOutcome::Nothing || timed.is_some() {
            catch(|| self.runtime.now())
        } else {
            None
        };
        if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
            let ran = now
                .zip(timed)
                .map(|(now, started)| now.saturating_duration_since(started));
            match record {
                Record::Outcome(outcome) if circuit.affects_state(ticket, outcome, ran) => {
                    circuit.record(ticket, outcome, ran);
                }
                Record::Cancel => circuit.cancel(ticket),
                Record::Outcome(_) | Record::Nothing => {}
            }
        }
        drop(ended);
        if let (Some(driver), Some(now)) = (driver, now) {
            self.record_for_limit(driver, mark, meaning, started, now);
        }
    }

    fn record_for_limit(
        &self,
        driver: &LimitDriver,
        mark: Mark,
        meaning: LimitOutcome,
        started: Option<Instant>,
        now: Instant,
    ) {
        if driver.record(mark, meaning, started, now) {
            let successes = self.counters.successful();
            if let Some(decision) = driver.try_decide(started, now, successes) {
                self.apply_decision(driver, &decision);
            }
        }
    }

    /// Applies a decision of the rule: resizes the queue and opens the next window.
    fn apply_decision(&self, driver: &LimitDriver, decision: &LimitDecision) {
        {
            // Even if a waker panics, the next window is opened.
            let _reopen = ReopenOnDrop(driver, decision);
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
            driver.suspend(now);
        } else if let Some(decision) = driver.resume(now) {
            self.apply_decision(driver, &decision);
        }
    }

    /// Returns the driver of the limit, if it is adapted.
    pub(crate) fn adaptive(&self) -> Option<&LimitDriver> {
        self.driver().filter(|driver| driver.is_adaptive())
    }

    /// Returns what a snapshot shows of the limit.
    pub(super) fn limit_status(&self) -> Option<LimitStatus> {
        let limit = self.queue.limits().permits;
        self.driver()?.status(limit, self.runtime.now())
    }

    /// Returns `true` if the bulkhead is shut down and no call runs.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_drained()
            && self
                .driver()
                .is_none_or(|driver| driver.without_permit() == 0)
    }
}

/// What the circuit has to record.
#[derive(Clone, Copy)]
enum Record {
    Outcome(Outcome),
    Cancel,
    Nothing,
}

/// As [`ReleaseOnDrop`](super::shared), for a call with a mark.
struct ReleaseMarkedOnDrop<'a>(&'a Inner, Mark, Claim, Option<Outcome>);

impl Drop for ReleaseMarkedOnDrop<'_> {
    fn drop(&mut self) {
        let Self(inner, mark, claim, outcome) = self;
        inner.counters.end(*outcome);
        if let Some(driver) = inner.driver() {
            driver.release_virtual_permit(*mark, claim.permits());
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
struct ReopenOnDrop<'a>(&'a LimitDriver, &'a LimitDecision);

impl Drop for ReopenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.reopen(self.1);
    }
}
