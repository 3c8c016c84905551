//! What follows: what to tell the circuit, what to ask of the store, and when.

use std::time::Instant;

use super::{Member, Pending, is_past};
use crate::circuit_breaker::{Adopted, CircuitState, Gate, Verdict};
use crate::fleet::event::DecisionOutcome;
use crate::fleet::handle::outage_gate;
use crate::store::{Epoch, FleetState, OperationId, ProbeLease};

/// What to ask of the store next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Step {
    Publish {
        base: Epoch,
        pending: Pending,
        vote: bool,
    },
    StartProbing {
        base: Epoch,
    },
    Acquire {
        epoch: Epoch,
    },
    Renew {
        epoch: Epoch,
        lease: ProbeLease,
    },
    Report {
        epoch: Epoch,
        lease: ProbeLease,
        verdict: Verdict,
        operation: OperationId,
    },
}

/// What to tell the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Order {
    /// Take over a state, unless something has happened since this generation.
    Adopt {
        expected: u64,
        state: Adopted,
    },
    Gate(Gate),
}

impl Member {
    /// Lets go of what is over at `now`; how a pending decision ended by that.
    pub(in crate::fleet) fn expire(&mut self, now: Instant) -> Option<DecisionOutcome> {
        if self.lease.is_some_and(|lease| is_past(lease.expires, now)) {
            self.lease = None;
            self.verdicts.clear();
        }
        if !self.connected {
            // Until somebody hears of it, it is what this process goes by.
            return None;
        }
        let over = self.pending.take_if(|pending| pending.is_over(now))?;
        self.to_adopt = self.known.is_some() && !self.own;
        Some(if over.done_here {
            DecisionOutcome::Expired
        } else {
            DecisionOutcome::Superseded
        })
    }

    /// What the circuit is to be told; asked for again until there is nothing.
    pub(in crate::fleet) fn order(&mut self, now: Instant) -> Option<Order> {
        if self.to_adopt && self.connected && !self.held && self.pending.is_none() {
            match self
                .known
                .and_then(|known| known.adoptable(self.local, now))
            {
                Some(state) => {
                    return Some(Order::Adopt {
                        expected: self.seen,
                        state,
                    });
                }
                None => {
                    self.to_adopt = false;
                    self.own = false;
                }
            }
        }
        let gate = self.wanted_gate();
        (gate != self.gate).then_some(Order::Gate(gate))
    }

    /// What to ask of the store.
    pub(in crate::fleet) fn step(&self, now: Instant) -> Option<Step> {
        let known = self.known.filter(|_| self.connected)?;
        if let (Some(lease), Some((verdict, operation))) = (self.lease, self.verdicts.front()) {
            return Some(Step::Report {
                epoch: lease.epoch,
                lease: lease.lease,
                verdict: *verdict,
                operation: *operation,
            });
        }
        if let Some(mut pending) = self.pending {
            // The same state over again, on the very epoch that it was decided on.
            pending.by_hand |= known.state == pending.target;
            let vote = self.own && !pending.by_hand;
            return Some(Step::Publish {
                base: known.epoch,
                pending,
                vote,
            });
        }
        if let Some(lease) = self.lease.filter(|lease| is_past(lease.renew_at, now)) {
            return Some(Step::Renew {
                epoch: lease.epoch,
                lease: lease.lease,
            });
        }
        if self.local == CircuitState::HalfOpen && self.lease.is_none() && is_past(self.ask_at, now)
        {
            return match known.state {
                FleetState::Open if is_past(known.open_until, now) => {
                    Some(Step::StartProbing { base: known.epoch })
                }
                FleetState::HalfOpen => Some(Step::Acquire { epoch: known.epoch }),
                _ => None,
            };
        }
        None
    }

    /// When there may be something to do that there is not now.
    pub(in crate::fleet) fn deadline(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease;
        [
            self.ask_at,
            self.look_at,
            self.ask_at
                .and(self.known)
                .and_then(|known| known.open_until),
            self.pending.and_then(|pending| pending.until),
            lease.and_then(|lease| lease.renew_at),
            lease.and_then(|lease| lease.expires),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    /// Whether it is time to look for a lease that is wanted.
    pub(in crate::fleet) fn is_look_due(&self, now: Instant) -> bool {
        is_past(self.look_at, now)
    }

    pub(in crate::fleet) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    pub(in crate::fleet) fn epoch(&self) -> Epoch {
        self.known.map_or(Epoch(0), |known| known.epoch)
    }

    pub(in crate::fleet) fn fleet_state(&self) -> Option<FleetState> {
        self.known.map(|known| known.state)
    }

    /// The decision that is pending.
    pub(in crate::fleet) fn decision(&self) -> Option<OperationId> {
        self.pending.map(|pending| pending.operation)
    }

    pub(in crate::fleet) fn is_pending(&self) -> bool {
        self.pending.is_some() || !self.verdicts.is_empty()
    }

    pub(in crate::fleet) fn lease(&self) -> Option<(Epoch, ProbeLease)> {
        self.lease.map(|lease| (lease.epoch, lease.lease))
    }

    fn wanted_gate(&self) -> Gate {
        if self.own {
            return Gate::Own;
        }
        if !(self.connected && self.rules.leases) {
            return outage_gate(self.rules.on_outage);
        }
        Gate::Fleet {
            leased: self.lease.is_some() && self.verdicts.is_empty(),
        }
    }
}
