//! The part of the machine that is used while the circuit is shared in a fleet.
//!
//! A closed circuit follows its own rules. The driver of the fleet reads every state that begins
//! and publishes it. While half-open, a [`Gate`] decides which probes are admitted. With
//! [`Gate::Fleet`], only the holder of a lease probes. The outcomes are then forwarded to the store
//! as [`ProbeOutcome`]s instead of being evaluated here.

use std::time::{Duration, Instant};

use super::lease_demand::LeaseDemand;
use super::{Machine, MachineState, open_for};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::circuit_state::CircuitState;
use crate::circuit_breaker::counts::Sample;
use crate::circuit_breaker::probes::Probes;
use crate::circuit_breaker::transition::TransitionCause;
use crate::error::{CircuitOpen, RejectionReason};

/// Decides which probes a half-open circuit admits, and what evaluates their outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The circuit itself: as many probes as its policy permits.
    #[default]
    Local,
    /// The fleet: a lease admits one probe at a time, and the store evaluates the outcomes.
    Fleet {
        /// Whether a lease is held that no probe has used.
        leased: bool,
    },
    /// The circuit itself, while the store is unreachable: at most `probes` at a time.
    Outage { probes: u16 },
}

/// The outcome of a probe that ran under a lease, for the store to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeOutcome {
    /// The generation of the half-open state.
    pub(crate) generation: u64,
    pub(crate) success: bool,
    pub(crate) slow: bool,
}

/// What the driver has yet to read.
#[derive(Debug, Default)]
pub(super) struct FleetSync {
    gate: Gate,
    /// Why the current state was entered; `None` if the circuit was created in it.
    cause: Option<TransitionCause>,
    demand: LeaseDemand,
    outcomes: Vec<ProbeOutcome>,
    /// The last generation that the driver has read or was notified of.
    published_generation: u64,
    pending_notification: bool,
    /// When a call notifies the driver again while the circuit is held open.
    next_call_to_driver: Option<Instant>,
}

/// A reading of the circuit by the driver; it clears the demand and the outcomes.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) generation: u64,
    pub(crate) state: CircuitState,
    /// Why the circuit is in that state; `None` if it was created in it.
    pub(crate) cause: Option<TransitionCause>,
    pub(crate) since: Instant,
    /// The end of the isolation; `None` while open if there is no end.
    pub(crate) open_until: Option<Instant>,
    /// Whether a call needs a probe lease.
    pub(crate) lease_wanted: bool,
    pub(crate) outcomes: Vec<ProbeOutcome>,
}

/// A state to enter because the fleet is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FleetTarget {
    Closed,
    Open {
        remaining: Duration,
        open_count: u32,
    },
    HalfOpen {
        open_count: u32,
    },
    ForcedOpen,
    Disabled,
}

impl Machine {
    /// Reads the circuit for the driver, and clears what was read.
    pub(crate) fn observe(&mut self, now: Instant) -> Observation {
        self.advance(now);
        self.fleet.published_generation = self.generation;
        self.fleet.pending_notification = false;
        Observation {
            generation: self.generation,
            state: self.state(),
            cause: self.fleet.cause,
            since: self.since,
            open_until: self.open_until(),
            lease_wanted: self.fleet.demand.take(),
            outcomes: std::mem::take(&mut self.fleet.outcomes),
        }
    }

    /// Adopts a state of the fleet, unless the generation is no longer `expected`.
    ///
    /// Returns the new generation. While the adopted state is half-open, or once its isolation has
    /// elapsed, the driver polls for demand until it calls
    /// [`stop_polling_demand`](Self::stop_polling_demand).
    pub(crate) fn adopt(
        &mut self,
        expected: u64,
        target: FleetTarget,
        now: Instant,
    ) -> Option<u64> {
        if self.generation != expected {
            return None;
        }
        let state = match target {
            FleetTarget::Closed => MachineState::Closed,
            FleetTarget::Open {
                remaining,
                open_count,
            } => {
                self.open_count = open_count;
                open_for(remaining, now)
            }
            FleetTarget::HalfOpen { open_count } => {
                self.open_count = open_count;
                MachineState::HalfOpen(Probes::default())
            }
            FleetTarget::ForcedOpen => MachineState::ForcedOpen,
            FleetTarget::Disabled => MachineState::Disabled,
        };
        self.enter(state, TransitionCause::Fleet, now);
        self.fleet.demand = match target {
            FleetTarget::Open { .. } => LeaseDemand::DriverPollsAfterIsolation,
            FleetTarget::HalfOpen { .. } => LeaseDemand::DriverPolls,
            _ => LeaseDemand::None,
        };
        Some(self.generation)
    }

    /// Sets the gate. If the circuit now decides itself, it evaluates the probes so far.
    pub(crate) fn set_gate(&mut self, gate: Gate, now: Instant) {
        self.fleet.gate = gate;
        self.stop_polling_demand();
        self.evaluate_probes(TransitionCause::ProbeFailed, now);
    }

