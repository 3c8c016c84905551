//! Changing a circuit: by compare-and-swap, by vote, or by an operator.

use std::sync::Arc;
use std::time::Duration;

use super::probe::ProbePolicy;
use super::view::{CircuitView, Epoch, OperationId, StoreTime};
use crate::name::BulkheadName;

/// A change that a process wants to make to a circuit.
///
/// ```
/// use bulkman::store::*;
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let change = StoreChange::Open { wait: Duration::from_secs(30) };
/// let ours = StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(7));
/// let theirs = StoreTransition::new(mail, Epoch(0), change, OperationId(8));
/// assert!(matches!(block_on(session.transition(&ours))?, TransitionResult::Applied(_)));
/// assert!(matches!(block_on(session.transition(&ours))?, TransitionResult::Applied(_)), "once is enough");
/// let late = block_on(session.transition(&theirs))?;
/// assert!(matches!(late, TransitionResult::Rejected { why: RejectReason::Stale | RejectReason::AlreadyInState, .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreTransition {
    /// Which circuit.
    pub circuit: BulkheadName,
    /// The epoch on which this was decided.
    pub base: Epoch,
    /// Where to.
    pub change: StoreChange,
    /// Decided by hand, or by a health check: a half-open that needs no due opening, and a
    /// change into the same state, which starts that state again.
    pub by_hand: bool,
    /// Not to be applied at this time or later, so that a statement that was given up and is
    /// executed late does no harm.
    pub not_after: Option<StoreTime>,
    /// Identifies this attempt.
    pub operation: OperationId,
    /// Who, for the history; cut to 200 bytes.
    pub by: Arc<str>,
    /// Why, for the history; cut to 200 bytes.
    pub reason: Arc<str>,
}

impl StoreTransition {
    /// A change of `circuit` decided on epoch `base`, by its rules, without a time limit.
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
            by_hand: false,
            not_after: None,
            operation,
            by: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}

/// Where a [`StoreTransition`] leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreChange {
    /// Opens for `wait`, and counts the opening.
    Open {
        /// How long, from the moment at which the store applies it.
        wait: Duration,
    },
    /// Starts probing. Unless by hand, only from an opening whose time is over.
    HalfOpen {
        /// How it is decided.
        plan: ProbePolicy,
    },
    /// Closes, and forgets how often the circuit has opened.
    Close,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransitionResult {
    /// It is made, now or by an earlier try of the same operation.
    Applied(CircuitView),
    /// It is not, and this is how the circuit stands.
    Rejected {
        /// Why not.
        why: RejectReason,
        /// The circuit as it is.
        current: CircuitView,
    },
    /// There is no such circuit: it was never registered, or is lost.
    UnknownCircuit,
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The circuit has moved on since the base epoch.
    Stale,
    /// It is already in that state.
    AlreadyInState,
    /// The opening's time is not over.
    NotDue,
    /// The transition's own time is over.
    Expired,
    /// An operator holds the circuit.
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

    /// `stale`, `already_there`, `not_due`, `too_late`, `forced`: as in metrics.
    ///
    /// ```
    /// # use bulkman::store::RejectReason;
    /// assert_eq!(RejectReason::AlreadyInState.as_str(), "already_there");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::AlreadyInState => "already_there",
            Self::NotDue => "not_due",
            Self::Expired => "too_late",
            Self::ForcedByOperator => "forced",
        }
    }
}

/// One process's vote for opening a circuit.
///
/// ```
/// use bulkman::store::*;
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let mut vote = |who: &str, operation| {
///     let change = StoreChange::Open { wait: Duration::from_secs(30) };
///     let opening = StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(operation));
///     block_on(session.vote(&StoreVote::new(opening, who.into(), 2, Duration::from_secs(10))))
/// };
/// assert_eq!(vote("here", 7)?, VoteResult::Counted { votes: 1 });
/// assert!(matches!(vote("there", 8)?, VoteResult::Opened(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreVote {
    /// The change it votes for: always an opening, on this base, with this operation.
    pub opening: StoreTransition,
    /// Whose vote: a process has one.
    pub voter: Arc<str>,
    /// Votes that make an opening, this one included: 1 to 1000.
    pub quorum: u16,
    /// How long a vote counts.
    pub window: Duration,
}

impl StoreVote {
    /// `voter`'s vote for `opening`.
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

    /// How long the opening is to last.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// # use bulkman::store::{Epoch, OperationId, StoreChange, StoreTransition, StoreVote};
    /// # use std::time::Duration;
    /// let half_a_minute = Duration::from_secs(30);
    /// let change = StoreChange::Open { wait: half_a_minute };
    /// let opening = StoreTransition::new(BulkheadName::new("mail")?, Epoch(0), change, OperationId(7));
    /// assert_eq!(StoreVote::new(opening, "here".into(), 2, Duration::from_secs(10)).wait(), half_a_minute);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn wait(&self) -> Duration {
        match self.opening.change {
            StoreChange::Open { wait } => wait,
            StoreChange::HalfOpen { .. } | StoreChange::Close => Duration::ZERO,
        }
    }
}

/// What became of a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoteResult {
    /// It made the quorum: the circuit is open.
    Opened(CircuitView),
    /// It counts, with this many in all.
    Counted {
        /// Votes within the window.
        votes: u32,
    },
    /// It does not count.
    Refused {
        /// Why not.
        why: RejectReason,
        /// The circuit as it is.
        current: CircuitView,
    },
    /// There is no such circuit.
    Unknown,
}

/// What an operator tells the whole fleet.
///
/// ```
/// use bulkman::store::*;
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let command = FleetCommand::new(mail, FleetAction::Disable, OperationId(7), "ann", "it cries wolf");
/// let TransitionResult::Applied(circuit) = block_on(session.command(&command))? else { panic!("refused") };
/// assert_eq!((circuit.state, circuit.epoch), (FleetState::Disabled, Epoch(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetCommand {
    /// Which circuit.
    pub circuit: BulkheadName,
    /// What to do.
    pub action: FleetAction,
    /// Identifies this attempt.
    pub operation: OperationId,
    /// Who; cut to 200 bytes.
    pub by: Arc<str>,
    /// Why; cut to 200 bytes.
    pub reason: Arc<str>,
}

impl FleetCommand {
    /// `action` on `circuit`.
    #[must_use]
    pub fn new(
        circuit: BulkheadName,
        action: FleetAction,
        operation: OperationId,
        by: impl Into<Arc<str>>,
        reason: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            circuit,
            action,
            operation,
            by: by.into(),
            reason: reason.into(),
        }
    }
}

/// The operators' actions. Each starts a new epoch, also into the state that the circuit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FleetAction {
    /// Holds the circuit open until another command.
    ForceOpen,
    /// Switches the breaker off until another command: all calls pass.
    Disable,
    /// Closes, from any state, forced ones included.
    Close,
    /// Closes, from any state, and forgets all counts and votes.
    Reset,
}

impl FleetAction {
    /// `force-open`, `disable`, `close`, `reset`.
    ///
    /// ```
    /// # use bulkman::store::FleetAction;
    /// assert_eq!(FleetAction::ForceOpen.as_str(), "force-open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForceOpen => "force-open",
            Self::Disable => "disable",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}
