//! Output: updates for the circuit, requests to the store, deadlines; and queries.

use std::sync::Arc;
use std::time::Instant;

use super::{Decision, Member, is_past, outage_gate};
use crate::circuit_breaker::{CircuitState, FleetTarget, Gate, ProbeOutcome};
use crate::fleet::events::DecisionOutcome;
use crate::fleet::shared::LastChange;
use crate::store::{Epoch, FleetState, OperationId, ProbeLease};

/// A request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Request {
    Publish {
        base: Epoch,
        decision: Decision,
        vote: bool,
    },
    StartProbing {
        base: Epoch,
    },
    Acquire {
        epoch: Epoch,
    },
    Release {
        epoch: Epoch,
        lease: ProbeLease,
    },
    Renew {
        epoch: Epoch,
        lease: ProbeLease,
    },
    Report {
        epoch: Epoch,
        lease: ProbeLease,
        outcome: ProbeOutcome,
        operation: OperationId,
    },
}

/// A change to make in the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum CircuitUpdate {
    /// Adopt a state, unless the circuit has changed since the generation `expected`.
    Adopt {
        expected: u64,
        state: FleetTarget,
    },
    SetGate(Gate),
    /// Revoke the lease, unless a probe runs under it.
    RevokeLease,
}

impl Member {
    /// Drops an expired lease and an expired pending decision.
    ///
    /// Returns the outcome of the decision.
    pub(in crate::fleet) fn expire(&mut self, now: Instant) -> Option<DecisionOutcome> {
        if self
            .lease
            .is_some_and(|lease| is_past(lease.expires_at, now))
        {
            self.lease = None;
            self.probe_outcomes.clear();
        }
        if !self.connected {
            // Without the store, the decision stays in effect in this process.
            return None;
        }
        let expired = self.pending.take_if(|pending| pending.is_expired(now))?;
        self.needs_adopt = self.stored.is_some() && !self.local_only;
        Some(if expired.applied_locally {
            DecisionOutcome::Expired
        } else {
            DecisionOutcome::Superseded
        })
    }

    /// Returns the next change to make in the circuit. Call it until it returns `None`.
    pub(in crate::fleet) fn next_update(&mut self, now: Instant) -> Option<CircuitUpdate> {
        if self.needs_adopt && self.reads && !self.forced_locally && self.pending.is_none() {
            match self
                .stored
                .and_then(|stored| stored.adoptable(self.local_state, now))
            {
                Some(state) => {
                    return Some(CircuitUpdate::Adopt {
                        expected: self.generation,
                        state,
                    });
                }
                None => {
                    self.needs_adopt = false;
                    self.local_only = false;
                }
            }
        }
        if self.connected
            && self.gate == (Gate::Fleet { leased: true })
            && self.lease.is_some_and(|lease| is_past(lease.yield_at, now))
        {
            return Some(CircuitUpdate::RevokeLease);
        }
        let gate = self.desired_gate(now);
        (gate != self.gate).then_some(CircuitUpdate::SetGate(gate))
    }

    /// Returns the next request to the store.
    pub(in crate::fleet) fn next_request(&self, now: Instant) -> Option<Request> {
        let stored = self.stored.filter(|_| self.connected)?;
        if let (Some(lease), Some((outcome, operation))) = (self.lease, self.probe_outcomes.front())
        {
            return Some(Request::Report {
                epoch: lease.epoch,
                lease: lease.lease,
                outcome: *outcome,
                operation: *operation,
            });
        }
        if let Some(mut decision) = self.pending {
            // The stored state is the target already, and the decision renews it: with a longer
            // isolation, for example. The store accepts that only from a manual change.
            decision.manual |= stored.state == decision.target;
            let isolated = self.rules.votes
                && decision.isolated
                && decision.target == FleetState::Open
                && stored.state == FleetState::Closed;
            let vote = (self.local_only || isolated) && !decision.manual;
            return Some(Request::Publish {
                base: stored.epoch,
                decision,
                vote,
            });
        }
        let revoked = self.lease.filter(|lease| lease.revoked);
        if let Some((epoch, lease)) = revoked.map(|it| (it.epoch, it.lease)).or(self.abandoned) {
            return Some(Request::Release { epoch, lease });
        }
        if let Some(lease) = self.lease.filter(|lease| is_past(lease.renew_at, now)) {
            return Some(Request::Renew {
                epoch: lease.epoch,
                lease: lease.lease,
            });
        }
        self.next_acquisition(now, now)
    }

