//! Input from the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Decision, HeldLease, Member, StoredState};
use crate::circuit_breaker::{CircuitState, TransitionCause};
use crate::fleet::events::DecisionOutcome;
use crate::fleet::shared::LastChange;
use crate::store::{
    CircuitView, Epoch, FleetState, OperationId, ProbeLease, ProbeReportResult, RejectReason,
};

impl Member {
    /// Handles that the session was opened, or accepts changes again.
    pub(in crate::fleet) fn on_connected(&mut self, now: Instant) {
        self.connected = true;
        self.outage_at = None;
        self.on_reachable(now);
    }

    /// Handles that the store can only be read. If it accepted changes until now, the outage
    /// begins at `outage_at`.
    pub(in crate::fleet) fn on_read_only(&mut self, now: Instant, outage_at: Option<Instant>) {
        if std::mem::take(&mut self.connected) {
            self.outage_at = outage_at;
        }
        self.on_reachable(now);
    }

    fn on_reachable(&mut self, now: Instant) {
        // A process that reads the store is not cut off, even if its decisions wait.
        if std::mem::replace(&mut self.reads, true) {
            return;
        }
        let lost_at = self.disconnected_since.take();
        if let Some(pending) = &mut self.pending {
            // The loss may have been detected only by the attempt to publish this decision.
            let from = lost_at.map_or(pending.decided_at, |at| at.min(pending.decided_at));
            let waited = now.saturating_duration_since(from);
            pending.isolated |= waited > self.rules.isolated_after;
        }
    }

    /// Handles that the session was lost. Until `outage_at`, the circuit keeps the fleet's gate,
    /// and a held lease remains valid until it expires; `None`: the outage begins now.
    pub(in crate::fleet) fn on_disconnected(&mut self, now: Instant, outage_at: Option<Instant>) {
        self.connected = false;
        self.reads = false;
        self.disconnected_since.get_or_insert(now);
        self.outage_at = outage_at;
    }

    /// Handles that a session that could only read was lost: an outage begins when it would have.
    pub(in crate::fleet) fn on_reads_lost(&mut self, now: Instant) {
        self.on_disconnected(now, self.outage_at);
    }

    /// Handles that the store rejects the circuit's name: its local rules apply.
    pub(in crate::fleet) fn on_name_rejected(&mut self) {
        self.stored = None;
        self.needs_adopt = false;
        self.lease = None;
        self.abandoned = None;
        self.probe_outcomes.clear();
    }

    /// Handles a stored state.
    ///
    /// Returns the outcome of a pending decision that it resolves.
    pub(in crate::fleet) fn merge(
        &mut self,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        if self.stored.is_some_and(|stored| view.epoch <= stored.epoch) {
            return None;
        }
        self.update_stored(view, received);
        let outcome = self.resolve_pending(view, received);
        let resolved = if outcome.is_some() {
            self.pending.take()
        } else {
            None
        };
        if self.pending.is_none() {
            // This process's own change may arrive in another way than by its response.
            let applied_locally = resolved.is_some_and(|resolved| resolved.applied_locally);
            self.needs_adopt = !(outcome == Some(DecisionOutcome::Published) && applied_locally);
            self.local_only &= self.needs_adopt;
        }
        outcome
    }

    /// Handles that the fleet's counts reached the threshold: decides to open.
    pub(in crate::fleet) fn open_by_counts(
        &mut self,
        open_for: Duration,
        now: Instant,
        operation: OperationId,
    ) {
        let closed = self
            .stored
            .is_some_and(|stored| stored.state == FleetState::Closed);
        if closed && self.pending.is_none() && self.local_state == CircuitState::Closed {
            self.pending = Some(Decision {
                target: FleetState::Open,
                open_until: now.checked_add(open_for),
                decided_at: now,
                manual: false,
                cause: TransitionCause::FailureCount,
                operation,
                isolated: false,
                applied_locally: false,
            });
        }
    }

    /// Handles that the store has lost history: adopts its state, but republishes an unexpired
    /// opening.
    pub(in crate::fleet) fn on_history_lost(&mut self, now: Instant, operation: OperationId) {
        let running = self
            .stored
            .take()
            .filter(|stored| {
                stored.state == FleetState::Open && self.local_state == CircuitState::Open
            })
            .and_then(|stored| stored.open_until)
            .filter(|until| *until > now);
        self.lease = None;
        self.probe_outcomes.clear();
        if let (None, Some(until)) = (self.pending, running) {
            self.pending = Some(Decision {
                target: FleetState::Open,
                open_until: Some(until),
                decided_at: now,
                manual: false,
                cause: TransitionCause::Fleet,
                operation,
                isolated: false,
                applied_locally: true,
            });
        }
    }

