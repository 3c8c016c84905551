//! The state of circuits, as a store returns it.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::probe::ProbePolicy;
use crate::name::BulkheadName;

/// The number of changes of a circuit; a higher epoch is newer.
///
/// ```
/// # use bulkman::store::Epoch;
/// assert!(Epoch(2) > Epoch(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Epoch(pub u64);

/// The number of changes of a namespace, in the order in which they became visible.
///
/// It decreases only if the store lost history: a backup was restored, or a lagging replica took
/// over.
///
/// ```
/// # use bulkman::store::Revision;
/// assert!(Revision(2) > Revision::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A reading of the store's clock, in microseconds since an epoch chosen by the store.
///
/// It can only be compared with readings of the same store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub i64);

impl StoreTime {
    /// Returns the time after `duration`, saturating at the numeric bound.
    ///
    /// ```
    /// # use bulkman::store::StoreTime;
    /// # use std::time::Duration;
    /// assert_eq!(
    ///     StoreTime(5).saturating_add(Duration::from_millis(1)),
    ///     StoreTime(1005)
    /// );
    /// assert_eq!(
    ///     StoreTime(5).saturating_add(Duration::MAX),
    ///     StoreTime(i64::MAX)
    /// );
    /// ```
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

/// Identifies one request to change a circuit, across retries.
///
/// The process that requests the change draws it at random. Zero means no operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OperationId(pub u64);

impl OperationId {
    /// Draws an operation id at random.
    ///
    /// ```
    /// # use bulkman::store::OperationId;
    /// assert_ne!(OperationId::random(), OperationId::random());
    /// ```
    #[must_use]
    pub fn random() -> Self {
        // The standard library's only source of randomness; never zero.
        Self(RandomState::new().build_hasher().finish() | 1)
    }
}

/// The state of a circuit that a fleet shares.
///
/// ```
/// use bulkman::store::FleetState;
///
/// assert!(FleetState::ForcedOpen.is_forced() && !FleetState::Open.is_forced());
/// assert_eq!(FleetState::HalfOpen.to_string(), "half_open");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum FleetState {
    /// Calls are admitted.
    #[default]
    Closed,
    /// Calls are rejected until the isolation has elapsed.
    Open,
    /// Only holders of a probe lease admit calls.
    HalfOpen,
    /// An operator forced the circuit open.
    ForcedOpen,
    /// An operator disabled the circuit breaker: all calls are admitted.
    Disabled,
}

impl FleetState {
    /// Returns `true` if an operator forced this state, which only an operator can leave.
    ///
    /// ```
    /// # use bulkman::store::FleetState;
    /// assert!(FleetState::Disabled.is_forced());
    /// ```
    #[must_use]
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::Disabled)
    }

    /// Returns `closed`, `open`, `half_open`, `forced_open`, or `disabled`.
    ///
    /// ```
    /// # use bulkman::store::FleetState;
    /// assert_eq!(FleetState::ForcedOpen.as_str(), "forced_open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of one circuit in the store.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::store::{CircuitView, Epoch, FleetState};
///
/// let circuit = CircuitView::new(BulkheadName::new("mail")?);
/// assert_eq!(
///     (circuit.state, circuit.epoch, circuit.open_count),
///     (FleetState::Closed, Epoch(0), 0)
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitView {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The epoch of the circuit.
    pub epoch: Epoch,
    /// The namespace's revision after the circuit's last change.
    pub revision: Revision,
    /// The state of the circuit.
    pub state: FleetState,
    /// The remaining isolation; zero if it has elapsed, and in every other state.
    ///
    /// It never exceeds [`open_for`](Self::open_for), even if the store's clock stepped back.
    pub remaining: Duration,
    /// How long the circuit was to stay open when it opened; zero in every other state.
    pub open_for: Duration,
    /// The time since the last change.
    pub age: Duration,
    /// The number of openings since the circuit was last closed.
    pub open_count: u32,
    /// The probe policy of the half-open state.
    pub probe_policy: ProbePolicy,
    /// The number of successful probes since the circuit became half-open.
    pub probes_succeeded: u32,
    /// The number of failed probes since the circuit became half-open.
    pub probes_failed: u32,
    /// The operation that made the last change.
    pub operation: OperationId,
    /// The process or operator that made the last change.
    pub author: Arc<str>,
    /// The reason for the last change.
    pub reason: Arc<str>,
}

