//! Sharing the state of circuits between processes.
//!
//! A [`CircuitStore`] keeps the state of named circuits where several processes can reach it. It
//! knows neither calls nor breakers: it compares and swaps states, grants probe leases, counts
//! votes, and reports changes. The driver of a fleet decides what to do with that, and when. A
//! store holds no timers and spawns no tasks, and no call ever waits for it.
//!
//! The page of [`CircuitStore`] states what a store guarantees.
//!
//! [`MemoryStore`] shares within one process; the crate `bulkman-postgres` shares through
//! PostgreSQL. Other backends can be added: the `conformance` module (feature `test-util`) tests
//! the guarantees.

mod counts;
mod error;
mod fleet_count_policy;
mod history;
mod instance;
mod memory;
mod probe;
mod process;
mod settings;
mod sharing_mode;
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
pub use fleet_count_policy::FleetCountPolicy;
pub use history::HistoryEntry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use memory::MemoryBackup;
pub use memory::MemoryStore;
pub use probe::{ProbeLease, ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult, ProbeRule};
pub use process::ProcessStatus;
pub use settings::{OnOutage, Push, StoreSettings};
pub use sharing_mode::SharingMode;
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

/// The future that store operations return.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Checks the name of a namespace: the rules of [`BulkheadName`], but at most 200 bytes.
///
/// For implementations of [`CircuitStore`].
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

/// Truncates an author or a reason to 200 bytes, at a character boundary.
///
/// For implementations of [`CircuitStore`], which store no more than that.
///
/// ```
/// use bulkman::store::truncate_text;
///
/// assert_eq!(truncate_text("maintenance"), "maintenance");
/// assert_eq!(truncate_text(&"ü".repeat(300)).len(), 200);
/// assert_eq!(truncate_text(&format!("x{}", "ü".repeat(300))).len(), 199);
/// ```
#[must_use]
pub fn truncate_text(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT_BYTES))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    &text[..end]
}

/// A store in which processes share the state of their circuits.
///
/// A store is bound to one namespace. Circuits of the same name in different namespaces are
/// independent. It is used as `Arc<dyn CircuitStore>`.
///
/// # What a store guarantees
///
/// * **Compare-and-swap.** Every change of a circuit raises its [`Epoch`] by one. A
///   [`StoreTransition`] names the epoch that it was decided on, and is rejected if the circuit has
///   changed since.
/// * **Idempotence.** A change names an [`OperationId`]. If its response was lost, it can be sent
///   again without being applied twice.
/// * **Order.** One [`Revision`] numbers all changes of a namespace, in the order in which they
///   became visible. A process that has seen revision *n* and asks for later changes misses none.
/// * **Fencing.** At most [`ProbePolicy::limit`] leases are valid at a time. A probe's result is
///   not counted if its lease has expired, or belongs to an earlier half-open period.
/// * **One clock.** Only the store's clock counts. Durations are computed by the store, and no wall
///   clock of a process is compared with another one.
/// * **Operators.** No rule leaves a state that an operator forced. Only a [`FleetCommand`] does.
///
/// The `conformance` module (feature `test-util`) has a test for each of these.
///
/// # Implementing
///
/// A store needs no timers. The driver bounds every operation, and drops the session when one takes
/// too long. [`check_namespace`] and [`truncate_text`] apply the common limits.
///
/// ```
/// use bulkman::store::{CircuitStore, FleetState};
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
///
/// /// Returns the state of a circuit that has just been registered: closed, in every store.
/// fn initial_state(
///     store: &dyn CircuitStore,
///     name: BulkheadName,
/// ) -> Result<FleetState, bulkman::store::StoreError> {
///     let mut session = block_on(store.open_session(&[name]))?;
///     Ok(block_on(session.snapshot(None))?.circuits[0].state)
/// }
/// let store = MemoryStore::new(ClockOnly);
/// assert_eq!(initial_state(&store, BulkheadName::new("mail")?)?, FleetState::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CircuitStore: fmt::Debug + Send + Sync + 'static {
    /// Returns what this store can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// Returns the settings with which the driver uses this store.
    ///
    /// The default implementation returns [`StoreSettings::default`].
    fn settings(&self) -> StoreSettings {
        StoreSettings::default()
    }

    /// Returns the namespace that this store is bound to, for logs and metrics.
    fn namespace(&self) -> &str {
        "default"
    }

    /// Opens a session and registers `circuits`.
    ///
    /// A circuit that does not exist yet is created closed; an existing one is left as it is. A
    /// store that can push also starts listening for changes.
    ///
    /// [`changed`](StoreSession::changed) reports every change made after this has returned. The
    /// first snapshot contains what changed before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind, except possibly registered circuits.
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

/// The capabilities of a [`CircuitStore`].
///
/// ```
/// use bulkman::store::StoreCapabilities;
///
/// // State and probe leases, without push.
/// let capabilities = StoreCapabilities::STATE.with_probes(true);
/// assert!(capabilities.probes && !capabilities.push);
/// assert!(!capabilities.votes && !capabilities.counts);
/// assert!(!StoreCapabilities::ALL.with_push(false).push);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// [`StoreSession::changed`] reports changes. Without it the driver polls.
    pub push: bool,
    /// Probes can be leased, which bounds the concurrent probes of a fleet.
    pub probes: bool,
    /// Votes can be counted, so that a quorum can open a circuit.
    pub votes: bool,
    /// Successes and failures of the whole fleet can be summed.
    pub counts: bool,
}