    /// Handles that a change of this process was applied: a pending decision, or the start of
    /// probing.
    pub(in crate::fleet) fn on_applied(
        &mut self,
        operation: OperationId,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        self.update_stored(view, received);
        let published = self
            .pending
            .filter(|pending| pending.operation == operation);
        if let Some(pending) = published {
            self.pending = None;
            self.local_only = false;
            self.needs_adopt = !pending.applied_locally;
        }
        published.map(|_| DecisionOutcome::Published)
    }

    /// Handles that a change of this process was rejected.
    pub(in crate::fleet) fn on_rejected(
        &mut self,
        operation: OperationId,
        reason: RejectReason,
        view: &CircuitView,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        if self.stored.is_none_or(|stored| view.epoch > stored.epoch) {
            return self.merge(view, received);
        }
        match reason {
            // The store's clock is read again, and the change is retried.
            RejectReason::Expired => None,
            // The store's clock determines when the isolation elapses.
            RejectReason::NotDue => {
                self.update_stored(view, received);
                if self.acquire_at.is_some() {
                    self.acquire_at = self.stored.and_then(|stored| stored.open_until);
                }
                None
            }
            _ => {
                self.update_stored(view, received);
                self.needs_adopt = true;
                self.pending
                    .take_if(|pending| pending.operation == operation)
                    .map(|_| DecisionOutcome::Superseded)
            }
        }
    }

    /// Handles that a vote was counted below the quorum: only this process stays open.
    pub(in crate::fleet) fn on_vote_counted(
        &mut self,
        operation: OperationId,
    ) -> Option<DecisionOutcome> {
        let counted = self
            .pending
            .take_if(|pending| pending.operation == operation)?;
        self.local_only = counted.applied_locally;
        Some(DecisionOutcome::Voted)
    }

    /// Handles the response to a request for a lease that was sent at `sent_at`. Without a lease,
    /// it is repeated at `retry_at`.
    ///
    /// The driver handles no other input between a request and its response. If the circuit leaves
    /// the half-open state meanwhile, it is observed next, and that releases the lease.
    pub(in crate::fleet) fn on_acquired(
        &mut self,
        epoch: Epoch,
        lease: Option<ProbeLease>,
        sent_at: Instant,
        retry_at: Option<Instant>,
    ) {
        self.acquire_at = None;
        self.acquire_at_once = false;
        debug_assert!(
            self.local_state == CircuitState::HalfOpen
                && self.stored.is_some_and(|stored| {
                    stored.epoch == epoch && stored.state == FleetState::HalfOpen
                }),
            "the request was made in another state"
        );
        match lease {
            Some(lease) => {
                let keep_until = self.demanded_until.or_else(|| self.keep_until(sent_at));
                self.demanded_until = keep_until;
                let mut held = self.held_lease(lease, epoch, keep_until, sent_at);
                held.yield_at = sent_at.checked_add(self.unused_for);
                self.lease = Some(held);
            }
            None => {
                self.acquire_not_before = retry_at;
                if self.acquire_retries > 0 {
                    self.acquire_retries -= 1;
                    self.acquire_at = retry_at;
                    return;
                }
                self.check_demand_at = self.acquire_not_before;
                self.demand_checks_left = 0;
            }
        }
    }

    /// Handles that a lease was released at `now`. An unused lease is requested again, after
    /// other processes with calls had the opportunity.
    pub(in crate::fleet) fn on_released(&mut self, lease: ProbeLease, now: Instant) {
        self.abandoned = self.abandoned.filter(|(_, abandoned)| *abandoned != lease);
        let released = self.lease.take_if(|held| held.lease == lease);
        let expected = self.demanded_until.is_some_and(|until| now < until);
        if let Some(released) = released.filter(|_| expected) {
            let delay = self.rules.acquire_retry_delay;
            // A call comes before one of the others that have calls.
            let pause = if released.passed_on {
                delay / 2
            } else {
                delay * 3 / 2
            };
            self.acquire_not_before = now.checked_add(pause);
            self.acquire_at = self.acquire_not_before;
        }
    }

    /// Handles that this process started probing: a lease that calls need is requested without
    /// delay.
    pub(in crate::fleet) fn on_probing_started(&mut self, now: Instant) {
        if self.local_state != CircuitState::HalfOpen {
            self.needs_adopt = true;
        } else if self.acquire_at.is_some() {
            self.acquire_at = Some(now);
            self.acquire_at_once = true;
        }
    }

