//! The configuration of a manager.

use crate::bulkhead::config::BulkheadConfig;

/// The configurations of several bulkheads.
///
/// [`BulkheadManager::from_config`](super::BulkheadManager::from_config) creates a manager from it.
/// [`apply_config`](super::BulkheadManager::apply_config) updates a manager in place, for example
/// when a file has changed.
///
/// With the feature `serde` it can be read from and written to TOML, YAML, JSON and similar
/// formats. The bulkheads are a map from their names:
///
/// ```toml
/// [defaults]                          # for all bulkheads of this file
/// timeout = "2s 500ms"
///
/// [defaults.circuit_breaker]
/// failure_rate_threshold = 0.5
///
/// [bulkheads.payments]
/// max_concurrent_calls = 20
///
/// [bulkheads.payments.circuit_breaker]
/// minimum_number_of_calls = 20
/// sliding_window = { length = "60s", buckets = 60 }   # or { count = 100 }
///
/// [bulkheads.reports]
/// circuit_breaker_enabled = false
/// ```
///
/// * The keys are the setters of [`BulkheadConfig`] and
///   [`CircuitBreakerConfig`](crate::CircuitBreakerConfig). An unknown key is an error.
/// * Durations are text such as `"250ms"` or `"1m 30s"`. Numbers and booleans can be text, too,
///   since environment variables are text. Other words, such as `fifo` or `half_open`, have one
///   spelling, in lower case. An empty text is an error, and so is `50%` for a rate.
/// * `failure_threshold = "off"` switches the rule of consecutive failures off.
/// * A missing setting has the value in `defaults`, or else its default. The settings of
///   `circuit_breaker` are merged one by one; each other table is one value.
/// * A setting replaces the defaults that it excludes: `isolation_schedule` replaces
///   `isolation_duration` and `isolation_backoff`, `permitted_calls_in_half_open` replaces
///   `success_threshold`, and vice versa.
/// * Null means the default of the library, whatever `defaults` contains.
/// * A configuration is written with all values merged, without `defaults`.
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
