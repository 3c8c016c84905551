//! The configuration of a manager.

use crate::bulkhead::config::BulkheadConfig;

/// The configurations of several bulkheads.
///
/// [`BulkheadManager::from_config`](super::BulkheadManager::from_config) creates a manager from it.
/// [`apply_config`](super::BulkheadManager::apply_config) updates a manager in place, for example
/// when a file has changed.
///
/// With the feature `serde` it can be read and written in any format. The bulkheads are a map from
/// their names, and durations are strings such as `"250ms"`. A missing field has its default value,
/// and an unknown field is an error:
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
    /// Creates a configuration without bulkheads.
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

    /// Adds a bulkhead. Nothing is validated before the configuration is applied.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use bulkman::manager::ManagerConfig;
    /// let search = BulkheadConfig::new("search").max_concurrent_calls(5);
    /// let config = ManagerConfig::new().bulkhead(search);
    /// assert_eq!(config.bulkheads()[0].name(), "search");
    /// ```
    #[must_use]
    pub fn bulkhead(mut self, config: BulkheadConfig) -> Self {
        self.bulkheads.push(config);
        self
    }

    /// Returns the bulkheads, in the order in which they were added.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use bulkman::manager::ManagerConfig;
    /// let bulkheads = ["search", "mail"].map(BulkheadConfig::new);
    /// let config: ManagerConfig = bulkheads.into_iter().collect();
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
