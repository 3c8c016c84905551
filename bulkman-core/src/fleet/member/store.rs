//! What the store says.

use std::time::{Duration, Instant};

use super::{Known, Lease, Member, Pending};
use crate::circuit_breaker::{CircuitState, TransitionCause};
use crate::fleet::event::DecisionOutcome;
use crate::store::{
    CircuitView, Epoch, FleetState, OperationId, ProbeLease, ProbeReportResult, RejectReason,
};

impl Member {
    /// The link is there, or gone.
    pub(in crate::fleet) fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        if !connected {
            self.lease = None;
            self.verdicts.clear();
            self.ask_at = None;
            self.ask_after = None;
            self.look_at = None;
        }
    }

    /// Takes in a view. Says how a pending decision ended by it.
    pub(in crate::fleet) fn merge(
        &mut self,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        if self.known.is_some_and(|known| view.epoch <= known.epoch) {
            return None;
        }
        self.learn(view, received);
        let ending = self.judge_pending(view, received);
        let ended = if ending.is_some() {
            self.pending.take()
        } else {
            None
        };
        if self.pending.is_none() {
            // Our own change, heard of in another way than by its answer.
            let done_here = ended.is_some_and(|ended| ended.done_here);
            self.to_adopt = !(ending == Some(DecisionOutcome::Published) && done_here);
            self.own &= self.to_adopt;
        }
        ending
    }

    /// The fleet's counts say that the circuit should open.
    pub(in crate::fleet) fn open_by_counts(
        &mut self,
        wait: Duration,
        now: Instant,
        operation: OperationId,
    ) {
        let closed = self
            .known
            .is_some_and(|known| known.state == FleetState::Closed);
        if closed && self.pending.is_none() && self.local == CircuitState::Closed {
            self.pending = Some(Pending {
                target: FleetState::Open,
                until: now.checked_add(wait),
                made_at: now,
                by_hand: false,
                cause: TransitionCause::FailureCount,
                operation,
                done_here: false,
            });
        }
    }

    /// The store has lost history. What it says from now on is the truth, but an opening that has
    /// time left is told again.
    pub(in crate::fleet) fn forget(&mut self, now: Instant, operation: OperationId) {
        let running = self
            .known
            .take()
            .filter(|known| known.state == FleetState::Open && self.local == CircuitState::Open)
            .and_then(|known| known.open_until)
            .filter(|until| *until > now);
        self.lease = None;
        self.verdicts.clear();
        if let (None, Some(until)) = (self.pending, running) {
            self.pending = Some(Pending {
                target: FleetState::Open,
                until: Some(until),
                made_at: now,
                by_hand: false,
                cause: TransitionCause::Fleet,
                operation,
                done_here: true,
            });
        }
    }

    /// A change of this process's is made: a pending decision, or the start of probing.
    pub(in crate::fleet) fn made(
        &mut self,
        operation: OperationId,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        self.learn(view, received);
        let published = self
            .pending
            .filter(|pending| pending.operation == operation);
        if let Some(pending) = published {
            self.pending = None;
            self.own = false;
            self.to_adopt = !pending.done_here;
        }
        published.map(|_| DecisionOutcome::Published)
    }

    /// A change of this process's is not made.
    pub(in crate::fleet) fn refused(
        &mut self,
        operation: OperationId,
        why: RejectReason,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        if self.known.is_none_or(|known| view.epoch > known.epoch) {
            return self.merge(view, received);
        }
        match why {
            // The time is read anew, and it is tried again.
            RejectReason::Expired => None,
            // The store's clock knows better when the opening is over.
            RejectReason::NotDue => {
                self.learn(view, received);
                self.ask_at = self.known.and_then(|known| known.open_until);
                None
            }
            _ => {
                self.learn(view, received);
                self.to_adopt = true;
                self.pending
                    .take_if(|pending| pending.operation == operation)
                    .map(|_| DecisionOutcome::Superseded)
            }
        }
    }

    /// A vote counts, and does not open yet: the opening stays this process's own.
    pub(in crate::fleet) fn counted(&mut self, operation: OperationId) -> Option<DecisionOutcome> {
        self.pending
            .take_if(|pending| pending.operation == operation)
            .map(|_| DecisionOutcome::VoteResult)
    }

    /// A lease that was asked for at `asked`, or none.
    pub(in crate::fleet) fn acquired(
        &mut self,
        epoch: Epoch,
        lease: Option<ProbeLease>,
        asked: Instant,
    ) {
        self.ask_at = None;
        let current = self.local == CircuitState::HalfOpen
            && self
                .known
                .is_some_and(|known| known.epoch == epoch && known.state == FleetState::HalfOpen);
        match lease {
            Some(lease) if current => {
                let keep_until = asked.checked_add(self.rules.lease_ttl * UNUSED_TERMS);
                self.lease = Some(self.term(lease, epoch, keep_until, asked));
            }
            Some(_) => {}
            None => {
                self.ask_after = asked.checked_add(self.rules.ask_again);
                self.look_at = self.ask_after;
                self.looks = 0;
            }
        }
    }

    /// Whoever made the circuit half-open asks for a lease at once.
    pub(in crate::fleet) fn ask(&mut self, now: Instant) {
        if self.local == CircuitState::HalfOpen {
            self.ask_at = Some(now);
        }
    }

    /// A renewal that was asked for at `asked`.
    pub(in crate::fleet) fn renewed(&mut self, lease: Option<ProbeLease>, asked: Instant) {
        let Some(held) = self.lease else { return };
        self.lease = lease.map(|lease| self.term(lease, held.epoch, held.keep_until, asked));
    }

    /// What became of the first verdict.
    pub(in crate::fleet) fn reported(
        &mut self,
        report: &ProbeReportResult,
        asked: Instant,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        self.verdicts.pop_front();
        match report {
            ProbeReportResult::Counted { lease, current } => {
                if self.lease.is_some() {
                    let keep_until = asked.checked_add(self.rules.lease_ttl * UNUSED_TERMS);
                    self.lease = Some(self.term(*lease, current.epoch, keep_until, asked));
                }
                None
            }
            ProbeReportResult::Decided(view)
            | ProbeReportResult::Lost {
                current: Some(view),
            } => {
                self.lease = None;
                self.verdicts.clear();
                self.merge(view, received)
            }
            ProbeReportResult::Lost { current: None } => {
                self.lease = None;
                self.verdicts.clear();
                None
            }
        }
    }

    fn learn(&mut self, view: &CircuitView, received: Instant) {
        if self.lease.is_some_and(|lease| lease.epoch != view.epoch) {
            self.lease = None;
            self.verdicts.clear();
        }
        self.known = Some(Known {
            epoch: view.epoch,
            state: view.state,
            open_until: received.checked_add(view.remaining.min(view.open_for)),
            open_count: view.open_count,
        });
    }

    /// How a pending decision ends, now that the store has moved on from what it was made on.
    fn judge_pending(&self, view: &CircuitView, now: Instant) -> Option<DecisionOutcome> {
        let pending = self.pending.as_ref()?;
        let age = now.saturating_duration_since(pending.made_at);
        // A circuit that never changed is as old as its registration, which decided nothing.
        let younger = view.epoch > Epoch(0) && view.age < age;
        if pending.operation == view.operation {
            Some(DecisionOutcome::Published)
        } else if view.state.is_forced()
            || younger
            || (view.state == pending.target && view.epoch > Epoch(0))
        {
            Some(DecisionOutcome::Superseded)
        } else if pending.is_over(now) {
            Some(DecisionOutcome::Expired)
        } else {
            // Ours is the younger: it is published on the new epoch.
            None
        }
    }

    fn term(
        &self,
        lease: ProbeLease,
        epoch: Epoch,
        keep_until: Option<Instant>,
        asked: Instant,
    ) -> Lease {
        let ttl = self.rules.lease_ttl;
        let renew_at = asked
            .checked_add(ttl / 3)
            .filter(|at| keep_until.is_none_or(|until| *at < until));
        Lease {
            lease,
            epoch,
            renew_at,
            keep_until,
            expires: asked.checked_add(ttl),
        }
    }
}

/// So many terms a lease is kept for a next call.
const UNUSED_TERMS: u32 = 10;
