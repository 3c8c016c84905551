//! A snapshot of a circuit.

use std::time::Duration;

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use super::rejections::CircuitRejections;
use super::transition::Transition;
use crate::name::BulkheadName;
#[cfg(feature = "serde")]
use crate::seconds;

/// A consistent snapshot of a circuit's state, counts and latest transitions.
///
/// All times are relative to the moment of the snapshot, so a snapshot means the same in another
/// process.
///
/// With the feature `serde` it is serializable, as the part `circuit` of a
/// [`BulkheadSnapshot`](crate::snapshot::BulkheadSnapshot): durations are numbers of seconds in
/// fields that end in `_seconds`, and `name` and `generation` are left out.
///
/// ```
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use std::time::Duration;
///
/// let clock = ManualRuntime::new();
/// let breaker =
///     CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
/// breaker.open();
/// clock.advance(Duration::from_secs(10));
///
/// let snapshot = breaker.snapshot();
/// assert_eq!(
///     (snapshot.state, snapshot.age.as_secs()),
///     (CircuitState::Open, 10)
/// );
/// assert_eq!(snapshot.retry_after, Some(Duration::from_secs(20)));
/// let last = snapshot.recent.last().unwrap();
/// println!(
///     "{} -> {}, {:?} ago: {}",
///     last.from, last.to, last.age, last.cause
/// );
/// assert_eq!((last.from, last.age.as_secs()), (CircuitState::Closed, 10));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// The circuit's name: that of its bulkhead. Not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub name: BulkheadName,
    /// The state, after any transition that was due.
    pub state: CircuitState,
    /// The time since the state was entered.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::serialize")
    )]
    pub age: Duration,
    /// The remaining isolation. `None` unless the circuit is open, or if it stays open until it is
    /// changed manually.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "retry_after_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub retry_after: Option<Duration>,
    /// The number of probes that may still start. `None` unless the circuit is half-open.
    pub probes_remaining: Option<u32>,
    /// The outcomes in the window, and the rates.
    pub counts: CircuitCounts,
    /// The number of calls rejected since the state was entered.
    pub rejected_calls: u64,
    /// The numbers of calls rejected since the circuit was created, by reason.
    pub rejections: CircuitRejections,
    /// The generation: a number that grows with every state entered, and begins again at one after
    /// 2^39 of them. Not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub generation: u64,
    /// The number of automatic openings since the circuit was last closed.
    pub open_count: u32,
    /// The latest transitions, oldest first: at most 8.
    pub recent: Vec<Transition>,
}
