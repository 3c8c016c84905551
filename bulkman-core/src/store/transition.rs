//! Changes of a circuit: by compare-and-swap, by vote, or by an operator.

use std::sync::Arc;
use std::time::Duration;

use super::probe::ProbePolicy;
use super::view::{CircuitView, Epoch, OperationId, StoreTime};
use crate::name::BulkheadName;

/// A change of a circuit that a process requests.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::*;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session =
///     block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let change = StoreChange::Open {
///     open_for: Duration::from_secs(30),
/// };
/// let ours = StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(7));
/// let theirs = StoreTransition::new(mail, Epoch(0), change, OperationId(8));
/// assert!(matches!(
///     block_on(session.transition(&ours))?,
///     TransitionResult::Applied(_)
/// ));
/// assert!(
///     matches!(
///         block_on(session.transition(&ours))?,
///         TransitionResult::Applied(_)
///     ),
///     "applied once"
/// );
/// let late = block_on(session.transition(&theirs))?;
/// assert!(matches!(
///     late,
///     TransitionResult::Rejected {
///         reason: RejectReason::Stale | RejectReason::AlreadyInState,
///         ..
///     }
/// ));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreTransition {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The circuit's epoch when this was decided.
    pub base: Epoch,
    /// The requested change.
    pub change: StoreChange,
    /// Whether it was requested manually or by a health check.
    ///
    /// Such a change may enter half-open before the isolation has elapsed. It may also enter the
    /// current state, which restarts it.
    pub manual: bool,
    /// The time from which the store must reject it; `None` for no limit.
    ///
    /// It protects against an abandoned statement that the store executes later.
    pub not_after: Option<StoreTime>,
    /// Identifies this request.
    pub operation: OperationId,
    /// The process or operator, for the history; at most 200 bytes are stored.
    pub author: Arc<str>,
    /// The reason, for the history; at most 200 bytes are stored.
    pub reason: Arc<str>,
}

impl StoreTransition {
    /// Creates a change of `circuit`, decided by a rule at epoch `base`, without a time limit.
    #[must_use]
    pub fn new(
        circuit: BulkheadName,
        base: Epoch,
        change: StoreChange,
        operation: OperationId,
    ) -> Self {
        Self {
            circuit,
            base,
            change,
            manual: false,
            not_after: None,
            operation,
            author: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}

/// The change that a [`StoreTransition`] requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreChange {
    /// Opens the circuit, and counts the opening.
    Open {
        /// How long it stays open, from the moment at which the store applies the change.
        open_for: Duration,
    },
    /// Enters half-open; unless manual, it requires an open circuit with elapsed isolation.
    HalfOpen {
        /// The number of probes, and how they decide.
        probe_policy: ProbePolicy,
    },
    /// Closes the circuit, and resets its count of openings.
    Close,
}

/// The result of a [`StoreTransition`] or a [`FleetCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransitionResult {
    /// The change was applied, now or by an earlier attempt of the same operation.
    Applied(CircuitView),
    /// The change was rejected.
    Rejected {
        /// Why it was rejected.
        reason: RejectReason,
        /// The current state of the circuit.
        current: CircuitView,
    },
    /// The circuit does not exist: it was never registered, or the store lost it.
    UnknownCircuit,
}

/// Why a store rejected a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The circuit has changed since the base epoch.
    Stale,
    /// The circuit is already in that state.
    AlreadyInState,
    /// The isolation has not elapsed.
    NotDue,
    /// The time limit [`StoreTransition::not_after`] has passed.
    Expired,
    /// An operator forced the current state.
    ForcedByOperator,
}

impl RejectReason {
    pub(crate) const ALL: [Self; 5] = [
        Self::Stale,
        Self::AlreadyInState,
        Self::NotDue,
        Self::Expired,
        Self::ForcedByOperator,
    ];

    /// Returns `stale`, `already_in_state`, `not_due`, `expired`, or `forced_by_operator`.
    ///
    /// ```
    /// # use bulkman::store::RejectReason;
    /// assert_eq!(RejectReason::AlreadyInState.as_str(), "already_in_state");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::AlreadyInState => "already_in_state",
            Self::NotDue => "not_due",
            Self::Expired => "expired",
            Self::ForcedByOperator => "forced_by_operator",
        }
    }
}

