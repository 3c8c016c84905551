//! What the circuit says.

use std::time::{Duration, Instant};

use super::{Member, Pending};
use crate::circuit_breaker::{Adopted, CircuitState, Gate, Observation, TransitionCause};
use crate::fleet::event::DecisionOutcome;
use crate::store::{FleetState, OperationId};

impl Member {
    /// Takes in what the circuit says. `ask_at` is when to ask for a lease that is wanted now. Says
    /// how a pending decision ended that this one takes the place of.
    pub(in crate::fleet) fn observe(
        &mut self,
        observed: &Observation,
        ask_at: Instant,
        mut operation: impl FnMut() -> OperationId,
    ) -> Option<DecisionOutcome> {
        let mut ending = None;
        if observed.generation != self.seen {
            let first = self.seen == 0;
            let before = self.pending;
            self.begin(observed);
            // How the circuit was made is no decision: the fleet knows better.
            let mut ended = None;
            if !(first && observed.cause.is_none()) {
                ended = self.decide(observed, &mut operation);
            }
            let replaced = before
                .filter(|_| self.pending != before)
                .map(|_| DecisionOutcome::Replaced);
            ending = replaced.or(ended);
        }
        if observed.wanted && self.lease.is_none() {
            let ask_at = self.ask_after.map_or(ask_at, |after| after.max(ask_at));
            self.ask_at.get_or_insert(ask_at);
        }
        for verdict in &observed.verdicts {
            self.gate = Gate::Fleet { leased: false };
            if verdict.generation == self.seen && self.lease.is_some() {
                self.verdicts.push_back((*verdict, operation()));
            }
        }
        ending
    }

    /// The circuit took over what it was ordered to, and is in this generation. `look_at`: when to
    /// look whether a lease is wanted, if one may be.
    pub(in crate::fleet) fn adopted(
        &mut self,
        state: Adopted,
        generation: u64,
        look_at: Option<Instant>,
    ) {
        self.seen = generation;
        self.to_adopt = false;
        self.held = false;
        self.own = false;
        self.local = match state {
            Adopted::Closed => CircuitState::Closed,
            Adopted::Open { .. } => CircuitState::Open,
            Adopted::HalfOpen { .. } => CircuitState::HalfOpen,
            Adopted::ForcedOpen => CircuitState::ForcedOpen,
            Adopted::Disabled => CircuitState::Disabled,
        };
        self.state_began();
        self.look_at = look_at;
        self.looks = LOOKS;
    }

    /// The circuit was looked at for a lease that is wanted. Whether that was found, or is looked for
    /// again after `pause`; if not, its calls are to say so.
    pub(in crate::fleet) fn looked(&mut self, now: Instant, pause: Duration) -> bool {
        self.look_at = None;
        if self.ask_at.is_some() || self.lease.is_some() {
            return true;
        }
        let again = match self.local {
            // By the circuit's own count it is not over yet.
            CircuitState::Open => true,
            CircuitState::HalfOpen => self.looks > 0,
            _ => return true,
        };
        if again {
            self.looks = self.looks.saturating_sub(1);
            self.look_at = now.checked_add(pause);
        }
        again
    }

    /// The circuit has the gate that it was ordered to.
    pub(in crate::fleet) fn gated(&mut self, gate: Gate) {
        self.gate = gate;
    }

    fn begin(&mut self, observed: &Observation) {
        self.seen = observed.generation;
        self.local = observed.state;
        let special = matches!(
            observed.state,
            CircuitState::ForcedOpen | CircuitState::Disabled | CircuitState::MetricsOnly
        );
        self.held = special && observed.cause != Some(TransitionCause::Fleet);
        self.state_began();
    }

    /// As in the circuit: a new state begins without a lease.
    fn state_began(&mut self) {
        if self.local != CircuitState::HalfOpen {
            self.lease = None;
            self.ask_at = None;
            self.look_at = None;
        }
        self.verdicts.clear();
        if let Gate::Fleet { .. } = self.gate {
            self.gate = Gate::Fleet { leased: false };
        }
    }

    /// The circuit went somewhere by itself, or by somebody's hand. Says how that ended if it did at
    /// once.
    fn decide(
        &mut self,
        observed: &Observation,
        operation: &mut impl FnMut() -> OperationId,
    ) -> Option<DecisionOutcome> {
        let by_hand = matches!(
            observed.cause,
            None | Some(TransitionCause::Manual | TransitionCause::HealthCheck)
        );
        let fleet = self.known.map_or(FleetState::Closed, |known| known.state);
        let target = match observed.state {
            CircuitState::Open => FleetState::Open,
            CircuitState::Closed if fleet != FleetState::Closed => FleetState::Closed,
            CircuitState::HalfOpen if by_hand && !self.own && fleet != FleetState::HalfOpen => {
                FleetState::HalfOpen
            }
            // An isolation that is over decides nothing, and takes nothing back.
            CircuitState::HalfOpen => return None,
            // Closed like the fleet, or held by hand: this process's own affair.
            _ => {
                self.own = false;
                self.pending = None;
                return None;
            }
        };
        if target == FleetState::Open
            && !by_hand
            && self.known.is_some_and(|it| it.is_open_at(observed.since))
        {
            // Another process was first, and this one tripped before it took that over: together
            // they make one opening, not a second and longer one.
            self.own = false;
            self.pending = None;
            self.to_adopt = true;
            return Some(DecisionOutcome::Superseded);
        }
        // Where the fleet is not closed, it has decided already, or an operator has.
        self.own = target == FleetState::Open
            && fleet == FleetState::Closed
            && !by_hand
            && self.rules.quorum > 1;
        self.pending = Some(Pending {
            target,
            until: observed.open_until,
            made_at: observed.since,
            by_hand,
            cause: observed.cause.unwrap_or(TransitionCause::Manual),
            operation: operation(),
            done_here: true,
        });
        None
    }
}

/// Looks after the first. A circuit with a few calls a second is found out by one of them.
const LOOKS: u8 = 2;