impl StoreCapabilities {
    /// All capabilities.
    pub const ALL: Self = Self {
        push: true,
        probes: true,
        votes: true,
        counts: true,
    };
    /// State only; the `with_*` methods add to it.
    pub const STATE: Self = Self {
        push: false,
        probes: false,
        votes: false,
        counts: false,
    };

    /// Sets [`push`](Self::push).
    #[must_use]
    pub const fn with_push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }

    /// Sets [`probes`](Self::probes).
    #[must_use]
    pub const fn with_probes(mut self, probes: bool) -> Self {
        self.probes = probes;
        self
    }

    /// Sets [`votes`](Self::votes).
    #[must_use]
    pub const fn with_votes(mut self, votes: bool) -> Self {
        self.votes = votes;
        self
    }

    /// Sets [`counts`](Self::counts).
    #[must_use]
    pub const fn with_counts(mut self, counts: bool) -> Self {
        self.counts = counts;
        self
    }
}

/// An open session with a store.
///
/// # Cancel safety
///
/// After the future of an operation was dropped, the session must be dropped too;
/// [`changed`](Self::changed) is the exception. The operation may or may not have been applied.
/// Sent again over another session, with the same [`OperationId`], it is applied at most once.
///
/// A session that has returned an error must also be dropped, unless it
/// [is usable](Self::is_usable). Sessions are never repaired.
pub trait StoreSession: Send {
    /// Registers `circuits`, as [`CircuitStore::open_session`] does.
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()>;

    /// Returns the circuits that changed after `since`, or all circuits for `None`.
    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot>;

