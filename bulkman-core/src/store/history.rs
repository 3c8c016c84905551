//! The history of changes.

use std::sync::Arc;
use std::time::Duration;

use super::view::{Epoch, FleetState, Revision};
use crate::name::BulkheadName;

/// One past change of a circuit.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::{CircuitStore, FleetAction, FleetCommand, OperationId};
/// use futures_lite::future::block_on;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session =
///     block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let command = FleetCommand::new(
///     mail,
///     FleetAction::ForceOpen,
///     OperationId(7),
///     "ann",
///     "migration",
/// );
/// block_on(session.command(&command))?;
/// let last = &block_on(session.history(None, 1))?[0];
/// println!(
///     "{}: {} -> {} by {}: {}",
///     last.circuit, last.from, last.to, last.author, last.reason
/// );
/// assert_eq!(&*last.author, "ann");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The circuit's epoch after the change.
    pub epoch: Epoch,
    /// The namespace's revision after the change.
    pub revision: Revision,
    /// The previous state.
    pub from: FleetState,
    /// The new state.
    pub to: FleetState,
    /// How long an opening was to last; zero for other changes.
    pub open_for: Duration,
    /// The time since the change.
    pub age: Duration,
    /// The process or operator that made the change.
    pub author: Arc<str>,
    /// The reason for the change.
    pub reason: Arc<str>,
}

impl HistoryEntry {
    /// Creates an entry without author and reason.
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
            open_for: Duration::ZERO,
            age,
            author: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}