    /// Returns the request for a lease, if it is due at `due`.
    ///
    /// The requests of several circuits that are due soon are sent together.
    fn next_acquisition(&self, now: Instant, due: Instant) -> Option<Request> {
        let stored = self.stored.filter(|_| self.connected)?;
        let wanted = self.local_state == CircuitState::HalfOpen
            && self.lease.is_none()
            && is_past(self.acquire_at, due);
        match stored.state {
            FleetState::Open if wanted && is_past(stored.open_until, now) => {
                Some(Request::StartProbing { base: stored.epoch })
            }
            FleetState::HalfOpen if wanted => Some(Request::Acquire {
                epoch: stored.epoch,
            }),
            _ => None,
        }
    }

    /// Returns the epoch of an opening whose isolation has elapsed, so that probing can start.
    ///
    /// It requires no demand: a half-open circuit without calls waits as an open one does.
    pub(in crate::fleet) fn probing_due(&self, now: Instant) -> Option<Epoch> {
        let stored = self.stored.filter(|_| self.connected)?;
        let due = stored.state == FleetState::Open
            && is_past(stored.open_until, now)
            && matches!(
                self.local_state,
                CircuitState::Open | CircuitState::HalfOpen
            )
            && self.pending.is_none();
        due.then_some(stored.epoch)
    }

    /// Returns whether a request can wait for the next round: one for a lease, unless this process
    /// has just started probing.
    pub(in crate::fleet) const fn can_wait(&self, request: Request) -> bool {
        matches!(request, Request::Acquire { .. }) && !self.acquire_at_once
    }

    /// Returns the next request, or one for a lease that is due at `due`.
    pub(in crate::fleet) fn next_request_by(&self, now: Instant, due: Instant) -> Option<Request> {
        self.next_request(now)
            .or_else(|| self.next_acquisition(now, due))
    }

    /// Returns when to ask again for updates and requests that are not due at `now`.
    pub(in crate::fleet) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease;
        [
            self.acquire_at,
            self.check_demand_at,
            self.outage_at,
            self.acquire_at
                .and(self.stored)
                .and_then(|stored| stored.open_until),
            self.pending.and_then(|pending| pending.open_until),
            lease.and_then(|lease| lease.renew_at),
            lease.and_then(|lease| lease.yield_at),
            lease.and_then(|lease| lease.expires_at),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    /// Returns whether it is time to check the circuit for demand for a lease.
    pub(in crate::fleet) fn is_demand_check_due(&self, now: Instant) -> bool {
        is_past(self.check_demand_at, now)
    }

    pub(in crate::fleet) fn is_loaded(&self) -> bool {
        self.stored.is_some()
    }

    pub(in crate::fleet) fn epoch(&self) -> Epoch {
        self.stored.map_or(Epoch(0), |stored| stored.epoch)
    }

    pub(in crate::fleet) fn fleet_state(&self) -> Option<FleetState> {
        self.stored.map(|stored| stored.state)
    }

    pub(in crate::fleet) fn last_change(&self) -> Option<Arc<LastChange>> {
        self.last_change.clone()
    }

    /// Returns the operation id of the pending decision.
    pub(in crate::fleet) fn pending_operation(&self) -> Option<OperationId> {
        self.pending.map(|pending| pending.operation)
    }

    pub(in crate::fleet) fn has_unpublished(&self) -> bool {
        self.pending.is_some() || !self.probe_outcomes.is_empty()
    }

    pub(in crate::fleet) fn lease(&self) -> Option<(Epoch, ProbeLease)> {
        self.lease.map(|lease| (lease.epoch, lease.lease))
    }

    fn desired_gate(&self, now: Instant) -> Gate {
        if self.local_only {
            return Gate::Local;
        }
        let reachable = self.connected || self.outage_at.is_some_and(|at| now < at);
        // A circuit that the store does not know behaves as in an outage.
        if !(reachable && self.rules.probe_leases && self.stored.is_some()) {
            return outage_gate(self.rules.on_outage);
        }
        Gate::Fleet {
            leased: self.lease.is_some_and(|lease| !lease.revoked)
                && self.probe_outcomes.is_empty(),
        }
    }
}