    /// Reads as [`snapshot`](Self::snapshot) does, and stores the status of this process.
    ///
    /// It must not fail where a snapshot succeeds: a status that can't be stored is dropped. The
    /// default implementation stores nothing.
    fn resync<'a>(
        &'a mut self,
        since: Option<Revision>,
        status: &'a ProcessStatus,
    ) -> StoreFuture<'a, Snapshot> {
        let _ = status;
        self.snapshot(since)
    }

    /// Returns the number of live processes of the namespace, including this one.
    ///
    /// Live are those that have called [`resync`](Self::resync) recently. The value is as of the
    /// last `resync` of this session. The default implementation returns `None`: unknown.
    fn live_processes(&self) -> Option<u32> {
        None
    }

    /// Removes the stored status of this process, which is ending.
    ///
    /// The default implementation does nothing.
    fn withdraw<'a>(&'a mut self, status: &'a ProcessStatus) -> StoreFuture<'a, ()> {
        let _ = status;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Changes a circuit by compare-and-swap.
    fn transition<'a>(
        &'a mut self,
        transition: &'a StoreTransition,
    ) -> StoreFuture<'a, TransitionResult>;

    /// Changes several circuits by compare-and-swap, each independently of the others.
    ///
    /// `transitions` contains no circuit twice. The results are in the order of `transitions`. The
    /// default implementation calls [`transition`](Self::transition) for each; a store that can do
    /// it in one round trip should override it.
    ///
    /// The driver sends up to 200 transitions at a time, and bounds the whole batch by the time of
    /// one operation. It resends what has no response by then over another session.
    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        Box::pin(async move {
            let mut results = Vec::with_capacity(transitions.len());
            for transition in transitions {
                results.push(self.transition(transition).await?);
            }
            Ok(results)
        })
    }

    /// Counts this process's vote for opening a circuit, and opens it if the quorum is reached.
    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult>;

    /// Applies an operator's command, whatever the circuit's epoch and state.
    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult>;

    /// Acquires a probe lease of a half-open circuit.
    ///
    /// Returns `None` if all leases are held, or if the circuit has left that half-open period. A
    /// holder that asks again gets its own lease renewed: it never holds two.
    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>>;

    /// Renews a lease for `request.ttl` from now; `None` if the holder has lost it.
    fn renew_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, Option<ProbeLease>>;

    /// Counts the result of a probe, and changes the circuit if that decides its state.
    ///
    /// The result is not counted if the lease has expired or belongs to an earlier half-open
    /// period.
    fn report_probe<'a>(
        &'a mut self,
        result: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult>;

    /// Releases a lease without a result; does nothing if the holder has lost it.
    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()>;

    /// Acquires leases of several circuits, each independently of the others.
    ///
    /// `requests` contains no circuit twice. The leases are in the order of `requests`. The default
    /// implementation calls [`acquire_probe`](Self::acquire_probe) for each; a store that can do it
    /// in one round trip should override it, and the next three methods.
    ///
    /// The driver sends up to 200 requests at a time, and bounds them by the time of one operation.
    fn acquire_probes<'a>(
        &'a mut self,
        requests: &'a [ProbeRequest],
    ) -> StoreFuture<'a, Vec<Option<ProbeLease>>> {
        Box::pin(async move {
            let mut leases = Vec::with_capacity(requests.len());
            for request in requests {
                leases.push(self.acquire_probe(request).await?);
            }
            Ok(leases)
        })
    }

    /// Renews several leases, each as [`renew_probe`](Self::renew_probe) does.
    fn renew_probes<'a>(
        &'a mut self,
        held: &'a [(ProbeRequest, ProbeLease)],
    ) -> StoreFuture<'a, Vec<Option<ProbeLease>>> {
        Box::pin(async move {
            let mut leases = Vec::with_capacity(held.len());
            for (request, lease) in held {
                leases.push(self.renew_probe(request, *lease).await?);
            }
            Ok(leases)
        })
    }

    /// Releases several leases, each as [`release_probe`](Self::release_probe) does.
    fn release_probes<'a>(
        &'a mut self,
        held: &'a [(ProbeRequest, ProbeLease)],
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            for (request, lease) in held {
                self.release_probe(request, *lease).await?;
            }
            Ok(())
        })
    }

    /// Counts the results of several probes, each as [`report_probe`](Self::report_probe) does.
    ///
    /// `results` contains no circuit twice. The reports are in the order of `results`, and one
    /// result never affects another. A repeated batch counts each result once.
    ///
    /// The default implementation calls [`report_probe`](Self::report_probe) for each. The driver
    /// sends up to 200 results at a time, and bounds them by the time of one operation.
    fn report_probes<'a>(
        &'a mut self,
        results: &'a [ProbeResult],
    ) -> StoreFuture<'a, Vec<ProbeReportResult>> {
        Box::pin(async move {
            let mut reports = Vec::with_capacity(results.len());
            for result in results {
                reports.push(self.report_probe(result).await?);
            }
            Ok(reports)
        })
    }

    /// Adds to the fleet's counts, and returns the totals of the window that ends now.
    ///
    /// A delta of an earlier epoch than its circuit's is skipped, and has no totals in the returned
    /// list.
    ///
    /// This is not idempotent: if the response was lost, the batch may have been counted. Counts
    /// are evidence, not state.
    fn add_counts<'a>(
        &'a mut self,
        window: BucketedWindow,
        deltas: &'a [CountsDelta],
    ) -> StoreFuture<'a, Vec<FleetCounts>>;

    /// Returns the latest changes of one circuit, or of the namespace, newest first.
    ///
    /// Returns at most `limit` entries.
    fn history<'a>(
        &'a mut self,
        circuit: Option<&'a BulkheadName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<HistoryEntry>>;

    /// Waits for a change, and returns its content if the store can provide it.
    ///
    /// Events may be duplicated, spurious, lost, or out of order. The future of a store that can't
    /// push never completes.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: an event that a dropped future would have returned is returned
    /// by the next call.
    fn changed(&mut self) -> StoreFuture<'_, StoreEvent>;

    /// Returns whether the session can be used after an operation has returned an error.
    ///
    /// If so, an error that concerns one circuit does not disconnect the others, and a missing
    /// privilege to write does not prevent reading. The default implementation returns `false`.
    fn is_usable(&self) -> bool {
        false
    }

    /// Returns whether [`changed`](Self::changed) reports changes at present.
    ///
    /// A store that is flooded by notifications returns `false`. The driver then polls, and calls
    /// [`listen`](Self::listen) a minute later. The default implementation returns `true`.
    fn is_listening(&self) -> bool {
        true
    }

    /// Returns why the store rejects all changes at present; `None` if it accepts them.
    ///
    /// A store that can be read only, such as a standby, is read and polled; the driver changes
    /// nothing there. The value is current after each [`snapshot`](Self::snapshot), and after an
    /// operation that failed for this reason. The default implementation returns `None`.
    fn read_only_reason(&self) -> Option<&str> {
        None
    }

    /// Starts to report changes again.
    ///
    /// Every change made after this has returned is reported. The default implementation does
    /// nothing.
    fn listen(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A notification that a store pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// An unauthenticated hint that the namespace has reached a revision; verify by reading.
    Changed {
        /// The claimed revision. Compare it with the last one seen, but don't rely on it.
        revision: Revision,
    },
    /// An authenticated change with its content.
    ///
    /// The content is what a snapshot since the previous revision returned at that moment. A store
    /// that can't authenticate its notifications sends [`Changed`](Self::Changed).
    ///
    /// A process that has seen all earlier changes, and computes the same [`Fingerprint`] for this
    /// one, need not read the store.
    Applied(Box<Snapshot>),
}

impl StoreEvent {
    /// Returns the revision that the namespace has reached, or is claimed to have reached.
    ///
    /// ```
    /// # use bulkman::store::{Revision, StoreEvent};
    /// assert_eq!(
    ///     StoreEvent::Changed {
    ///         revision: Revision(7)
    ///     }
    ///     .revision(),
    ///     Revision(7)
    /// );
    /// ```
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Changed { revision } => *revision,
            Self::Applied(snapshot) => snapshot.revision,
        }
    }
}

/// The bytes of an author or a reason that a store keeps.
const MAX_TEXT_BYTES: usize = 200;
