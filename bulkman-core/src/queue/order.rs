//! The order in which waiting calls are granted permits.

/// The priority of a queued call.
///
/// Permits go to the waiting call of the highest priority. Within a priority, [`QueueOrder`]
/// decides. A priority never evicts a call that waits already.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, Priority};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let urgent = bulkhead.call().priority(Priority::High);
/// assert_eq!(urgent.execute_sync(|| Ok::<_, ()>(12)), Ok(12));
/// assert_eq!(Priority::default(), Priority::Normal);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Priority {
    /// Served when no call of another priority waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Served before all other priorities.
    High,
}

/// The order in which the waiting calls of one priority are served.
///
/// ```
/// use bulkman::{BulkheadConfig, QueueOrder};
///
/// let config = BulkheadConfig::new("search").queue_order(QueueOrder::Lifo);
/// assert_ne!(config, BulkheadConfig::new("search")); // first in, first out
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum QueueOrder {
    /// First in, first out: the call that has waited longest. The default.
    #[default]
    Fifo,
    /// Last in, first out: the newest call.
    ///
    /// Under overload the callers of the newest calls are still waiting for a result, and the calls
    /// at the other end time out.
    Lifo,
}
