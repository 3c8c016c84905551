//! Several bulkheads, configured together.

use crate::bulkhead::config::BulkheadConfig;

/// The configurations of several bulkheads: what one file says.
///
/// [`BulkheadManager::from_config`](super::BulkheadManager::from_config) makes a manager of it, and
/// [`apply_config`](super::BulkheadManager::apply_config) changes one in place when the file has
/// changed.
///
/// With the feature `serde` it is read and written in any format; the bulkheads are named by their
/// keys, durations are texts, what is left out has its default, and what is not known is an error:
///
/// ```toml
/// [bulkheads.payments]
/// max_concurrent_calls = 20
/// max_queue_size = 50
/// timeout = "2s 500ms"
///
/// [bulkheads.payments.circuit_breaker]
/// failure_rate_threshold = 0.5
/// minimum_number_of_calls = 20
/// sliding_window = { length = "60s", buckets = 60 }   # or { count = 100 }
/// isolation_duration = "10s"
///
/// [bulkheads.reports]
/// circuit_breaker_enabled = false
/// ```
///
/// ```
/// use bulkman::BulkheadConfig;
/// use bulkman::manager::ManagerConfig;
///
/// let config = ManagerConfig::new()
///     .bulkhead(BulkheadConfig::new("payments").max_concurrent_calls(20))
///     .bulkhead(BulkheadConfig::new("reports").circuit_breaker_enabled(false));
/// assert_eq!(config.bulkheads().len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagerConfig {
    bulkheads: Vec<BulkheadConfig>,
}

impl ManagerConfig {
    /// No bulkheads yet.
    ///
    /// ```
    /// # use bulkman::manager::ManagerConfig;
    /// assert!(ManagerConfig::new().bulkheads().is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bulkheads: Vec::new(),
        }
    }

    /// Adds a bulkhead. Nothing is checked before it is applied.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use bulkman::manager::ManagerConfig;
    /// let config = ManagerConfig::new().bulkhead(BulkheadConfig::new("search").max_concurrent_calls(5));
    /// assert_eq!(config.bulkheads()[0].name(), "search");
    /// ```
    #[must_use]
    pub fn bulkhead(mut self, config: BulkheadConfig) -> Self {
        self.bulkheads.push(config);
        self
    }

    /// The bulkheads, in the order in which they were added.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use bulkman::manager::ManagerConfig;
    /// let config: ManagerConfig = ["search", "mail"].map(BulkheadConfig::new).into_iter().collect();
    /// assert_eq!(config.bulkheads().len(), 2);
    /// ```
    pub fn bulkheads(&self) -> &[BulkheadConfig] {
        &self.bulkheads
    }
}

impl FromIterator<BulkheadConfig> for ManagerConfig {
    fn from_iter<I: IntoIterator<Item = BulkheadConfig>>(bulkheads: I) -> Self {
        Self {
            bulkheads: bulkheads.into_iter().collect(),
        }
    }
}
