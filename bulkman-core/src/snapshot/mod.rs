//! Snapshots of bulkheads and managers, for operators and for dashboards.

mod table;

use std::sync::Arc;
use std::time::Duration;

use crate::adaptive::LimitStatus;
use crate::bulkhead::state::BulkheadState;
use crate::bulkhead::stats::BulkheadStats;
use crate::call::CallKey;
use crate::circuit_breaker::CircuitSnapshot;
use crate::fleet::FleetSnapshot;
use crate::name::BulkheadName;
use crate::queue::Priority;

/// A snapshot of all bulkheads of a manager.
///
/// Returned by [`BulkheadManager::snapshot`](crate::BulkheadManager::snapshot).
///
/// `Display` writes a table with one line for each bulkhead. With a store, a line about the fleet
/// follows. With the feature `serde` a snapshot is serializable: durations are numbers of seconds
/// in fields that end in `_seconds`. Times are ages, not instants, so a snapshot means the same in
/// another process.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{BulkheadConfig, BulkheadManager};
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("payments"))?;
/// let table = manager.snapshot().to_string();
/// assert!(table.contains("payments  healthy"));
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ManagerSnapshot {
    /// The bulkheads, ordered by name.
    pub bulkheads: Vec<BulkheadSnapshot>,
    /// The connection to the store, and how fresh the view of the fleet is. `None` without a
    /// store.
    pub fleet: Option<FleetSnapshot>,
}

/// A snapshot of a bulkhead.
///
/// Returned by [`Bulkhead::snapshot`](crate::Bulkhead::snapshot).
///
/// Its parts are read one after the other. Under load, one part may be newer than another by a few
/// calls.
///
/// ```
/// use bulkman::bulkhead::BulkheadState;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let snapshot = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?.snapshot();
/// assert_eq!(
///     (snapshot.state, snapshot.stats.active),
///     (BulkheadState::Healthy, 0)
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The bulkhead's name.
    pub name: BulkheadName,
    /// The bulkhead's state.
    pub state: BulkheadState,
    /// The limits, and the numbers of running, queued, ended and rejected calls.
    pub stats: BulkheadStats,
    /// The circuit; `None` without a circuit breaker.
    pub circuit: Option<CircuitSnapshot>,
    /// The limit, if it adapts or is observed.
    pub limit: Option<LimitStatus>,
    /// The oldest running calls, oldest first: at most 16.
    ///
    /// Empty unless [`track_running_calls`](crate::BulkheadConfig::track_running_calls) is set. A
    /// blocking closure is listed until it ends, even if its caller has timed out.
    pub oldest: Vec<RunningCall>,
    /// The number of calls that `oldest` could not show, because its table was full.
    ///
    /// Counted since the bulkhead was created. The table has room for two calls for each permit,
    /// and for at most 65,536.
    pub untracked_calls: u64,
    /// The keys with the most waiters, then those with the most permits: at most 32. Empty unless
    /// permits are [shared between keys](crate::BulkheadConfig::fairness).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub keys: Vec<KeyStatus>,
}

/// The running and waiting calls of one key.
///
/// Keys are hashes. To show the names of tenants, give them with
/// [`Bulkhead::name_key`](crate::Bulkhead::name_key). To find one without a name, compare with
/// [`Bulkhead::call_key`](crate::Bulkhead::call_key).
///
/// ```
/// use bulkman::bulkhead::Fairness;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("db").fairness(Fairness::new().max_per_key(2));
/// let db = Bulkhead::new(config, ClockOnly)?;
/// let _running = db.call().key("tenant 17").weight(2).try_acquire().unwrap();
/// let keys = db.snapshot().keys;
/// assert_eq!((keys[0].key, keys[0].held), (Some(db.call_key("tenant 17")), 2));
/// assert_eq!(keys[0].name, None);
/// db.name_key("tenant 17", "Acme Inc.");
/// assert_eq!(db.snapshot().keys[0].name.as_deref(), Some("Acme Inc."));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyStatus {
    /// The key; `None` for the calls without a key.
    pub key: Option<CallKey>,
    /// The name that [`name_key`](crate::Bulkhead::name_key) gave it; `None` for keys without one.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_name"))]
    pub name: Option<Arc<str>>,
    /// The permits that its running calls hold.
    pub held: u32,
    /// Its waiting calls.
    pub waiting: u32,
    /// Whether calls wait because the key holds as many permits as it may.
    pub at_maximum: bool,
}

/// A running call, in a snapshot.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, Priority};
/// use std::time::Duration;
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("search").track_running_calls(true);
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
/// let _hangs = bulkhead.try_acquire().unwrap();
/// runtime.advance(Duration::from_secs(60));
/// let [call] = &bulkhead.snapshot().oldest[..] else {
///     panic!("one call is running")
/// };
/// assert_eq!((call.age.as_secs(), call.priority), (60, Priority::Normal));
/// assert_eq!(call.label, None);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RunningCall {
    /// How long the call has run, in units of 100 µs.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "crate::seconds::serialize")
    )]
    pub age: Duration,
    /// The label that the caller set; `None` if it set none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_name"))]
    pub label: Option<Arc<str>>,
    /// The priority.
    pub priority: Priority,
}

// Serde implements the trait for `Arc` only with another feature.
#[cfg(feature = "serde")]
fn serialize_name<S: serde::Serializer>(
    name: &Option<Arc<str>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&name.as_deref(), serializer)
}
