//! The store's view of a circuit.

use std::time::{Duration, Instant};

use super::is_past;
use crate::circuit_breaker::{Adopted, CircuitState};
use crate::store::{Epoch, FleetState};

/// The store's view, with its durations as deadlines of the local clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    pub(super) state: FleetState,
    /// While open. `None`: beyond the clock.
    pub(super) open_until: Option<Instant>,
    pub(super) open_count: u32,
}

impl Known {
    /// Whether it is open, and that is not over.
    pub(super) fn is_open_at(&self, now: Instant) -> bool {
        self.state == FleetState::Open && !is_past(self.open_until, now)
    }

    /// The state for a circuit to take over, unless it is there.
    pub(super) fn adoptable(&self, local: CircuitState, now: Instant) -> Option<Adopted> {
        let open_count = self.open_count;
        match (self.state, local) {
            // Nothing was ever decided.
            (FleetState::Closed, CircuitState::Closed) if self.epoch == Epoch(0) => None,
            (FleetState::Closed, _) => Some(Adopted::Closed),
            (FleetState::HalfOpen, CircuitState::HalfOpen) => None,
            (FleetState::HalfOpen, _) => Some(Adopted::HalfOpen { open_count }),
            (FleetState::Open, local) => {
                let until = self.open_until;
                let remaining =
                    until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
                // That opening is over here as well.
                let over = remaining.is_zero() && local == CircuitState::HalfOpen;
                (!over).then_some(Adopted::Open {
                    remaining,
                    open_count,
                })
            }
            (FleetState::ForcedOpen, _) => Some(Adopted::ForcedOpen),
            (FleetState::Disabled, _) => Some(Adopted::Disabled),
        }
    }
}
