//! Sharing a circuit's state between processes.
//!
//! A [`CircuitStore`] keeps the state of named circuits where several processes can reach it. It
//! knows neither calls nor breakers: it compares and swaps, hands out probe leases, counts votes,
//! and says that something has changed. What to do with that, and when, is the synchroniser's
//! business; a store holds no timers and spawns nothing, and no call ever waits for it.
//!
//! Every change of a circuit raises its [`Epoch`]. A [`StoreTransition`] names the epoch that it
//! was decided on and is refused when the circuit has moved on since. It also names an
//! [`OperationId`], so that one whose answer was lost can be sent again without applying twice.
//! Within a namespace all changes are numbered by one [`Revision`], in the order in which they
//! became visible: whoever has seen revision *n* and asks for what came after misses nothing.
//!
//! Only the store's clock counts. Durations are computed there; no wall clock of a process is
//! ever compared with another's.
//!
//! [`MemoryStore`] shares within one process; PostgreSQL has a crate of its own. Any other
//! backend can be added: the `conformance` module (feature `test-util`) states what it must do.

mod counts;
mod error;
mod history;
mod memory;
mod probe;
mod settings;
mod transition;
mod view;

#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
#[cfg(feature = "test-util")]
mod fault;
#[cfg(feature = "serde")]
mod repr;

pub use counts::{BucketedWindow, CountsDelta, FleetCounts};
pub use error::StoreError;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use fault::{Fault, FaultStore};
pub use history::HistoryEntry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use memory::MemoryBackup;
pub use memory::MemoryStore;
pub use probe::{ProbeLease, ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult, ProbeRule};
pub use settings::{FleetCountPolicy, OnOutage, Push, SharingMode, StoreSettings};
pub use transition::{
    FleetAction, FleetCommand, RejectReason, StoreChange, StoreTransition, StoreVote,
    TransitionResult, VoteResult,
};
pub use view::{
    CircuitView, Epoch, Fingerprint, FleetState, OperationId, Revision, Snapshot, StoreTime,
};

use std::fmt;
use std::sync::Arc;

use crate::config_error::ConfigError;
use crate::name::{self, BulkheadName};
use crate::runtime::BoxFuture;

/// What a store's operations return.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Checks the name of a namespace: as a [`BulkheadName`], but at most 200 bytes. For who writes a store.
///
/// # Errors
///
/// [`ConfigError::OutOfRange`] for field `namespace`.
///
/// ```
/// use bulkman::store::check_namespace;
///
/// assert!(check_namespace("shop/eu-1").is_ok());
/// assert!(check_namespace("").is_err());
/// assert!(check_namespace("line\nbreak").is_err());
/// ```
pub fn check_namespace(namespace: &str) -> Result<(), ConfigError> {
    name::check("namespace", namespace, 200, "1 to 200 bytes")
}

/// A place where processes share the state of their circuits.
///
/// It is bound to one namespace: circuits of the same name in different namespaces have nothing
/// to do with each other. Used as `Arc<dyn CircuitStore>`.
///
/// # Implementing
///
/// A store needs no timers of its own: the synchroniser bounds every operation, and drops the
/// session when one takes too long. What a store must do is stated by the `conformance` module.
///
/// ```
/// use bulkman::store::{CircuitStore, FleetState};
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
///
/// /// What every store says of a circuit that nobody knew.
/// fn newcomer(store: &dyn CircuitStore, name: BulkheadName) -> Result<FleetState, bulkman::store::StoreError> {
///     let mut session = block_on(store.open_session(&[name]))?;
///     Ok(block_on(session.snapshot(None))?.circuits[0].state)
/// }
/// assert_eq!(newcomer(&MemoryStore::new(ClockOnly), BulkheadName::new("mail")?)?, FleetState::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CircuitStore: fmt::Debug + Send + Sync + 'static {
    /// What this store can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// How the synchroniser should use this store; the defaults unless the store was told more.
    fn settings(&self) -> StoreSettings {
        StoreSettings::default()
    }

    /// The namespace that it is bound to, for logs and metrics.
    fn namespace(&self) -> &str {
        "default"
    }

    /// Opens a link, makes sure that `circuits` exist (closed, unless they are there already),
    /// and starts listening for changes if it can push.
    ///
    /// Whatever changes after this has returned is announced by
    /// [`changed`](StoreSession::changed); what changed before is in the first snapshot.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind but, possibly, registered circuits.
    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>>;
}

/// A shared store is a store.
impl<S: CircuitStore + ?Sized> CircuitStore for Arc<S> {
    fn capabilities(&self) -> StoreCapabilities {
        (**self).capabilities()
    }

    fn settings(&self) -> StoreSettings {
        (**self).settings()
    }

    fn namespace(&self) -> &str {
        (**self).namespace()
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        (**self).open_session(circuits)
    }
}

/// What a [`CircuitStore`] can do.
///
/// ```
/// use bulkman::store::StoreCapabilities;
///
/// // State and leases, to be polled.
/// let able = StoreCapabilities::STATE.with_probes(true);
/// assert!(able.probes && !able.push && !able.votes && !able.counts);
/// assert!(!StoreCapabilities::ALL.with_push(false).push);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// [`StoreSession::changed`] tells of changes; without it the synchroniser polls.
    pub push: bool,
    /// Probes can be leased, so that a fleet has at most so many at a time.
    pub probes: bool,
    /// Votes can be counted, so that a quorum opens.
    pub votes: bool,
    /// Successes and failures of the fleet can be added up.
    pub counts: bool,
}