impl CircuitView {
    /// Creates a closed circuit that has never changed.
    #[must_use]
    pub fn new(circuit: BulkheadName) -> Self {
        Self {
            circuit,
            epoch: Epoch::default(),
            revision: Revision::default(),
            state: FleetState::Closed,
            remaining: Duration::ZERO,
            open_for: Duration::ZERO,
            age: Duration::ZERO,
            open_count: 0,
            probe_policy: ProbePolicy::default(),
            probes_succeeded: 0,
            probes_failed: 0,
            operation: OperationId::default(),
            author: Arc::from(""),
            reason: Arc::from(""),
        }
    }

    /// Returns `true` if the circuit is open and its isolation has elapsed.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// # use bulkman::store::{CircuitView, FleetState};
    /// # use std::time::Duration;
    /// let mut circuit = CircuitView::new(BulkheadName::new("mail")?);
    /// (circuit.state, circuit.remaining) = (FleetState::Open, Duration::from_secs(1));
    /// assert!(!circuit.isolation_elapsed());
    /// circuit.remaining = Duration::ZERO;
    /// assert!(circuit.isolation_elapsed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn isolation_elapsed(&self) -> bool {
        matches!(self.state, FleetState::Open) && self.remaining.is_zero()
    }
}

/// Some or all circuits of a namespace, at one point in time.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::CircuitStore;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
///
/// let names = ["mail", "search"].map(|name| BulkheadName::new(name).unwrap());
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(&names))?;
/// let all = block_on(session.snapshot(None))?;
/// assert_eq!(all.circuits.len(), 2);
/// let since = block_on(session.snapshot(Some(all.revision)))?;
/// assert!(since.circuits.is_empty());
/// # Ok::<(), bulkman::store::StoreError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The namespace's revision.
    pub revision: Revision,
    /// Identifies the data: a different value means that the store was recreated.
    pub incarnation: u64,
    /// The fingerprint of the whole namespace, including circuits that this snapshot omits.
    pub fingerprint: Fingerprint,
    /// The store's time.
    pub now: StoreTime,
    /// The circuits that changed, or all circuits.
    pub circuits: Vec<CircuitView>,
}

impl Snapshot {
    /// Creates a snapshot of `circuits`.
    #[must_use]
    pub const fn new(
        revision: Revision,
        incarnation: u64,
        fingerprint: Fingerprint,
        now: StoreTime,
        circuits: Vec<CircuitView>,
    ) -> Self {
        Self {
            revision,
            incarnation,
            fingerprint,
            now,
            circuits,
        }
    }
}

/// The last operations of all circuits of a namespace, combined by exclusive or.
///
/// The store updates it with every change. It detects lost history, which a [`Revision`] can't: a
/// restored database, or a lagging standby that took over, soon reaches the same revision with
/// other changes. Operations are random, so different histories have different fingerprints. A
/// process that knows what a change replaced can compute the fingerprint after it.
///
/// ```
/// use bulkman::store::{Fingerprint, OperationId};
///
/// let before = Fingerprint::default();
/// let opened = before.with_replaced(OperationId(0), OperationId(7));
/// let closed = opened.with_replaced(OperationId(7), OperationId(9));
/// assert_eq!(closed, before.with_replaced(OperationId(0), OperationId(9)));
/// assert_ne!(closed, before.with_replaced(OperationId(0), OperationId(8)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Returns the fingerprint after the last operation of one circuit changed from `old` to `new`.
    ///
    /// The operation of a circuit that has never changed is zero.
    #[must_use]
    pub const fn with_replaced(self, old: OperationId, new: OperationId) -> Self {
        Self(self.0 ^ old.0 ^ new.0)
    }
}
