//! A decision of this process.

use std::time::Instant;

use super::is_past;
use crate::circuit_breaker::TransitionCause;
use crate::store::{FleetState, OperationId};

/// A decision of this process that is to be the fleet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Pending {
    pub(in crate::fleet) target: FleetState,
    /// For an opening: its end. `None`: never.
    pub(in crate::fleet) until: Option<Instant>,
    pub(in crate::fleet) made_at: Instant,
    pub(in crate::fleet) by_hand: bool,
    pub(in crate::fleet) cause: TransitionCause,
    pub(in crate::fleet) operation: OperationId,
    /// Whether the circuit is there already, or waits for the store to agree.
    pub(in crate::fleet) done_here: bool,
}

impl Pending {
    pub(in crate::fleet) fn is_over(&self, now: Instant) -> bool {
        self.target == FleetState::Open && is_past(self.until, now)
    }
}
