//! What a store tells about circuits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::probe::ProbePolicy;
use crate::name::BulkheadName;

/// The number of changes that a circuit has gone through; higher is newer.
///
/// ```
/// # use bulkman::store::Epoch;
/// assert!(Epoch(2) > Epoch(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Epoch(pub u64);

/// The number of changes that a namespace has gone through, in the order in which they became
/// visible.
///
/// It goes backwards only when the store has lost history: a backup restored, or a failover to a
/// replica that lagged.
///
/// ```
/// # use bulkman::store::Revision;
/// assert!(Revision(2) > Revision::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A reading of the store's clock, in microseconds since whenever that clock counts from.
///
/// Only good for being sent back to the same store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub i64);

impl StoreTime {
    /// This much later; saturates.
    ///
    /// ```
    /// # use bulkman::store::StoreTime;
    /// # use std::time::Duration;
    /// assert_eq!(StoreTime(5).after(Duration::from_millis(1)), StoreTime(1005));
    /// assert_eq!(StoreTime(5).after(Duration::MAX), StoreTime(i64::MAX));
    /// ```
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

/// Identifies one attempt to change a circuit, over however many tries.
///
/// Drawn at random from the whole range by whoever makes the change; zero is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OperationId(pub u64);

/// The state of a circuit as the fleet shares it.
///
/// ```
/// use bulkman::store::FleetState;
///
/// assert!(FleetState::ForcedOpen.is_forced() && !FleetState::Open.is_forced());
/// assert_eq!(FleetState::HalfOpen.to_string(), "half-open");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum FleetState {
    /// Calls pass.
    #[default]
    Closed,
    /// Calls are refused until the opening's time is over.
    Open,
    /// Holders of a lease probe.
    HalfOpen,
    /// An operator holds the circuit open.
    ForcedOpen,
    /// An operator has switched the breaker off: all calls pass.
    Disabled,
}

impl FleetState {
    /// Whether an operator put the circuit there: then only an operator takes it out.
    ///
    /// ```
    /// # use bulkman::store::FleetState;
    /// assert!(FleetState::Disabled.is_forced());
    /// ```
    #[must_use]
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::Disabled)
    }

    /// `closed`, `open`, `half-open`, `forced-open`, `disabled`.
    ///
    /// ```
    /// # use bulkman::store::FleetState;
    /// assert_eq!(FleetState::ForcedOpen.as_str(), "forced-open");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced-open",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One circuit as the store has it.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::store::{CircuitView, Epoch, FleetState};
///
/// let fresh = CircuitView::new(BulkheadName::new("mail")?);
/// assert_eq!((fresh.state, fresh.epoch, fresh.open_count), (FleetState::Closed, Epoch(0), 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitView {
    /// Which.
    pub circuit: BulkheadName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The namespace's revision of its last change.
    pub revision: Revision,
    /// Its state.
    pub state: FleetState,
    /// How long it stays open yet; zero when that is over, and in every other state.
    ///
    /// Never more than [`wait`](Self::wait), also after the store's clock has stepped back.
    pub remaining: Duration,
    /// How long the opening was to last when it began; zero in every other state.
    pub wait: Duration,
    /// How long ago it changed.
    pub age: Duration,
    /// How often it has opened since it was last closed.
    pub open_count: u32,
    /// How the half-open stay is decided, while it is half-open.
    pub plan: ProbePolicy,
    /// Probes of this half-open stay that succeeded.
    pub probes_succeeded: u32,
    /// Probes of this half-open stay that failed.
    pub probes_failed: u32,
    /// The operation that changed it last.
    pub operation: OperationId,
    /// Who changed it last.
    pub changed_by: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

impl CircuitView {
    /// A closed circuit that has never changed.
    #[must_use]
    pub fn new(circuit: BulkheadName) -> Self {
        Self {
            circuit,
            epoch: Epoch::default(),
            revision: Revision::default(),
            state: FleetState::Closed,
            remaining: Duration::ZERO,
            wait: Duration::ZERO,
            age: Duration::ZERO,
            open_count: 0,
            plan: ProbePolicy::default(),
            probes_succeeded: 0,
            probes_failed: 0,
            operation: OperationId::default(),
            changed_by: Arc::from(""),
            reason: Arc::from(""),
        }
    }

    /// Whether it is open and its time is over: the next with demand may make it half-open.
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

/// Some or all circuits of a namespace, at one moment.
///
/// ```
/// use bulkman::store::CircuitStore;
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
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
    /// Up to where it tells.
    pub revision: Revision,
    /// Identifies the data: another value means that everything was made anew.
    pub incarnation: u64,
    /// Of all circuits of the namespace, also of those that are not in this snapshot.
    pub fingerprint: Fingerprint,
    /// The store's clock.
    pub now: StoreTime,
    /// The circuits that changed, or all.
    pub circuits: Vec<CircuitView>,
}

impl Snapshot {
    /// A snapshot of `circuits`.
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

/// What a whole namespace looks like, in one word: the operations that changed its circuits last,
/// combined by exclusive or. Kept by the store, and brought up to date with every change.
///
/// A revision can't tell that history was lost: a database that was restored, or a standby that
/// lagged behind and took over, soon reaches the same number again with other changes. Operations
/// are random, so two histories that left the circuits in different ways differ in this; and
/// whoever knows what one change replaced can tell what the fingerprint must be after it.
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
    /// After a change by `is` of a circuit that `was` had changed last (0: none had).
    #[must_use]
    pub const fn with_replaced(self, was: OperationId, is: OperationId) -> Self {
        Self(self.0 ^ was.0 ^ is.0)
    }
}
