//! A local transition to publish.

use std::time::Instant;

use super::is_past;
use crate::circuit_breaker::TransitionCause;
use crate::store::{FleetState, OperationId};

/// A local transition that is to apply to the whole fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Decision {
    pub(in crate::fleet) target: FleetState,
    /// The end of an opening; `None` if it has none.
    pub(in crate::fleet) open_until: Option<Instant>,
    pub(in crate::fleet) decided_at: Instant,
    pub(in crate::fleet) manual: bool,
    pub(in crate::fleet) cause: TransitionCause,
    pub(in crate::fleet) operation: OperationId,
    /// The store was away for long when this was decided. What the process observed may concern
    /// only itself, so an opening for the fleet needs a second process.
    pub(in crate::fleet) isolated: bool,
    /// Whether the circuit already is in this state, or waits for the store to confirm it.
    pub(in crate::fleet) applied_locally: bool,
}

impl Decision {
    /// Returns whether this is an opening with an elapsed isolation.
    pub(in crate::fleet) fn is_expired(&self, now: Instant) -> bool {
        self.target == FleetState::Open && is_past(self.open_until, now)
    }
}
