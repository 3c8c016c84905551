//! Input from the circuit.

use std::time::{Duration, Instant};

use super::{Decision, FIRST_UNUSED, Member};
use crate::circuit_breaker::{CircuitState, FleetTarget, Gate, Observation, TransitionCause};
use crate::fleet::events::DecisionOutcome;
use crate::store::{FleetState, OperationId};

impl Member {
    /// Handles an observation of the circuit. `acquire_at` is when to request a lease, if calls
    /// demand one.
    ///
    /// Returns the outcome of a pending decision that this observation resolves.
    pub(in crate::fleet) fn on_observed(
        &mut self,
        observed: &Observation,
        acquire_at: Instant,
        mut operation: impl FnMut() -> OperationId,
    ) -> Option<DecisionOutcome> {
        let mut outcome = None;
        if observed.generation != self.generation {
            let first = self.generation == 0;
            let before = self.pending;
            self.start_generation(observed);
            // A circuit's initial state is no decision: the stored state takes precedence.
            let mut resolved = None;
            if !(first && observed.cause.is_none()) {
                resolved = self.decide(observed, &mut operation);
            }
            let replaced = before
                .filter(|_| self.pending != before)
                .map(|_| DecisionOutcome::Replaced);
            outcome = replaced.or(resolved);
        }
        if observed.lease_wanted {
            self.demanded_until = None;
            self.acquire_retries = ACQUIRE_RETRIES;
            // Even while a lease is held: it may be lost before its outcome is reported, and the
            // circuit does not repeat its demand.
            let acquire_at = self
                .acquire_not_before
                .map_or(acquire_at, |not_before| not_before.max(acquire_at));
            self.acquire_at.get_or_insert(acquire_at);
        }
        for probe_outcome in &observed.outcomes {
            self.gate = Gate::Fleet { leased: false };
            if probe_outcome.generation == self.generation && self.lease.is_some() {
                self.probe_outcomes.push_back((*probe_outcome, operation()));
            }
        }
        outcome
    }

    /// Handles that the circuit has adopted `state`, in `generation`. `check_demand_at` is when to
    /// check whether calls demand a lease; `None` if the state needs no lease.
    pub(in crate::fleet) fn on_adopted(
        &mut self,
        state: FleetTarget,
        generation: u64,
        check_demand_at: Option<Instant>,
    ) {
        self.generation = generation;
        self.needs_adopt = false;
        self.forced_locally = false;
        self.local_only = false;
        self.local_state = match state {
            FleetTarget::Closed => CircuitState::Closed,
            FleetTarget::Open { .. } => CircuitState::Open,
            FleetTarget::HalfOpen { .. } => CircuitState::HalfOpen,
            FleetTarget::ForcedOpen => CircuitState::ForcedOpen,
            FleetTarget::Disabled => CircuitState::Disabled,
        };
        self.on_state_entered();
        self.check_demand_at = check_demand_at;
        self.demand_checks_left = DEMAND_CHECKS;
    }

    /// Handles that the circuit was checked for demand.
    ///
    /// Returns `false` if no demand was found and the check is not repeated after `pause`. The
    /// circuit must then notify the driver of demand.
    pub(in crate::fleet) fn on_demand_checked(&mut self, now: Instant, pause: Duration) -> bool {
        self.check_demand_at = None;
        if self.acquire_at.is_some() || self.lease.is_some() {
            return true;
        }
        let again = match self.local_state {
            // The isolation has not elapsed yet by the circuit's clock.
            CircuitState::Open => true,
            CircuitState::HalfOpen => self.demand_checks_left > 0,
            _ => return true,
        };
        if again {
            self.demand_checks_left = self.demand_checks_left.saturating_sub(1);
            self.check_demand_at = now.checked_add(pause);
        }
        again
    }

