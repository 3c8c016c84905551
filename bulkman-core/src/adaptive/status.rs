//! What operators see of a limit.

use std::time::Duration;

use super::change::LimitChange;
use super::enforcement::Enforcement;
#[cfg(feature = "serde")]
use crate::seconds;

/// The state of a limit that adapts or is observed.
///
/// Part of a [`BulkheadSnapshot`](crate::snapshot::BulkheadSnapshot). The figures are those of the
/// last closed sampling window.
///
/// ```
/// use bulkman::adaptive::AdaptiveLimit;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("search")
///     .max_concurrent_calls(200)
///     .adaptive_limit(AdaptiveLimit::new());
/// let status = Bulkhead::new(config, ClockOnly)?.snapshot().limit.unwrap();
/// assert_eq!((status.limit, status.maximum), (4, 200));
/// assert_eq!((status.baseline, status.measuring), (None, false));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LimitStatus {
    /// The number of permits: the limit in force.
    pub limit: usize,
    /// The adaptive limit with its fraction, enforced or not; the maximum without one.
    pub estimate: f64,
    /// The maximum: `max_concurrent_calls`.
    pub maximum: usize,
    /// Whether calls above the estimate wait or are rejected.
    pub enforcement: Enforcement,
    /// The latency without a queue, if a window gave one.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "baseline_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub baseline: Option<Duration>,
    /// The mean latency of the last window; `None` without a success in it.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "latency_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub latency: Option<Duration>,
    /// The successful calls a second in the last window.
    pub throughput: f64,
    /// Whether the limit was reached in the last window.
    pub reached: bool,
    /// Whether the limit is reduced to measure the baseline.
    pub measuring: bool,
    /// The time since the last window was closed, or since the limit was created.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::serialize")
    )]
    pub age: Duration,
    /// Observe mode: calls that would have waited.
    pub would_wait: u64,
    /// Observe mode: calls that would have been rejected.
    pub would_reject: u64,
    /// The latest changes of whole permits, at most 16, oldest first.
    pub recent: Vec<LimitChange>,
}
