//! Who is served before whom.

/// How urgent a call is among those that wait.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig, Priority};
/// use bulkman::runtime::ClockOnly;
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
    /// Served when nobody else waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Served before all others.
    High,
}

/// Which of the waiting calls of one priority is served first.
///
/// ```
/// use bulkman::{BulkheadConfig, QueueOrder};
///
/// let config = BulkheadConfig::new("search").queue_order(QueueOrder::Lifo);
/// assert_ne!(config, BulkheadConfig::new("search"));       // first in, first out
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum QueueOrder {
    /// The one that has waited longest: the default.
    #[default]
    Fifo,
    /// The newest: under overload the calls that are served are still wanted, and those at the
    /// other end time out.
    Lifo,
}
