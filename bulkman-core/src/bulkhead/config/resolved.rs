//! A configuration of a bulkhead with its defaults filled in.

use std::time::Duration;

use super::{BulkheadConfig, Fairness};
use crate::adaptive::{AdaptiveLimit, Enforcement};
use crate::circuit_breaker::ResolvedCircuitBreakerConfig;
use crate::queue::QueueOrder;

/// The values of a [`BulkheadConfig`], with the defaults filled in.
///
/// Returned by [`BulkheadConfig::resolve`]. The values are not validated.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let bulkhead = Bulkhead::new(
///     BulkheadConfig::new("search").max_concurrent_calls(3),
///     ClockOnly,
/// )?;
/// let current = bulkhead.config().resolve();
/// bulkhead.reconfigure(
///     bulkhead
///         .config()
///         .max_concurrent_calls(current.max_concurrent_calls * 2),
/// )?;
/// assert_eq!(bulkhead.config().resolve().max_concurrent_calls, 6);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedBulkheadConfig {
    /// The name.
    pub name: String,
    /// The maximum number of concurrent calls.
    pub max_concurrent_calls: usize,
    /// The maximum number of waiting calls.
    pub max_queue_size: usize,
    /// The permits that waiting calls may ask for together; `None`: no limit beside the size.
    pub max_queue_weight: Option<u32>,
    /// The order in which waiting calls of one priority get permits.
    pub queue_order: QueueOrder,
    /// The number of waiting calls that may overtake one that is too heavy.
    pub overtaking: u32,
    /// The limit of the whole call; `None`: no limit.
    pub timeout: Option<Duration>,
    /// The limit of the time in the queue; `None`: no limit beside `timeout`.
    pub max_wait: Option<Duration>,
    /// The limit of the running time; `None`: no limit beside `timeout`.
    pub run_timeout: Option<Duration>,
    /// The settings of the adaptive limit; `None`: the limit is `max_concurrent_calls`.
    pub adaptive_limit: Option<AdaptiveLimit>,
    /// Whether calls above the limit wait or are rejected.
    pub enforcement: Enforcement,
    /// How permits are shared between keys; `None`: keys are ignored.
    pub fairness: Option<Fairness>,
    /// Whether snapshots list the oldest running calls.
    pub track_running_calls: bool,
    /// The configuration of the circuit breaker; `None` if it is disabled.
    pub circuit_breaker: Option<ResolvedCircuitBreakerConfig>,
}

impl ResolvedBulkheadConfig {
    pub(super) fn new(config: &BulkheadConfig) -> Self {
        Self {
            name: config.name.clone(),
            max_concurrent_calls: config.max_concurrent_calls,
            max_queue_size: config.max_queue_size,
            max_queue_weight: config.max_queue_weight,
            queue_order: config.queue_order,
            overtaking: config.overtaking,
            timeout: config.timeout,
            max_wait: config.max_wait,
            run_timeout: config.run_timeout,
            adaptive_limit: config.adaptive_limit.as_deref().cloned(),
            enforcement: config.enforcement,
            fairness: config.fairness.as_deref().copied(),
            track_running_calls: config.track_running_calls,
            circuit_breaker: config.circuit().map(crate::CircuitBreakerConfig::resolve),
        }
    }
}