    /// Revokes an unused lease. Returns `false` if a probe runs under it, or has used it.
    pub(crate) fn revoke_lease(&mut self) -> bool {
        let unused = match &self.state {
            MachineState::HalfOpen(probes) => probes.in_flight() == 0,
            _ => true,
        };
        let revoked = unused && self.fleet.gate == Gate::Fleet { leased: true };
        if revoked {
            self.fleet.gate = Gate::Fleet { leased: false };
            self.dirty = true;
            self.stop_polling_demand();
        }
        revoked
    }

    /// The driver no longer polls for demand: the next call that needs a lease notifies it.
    pub(crate) fn stop_polling_demand(&mut self) {
        if self.fleet.demand.stop_polling() {
            self.notify_driver();
        }
    }

    /// Returns the isolation of the next automatic opening.
    pub(crate) fn next_isolation(&mut self) -> Duration {
        self.isolation(self.open_count)
    }

    /// Returns `true` if the circuit is half-open and the fleet evaluates its probes.
    pub(crate) fn is_decided_by_fleet(&self) -> bool {
        matches!(
            (&self.state, self.fleet.gate),
            (MachineState::HalfOpen(_), Gate::Fleet { .. })
        )
    }

    /// Counts a successful health check as a probe, if there is a lease for it.
    pub(super) fn probe_by_health_check(&mut self, now: Instant) {
        if !self.is_decided_by_fleet() {
            return;
        }
        // Without a lease, the rejection signals the demand.
        if let Ok(probe) = self.admit(now) {
            let recorded = self.record(self.generation, probe, Outcome::Success, None, Some(now));
            debug_assert_eq!(recorded, super::Recorded::Done);
        }
    }

    /// Returns `true` if the driver is to be woken; once for each cause.
    pub(crate) fn take_notification(&mut self) -> bool {
        let begun = self.fleet.published_generation != self.generation;
        self.fleet.published_generation = self.generation;
        std::mem::take(&mut self.fleet.pending_notification) || begun
    }

    /// Returns the number of probes that can be admitted now.
    pub(super) fn available_probes(&self, probes: &Probes) -> u32 {
        let own = probes.remaining(self.config.half_open_policy.probes());
        let in_flight = probes.in_flight();
        match self.fleet.gate {
            Gate::Local => own,
            Gate::Fleet { leased } => u32::from(leased && in_flight == 0),
            Gate::Outage { probes } => own.min(u32::from(probes).saturating_sub(in_flight)),
        }
    }

    /// Rejects a call for which no probe is available.
    pub(super) fn reject_probe(&mut self, now: Instant) -> CircuitOpen {
        match self.fleet.gate {
            Gate::Fleet { leased: false } => {
                if self.fleet.demand.want() {
                    self.notify_driver();
                }
                CircuitOpen::new(RejectionReason::NoProbeLease, Some(RETRY_WITHOUT_LEASE))
            }
            Gate::Outage { probes: 0 } => {
                self.call_driver(now);
                CircuitOpen::new(RejectionReason::NoProbeLease, None)
            }
            _ => CircuitOpen::new(RejectionReason::ProbeLimit, None),
        }
    }

    /// Forwards the outcome of a probe if the fleet evaluates it. Returns `true` if it does.
    pub(super) fn forward_outcome(&mut self, sample: Sample) -> bool {
        let Gate::Fleet { .. } = self.fleet.gate else {
            return false;
        };
        self.fleet.gate = Gate::Fleet { leased: false };
        self.fleet.demand.lease_used();
        self.notify_driver();
        self.fleet.outcomes.push(ProbeOutcome {
            generation: self.generation,
            success: !sample.failed,
            slow: sample.slow,
        });
        true
    }

    /// Notifies the driver now and then: its task may have ended, and nothing else starts it while
    /// no probe is admitted.
    fn call_driver(&mut self, now: Instant) {
        let waits = |at: Instant| at > now && at - now <= CALL_DRIVER_EVERY;
        if !self.fleet.next_call_to_driver.is_some_and(waits) {
            self.fleet.next_call_to_driver = now.checked_add(CALL_DRIVER_EVERY);
            self.notify_driver();
        }
    }

    fn notify_driver(&mut self) {
        self.fleet.pending_notification = true;
        self.dirty = true;
    }

    /// A state has begun: leases and outcomes belonged to the one before.
    pub(super) fn on_state_entered(&mut self, cause: TransitionCause) {
        self.fleet.cause = Some(cause);
        // The driver knows the states that it caused. An isolation that has elapsed does not
        // concern it until a call needs a lease, and waking it would slow down the call that
        // detected the end.
        let notify = !matches!(
            cause,
            TransitionCause::Fleet | TransitionCause::IsolationElapsed
        );
        if !notify && self.fleet.published_generation + 1 == self.generation {
            self.fleet.published_generation = self.generation;
        }
        self.fleet
            .demand
            .state_entered(cause == TransitionCause::IsolationElapsed);
        self.fleet.outcomes.clear();
        if let Gate::Fleet { .. } = self.fleet.gate {
            self.fleet.gate = Gate::Fleet { leased: false };
        }
    }
}

/// How often rejected calls notify the driver while the circuit is held open.
const CALL_DRIVER_EVERY: Duration = Duration::from_secs(1);

/// Getting a lease takes a jitter and two round trips.
const RETRY_WITHOUT_LEASE: Duration = Duration::from_millis(250);