    /// Handles that the circuit's gate was set.
    pub(in crate::fleet) const fn on_gate_set(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Handles that the circuit was asked to return its unused lease. `revoked`: no call uses it.
    pub(in crate::fleet) fn on_yielded(&mut self, revoked: bool) {
        let mut unused = true;
        if let Some(lease) = &mut self.lease {
            lease.revoked = revoked;
            // A probe is running: its outcome decides when to yield next.
            lease.yield_at = None;
            unused = !lease.passed_on;
        }
        if revoked {
            self.gate = Gate::Fleet { leased: false };
        }
        if revoked && unused {
            self.unused_for = self.unused_for.saturating_mul(2);
        }
    }

    fn start_generation(&mut self, observed: &Observation) {
        self.generation = observed.generation;
        self.local_state = observed.state;
        let forced = matches!(
            observed.state,
            CircuitState::ForcedOpen | CircuitState::Disabled | CircuitState::MetricsOnly
        );
        self.forced_locally = forced && observed.cause != Some(TransitionCause::Fleet);
        if observed.state != CircuitState::HalfOpen {
            self.abandoned = self.lease().or(self.abandoned);
        }
        self.on_state_entered();
    }

    /// Clears what belonged to the previous state. As in the circuit, a state begins without a
    /// lease.
    fn on_state_entered(&mut self) {
        if self.local_state != CircuitState::HalfOpen {
            self.lease = None;
            self.demanded_until = None;
            self.unused_for = FIRST_UNUSED;
            self.acquire_at = None;
            self.check_demand_at = None;
        }
        self.probe_outcomes.clear();
        if let Gate::Fleet { .. } = self.gate {
            self.gate = Gate::Fleet { leased: false };
        }
    }

    /// Derives a pending decision from the circuit's transition, by a rule or manually.
    ///
    /// Returns the outcome if the decision is resolved immediately.
    fn decide(
        &mut self,
        observed: &Observation,
        operation: &mut impl FnMut() -> OperationId,
    ) -> Option<DecisionOutcome> {
        let manual = matches!(
            observed.cause,
            None | Some(TransitionCause::Manual | TransitionCause::HealthCheck)
        );
        let stored = self
            .stored
            .map_or(FleetState::Closed, |stored| stored.state);
        let target = match observed.state {
            CircuitState::Open => FleetState::Open,
            CircuitState::Closed if stored != FleetState::Closed => FleetState::Closed,
            CircuitState::HalfOpen
                if manual && !self.local_only && stored != FleetState::HalfOpen =>
            {
                FleetState::HalfOpen
            }
            // An elapsed isolation is no decision, and does not revoke one.
            CircuitState::HalfOpen => {
                // The opening before it was not seen, and is over. The fleet does not know it.
                self.needs_adopt |= stored == FleetState::Closed
                    && self.stored.is_some()
                    && self.pending.is_none()
                    && !self.local_only;
                return None;
            }
            // Closed like the fleet, or forced locally: this concerns only this process.
            _ => {
                self.local_only = false;
                self.pending = None;
                return None;
            }
        };
        if target == FleetState::Open
            && !manual
            && self
                .stored
                .is_some_and(|stored| stored.is_open_at(observed.since))
        {
            // Another process was first, and this circuit opened before it adopted that. Both are
            // one opening, not a second and longer one.
            self.local_only = false;
            self.pending = None;
            self.needs_adopt = true;
            return Some(DecisionOutcome::Superseded);
        }
        // A vote is needed only while the fleet is closed. Otherwise the fleet, or an operator, has
        // already decided.
        self.local_only = target == FleetState::Open
            && stored == FleetState::Closed
            && !manual
            && self.rules.quorum > 1;
        self.pending = Some(Decision {
            target,
            open_until: observed.open_until,
            decided_at: observed.since,
            manual,
            cause: observed.cause.unwrap_or(TransitionCause::Manual),
            operation: operation(),
            isolated: false,
            applied_locally: true,
        });
        None
    }
}

/// A process that asked only after a call would get most leases just before a call of another one.
const ACQUIRE_RETRIES: u8 = 2;

/// Checks for demand after the first one. With a few calls a second, one of them finds a call.
const DEMAND_CHECKS: u8 = 2;