/// One process's vote for opening a circuit.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::*;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session =
///     block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let mut vote = |voter: &str, operation| {
///     let change = StoreChange::Open {
///         open_for: Duration::from_secs(30),
///     };
///     let opening =
///         StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(operation));
///     block_on(session.vote(&StoreVote::new(
///         opening,
///         voter.into(),
///         2,
///         Duration::from_secs(10),
///     )))
/// };
/// assert_eq!(vote("first", 7)?, VoteResult::Counted { votes: 1 });
/// assert!(matches!(vote("second", 8)?, VoteResult::Opened(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreVote {
    /// The opening that it votes for, with its base epoch and operation.
    pub opening: StoreTransition,
    /// Identifies the process, which has one vote.
    pub voter: Arc<str>,
    /// The votes that open the circuit, including this one: 1 to 1000.
    pub quorum: u16,
    /// The time for which a vote counts.
    pub window: Duration,
}

impl StoreVote {
    /// Creates the vote of `voter` for `opening`.
    #[must_use]
    pub const fn new(
        opening: StoreTransition,
        voter: Arc<str>,
        quorum: u16,
        window: Duration,
    ) -> Self {
        Self {
            opening,
            voter,
            quorum,
            window,
        }
    }

    /// Returns how long the circuit opens.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// # use bulkman::store::{Epoch, OperationId, StoreChange, StoreTransition, StoreVote};
    /// # use std::time::Duration;
    /// let open_for = Duration::from_secs(30);
    /// let change = StoreChange::Open { open_for };
    /// let mail = BulkheadName::new("mail")?;
    /// let opening = StoreTransition::new(mail, Epoch(0), change, OperationId(7));
    /// let vote = StoreVote::new(opening, "here".into(), 2, Duration::from_secs(10));
    /// assert_eq!(vote.open_for(), open_for);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn open_for(&self) -> Duration {
        match self.opening.change {
            StoreChange::Open { open_for } => open_for,
            StoreChange::HalfOpen { .. } | StoreChange::Close => Duration::ZERO,
        }
    }
}

/// The result of a [`StoreVote`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoteResult {
    /// The vote reached the quorum: the circuit is open.
    Opened(CircuitView),
    /// The vote was counted, and the quorum is not reached.
    Counted {
        /// The number of votes within the window.
        votes: u32,
    },
    /// The vote was rejected.
    Rejected {
        /// Why it was rejected.
        reason: RejectReason,
        /// The current state of the circuit.
        current: CircuitView,
    },
    /// The circuit does not exist.
    UnknownCircuit,
}

/// An operator's command for the whole fleet.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::*;
/// use futures_lite::future::block_on;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session =
///     block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let command = FleetCommand::new(
///     mail,
///     FleetAction::Disable,
///     OperationId(7),
///     "ann",
///     "false alarms",
/// );
/// let TransitionResult::Applied(circuit) = block_on(session.command(&command))? else {
///     panic!("rejected")
/// };
/// assert_eq!(
///     (circuit.state, circuit.epoch),
///     (FleetState::Disabled, Epoch(1))
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetCommand {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The action to apply.
    pub action: FleetAction,
    /// Identifies this request.
    pub operation: OperationId,
    /// The operator; at most 200 bytes are stored.
    pub author: Arc<str>,
    /// The reason; at most 200 bytes are stored.
    pub reason: Arc<str>,
}

impl FleetCommand {
    /// Creates a command that applies `action` to `circuit`.
    #[must_use]
    pub fn new(
        circuit: BulkheadName,
        action: FleetAction,
        operation: OperationId,
        author: impl Into<Arc<str>>,
        reason: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            circuit,
            action,
            operation,
            author: author.into(),
            reason: reason.into(),
        }
    }
}

/// An action of an operator.
///
/// Each starts a new epoch, even if the circuit is already in the resulting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FleetAction {
    /// Forces the circuit open until another command.
    ForceOpen,
    /// Disables the circuit breaker until another command: all calls are admitted.
    Disable,
    /// Closes the circuit from any state, including forced ones.
    Close,
    /// Closes the circuit from any state, and clears all counts and votes.
    Reset,
}

impl FleetAction {
    /// Returns `force_open`, `disable`, `close`, or `reset`.
    ///
    /// ```
    /// # use bulkman::store::FleetAction;
    /// assert_eq!(FleetAction::ForceOpen.as_str(), "force_open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForceOpen => "force_open",
            Self::Disable => "disable",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}
