//! What happened to a circuit, and who did it.

use std::sync::Arc;
use std::time::Duration;

use super::view::{Epoch, FleetState, Revision};
use crate::name::BulkheadName;

/// One change of a circuit.
///
/// ```
/// use bulkman::store::{CircuitStore, FleetAction, FleetCommand, OperationId};
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let command = FleetCommand::new(mail, FleetAction::ForceOpen, OperationId(7), "ann", "it moves");
/// block_on(session.command(&command))?;
/// let last = &block_on(session.history(None, 1))?[0];
/// println!("{}: {} -> {}, by {}: {}", last.circuit, last.from, last.to, last.by, last.reason);
/// assert_eq!(&*last.by, "ann");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Which circuit.
    pub circuit: BulkheadName,
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
        circuit: BulkheadName,
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