    /// Handles the response to a renewal that was sent at `sent_at`.
    pub(in crate::fleet) fn on_renewed(&mut self, lease: Option<ProbeLease>, sent_at: Instant) {
        let Some(held) = self.lease else { return };
        self.lease = lease.map(|lease| HeldLease {
            yield_at: held.yield_at,
            revoked: held.revoked,
            available_since: held.available_since,
            passed_on: held.passed_on,
            ..self.held_lease(lease, held.epoch, held.keep_until, sent_at)
        });
    }

    /// Handles the response to the report of the first probe outcome.
    pub(in crate::fleet) fn on_reported(
        &mut self,
        report: &ProbeReportResult,
        sent_at: Instant,
        received: Instant,
    ) -> Option<DecisionOutcome> {
        self.probe_outcomes.pop_front();
        match report {
            ProbeReportResult::Counted { lease, current } => {
                if let Some(before) = self.lease {
                    self.acquire_at = None;
                    let keep_until = self.keep_until(sent_at);
                    self.demanded_until = keep_until;
                    let mut held = self.held_lease(*lease, current.epoch, keep_until, sent_at);
                    let waited = sent_at.saturating_duration_since(before.available_since);
                    held.passed_on = waited >= RARE_CALLS;
                    held.yield_at = sent_at.checked_add(if held.passed_on {
                        PASSED_ON_AFTER
                    } else {
                        self.unused_for
                    });
                    self.lease = Some(held);
                }
                None
            }
            ProbeReportResult::Decided(view)
            | ProbeReportResult::Lost {
                current: Some(view),
            } => {
                self.lease = None;
                self.probe_outcomes.clear();
                self.merge(view, received)
            }
            ProbeReportResult::Lost { current: None } => {
                self.lease = None;
                self.probe_outcomes.clear();
                None
            }
        }
    }

    fn update_stored(&mut self, view: &CircuitView, received: Instant) {
        if self.lease.is_some_and(|lease| lease.epoch != view.epoch) {
            self.lease = None;
            self.probe_outcomes.clear();
        }
        self.stored = Some(StoredState {
            epoch: view.epoch,
            state: view.state,
            open_until: received.checked_add(view.remaining.min(view.open_for)),
            open_count: view.open_count,
        });
        // The age of a circuit that never changed is that of its registration.
        self.last_change = (view.epoch > Epoch(0)).then(|| {
            Arc::new(LastChange {
                at: received.checked_sub(view.age),
                author: Arc::clone(&view.author),
                reason: Arc::clone(&view.reason),
            })
        });
    }

    /// Returns the outcome of the pending decision, given a stored state newer than its base.
    fn resolve_pending(&self, view: &CircuitView, now: Instant) -> Option<DecisionOutcome> {
        let pending = self.pending.as_ref()?;
        let age = now.saturating_duration_since(pending.decided_at);
        // The age of a circuit that never changed is that of its registration, not of a decision.
        let younger = view.epoch > Epoch(0) && view.age < age;
        if pending.operation == view.operation {
            Some(DecisionOutcome::Published)
        } else if view.state.is_forced()
            || younger
            || (view.state == pending.target && view.epoch > Epoch(0))
        {
            Some(DecisionOutcome::Superseded)
        } else if pending.is_expired(now) {
            Some(DecisionOutcome::Expired)
        } else {
            // The pending decision is newer: it is published on the new epoch.
            None
        }
    }

    fn keep_until(&self, sent_at: Instant) -> Option<Instant> {
        sent_at.checked_add((self.rules.lease_ttl * UNUSED_LEASE_TTLS).max(MIN_KEPT))
    }

    fn held_lease(
        &self,
        lease: ProbeLease,
        epoch: Epoch,
        keep_until: Option<Instant>,
        sent_at: Instant,
    ) -> HeldLease {
        let ttl = self.rules.lease_ttl;
        let renew_at = sent_at
            .checked_add(ttl / 3)
            .filter(|at| keep_until.is_none_or(|until| *at < until));
        HeldLease {
            lease,
            epoch,
            renew_at,
            yield_at: None,
            available_since: sent_at,
            passed_on: false,
            revoked: false,
            keep_until,
            expires_at: sent_at.checked_add(ttl),
        }
    }
}

/// A lease that waited this long for a call is passed on: other processes have a call sooner.
const RARE_CALLS: Duration = Duration::from_millis(500);

/// The time for one more call before a lease is passed on: it may have waited for a long probe.
const PASSED_ON_AFTER: Duration = Duration::from_millis(50);

/// For how many lease durations an unused lease is renewed.
const UNUSED_LEASE_TTLS: u32 = 10;

/// An unused lease is kept for at least this long, for circuits with a call every few minutes.
const MIN_KEPT: Duration = Duration::from_secs(300);