impl StoreCapabilities {
    /// All of them.
    pub const ALL: Self = Self {
        push: true,
        probes: true,
        votes: true,
        counts: true,
    };
    /// State alone: to be built upon with the `with_*` methods.
    pub const STATE: Self = Self {
        push: false,
        probes: false,
        votes: false,
        counts: false,
    };

    /// With [`push`](Self::push) as given.
    #[must_use]
    pub const fn with_push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }

    /// With [`probes`](Self::probes) as given.
    #[must_use]
    pub const fn with_probes(mut self, probes: bool) -> Self {
        self.probes = probes;
        self
    }

    /// With [`votes`](Self::votes) as given.
    #[must_use]
    pub const fn with_votes(mut self, votes: bool) -> Self {
        self.votes = votes;
        self
    }

    /// With [`counts`](Self::counts) as given.
    #[must_use]
    pub const fn with_counts(mut self, counts: bool) -> Self {
        self.counts = counts;
        self
    }
}

/// One live link to a store.
///
/// # Cancel safety
///
/// Dropping the future of any operation but [`changed`](Self::changed) leaves the session unfit
/// for use: its owner drops it too. The operation may or may not have happened; sent again over
/// another session, with the same [`OperationId`], it happens at most once. After an error the
/// session is dropped as well. A session is never repaired.
pub trait StoreSession: Send {
    /// Makes sure that `circuits` exist, as [`CircuitStore::open_session`] does.
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()>;

    /// The circuits that changed after `since`; all of them for `None`.
    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot>;

    /// Compares and swaps.
    fn transition<'a>(
        &'a mut self,
        transition: &'a StoreTransition,
    ) -> StoreFuture<'a, TransitionResult>;

    /// Compares and swaps several circuits, each as [`transition`](Self::transition) would: a change
    /// of its own, whatever becomes of the others. No circuit is in it twice; the answers are in the
    /// order of `transitions`.
    ///
    /// One after the other, unless the store knows how to do it in one round trip. The synchroniser
    /// sends up to 200, and gives the whole of them the time of one operation; what had no answer by then
    /// is sent again over another session.
    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(transitions.len());
            for transition in transitions {
                answers.push(self.transition(transition).await?);
            }
            Ok(answers)
        })
    }

    /// Adds this process's vote for opening, and opens if that makes the quorum.
    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult>;

    /// Does what an operator says, whatever the circuit's epoch; wins over every rule.
    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult>;

    /// Leases a probe of a half-open circuit; `None` when all are out, or the circuit has moved
    /// on. A holder that asks again is given its own lease anew: it never holds two.
    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>>;

    /// Prolongs a lease to `request.ttl` from now; `None` when it is no longer the holder's.
    fn renew_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, Option<ProbeLease>>;

    /// Counts a probe's outcome, and moves the circuit if that decides it.
    ///
    /// An expired lease, or one of an earlier half-open stay, has no say.
    fn report_probe<'a>(
        &'a mut self,
        verdict: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult>;

    /// Gives a lease back, without a verdict; does nothing if it is no longer the holder's.
    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()>;

    /// Adds to the fleet's counts and returns the totals of the window that ends now, one for
    /// each of `deltas` whose circuit is still at the delta's epoch or behind it.
    ///
    /// Not idempotent: a batch whose answer was lost may have been counted. Counts are evidence,
    /// not state.
    fn add_counts<'a>(
        &'a mut self,
        window: BucketedWindow,
        deltas: &'a [CountsDelta],
    ) -> StoreFuture<'a, Vec<FleetCounts>>;

    /// The latest changes, newest first, at most `limit`: of one circuit, or of the namespace.
    fn history<'a>(
        &'a mut self,
        circuit: Option<&'a BulkheadName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<HistoryEntry>>;

    /// Completes when something has changed, and tells what if the store can.
    ///
    /// It may come twice, for nothing, or not at all, and in any order. Pending for ever on a store
    /// that can't push.
    ///
    /// # Cancel safety
    ///
    /// Safe: what a dropped future would have told, the next one tells.
    fn changed(&mut self) -> StoreFuture<'_, StoreEvent>;
}

/// What a store pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// The namespace has reached this revision, or so it is said: a hint, for who looks himself.
    Changed {
        /// To be compared with the last one seen, not to be believed.
        revision: Revision,
    },
    /// One change, in the store's own words: what a snapshot since the revision before it would have
    /// told at that moment. A store that can't tell its own words from another's says
    /// [`Changed`](Self::Changed).
    ///
    /// Who has seen all that came before, and finds the [`Fingerprint`] to be what it must be after
    /// this one, need not look.
    Applied(Box<Snapshot>),
}

impl StoreEvent {
    /// Which revision the namespace has reached by it, or is said to have.
    ///
    /// ```
    /// # use bulkman::store::{Revision, StoreEvent};
    /// assert_eq!(StoreEvent::Changed { revision: Revision(7) }.revision(), Revision(7));
    /// ```
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Changed { revision } => *revision,
            Self::Applied(after) => after.revision,
        }
    }
}
