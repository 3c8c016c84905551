//! The stored state of a circuit.

use std::time::{Duration, Instant};

use super::is_past;
use crate::circuit_breaker::{CircuitState, FleetTarget};
use crate::store::{Epoch, FleetState};

/// The stored state of a circuit, with durations converted to deadlines of the local clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredState {
    pub(super) epoch: Epoch,
    pub(super) state: FleetState,
    /// The end of an opening; `None` if it overflows the clock.
    pub(super) open_until: Option<Instant>,
    pub(super) open_count: u32,
}

impl StoredState {
    /// Returns whether the circuit is open and its isolation has not elapsed.
    pub(super) fn is_open_at(&self, now: Instant) -> bool {
        self.state == FleetState::Open && !is_past(self.open_until, now)
    }

    /// Returns the state for a circuit to adopt; `None` if it already is in that state.
    pub(super) fn adoptable(&self, local: CircuitState, now: Instant) -> Option<FleetTarget> {
        let open_count = self.open_count;
        match (self.state, local) {
            // The circuit was never changed.
            (FleetState::Closed, CircuitState::Closed) if self.epoch == Epoch(0) => None,
            (FleetState::Closed, _) => Some(FleetTarget::Closed),
            (FleetState::HalfOpen, CircuitState::HalfOpen) => None,
            (FleetState::HalfOpen, _) => Some(FleetTarget::HalfOpen { open_count }),
            (FleetState::Open, local) => {
                let until = self.open_until;
                let remaining =
                    until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
                // The isolation has elapsed here as well.
                let elapsed = remaining.is_zero() && local == CircuitState::HalfOpen;
                (!elapsed).then_some(FleetTarget::Open {
                    remaining,
                    open_count,
                })
            }
            (FleetState::ForcedOpen, _) => Some(FleetTarget::ForcedOpen),
            (FleetState::Disabled, _) => Some(FleetTarget::Disabled),
        }
    }
}
