//! What happened to a circuit, and who did it.

use std::sync::Arc;
use std::time::Duration;

use super::view::{Epoch, FleetState, Revision};
use crate::name::Name;

/// One change of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Which circuit.
    pub circuit: Name,
    /// The epoch that the change began.
    pub epoch: Epoch,
    /// The namespace's revision of the change.
    pub revision: Revision,
    /// From this state.
    pub from: FleetState,
    /// To this one.
    pub to: FleetState,
    /// For an opening: how long it was to last.
    pub wait: Duration,
    /// How long ago.
    pub age: Duration,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

impl HistoryEntry {
    /// A change of `circuit`, without author and reason.
    #[must_use]
    pub fn new(
        circuit: Name,
        epoch: Epoch,
        revision: Revision,
        (from, to): (FleetState, FleetState),
        age: Duration,
    ) -> Self {
        Self {
            circuit,
            epoch,
            revision,
            from,
            to,
            wait: Duration::ZERO,
            age,
            by: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}
