//! Everything an operator asks for, as one value.

#[cfg(feature = "serde")]
pub(crate) mod seconds;
mod table;

use std::time::{Duration, Instant};

use crate::bulkhead::Bulkhead;
use crate::bulkhead::state::BulkheadState;
use crate::bulkhead::stats::BulkheadStats;
use crate::circuit_breaker::{
    CircuitBreaker, CircuitCounts, CircuitRejections, CircuitState, Transition, TransitionCause,
};
use crate::fleet::{Fleet, FleetSnapshot};
use crate::manager::BulkheadManager;
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// All bulkheads of a manager at one time: made by [`BulkheadManager::snapshot`].
///
/// It prints as a table, with a line about the fleet below it, and serialises with the feature
/// `serde`: durations as seconds, in fields whose names end in `_seconds`. It says how long ago
/// things happened and not when, so it means the same wherever it is read.
///
/// ```
/// use bulkman::{BulkheadConfig, BulkheadManager};
/// use bulkman::runtime::ClockOnly;
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
    /// How fresh the view of the fleet is; `None` without a store.
    pub fleet: Option<FleetSnapshot>,
}

/// A bulkhead at one time: made by [`Bulkhead::snapshot`].
///
/// Its parts are read one after the other, so under load one may be a call ahead of another.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::bulkhead::BulkheadState;
/// use bulkman::runtime::ClockOnly;
///
/// let seen = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?.snapshot();
/// assert_eq!((seen.state, seen.stats.active), (BulkheadState::Healthy, 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The bulkhead's name.
    pub name: BulkheadName,
    /// Its condition.
    pub state: BulkheadState,
    /// Its limits, who runs and who waits, and calls by outcome and by reason of refusal.
    pub stats: BulkheadStats,
    /// Its circuit; `None` without a circuit breaker.
    pub circuit: Option<CircuitStatus>,
}

/// A circuit at one time, told by ages.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use std::time::Duration;
///
/// let clock = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), clock.clone())?;
/// bulkhead.circuit_breaker().unwrap().open();
/// clock.advance(Duration::from_secs(10));
/// let circuit = bulkhead.snapshot().circuit.unwrap();
/// assert_eq!((circuit.age.as_secs(), circuit.retry_after), (10, Some(Duration::from_secs(20))));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitStatus {
    /// Its state, a due transition performed.
    pub state: CircuitState,
    /// How long it has been in that state.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::of")
    )]
    pub age: Duration,
    /// How long the isolation still lasts; `None` unless the circuit is open, or if it stays so
    /// until somebody says otherwise.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "retry_after_seconds", serialize_with = "seconds::of_option")
    )]
    pub retry_after: Option<Duration>,
    /// Probes that may still go out; `None` unless the circuit is half-open.
    pub probes_remaining: Option<u32>,
    /// What it counts, and the rates.
    pub counts: CircuitCounts,
    /// Calls refused since the state began.
    pub rejected_calls: u64,
    /// Calls refused since the circuit was made, by reason.
    pub rejections: CircuitRejections,
    /// Automatic openings since the circuit was last closed.
    pub open_count: u32,
    /// The last transitions, oldest first.
    pub recent: Vec<TransitionRecord>,
}

/// A transition, told by its age.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
/// bulkhead.circuit_breaker().unwrap().force_open();
/// let circuit = bulkhead.snapshot().circuit.unwrap();
/// let last = circuit.recent.last().unwrap();
/// println!("{} -> {}, {:?} ago: {}", last.from, last.to, last.age, last.cause);
/// assert_eq!(last.to, CircuitState::ForcedOpen);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TransitionRecord {
    /// The state that was left.
    pub from: CircuitState,
    /// The state that was entered.
    pub to: CircuitState,
    /// Why.
    pub cause: TransitionCause,
    /// How long ago.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::of")
    )]
    pub age: Duration,
    /// How long the circuit was to stay open, if it opened and not for ever.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "isolation_seconds", serialize_with = "seconds::of_option")
    )]
    pub isolation: Option<Duration>,
    /// What was counted in `from` when it was left.
    pub counts: CircuitCounts,
}

impl BulkheadManager {
    /// Everything there is to see, of all bulkheads. Cheap enough for every second: about a
    /// microsecond for each bulkhead, and a call waits at most until its own circuit is read.
    ///
    /// ```
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let payments = manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    /// payments.circuit_breaker().unwrap().force_open();
    ///
    /// let snapshot = manager.snapshot();
    /// assert_eq!(snapshot.bulkheads[0].stats.max_concurrent_calls, 10);
    /// println!("{snapshot}");
    /// // BULKHEAD  STATE     CIRCUIT      SINCE  RUNNING  WAITING  ..  LAST CHANGE
    /// // payments  isolated  forced_open    0ms     0/10    0/100  ..  closed -> forced_open: manual
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> ManagerSnapshot {
        ManagerSnapshot {
            bulkheads: self.bulkheads().iter().map(Bulkhead::snapshot).collect(),
            fleet: self.fleet().map(Fleet::snapshot),
        }
    }
}

impl Bulkhead {
    /// Everything there is to see of this bulkhead.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
    /// assert_eq!(bulkhead.snapshot().name, "payments");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> BulkheadSnapshot {
        let runtime = &*self.inner().runtime;
        // The circuit first: looking at it performs a due transition, which the rest then shows.
        let circuit = self
            .circuit_breaker()
            .map(|circuit| CircuitStatus::of(circuit, runtime));
        BulkheadSnapshot {
            name: self.name().clone(),
            state: self.state(),
            stats: self.stats(),
            circuit,
        }
    }
}

impl CircuitStatus {
    fn of(circuit: &CircuitBreaker, runtime: &dyn Runtime) -> Self {
        let now = runtime.now();
        let seen = circuit.snapshot_at(now);
        Self {
            state: seen.state,
            age: seen.age,
            retry_after: seen.retry_after,
            probes_remaining: seen.probes_remaining,
            counts: seen.counts,
            rejected_calls: seen.rejected_calls,
            rejections: seen.rejections,
            open_count: seen.open_count,
            recent: seen
                .recent
                .iter()
                .map(|transition| TransitionRecord::of(transition, now))
                .collect(),
        }
    }
}

impl TransitionRecord {
    fn of(transition: &Transition, now: Instant) -> Self {
        Self {
            from: transition.from,
            to: transition.to,
            cause: transition.cause,
            age: now.saturating_duration_since(transition.at),
            isolation: transition.isolation,
            counts: transition.counts,
        }
    }
}
